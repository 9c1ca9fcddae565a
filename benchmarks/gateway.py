"""What the gateway adds to a call: ours through every control, against asking the upstream directly.

``python -m benchmarks.gateway [--calls N] [--rounds N]`` prints a table and writes
``results/gateway.json``.

The upstream is an OpenAI-compatible server on loopback, in a process of its own, that answers at
once; so what is measured is the way there.  The peer is one ``httpx.Client`` with kept-alive
connections and no record of anything.  Ours is ``toolkit.model(…)`` of a sandbox session through
the real gateway on its unix socket: token, the policies of the sandbox and of production, budget
reservation, intent and outcome on disk (SQLite's log, synced before each answer; that of a tool
before its body runs, too), price, and the shipper carrying every call to MLflow beside it.  A phase starts when the shipper has caught
up with the one before and lasts longer than the two seconds for which the shipper lets a burst pass.  A tool call is a *begin* and
a *finish* around a Python function.  Rounds alternate between the sides; figures are medians of
rounds, and the added time is ours minus the peer's in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

import toolkit
from benchmarks.parts import parts
from benchmarks.results import figure, machine, publish
from toolkit.client import disconnect, wire
from toolkit.gateway import read_record
from toolkit.ledger import is_alive
from toolkit.settings import Workspace, open_workspace

POLICIES = Path(__file__).parent.parent / "registry" / "policies"
TOGETHER = 16
PROMPT = "Which licence is this, and may we ship it? " * 12
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1790000000,
    "model": "instant-1",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "It is the MIT licence. " * 8},
        }
    ],
    "usage": {"prompt_tokens": 140, "completion_tokens": 48, "total_tokens": 188},
}
MODELS = """
default_route: default
providers:
  upstream: {{kind: openai, base_url: "{url}"}}
routes:
  default:
    provider: upstream
    model: instant-1
    max_tokens: 64
    price: {{input_per_million_usd: 0.05, output_per_million_usd: 0.1}}
"""
TOOLS = "tools:\n  add: {effect: read, description: Adds two numbers.}\n"
SANDBOX = """
environment: sandbox
mode: warn
unknown_price: allow
minimum_isolation: none
require_results: false
budget: {usd: "50.00", tokens: 500000000, calls: 500000, seconds: null}
gates: {}
"""
PRODUCTION = """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "50.00", tokens: 500000000, calls: 500000, seconds: 3600}
gates: {}
"""
RULES = """
@id("agents") permit(principal, action == Action::"call_agent", resource);
@id("results") permit(principal, action == Action::"publish_result", resource);
@id("models") permit(principal, action == Action::"call_model", resource == Route::"default");
@id("closed") forbid(principal, action == Action::"call_model", resource == Route::"closed");
@id("catalogued") permit(principal, action == Action::"call_tool", resource in Catalog::"tools");
"""


# -- the upstream ----------------------------------------------------------------------------------


def upstream() -> None:
    """Serve chat completions on a free port of loopback; print the port."""
    import socket

    import orjson
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def complete(request: Request) -> Response:
        orjson.loads(await request.body())
        return Response(orjson.dumps(ANSWER), media_type="application/json")

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def running_upstream() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gateway", "--upstream"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


# -- the two sides ---------------------------------------------------------------------------------


@contextlib.contextmanager
def running_gateway(url: str) -> Iterator[Workspace]:
    """A workspace in a fresh folder with its own gateway; both end here."""
    root = Path(tempfile.mkdtemp(prefix="bench-gateway-"))
    files = {
        "toolkit.toml": 'user = "bench"\n',
        "registry/models.yaml": MODELS.format(url=url),
        "registry/tools.yaml": TOOLS,
        "registry/policies/sandbox/policy.yaml": SANDBOX,
        "registry/policies/sandbox/rules.cedar": RULES,
        "registry/policies/production/policy.yaml": PRODUCTION,
        "registry/policies/production/rules.cedar": RULES,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.lstrip(), "utf-8")
    workspace = open_workspace(root)
    try:
        toolkit.connect(root)
        yield workspace
    finally:
        disconnect()
        record = read_record(workspace.state)
        if record is not None:
            os.kill(record.pid, signal.SIGTERM)
            while is_alive(record.pid):
                time.sleep(0.05)
        shutil.rmtree(root, ignore_errors=True)


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def direct(client: httpx.Client) -> Callable[[int], None]:
    def call(number: int) -> None:
        messages = [{"role": "user", "content": f"{number} {PROMPT}"}]
        body = {"model": "instant-1", "messages": messages, "max_tokens": 64}
        reply = client.post("/chat/completions", json=body)
        reply.raise_for_status()
        assert reply.json()["choices"]

    return call


def governed(number: int) -> None:
    assert toolkit.model(f"{number} {PROMPT}").text


@toolkit.tool
def add(a: int, b: int) -> int:
    return a + b


def tool(number: int) -> None:
    assert add(number, 1) == number + 1


# -- measuring -------------------------------------------------------------------------------------


def one_by_one(call: Callable[[int], None], numbers: range) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for number in numbers:
        start = time.perf_counter()
        call(number)
        times.append((time.perf_counter() - start) * 1000)
    return times


def together(call: Callable[[int], None], numbers: range) -> float:
    """Calls per second of 16 threads."""
    shares = [numbers[n::TOGETHER] for n in range(TOGETHER)]
    faults: list[BaseException] = []

    def work(share: range) -> None:
        try:
            for number in share:
                call(number)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return len(numbers) / (time.perf_counter() - start)


def settle() -> None:
    """Wait until the shipper has caught up: a phase starts without the last one's work."""
    deadline = time.monotonic() + 60
    while toolkit.connect().query(wire.STATUS)["unshipped"] and time.monotonic() < deadline:
        time.sleep(0.2)


