"""A kernel under test: makes numbered calls through the gateway and keeps what it was answered.

``python chaos_kernel.py ROOT JOURNAL NUMBERS THREADS`` opens a sandbox session, or, with a token in
its environment, goes on with a run.  NUMBERS is a file with a JSON list.

Every answer is on disk (fsync) in JOURNAL before the thread that got it goes on: whatever happens
to this process, an answer that it has used is known.  Each thread writes a file of its own.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from toolkit.client import Connection, connect, wire
from toolkit.errors import CallInDoubt
from toolkit.values import CallKind


class Journal:
    """What one thread was answered and what it did to the world, durably, in order."""

    def __init__(self, folder: Path, thread: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{thread}.jsonl"
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def add(self, **fact: Any) -> None:
        os.write(self._file, json.dumps(fact).encode() + b"\n")
        os.fsync(self._file)

    @staticmethod
    def read(folder: Path) -> list[dict[str, Any]]:
        """Every fact of every thread; a line that a kill cut off was not written."""
        facts = []
        for path in sorted(folder.glob("*.jsonl")):
            facts += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return facts


def ask(connection: Connection, number: int) -> dict[str, Any]:
    """Make one model call."""
    arguments = {"messages": [{"role": "user", "content": f"question {number}"}]}
    return connection.post(wire.MODEL, connection.identify(CallKind.MODEL, "default", arguments))


def work(connection: Connection, number: int, journal: Journal, effect: str) -> dict[str, Any]:
    """Make one tool call whose body runs here, as ``@tool`` does; the body leaves a trace."""
    name = "add" if effect == "read" else "write_file"
    request = connection.identify(CallKind.TOOL, name, {"number": number}, effect=effect)
    reply = connection.post(wire.BEGIN, request)
    if reply["outcome"] is not None:
        return reply  # recorded: the body does not run again
    journal.add(did=number, effect=effect)
    call = {"key": reply["key"], "generation": reply["generation"]}
    return connection.post(wire.FINISH, {**call, "state": "ok", "answer": number + 1})


def burst(root: str, journal: str, numbers: str, threads: str) -> None:
    """Make every call of the list, from several threads at once."""
    os.chdir(root)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in json.loads(Path(numbers).read_text("utf-8")):
        waiting.put(number)
    connection = connect()
    faults: list[BaseException] = []

    def serve(thread: int) -> None:
        mine = Journal(Path(journal), thread)
        while not faults:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                if number % 3:
                    reply = ask(connection, number)
                else:
                    effect = "write" if number % 2 else "read"
                    reply = work(connection, number, mine, effect)
            except CallInDoubt:
                mine.add(doubt=number)
            except BaseException as fault:
                faults.append(fault)
            else:
                mine.add(
                    answered=number,
                    call=[reply["run_id"], reply["key"], reply["generation"]],
                    answer=reply["outcome"]["answer"],
                    state=reply["outcome"]["state"],
                )

    workers = [threading.Thread(target=serve, args=(n,)) for n in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise faults[0]


if __name__ == "__main__":
    burst(*sys.argv[1:])
