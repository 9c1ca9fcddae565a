"""What three gateways add to a call: ours with every control, MLflow's (tracked), LiteLLM's proxy.

``python -m benchmarks.overhead [--calls N] [--rounds N] [--peers PYTHON]`` prints a table and writes
``results/overhead.json``.  ``make bench-overhead`` makes the environment of the LiteLLM peer.

One upstream on loopback answers at once.  One ``httpx.Client`` posts the same OpenAI chat
completion to it directly and through each gateway, all over TCP on loopback, so the difference is
the gateway.  Ours decides with the policies of the sandbox and of production, looks for secrets and
labels, reserves budgets, and has intent and outcome on disk (SQLite's log, synced before each answer).
MLflow's runs with usage tracking (one worker, SQLite); LiteLLM's proxy with its defaults, a master
key and no database: it keeps no record.  Rounds are short and alternate between the sides, since a shared
machine changes its speed by a factor of two within seconds.  Quantiles are taken over the calls of all rounds,
rates are medians of rounds; what is added is a side's quantile less that of the direct calls.  A phase begins
when the machine is quiet (MLflow writes its traces, and our shipper sends its own, when calls are over), with
calls that are not counted.  A burst of ours this short is over before the shipper begins; ``benchmarks.gateway``
has the longer ones.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

import toolkit
from benchmarks.gateway import PROMPT, one_by_one, processor_s, running_gateway, running_upstream
from benchmarks.gateway import together as at_once
from benchmarks.results import figure, machine, publish, quiet
from toolkit.gateway import read_record

LITELLM = """
model_list:
  - model_name: default
    litellm_params: {{model: openai/instant-1, api_base: "{url}", api_key: none}}
