"""Runs one notebook and decides how it ended."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from toolkit.errors import InfrastructureError, ToolkitError
from toolkit.execution.course import Course
from toolkit.execution.endings import Stop, shorten
from toolkit.execution.engine import ENGINE_NAME
from toolkit.execution.facts import Ending, Execution
from toolkit.execution.interruptions import Interruptions, interruptions
from toolkit.execution.kernel import KERNEL_NAME, Place, kernel_environment, make_place
from toolkit.execution.preparation import Prepared, prepare
from toolkit.execution.processes import reap
from toolkit.execution.storage import NotebookFile
from toolkit.execution.vendors import execute_notebook
from toolkit.values import Cause, RunState

__all__ = ["OUTPUT_NAME", "execute"]

OUTPUT_NAME = "output.ipynb"
_LOOK_S = 1.0
_ONE_AT_A_TIME = threading.Lock()
_log = logging.getLogger("toolkit.execution")


@dataclass(frozen=True, slots=True)
class _Room:
    """What a run needs beside the notebook."""

    file: NotebookFile
    place: Place


def execute(execution: Execution, heard: Interruptions | None = None) -> Ending:
    """Run a notebook in a fresh kernel, and say truthfully how it ended.

    One run at a time in a process; a second caller waits.  In the main thread SIGTERM and
    SIGINT cancel the run, also one that was ``heard`` before.  Whatever the notebook does ends up
    in the :class:`Ending`.

    Raises:
        InvalidFile: The bytes are not a notebook.
        UsageError: A parameter is not assignable or too large.
        InfrastructureError: The run's folder cannot be made or written.
    """
    with _ONE_AT_A_TIME:
        began = time.monotonic()
        prepared = prepare(execution)
        room = _make_room(execution, prepared)
        try:
            environment = kernel_environment(execution, room.place, os.environ)
            course = Course(execution, prepared, room.file.write)
            with ExitStack() as stack:
                heard = heard or stack.enter_context(interruptions())
                stack.enter_context(heard.told_to(partial(_cancel, course)))
                stack.enter_context(_deadline(course))
                stack.enter_context(_ownership(course))
                reap(
                    execution.ledger, execution.run.run_id
                )  # of an attempt whose runner was killed
                with _patience(course):
                    _drive(course, room, environment)
                stop = course.verdict or _verdict(course)
        finally:
            reap(execution.ledger, execution.run.run_id)
            room.place.remove()
        return _write_ending(course, room, stop, time.monotonic() - began)


def _make_room(execution: Execution, prepared: Prepared) -> _Room:
    folder = execution.folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        file = NotebookFile(folder / OUTPUT_NAME, token=execution.token)
        file.write(prepared.node)
        place = make_place(folder.resolve())
    except OSError as error:
        raise InfrastructureError(
            f"the run's folder cannot be made: {error.strerror or error}",
            where=str(folder),
            next_step="check the disk and the rights of the folder above it",
        ) from error
    return _Room(file, place)


def _drive(course: Course, room: _Room, environment: dict[str, str]) -> None:
    """Let papermill run the notebook; its own verdict is ignored, the course has ours."""
    cwd = course.execution.cwd or Path.cwd()
    try:
        with room.place.log.open("wb") as log:
            # In memory on both sides: papermill formats paths with parameters, and writes
            # in place.  Without its `cwd` it does not change this process's directory.
            execute_notebook(
                course.prepared.node,
                None,
                engine_name=ENGINE_NAME,
                kernel_name=KERNEL_NAME,
                progress_bar=False,
                course=course,
                place=room.place,
                kernel_kwargs={"env": environment, "cwd": str(cwd), "stdout": log, "stderr": log},
            )
    except Exception as error:
        if course.stopped is None and not course.complete:
            _log.exception("the run %s ended unexpectedly", course.execution.run.run_id)
            what = shorten(f"{type(error).__name__}: {error}")
            course.stop(
                RunState.FAILED,
                Cause.INFRASTRUCTURE,
                f"the runner could not go on{course.here}: {what}",
            )


def _verdict(course: Course) -> Stop | None:
    """Decide about a run that nothing stopped: every code cell ran, every result arrived."""
    if not course.complete:
        return Stop(RunState.FAILED, Cause.INFRASTRUCTURE, "not every code cell was executed")
    execution = course.execution
    try:
        stopped = execution.stopped() if execution.stopped else None
        received = execution.received() if execution.received and execution.expected else set()
    except ToolkitError as error:
        message = f"the ledger could not say how the run went: {error}"
        return Stop(RunState.FAILED, Cause.INFRASTRUCTURE, message)
    if stopped is not None:
        return Stop(RunState.DENIED, Cause.POLICY, stopped)
    missing = [name for name in execution.expected if name not in received]
    if not missing:
        return None
    message = f"the notebook ended without publishing {', '.join(missing)}"
    return Stop(RunState.FAILED, Cause.RESULTS_MISSING, message)


def _write_ending(course: Course, room: _Room, stop: Stop | None, seconds: float) -> Ending:
    ending = Ending(
        state=stop.state if stop else RunState.SUCCEEDED,
        cause=stop.cause if stop else None,
        message=_without(course.execution.token, stop.message) if stop else None,
        output=room.file.path,
        cell=course.origin(stop.position) if stop else None,
        seconds=seconds,
        notes=tuple(_without(course.execution.token, note) for note in course.notes),
        cell_us=course.began_us if stop and stop.position is not None else None,
    )
    waits = ending.state is RunState.WAITING
    if waits:
        _mark_waiting(course, ending)
    course.node.metadata["toolkit"] = {
        "run_id": course.execution.run.run_id,
        "state": str(ending.state),
        "cause": str(ending.cause) if ending.cause else None,
        "message": ending.message,
        "cell": ending.cell,
        "notes": list(ending.notes),
        "seconds": round(seconds, 3),
    }
    course.node.metadata.papermill["exception"] = True if stop and not waits else None
    try:
        room.file.write(course.node, durable=True)
    except OSError as error:
        what = f"the executed notebook cannot be written: {error.strerror or error}"
        if stop is not None:
            return replace(ending, notes=(*ending.notes, what))
        return replace(ending, state=RunState.FAILED, cause=Cause.INFRASTRUCTURE, message=what)
    return ending


def _mark_waiting(course: Course, ending: Ending) -> None:
    """Show the cell that waits as waiting: it neither failed nor ended, and will run again."""
    position = course.parked.position if course.parked else None
    if position is None:
        return
    cell = course.node.cells[position]
    cell.metadata.papermill.update(status="waiting", exception=None)
    cell.metadata.setdefault("toolkit", {})["waiting"] = ending.message


def _without(token: str, text: str) -> str:
    return text.replace(token, "[run token]") if token else text


def _cancel(course: Course, name: str) -> None:
    message = f"the runner received {name}{course.here}"
    course.stop(RunState.CANCELLED, Cause.SIGNAL, message)


@contextmanager
def _deadline(course: Course) -> Iterator[None]:
    """Stop the run when its time is over, whatever the runner waits for."""
    limit = course.execution.timeout_s
    if limit is None:
        yield
        return

    def expire() -> None:
        message = f"the run took longer than its limit of {limit:g} s{course.here}"
        course.stop(RunState.TIMED_OUT, Cause.RUN_TIMEOUT, message)

    timer = threading.Timer(limit, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _ownership(course: Course) -> Iterator[None]:
    """Kill the kernel when the run belongs to another process."""
    lost = course.execution.lost
    if lost is None:
        yield
        return
    lost(lambda why: course.stop(RunState.FAILED, Cause.INFRASTRUCTURE, f"the run is lost: {why}"))
    try:
        yield
    finally:
        lost(None)


@contextmanager
def _patience(course: Course) -> Iterator[None]:
    """End the kernel once people are all that the run waits for."""
    parked = course.execution.parked
    if parked is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            try:
                message = parked()
            except ToolkitError as error:  # the kernel is kept, which is what it costs
                _log.warning("whether %s waits is unknown: %s", course.execution.run.run_id, error)
                continue
            if message is not None:
                course.park(message)
                return

    watcher = threading.Thread(target=watch, name="patience", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
