"""A scorer's process, seen from outside: started clean, asked row by row, ended for good.

It sees what it needs to start and nothing else of the workspace, has no secret (but for judges the
token of their own run), and from L2 on no network: for judges one port that leads to the gateway.
Below L2, where the machine cannot do better, it has a clean environment and limits only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import toolkit
from toolkit.client import gateway_address
from toolkit.errors import ToolkitError
from toolkit.isolation import Enclosure, EnclosureSpec
from toolkit.values import Caps, IsolationLevel

__all__ = ["Asked", "Reply", "ScorerProcess", "Workplace"]

START_S = 120.0
"""Seconds to be ready: MLflow takes seconds to import, on a busy machine many."""
MOST_DEATHS = 3
"""So many ends in a row without an answer between them, and the rest is not asked."""
_LONGEST_LINE = 4 << 20
_FILE_BYTES = 64 << 20
_OPEN_FILES = 256
_THREADS = 64
_END_S = 5.0
_CLEAN = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where scorers run on this machine.

    Attributes:
        level: How far their processes are kept from it.
        gateway_socket: The gateway's unix socket, for judges; ``None``: judges cannot ask.
        token: The token of the run that judges' model calls belong to.
        python: The interpreter.
        start_s: Seconds that a process may take to be ready.
    """

    level: IsolationLevel = IsolationLevel.L1
    gateway_socket: Path | None = None
    token: str = field(default="", repr=False)
    python: Path = field(default_factory=lambda: Path(sys.executable))
    start_s: float = START_S


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer that one scorer is to judge; all of it is data.

    Attributes:
        question: The case and trial (:meth:`EvaluationSet.questions`).
        scorer: The scorer's name.
        answer, label, inputs: JSON values.
    """

    question: str
    scorer: str
    answer: Any
    label: Any
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a value with its reason, or why there is none."""

    value: Any = None
    reason: str = ""
    error: str | None = None


class _Ended(Exception):  # noqa: N818 - it is a fact about a process
    """The process ended, or wrote what is no answer."""