general_settings: {{master_key: bench-key}}
litellm_settings: {{telemetry: false}}
"""
_START_S = 120
_FIRST = 64  # calls of each kind before all rounds
_WARM = 50  # calls at the beginning of a phase that are not counted


@contextlib.contextmanager
def _process(command: list[str], cwd: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with (cwd / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=cwd, stdout=log, stderr=log, env=os.environ | environ,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).status_code < 500:
                return
        if process.poll() is not None:
            break
        time.sleep(0.3)
    sys.exit(f"{url} does not answer: {log.read_text('utf-8', 'replace')[-800:]}")


@contextlib.contextmanager
def running_mlflow(url: str) -> Iterator[tuple[str, dict[str, str]]]:
    """MLflow's server with one tracked endpoint, ``default``."""
    port = _port()
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="bench-mlflow-") as folder:
        root = Path(folder)
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}",
        ]  # fmt: skip
        environ = {
            "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_CRYPTO_KEK_PASSPHRASE": "bench",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with _process(command, root, **environ) as process:
            _ready(f"{base}/health", process, root / "log")
            _endpoint(base, url)
            yield f"{base}/gateway/mlflow/v1", {}


def _endpoint(base: str, url: str) -> None:
    def create(what: str, **body: Any) -> Any:
        reply = httpx.post(
            f"{base}/api/3.0/mlflow/gateway/{what}/create", json=body, trust_env=False, timeout=30
        )
        reply.raise_for_status()
        return reply.json()

    secret = create(
        "secrets", secret_name="s", secret_value={"api_key": "none"}, provider="openai",
        auth_config={"api_base": url},
    )  # fmt: skip
    model = create(
        "model-definitions", name="m", secret_id=secret["secret"]["secret_id"],
        provider="openai", model_name="instant-1",
    )  # fmt: skip
    config = {
        "model_definition_id": model["model_definition"]["model_definition_id"],
        "linkage_type": "PRIMARY",
        "weight": 1.0,
    }
    create("endpoints", name="default", model_configs=[config], usage_tracking=True)


@contextlib.contextmanager
def running_litellm(url: str, python: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """LiteLLM's proxy with one model, ``default``; one worker."""
    port = _port()
    with tempfile.TemporaryDirectory(prefix="bench-litellm-") as folder:
        root = Path(folder)
        (root / "config.yaml").write_text(LITELLM.format(url=url).lstrip(), "utf-8")
        command = [
            str(python.with_name("litellm")), "--config", "config.yaml", "--host", "127.0.0.1",
            "--port", str(port), "--num_workers", "1",
        ]  # fmt: skip
        environ = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with _process(command, root, **environ) as process:
            _ready(f"http://127.0.0.1:{port}/health/liveliness", process, root / "log")
            yield f"http://127.0.0.1:{port}/v1", {"authorization": "Bearer bench-key"}


def caller(client: httpx.Client, base: str, headers: dict[str, str]) -> Callable[[int], None]:
    def call(number: int) -> None:
        messages = [{"role": "user", "content": f"{number} {PROMPT}"}]
        body = {"model": "default", "messages": messages, "max_tokens": 64}
        reply = client.post(f"{base}/chat/completions", json=body, headers=headers)
        reply.raise_for_status()
        assert reply.json()["choices"]

    return call


def measure(
    sides: dict[str, Callable[[int], None]], calls: int, rounds: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    fresh = iter(range(0, 10**9, calls))
    for call in sides.values():
        one_by_one(call, range(next(fresh) + calls)[-_FIRST:])
        at_once(call, range(next(fresh) + calls)[-_FIRST:])
    for _ in range(rounds):
        for side, call in sides.items():
            quiet()
            one_by_one(call, range(next(fresh), next(fresh))[:_WARM])
            start = next(fresh)
            alone = one_by_one(call, range(start, start + calls))
            found.setdefault(f"{side} alone", []).extend(alone)
            quiet()
            start = next(fresh)
            lasted: list[float] = []

            def timed(number: int, call: Callable[[int], None] = call) -> None:
                lasted.extend(one_by_one(call, range(number, number + 1)))  # noqa: B023 - same round

            found.setdefault(f"{side} rate", []).append(at_once(timed, range(start, start + calls)))
            found.setdefault(f"{side} together", []).extend(lasted)
    return found


def figures(found: dict[str, list[float]], peers: list[str], conditions: str) -> dict[str, Any]:
    rate = {side: statistics.median(found[f"{side} rate"]) for side in ("ours", "direct", *peers)}

    def added(side: str, kind: str, percent: int) -> float:
        ours, direct = (
            statistics.quantiles(found[f"{each} {kind}"], n=100)[percent - 1]
            for each in (side, "direct")
        )
        return ours - direct

    table: dict[str, Any] = {}
    for kind, name, unit in (
        ("alone", "added", "ms added, one by one"),
        ("together", "added_together", "ms added, 16 at once"),
    ):
        for percent in (50, 99):
            metric, ours = f"{name}_p{percent}", added("ours", kind, percent)
            table[metric] = figure(ours, None, unit, conditions)
            for peer in peers:
                theirs = added(peer, kind, percent)
                table[f"{metric}_{peer}"] = figure(
                    ours, theirs, unit, conditions, lower_is_better=True
                )
    for peer in ("direct", *peers):
        table[f"rate_{peer}"] = figure(
            rate["ours"], rate[peer], "calls/s, 16 at once", conditions, lower_is_better=False
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peers", type=lambda text: Path(text).absolute(), help="the Python that has LiteLLM"
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running_upstream())
        workspace = stack.enter_context(running_gateway(url))
        record = read_record(workspace.state)
        if record is None:
            sys.exit("the gateway has left no record")
        toolkit.connect()  # points the SDKs' variables at the gateway
        token = os.environ["OPENAI_API_KEY"]
        places: dict[str, tuple[str, dict[str, str]]] = {
            "direct": (url, {}),
            "ours": (os.environ["OPENAI_BASE_URL"], {"authorization": f"Bearer {token}"}),
            "mlflow": stack.enter_context(running_mlflow(url)),
        }
        if options.peers and options.peers.with_name("litellm").exists():
            places["litellm"] = stack.enter_context(running_litellm(url, options.peers))
        limits = httpx.Limits(max_keepalive_connections=64)
        client = stack.enter_context(httpx.Client(trust_env=False, limits=limits, timeout=60))
        sides = {side: caller(client, *place) for side, place in places.items()}
        used = processor_s(record.pid)
        found = measure(sides, options.calls, options.rounds)
        made = (2 * options.calls + _WARM) * options.rounds
        made += 2 * _FIRST
        each = (processor_s(record.pid) - used) / made * 1000
        conditions = (
            f"{options.calls} calls of 0.5 kB per side, round and kind, {options.rounds} alternating "
            f"rounds, each phase on a quiet machine and after {_WARM} more; quantiles over all calls; {machine()}"
        )
        table = figures(found, [p for p in places if p not in {"direct", "ours"}], conditions)
        table["processor"] = figure(each, None, "ms of our gateway's processor time", conditions)
    publish("overhead", table)


if __name__ == "__main__":
    main()
