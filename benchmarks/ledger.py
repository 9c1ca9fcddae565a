"""Durable calls per second: the ledger against the same rows by plain sqlite3.

``python -m benchmarks.ledger [--calls N] [--rounds N] [--folder DIR]`` prints a table and writes
``benchmarks/results/ledger.json``.

One call is a begin and a finish, each on disk before the next step (WAL, ``synchronous=FULL``).
The peer writes rows of the same size to the same tables in two transactions per call, with no
hashing, no look-ups, no budgets and no traces: the floor that SQLite sets.  Rounds alternate
between the two, on fresh databases in one folder; the figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.results import figure, machine, publish
from toolkit.ledger import Ledger, LedgerWriter, Limit, Reservation
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

SUBMITTERS = 16
DECISION = Decision(
    Verdict.ALLOW, ("models-for-all",), ("models are allowed",), "sha256:" + "0" * 64
)
ANSWER = {"text": "The licence is permissive; keep the notice. " * 12, "finish_reason": "stop"}
OUTCOME = Outcome(
    CallState.OK, ANSWER, usage=Usage(420, 96), cost=Money(31_000), provider="p", model="m"
)
RESERVE = Reservation((Limit("run:bench", usd=Money.of_usd(1000)),), Money(90_000), tokens=1000)


def intent(number: int) -> Intent:
    prompt = f"{number}: which licence is this, and may we ship it? " + "some text of it " * 60
    arguments = {"messages": [{"role": "user", "content": prompt}], "temperature": 0.0}
    return Intent("run-bench", CallKind.MODEL, "default", arguments, request_id=f"r{number}")


class Ours:
    """The ledger, directly or through its writer."""

    def __init__(self, folder: Path, reserve: Reservation | None) -> None:
        self.ledger = Ledger.open(f"sqlite:///{folder / 'ours.db'}")
        self.ledger.create_run(RunRecord("run-bench", RunKind.RUN, Environment.PRODUCTION, "bench"))
        self.reserve = reserve

    def call(self, number: int, times: list[tuple[float, float]]) -> None:
        asked = intent(number)
        start = time.perf_counter()
        call = self.ledger.begin(asked, DECISION, reserve=self.reserve).call
        middle = time.perf_counter()
        self.ledger.finish(call, OUTCOME)
        times.append((middle - start, time.perf_counter() - middle))

    def submitters(self, numbers: list[range]) -> None:
        def work(mine: range) -> None:
            for number in mine:
                call = writer.begin(intent(number), DECISION, reserve=self.reserve).result().call
                writer.finish(call, OUTCOME).result()

        with LedgerWriter(self.ledger) as writer:
            together(work, numbers)

    def close(self) -> None:
        self.ledger.close()


class Peer:
    """The same rows by sqlite3, in tables that the ledger made."""

    ENTRY = (
        "INSERT INTO entries (run_id, n, type, call_key, generation, at_us, prev, hash, body)"
        " VALUES ('run-bench', ?, ?, ?, 0, 0, ?, ?, ?)"
    )
    CALL = (
        "INSERT INTO calls (run_id, call_key, generation, request_id, kind, name, effect, trace_key,"
        " verdict, decision, intent_n, started_us, state, tags, shipped) VALUES ('run-bench', ?, 0,"
        " ?, 'model', 'default', 'read', 'loose:0', 'allow', ?, ?, 0, 'started', '{}', 0)"
    )
    DONE = (
        "UPDATE calls SET state = 'ok', outcome_n = ?, ended_us = 0, cost_nanos = 31000,"
        " input_tokens = 420, output_tokens = 96, provider = 'p', model = 'm'"
        " WHERE run_id = 'run-bench' AND call_key = ? AND generation = 0"
    )

    def __init__(self, folder: Path, rows: list[tuple[str, str, str]]) -> None:
        self.path = folder / "peer.db"
        Ledger.open(f"sqlite:///{self.path}").close()
        self.rows = rows
        self.connection = self.connect()

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def call(self, number: int, times: list[tuple[float, float]]) -> None:
        self.on(self.connection, number, times)

    def on(
        self, connection: sqlite3.Connection, number: int, times: list[tuple[float, float]]
    ) -> None:
        begun, done, decision = self.rows[number]
        key, link, execute = f"{number:032x}", "sha256:" + "0" * 64, connection.execute
        start = time.perf_counter()
        execute("BEGIN IMMEDIATE")
        execute(self.ENTRY, (2 * number + 2, "call.intent", key, link, link, begun))
        execute(self.CALL, (key, f"r{number}", decision, 2 * number + 2))
        execute("COMMIT")
        middle = time.perf_counter()
        execute("BEGIN IMMEDIATE")
        execute(self.ENTRY, (2 * number + 3, "call.outcome", key, link, link, done))
        execute(self.DONE, (2 * number + 3, key))
        execute("COMMIT")
        times.append((middle - start, time.perf_counter() - middle))

    def submitters(self, numbers: list[range]) -> None:
        def work(mine: range) -> None:
            times: list[tuple[float, float]] = []
            with closing(self.connect()) as connection:
                for number in mine:
                    self.on(connection, number, times)

        together(work, numbers)

    def close(self) -> None:
        self.connection.close()


def together(work: Callable[[range], None], numbers: list[range]) -> None:
    faults: list[BaseException] = []

    def guarded(mine: range) -> None:
        try:
            work(mine)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(mine,)) for mine in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def peer_rows(folder: Path, count: int) -> list[tuple[str, str, str]]:
    """Bodies as the ledger writes them, so that both sides write the same bytes."""
    ours = Ours(folder, None)
    ours.call(0, [])
    ours.close()
    with closing(sqlite3.connect(folder / "ours.db")) as connection:
        begun, done = connection.execute(
            "SELECT body FROM entries WHERE n > 1 ORDER BY n"
        ).fetchall()
        [decision] = connection.execute("SELECT decision FROM calls").fetchone()
    return [(f"{number:06d}{begun[0]}", done[0], decision) for number in range(count)]


def measure(calls: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        rows = peer_rows(Path(scratch), 2 * calls)
    share = calls // SUBMITTERS
    shares = [range(calls + n * share, calls + (n + 1) * share) for n in range(SUBMITTERS)]
    for _ in range(rounds):
        for side, make in (
            ("ours", lambda where: Ours(where, None)),
            ("budget", lambda where: Ours(where, RESERVE)),
            ("peer", lambda where: Peer(where, rows)),
        ):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                subject = make(Path(scratch))
                times: list[tuple[float, float]] = []
                cpu, start = time.process_time(), time.perf_counter()
                for number in range(calls):
                    subject.call(number, times)
                note(f"{side} sequential", calls / (time.perf_counter() - start))
                note(f"{side} cpu", (time.process_time() - cpu) / calls * 1000)
                note(f"{side} begin", statistics.median(t[0] for t in times) * 1000)
                note(f"{side} finish", statistics.median(t[1] for t in times) * 1000)
                start = time.perf_counter()
                subject.submitters(shares)
                note(f"{side} together", share * SUBMITTERS / (time.perf_counter() - start))
                if side == "ours":
                    note("ours verify", verify(subject))
                subject.close()
    return found


def verify(subject: Any) -> float:
    """Entries per second that ``verify`` checks; nothing may be wrong."""
    entries: int = subject.ledger.head("run-bench").n
    start = time.perf_counter()
    faults = subject.ledger.verify()
    if faults:
        sys.exit(f"the ledger does not verify: {faults[0]}")
    return entries / (time.perf_counter() - start)


def report(found: dict[str, list[float]], calls: int, rounds: int) -> dict[str, dict[str, Any]]:
    mid = {name: statistics.median(values) for name, values in found.items()}
    conditions = (
        f"{calls} calls of 2 kB per round, median of {rounds} alternating rounds, SQLite "
        f"{sqlite3.sqlite_version} WAL synchronous=FULL on a local disk, {machine()}"
    )
    metrics = {
        "sequential": ("sequential", "calls/s, begin and finish each durable", False),
        "submitters_16": ("together", f"calls/s, {SUBMITTERS} threads", False),
        "begin": ("begin", "ms, median", True),
        "finish": ("finish", "ms, median", True),
        "cpu_per_call": ("cpu", "ms of processor time, begin and finish", True),
    }
    results: dict[str, dict[str, Any]] = {}
    for side in ("ours", "budget"):
        for name, (key, unit, lower) in metrics.items():
            results[name if side == "ours" else f"{name}_with_budget"] = figure(
                mid[f"{side} {key}"],
                mid[f"peer {key}"],
                unit,
                conditions,
                lower_is_better=lower,
            )
    results["verify"] = figure(
        mid["ours verify"], None, "entries/s, hashes and projections", conditions, digits=0
    )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--calls", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.gettempdir())
    found = measure(options.calls, options.rounds, folder)
    publish("ledger", report(found, options.calls, options.rounds))


if __name__ == "__main__":
    main()