class ScorerProcess:
    """One process that answers rows; started with the first, again after it died.

    Attributes:
        level: How far it is kept from the machine.
        notes: What the machine did not give, one sentence each.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        timeouts: Mapping[str, float],
        workplace: Workplace,
        *,
        memory_bytes: int,
        threads: int = 1,
    ) -> None:
        """Prepare, and start nothing yet.

        Args:
            config: The first line that ``host.py`` reads; with ``judges`` it gets the gateway.
            timeouts: Seconds that one row may take, by scorer.
            workplace: Where it runs.
            memory_bytes: What it may use.
            threads: Rows that are under way at a time.
        """
        self.level = workplace.level
        self.notes: tuple[str, ...] = ()
        self._config = dict(config)
        self._timeouts = timeouts
        self._place = workplace
        self._caps = Caps(memory_bytes, _THREADS, None, _FILE_BYTES, _OPEN_FILES)
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._enclosure: Enclosure | None = None
        self._folder: Path | None = None
        self._heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- rows -----------------------------------------------------------------------------------

    def ask(self, rows: Iterable[Asked]) -> Iterator[tuple[Asked, Reply]]:
        """Yield a reply to every row, in the order in which they come."""
        waiting = deque(enumerate(rows))
        under_way: dict[int, tuple[Asked, float]] = {}
        deaths, most = 0, self._threads
        while waiting or under_way:
            refused = self._refusal(deaths)
            if refused is not None:
                for row in [row for row, _ in under_way.values()] + [row for _, row in waiting]:
                    yield row, Reply(error=refused)
                return
            try:
                self._send(waiting, under_way, most)
                found = self._receive(under_way)
            except _Ended as error:
                deaths += 1
                why = self._end(str(error))
                if len(under_way) == 1:
                    yield next(iter(under_way.values()))[0], Reply(error=why)
                else:
                    # Which of them it was is not known: from now on one at a time.
                    waiting.extendleft((n, row) for n, (row, _) in reversed(under_way.items()))
                    most = 1
                under_way.clear()
                continue
            if found:
                deaths = 0
                yield from found
                continue
            now = time.monotonic()
            late = [n for n, (_, due) in under_way.items() if due <= now]
            if late:
                deaths += 1
                self._end("")
                for n in late:
                    row, _ = under_way.pop(n)
                    limit = self._timeouts[row.scorer]
                    yield row, Reply(error=f"it took longer than {limit:g} s")
                waiting.extendleft((n, row) for n, (row, _) in reversed(under_way.items()))
                under_way.clear()

    def _refusal(self, deaths: int) -> str | None:
        """Say why no more is asked, ``None`` if the process is ready."""
        if deaths >= MOST_DEATHS:
            return f"it was not asked: the scorer's process ended {deaths} times in a row"
        if self._process is not None:
            return None
        try:
            self._start()
        except _Ended as error:
            return f"the scorer did not start: {self._end(str(error))}"
        except (ToolkitError, OSError) as error:
            self.close()
            return f"the scorer did not start: {getattr(error, 'message', error)}"
        return None

    def _send(
        self,
        waiting: deque[tuple[int, Asked]],
        under_way: dict[int, tuple[Asked, float]],
        most: int,
    ) -> None:
        while waiting and len(under_way) < most:
            n, row = waiting.popleft()
            due = time.monotonic() + self._timeouts[row.scorer]
            under_way[n] = (row, due)
            values = {"answer": row.answer, "label": row.label, "inputs": row.inputs}
            self._write({"n": n, "scorer": row.scorer, **values}, due)

    def _receive(self, under_way: dict[int, tuple[Asked, float]]) -> list[tuple[Asked, Reply]]:
        """Return replies that have come, none where the first row became late."""
        line = self._line(min(due for _, due in under_way.values()))
        if line is None:
            return []
        if line.get("n") not in under_way:
            raise _Ended("it answered what it was not asked")
        row, _ = under_way.pop(line["n"])
        if "error" in line:
            return [(row, Reply(error=str(line["error"])))]
        return [(row, Reply(line.get("value"), str(line.get("reason") or "")))]

    # -- the process ----------------------------------------------------------------------------

    def _start(self) -> None:
        place, due = self._place, time.monotonic() + self._place.start_s
        self._folder = Path(tempfile.mkdtemp(prefix="scorer-")).resolve()
        socket, port = self._gateway()
        spec = EnclosureSpec(
            level=place.level,
            work=self._folder,
            python=place.python,
            readable=tuple(Path(each) for each in toolkit.__path__),
            gateway_socket=socket,
            relay_port=port,
            caps=self._caps,
        )
        self._enclosure = Enclosure(spec).open()
        self.notes = self._enclosure.notes
        command = [str(place.python), "-I", str(Path(__file__).with_name("host.py"))]
        home = {"HOME": str(self._folder), "TMPDIR": str(self._folder)}
        with (self._folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                self._enclosure.command(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=self._folder,
                env=self._enclosure.environment({**_CLEAN, **home}),
                start_new_session=True,
            )
        for stream in (self._process.stdin, self._process.stdout):
            os.set_blocking(stream.fileno(), False)  # type: ignore[union-attr]  # noqa: FBT003
        way = {"gateway": f"http://127.0.0.1:{port}", "token": place.token} if port else {}
        self._write({**self._config, **way, "threads": self._threads}, due)
        told = self._line(due)
        if told is None:
            raise _Ended(f"it was not ready after {place.start_s:g} s")
        if "fault" in told:
            raise _Ended(str(told["fault"]))

    def _gateway(self) -> tuple[Path | None, int]:
        """Return the gateway's socket and port for judges; a file of the set gets neither."""
        socket = self._place.gateway_socket
        if socket is None or "judges" not in self._config:
            return None, 0
        address = gateway_address(str(socket))
        port = urlsplit(address).port if address else None
        return (socket, port) if port else (None, 0)

    def _write(self, value: dict[str, Any], due: float) -> None:
        data = memoryview(json.dumps(value).encode() + b"\n")
        stream = self._running().stdin
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_WRITE)  # type: ignore[arg-type]
            while data:
                left = due - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise _Ended("it did not take the row in time")
                try:
                    data = data[os.write(stream.fileno(), data) :]  # type: ignore[union-attr]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise _Ended("") from error

    def _line(self, due: float) -> dict[str, Any] | None:
        """Return the next line that the process wrote, ``None`` where none came in time."""
        stream = self._running().stdout
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]
            while b"\n" not in self._heard:
                left = due - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                data = os.read(stream.fileno(), 1 << 16)  # type: ignore[union-attr]
                if not data or len(self._heard) > _LONGEST_LINE:
                    raise _Ended("it wrote more than an answer may take" if data else "")
                self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        try:
            found = json.loads(line)
        except ValueError as error:
            raise _Ended("it wrote what is no answer") from error
        if not isinstance(found, dict):
            raise _Ended("it wrote what is no answer")
        return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise _Ended("it is not running")
        return self._process

    def _end(self, why: str) -> str:
        """End what is left of the process; return why it ended, where nobody said so yet."""
        process, enclosure = self._process, self._enclosure
        if not why and process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S / 10)
            why = _cause(
                process.poll(), self._caps, oom=enclosure is not None and enclosure.oom_killed()
            )
            why += self._last_words()
        self.close()
        return why

    def _last_words(self) -> str:
        try:
            said = (self._folder or Path()).joinpath("said").read_bytes()[-2_000:]
        except OSError:
            return ""
        lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "")
        return f" ({last[:200]})" if last else ""

    def close(self) -> None:
        """End the process and all that it started, and remove its folder.  Twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        if self._enclosure is not None:
            self._enclosure.close()
            self._enclosure = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._heard = b""


def _cause(code: int | None, caps: Caps, *, oom: bool) -> str:
    if oom:
        return f"it used more than its {(caps.memory_bytes or 0) >> 20} MiB of memory"
    if code is None:
        return "its process said no more"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"