def measure(
    sides: dict[str, Callable[[int], None]], pid: int, calls: int, rounds: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    fresh = iter(range(0, 10**9, calls))
    for call in sides.values():  # imports, policies, connections, SQLite's pages
        one_by_one(call, range(next(fresh) + calls)[-20:])
        together(call, range(next(fresh) + calls)[-64:])
    for _ in range(rounds):
        for side, call in sides.items():
            settle()
            start, cpu = next(fresh), processor_s(pid)
            times = sorted(one_by_one(call, range(start, start + calls)))
            found.setdefault(f"{side} cpu", []).append((processor_s(pid) - cpu) / calls * 1000)
            found.setdefault(f"{side} p50", []).append(statistics.median(times))
            found.setdefault(f"{side} p99", []).append(times[int(len(times) * 0.99)])
            settle()
            start = next(fresh)
            rate = together(call, range(start, start + calls))
            found.setdefault(f"{side} together", []).append(rate)
    return found


def figures(found: dict[str, list[float]], conditions: str) -> dict[str, dict[str, Any]]:
    mid = {name: statistics.median(values) for name, values in found.items()}

    def added(quantile: str) -> float:
        pairs = zip(found[f"ours {quantile}"], found[f"direct {quantile}"], strict=True)
        return statistics.median(ours - peer for ours, peer in pairs)

    def side(metric: str, unit: str, *, lower: bool = True) -> dict[str, Any]:
        ours, peer = mid[f"ours {metric}"], mid[f"direct {metric}"]
        return figure(ours, peer, unit, conditions, lower_is_better=lower)

    return {
        "model_p50": side("p50", "ms per model call, one by one"),
        "model_p99": side("p99", "ms per model call, one by one"),
        "model_added_p50": figure(added("p50"), None, "ms that the gateway adds", conditions),
        "model_added_p99": figure(added("p99"), None, "ms that the gateway adds", conditions),
        "model_together": side("together", f"calls/s, {TOGETHER} threads", lower=False),
        "model_cpu": figure(
            mid["ours cpu"], None, "ms of the gateway's processor time per model call", conditions
        ),
        "tool_p50": figure(mid["tool p50"], None, "ms per tool call: begin, finish", conditions),
        "tool_p99": figure(mid["tool p99"], None, "ms per tool call: begin, finish", conditions),
        "tool_together": figure(
            mid["tool together"], None, f"tool calls/s, {TOGETHER} threads", conditions
        ),
        "tool_cpu": figure(
            mid["tool cpu"], None, "ms of the gateway's processor time per tool call", conditions
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--calls", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        upstream()
        return
    with (
        running_upstream() as url,
        running_gateway(url) as workspace,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        record = read_record(workspace.state)
        if record is None:
            sys.exit("the gateway has left no record")
        sides = {"ours": governed, "direct": direct(client), "tool": tool}
        found = measure(sides, record.pid, options.calls, options.rounds)
        answer = str(ANSWER["choices"][0]["message"]["content"])  # type: ignore[index]
        pieces = parts(workspace.root / "registry", PROMPT, answer)
        conditions = (
            f"{options.calls} calls of 0.5 kB per side and round, median of {options.rounds} "
            f"alternating rounds; loopback upstream that answers at once, SQLite's "
            f"log synced before each answer, shipper to MLflow beside it; {machine()}"
        )
    table = figures(found, conditions)
    for name, each in pieces.items():
        unit = "ms of processor time per model call: a part, measured alone"
        table[f"part: {name}"] = figure(each, None, unit, conditions)
    publish("gateway", table)


if __name__ == "__main__":
    main()
