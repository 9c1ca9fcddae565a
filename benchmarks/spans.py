"""Calls into MLflow: our shipper from a ledger against MLflow's fluent API.

``python -m benchmarks.spans [--calls N]`` prints a table and writes ``results/spans.json``.

Both sides write the same prompts, answers, usage and costs to a fresh SQLite database in the same
folder, one after the other, each in a process of its own; importing MLflow and creating the
database is not timed.  Ours starts with calls that are durable in a ledger and ends when MLflow
has committed all of them.  The peer is ``mlflow.start_span`` per call, asynchronous as by default,
with queues large enough to lose nothing, until its flush returns.  A last round counts what the
peer keeps with the queues that it has by default.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.results import figure, machine, publish
from toolkit.ledger import Ledger, LedgerWriter
from toolkit.tracing import QUIET, MlflowStore, Shipper
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Environment,
    Intent,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    Usage,
    Verdict,
)

PER_ITEM = 10  # an agent and nine model calls in it
ROUNDS = 1
ENLARGED = {
    "MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE": "1000000",
    "OTEL_BSP_MAX_QUEUE_SIZE": "1000000",
    "MLFLOW_TRACE_BUFFER_MAX_SIZE": "1000000",
    "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT": "600",
}
PROMPT = "Which licence does this package have, and may we ship it? " * 10
ANSWER = "It is under the MIT licence, which lets us ship it with its notice. " * 4


def request(n: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"{n} {PROMPT}"}], "temperature": 0.0}


# -- ours ------------------------------------------------------------------------------------------


def record(ledger: Ledger, calls: int, items: bool) -> None:
    """Fill a ledger as a gateway does; not timed."""
    ledger.create_run(
        RunRecord("bench", RunKind.SESSION, Environment.SANDBOX, "ana", notebook="bench.ipynb")
    )
    allow = Decision(Verdict.ALLOW, ("allow-models",), policy_digest="sha256:00")
    done = Outcome(
        CallState.OK,
        {"text": ANSWER, "tool_calls": [], "finish_reason": "stop"},
        usage=Usage(150, 70),
        cost=Money(64_500),
        provider="openai",
        model="gpt-4o-mini",
    )
    writer = LedgerWriter(ledger)
    try:
        parent, agents = None, []
        for n in range(calls):
            if items and n % PER_ITEM == 0:
                intent = Intent("bench", CallKind.AGENT, "review", {"n": n}, request_id=str(n))
                agents.append(writer.begin(intent, allow).result().call)
                parent = agents[-1].key
                continue
            intent = Intent("bench", CallKind.MODEL, "default", request(n), parent, 0, str(n))
            writer.finish(writer.begin(intent, allow).result().call, done)
        for agent in agents:
            writer.finish(agent, Outcome(CallState.OK, {"ok": True})).result()
    finally:
        writer.close()


def ours(folder: Path, calls: int, items: bool) -> tuple[float, float]:
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
    try:
        record(ledger, calls, items)
        store = MlflowStore(f"sqlite:///{folder / 'mlflow.db'}", artifacts=folder / "artifacts")
        store.experiment("toolkit-sandbox")
        start, cpu = time.perf_counter(), time.process_time()
        left = Shipper(ledger, store.uri, store=store).drain(600)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    finally:
        ledger.close()
    if left:
        raise SystemExit(f"{left} calls were not shipped")
    return seconds, cpu


# -- MLflow's fluent API ---------------------------------------------------------------------------


def call_fluently(n: int) -> None:
    import mlflow

    with mlflow.start_span("chat gpt-4o-mini", span_type="CHAT_MODEL") as span:
        span.set_inputs(request(n))
        span.set_attribute("mlflow.llm.model", "gpt-4o-mini")
        span.set_attribute("mlflow.llm.provider", "openai")
        span.set_attribute("toolkit.run", "bench")
        span.set_attribute("toolkit.verdict", "allow")
        usage = {"input_tokens": 150, "output_tokens": 70, "total_tokens": 220}
        span.set_attribute("mlflow.chat.tokenUsage", usage)
        cost = {"input_cost": 0.000044, "output_cost": 0.0000205, "total_cost": 0.0000645}
        span.set_attribute("mlflow.llm.cost", cost)
        message = {"role": "assistant", "content": ANSWER}
        span.set_outputs({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})


def fluent(folder: Path, calls: int, items: bool) -> tuple[float, float]:
    import mlflow

    store = MlflowStore(f"sqlite:///{folder / 'mlflow.db'}", artifacts=folder / "artifacts")
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_experiment(experiment_id=store.experiment("toolkit-sandbox"))
    start, cpu = time.perf_counter(), time.process_time()
    if items:
        for first in range(0, calls, PER_ITEM):
            with mlflow.start_span("review", span_type="AGENT") as span:
                span.set_inputs({"n": first})
                for n in range(first + 1, first + PER_ITEM):
                    call_fluently(n)
                span.set_outputs({"ok": True})
    else:
        for n in range(calls):
            call_fluently(n)
    mlflow.flush_trace_async_logging()
    return time.perf_counter() - start, time.process_time() - cpu


# -- measuring -------------------------------------------------------------------------------------


def count(folder: Path) -> int:
    """Spans in MLflow's database that stand for calls, read past MLflow."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        sql = "select count(*) from spans where type <> 'CHAIN'"
        return int(connection.execute(sql).fetchone()[0])


