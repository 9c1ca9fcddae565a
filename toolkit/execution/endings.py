"""Which state and cause an event means, and how it is said."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.errors import (
    BudgetExceeded,
    CallDenied,
    Diverged,
    InfrastructureError,
    InvalidFile,
    ToolkitError,
)
from toolkit.values import Cause, RunState

__all__ = [
    "Stop",
    "cell_error",
    "exit_code",
    "kernel_death",
    "plain",
    "shorten",
    "unconfirmed",
]

_MAX_MESSAGE = 1_000
# ECMA-48 control sequences, OSC strings, and the remaining control characters.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LINE = re.compile(r"Cell In\[\d+\], line (\d+)")
# IPython's name for a cell as a file, at the end of a syntax error's text.
_CELL_FILE = re.compile(r" \(\d+\.py, line \d+\)$")
_SYNTAX = {"SyntaxError", "IndentationError", "TabError"}


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ended early.

    Attributes:
        state, cause: From the closed sets; a run that waits has no cause.
        message: One sentence.
        position: The cell that was running, as a position in the executed notebook.
    """

    state: RunState
    cause: Cause | None
    message: str
    position: int | None = None


def _names(kind: type[ToolkitError]) -> set[str]:
    return {kind.__name__}.union(*(_names(child) for child in kind.__subclasses__()))


# A kernel is another process, perhaps another environment: only the names of classes arrive.
_BY_NAME: dict[str, tuple[RunState, Cause]] = {
    **dict.fromkeys(_names(InfrastructureError), (RunState.FAILED, Cause.INFRASTRUCTURE)),
    # A file of the registry that was broken while the run was on: it is mended, the notebook is not.
    InvalidFile.__name__: (RunState.FAILED, Cause.INFRASTRUCTURE),
    CallDenied.__name__: (RunState.DENIED, Cause.POLICY),
    BudgetExceeded.__name__: (RunState.DENIED, Cause.BUDGET),
    Diverged.__name__: (RunState.FAILED, Cause.DIVERGENCE),
    "CalledProcessError": (RunState.FAILED, Cause.SHELL_FAILED),
    "SystemExit": (RunState.FAILED, Cause.EXIT_CALLED),
}

_EXIT_BY_STATE = {
    RunState.SUCCEEDED: 0,
    RunState.WAITING: 3,
    RunState.FAILED: 1,
    RunState.DENIED: 1,
    RunState.KILLED: 75,
    RunState.LOST: 75,
    RunState.SKIPPED: 99,
    RunState.TIMED_OUT: 124,
    RunState.CANCELLED: 143,
}
_TRY_AGAIN = {Cause.INFRASTRUCTURE, Cause.KERNEL_START, Cause.RUNNER_DIED}


def exit_code(state: RunState, cause: Cause | None) -> int:
    """Return the exit code of a run: 0, 1, 3, 75, 99, 124 or 143.

    75 is EX_TEMPFAIL of sysexits.h, 124 the code of timeout(1), 143 is 128 + SIGTERM, and 99
    the code that Airflow's BashOperator reads as *skipped*.

    Raises:
        ValueError: The run is queued or running, so there is nothing to report yet.
    """
    if state not in _EXIT_BY_STATE:
        msg = f"a run that is {state} has no exit code"
        raise ValueError(msg)
    if state is RunState.FAILED and cause in _TRY_AGAIN:
        return 75
    return _EXIT_BY_STATE[state]


def plain(text: str) -> str:
    """Return ``text`` without terminal sequences and control characters (tab and newline stay)."""
    return _CONTROL.sub("", _ANSI.sub("", text))


def shorten(text: str, limit: int = _MAX_MESSAGE) -> str:
    """Return ``text`` on one line, without terminal sequences, at most ``limit`` characters."""
    line = " ".join(plain(text[: 8 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def cell_error(
    label: str, ename: str, evalue: str, traceback: Sequence[str], position: int
) -> Stop:
    """Return what an exception in a cell means for the run.

    Args:
        label: The cell as a message names it (``cell 3``).
        ename: The exception's class, as ``execute_reply`` of the Jupyter messaging protocol has it.
        evalue: Its text.
        traceback: Its lines, with terminal colours.
        position: The cell's position in the executed notebook.
    """
    state, cause = _BY_NAME.get(ename, (RunState.FAILED, Cause.CELL_ERROR))
    frames = plain("\n".join(traceback))
    # IPython shows a cell that does not compile without the heading of a traceback.
    if ename in _SYNTAX and "Traceback (most recent call last)" not in frames:
        cause = Cause.CELL_DOES_NOT_PARSE
        evalue = _CELL_FILE.sub("", evalue)
    line = _LINE.search(frames)
    where = f"{label}, line {line[1]}" if line else label
    what = shorten(f"{ename}: {evalue}" if evalue else ename)
    if cause is Cause.EXIT_CALLED:
        what = f"exit was called ({what}), and a run ends by reaching its last cell"
    return Stop(state, cause, f"{where}: {what}", position)


def unconfirmed(label: str, position: int) -> Stop:
    """Return what it means that a kernel reports a cell's success and does not answer beside it.

    Each request asks for the value of an expression, too (``user_expressions`` of the Jupyter
    messaging protocol), and IPython's executor always answers.  Code that took its place and only
    says *ok* does not.  Who takes care can answer that as well: a kernel writes its own messages.
    """
    message = f"{label}: the kernel does not confirm that it ran; something replaced its executor"
    return Stop(RunState.FAILED, Cause.CELL_ERROR, message, position)


def kernel_death(
    label: str | None, returncode: int | None, out_of_memory: bool, position: int | None
) -> Stop:
    """Return what the death of the kernel means.

    Args:
        label: The cell that was running, ``None`` between cells.
        returncode: As in :class:`subprocess.Popen`: negative is a signal, ``None`` is unknown.
        out_of_memory: Whether the kernel's control group counted an out-of-memory kill.
        position: The cell's position in the executed notebook.
    """
    if returncode is None:
        how = "died"
    elif returncode < 0:
        how = f"was killed by {_signal_name(-returncode)}"
    else:
        how = f"exited with status {returncode}"
    where = f" while {label} ran" if label else ""
    if out_of_memory and returncode == -signal.SIGKILL:
        message = f"the kernel was killed{where}: it was out of memory"
        return Stop(RunState.KILLED, Cause.OUT_OF_MEMORY, message, position)
    return Stop(RunState.KILLED, Cause.KERNEL_DIED, f"the kernel {how}{where}", position)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
