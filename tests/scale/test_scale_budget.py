"""64 processes on a budget for four calls, a hundred times over, every other call a stream."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import sys
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from workspace_world import end_gateway, write_workspace

from toolkit.client import ensure_gateway, gateway_address
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.values import Environment, Money, RunKind, RunRecord, RunState

sys.path.append(str(Path(__file__).parents[1] / "providers"))
from outage_upstream import running_upstream  # noqa: E402 - it is one file, and no package

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900)]

PROCESSES, ROUNDS, CALLS = 64, 100, 4
MODELS = """
default_route: default
providers: {{house: {{kind: openai, base_url: "{url}"}}}}
routes:
  default:
    provider: house
    model: house-1
    max_tokens: 16
    price: {{input_per_million_usd: 1000, output_per_million_usd: 2000}}
"""
LIMITS = """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "100", tokens: 1000000, calls: 4, seconds: 600}
gates: {}
"""


def caller(number: int, address: str, pipe: Pipe) -> None:
    """One process: asks once for each token that it is given, and tells the status."""
    place = urlsplit(address)
    while (token := pipe.recv()) is not None:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
        body = {
            "model": "default",
            "stream": number % 2 == 1,
            "messages": [{"role": "user", "content": f"question {number} of many"}],
        }
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request("POST", f"{place.path}/chat/completions", json.dumps(body), headers)
        reply = connection.getresponse()
        said = reply.read()
        connection.close()
        pipe.send((reply.status, b"[DONE]" in said or b'"choices"' in said))


def test_no_round_overshoots_and_what_is_settled_is_what_was_billed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Of 64 calls at once exactly four are made, and the ledger's sum is the provider's."""
    with running_upstream() as upstream:
        workspace = write_workspace(tmp_path)
        registry = tmp_path / "registry"
        (registry / "models.yaml").write_text(MODELS.format(url=upstream.openai_url), "utf-8")
        (registry / "policies" / "production" / "policy.yaml").write_text(LIMITS, "utf-8")
        ensure_gateway(tmp_path)
        address = gateway_address(str(workspace.socket))
        assert address is not None
        address = f"{address}/v1"
        spawn = multiprocessing.get_context("spawn")
        pipes, processes = [], []
        for number in range(PROCESSES):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=caller, args=(number, address, theirs), daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)
        try:
            spent, seen = _rounds(workspace.database_url, pipes)
        finally:
            for pipe in pipes:
                pipe.send(None)
            for process in processes:
                process.join(20)
            end_gateway(workspace)
    billed = Money.of_usd(
        str((upstream.billed_input * 1000 + upstream.billed_output * 2000) / 1_000_000)
    )
    with capsys.disabled():
        print(f"\n  {ROUNDS} rounds of {PROCESSES} processes: statuses {dict(seen)}")
        print(f"  settled {spent}, billed {billed}, requests upstream {len(upstream.heard)}")
    assert len(upstream.heard) == ROUNDS * CALLS
    assert spent == billed
    assert seen == {200: ROUNDS * CALLS, 429: ROUNDS * (PROCESSES - CALLS)}


def _rounds(database_url: str, pipes: list[Pipe]) -> tuple[Money, Counter[int]]:
    spent, seen = Money(0), Counter[int]()
    with Ledger.open(database_url) as ledger:
        for number in range(ROUNDS):
            token = new_token()
            run = ledger.create_run(
                RunRecord(
                    f"run-{number}",
                    RunKind.RUN,
                    Environment.PRODUCTION,
                    "ana",
                    state=RunState.RUNNING,
                    token_digest=token_digest(token),
                )
            )
            for pipe in pipes:
                pipe.send(token)
            answers = [pipe.recv() for pipe in pipes]
            assert all(whole for status, whole in answers if status == 200)
            seen.update(status for status, _ in answers)
            budget = ledger.budget(f"run:{run.run_id}")
            assert budget is not None
            assert (budget.spent_calls, budget.reserved_calls) == (CALLS, 0)
            spent += budget.spent
            ledger.update_run(run.run_id, state=RunState.SUCCEEDED)
    return spent, seen