def measure(
    side: str, calls: int, items: bool, environ: dict[str, str]
) -> tuple[float, float, int]:
    """Run one side in a process of its own; return (seconds, CPU seconds, calls in MLflow)."""
    with tempfile.TemporaryDirectory(prefix="bench-spans-") as name:
        options = ["--side", side, "--folder", name, "--calls", str(calls)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.spans", *options, *(["--items"] * items)],
            env=os.environ | QUIET | environ,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds, cpu = map(float, done.stdout.split()[-2:])
        return seconds, cpu, count(Path(name))


def compare(name: str, title: str, calls: int, items: bool, rounds: int) -> dict[str, Any]:
    """Return the rows of one kind of work: calls per second, and processor time per call."""
    rates: dict[str, list[float]] = {"ours": [], "fluent": []}
    costs: dict[str, list[float]] = {"ours": [], "fluent": []}
    kept = []
    for _ in range(rounds):
        for side, environ in (("ours", {}), ("fluent", ENLARGED)):
            seconds, cpu, held = measure(side, calls, items, environ)
            rates[side].append(held / seconds)
            costs[side].append(cpu * 1000 / held)
            kept.append(held)
            if side == "ours" and held != calls:
                raise SystemExit(f"{title}: we stored {held} of {calls}")
    conditions = (
        f"{calls} calls, {title}; SQLite; median of {rounds} interleaved round(s); the peer with "
        f"enlarged queues kept {min(kept)} of {calls}; {machine()}"
    )
    rate = {side: statistics.median(values) for side, values in rates.items()}
    cost = {side: statistics.median(values) for side, values in costs.items()}
    return {
        f"spans_{name}": figure(
            rate["ours"], rate["fluent"], "calls/s in MLflow", conditions, digits=1
        ),
        # Whatever else the machine does, this is what a call costs it.
        f"spans_{name}_cpu": figure(
            cost["ours"],
            cost["fluent"],
            "ms of processor time per call",
            conditions,
            lower_is_better=True,
            digits=2,
        ),
    }


def lost(calls: int) -> dict[str, Any]:
    seconds, _, held = measure("fluent", calls, items=False, environ={})
    conditions = (
        "calls one after the other in one burst, flushed at the end; the peer with its default "
        f"queues ({seconds:.0f} s); ours counted in the other rounds; {machine()}"
    )
    return figure(0, calls - held, f"calls lost of {calls}", conditions, digits=0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spans", description=__doc__)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", choices=["ours", "fluent"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--items", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run = ours if options.side == "ours" else fluent
        print(*run(options.folder, options.calls, options.items))
        return
    single = "each call on its own (the peer's own trace each, our shards of 100)"
    nested = f"agents of {PER_ITEM} calls, one trace each on both sides"
    results = {
        **compare("single_calls", single, options.calls, items=False, rounds=options.rounds),
        **compare("in_agents", nested, options.calls, items=True, rounds=options.rounds),
        "spans_lost_by_default": lost(options.calls),
    }
    publish("spans", results)


if __name__ == "__main__":
    main()
