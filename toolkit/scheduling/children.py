"""The processes that do the work: started so that they cannot outlive the worker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Protocol

import psutil

from toolkit.errors import ConfigurationError

__all__ = ["Child", "Children", "find_setpriv", "kill_tree"]

_TAIL_BYTES = 65_536
_MAX_MESSAGE = 300
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f]")


def find_setpriv() -> str:
    """Return the program that ties a child's life to its parent's.

    Raises:
        ConfigurationError: It is not installed.
    """
    program = shutil.which("setpriv")
    if program is None:
        raise ConfigurationError(
            "the program setpriv is missing, so a run could outlive a worker and run twice",
            where="worker",
            next_step="install util-linux 2.33 or newer",
        )
    return program


class Child(Protocol):
    """A process that was started: what :class:`asyncio.subprocess.Process` is, and others."""

    @property
    def pid(self) -> int:
        """Its number, which is nobody else's before it was waited for."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal, once it has ended."""

    def terminate(self) -> None:
        """Ask it to end."""

    async def wait(self) -> int:
        """Return its exit code when it has ended."""


class Children:
    """Starts processes, and ends them in the two ways there are.

    Args:
        root: Their working folder.
        logs: Folder of their output, one file per run.
        term_s: Seconds between asking a process to end and killing it.
    """

    def __init__(self, root: Path, logs: Path, term_s: float) -> None:
        self._root = root
        self._logs = logs
        self._term_s = term_s
        self._setpriv = find_setpriv()
        self._pids: set[int] = set()

    def __len__(self) -> int:
        return len(self._pids)

    async def run(self, name: str, argv: list[str]) -> int:
        """Run a command to its end and return its exit code, negative for a signal.

        A cancelled task asks the process to end (SIGTERM, to it alone: it looks after what it
        started), waits, and kills what is left.

        Raises:
            OSError: It cannot be started.
        """
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        output = os.open(
            self._logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            process = await self._start(argv, output)
        finally:
            os.close(output)
        self._pids.add(process.pid)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            if process.returncode is None:
                await self._end(process)
            raise
        finally:
            self._pids.discard(process.pid)

    def prepare(self) -> None:
        """Get ready; call it in a thread that lives as long as the worker."""

    def close(self) -> None:
        """Give back what :meth:`prepare` took, when no process is left."""

    async def _start(self, argv: list[str], output: int) -> Child:
        # PDEATHSIG follows the *thread* that forks: this must be the engine's event loop,
        # which lives as long as the worker, and never a thread of a pool.
        return await asyncio.create_subprocess_exec(
            self._setpriv,
            "--pdeathsig",
            "KILL",
            "--",
            *argv,
            cwd=self._root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    async def _end(self, process: Child) -> None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._term_s)
        except TimeoutError:
            kill_tree(process.pid)
            await process.wait()

    def kill_all(self) -> int:
        """Kill every process and all that they started, as a crash would; return how many."""
        pids = list(self._pids)
        for pid in pids:
            kill_tree(pid)
        return len(pids)

    def last_line(self, name: str) -> str:
        """Return the last line that a process wrote, without control characters, shortened.

        Of a JSON document, as ``toolkit run --json`` writes, what it says of an error.
        """
        try:
            with (self._logs / f"{name}.log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [_CONTROL.sub("", line).strip() for line in text.splitlines()]
        return next((_said(line)[:_MAX_MESSAGE] for line in reversed(lines) if line), "")


def _said(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return line
    error = body.get("error")
    told = error.get("message") if isinstance(error, dict) else body.get("message")
    return _CONTROL.sub(" ", told) if isinstance(told, str) and told else line


def kill_tree(pid: int) -> None:
    """Kill a process that was not waited for yet, and its descendants."""
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.Error:
        return
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
