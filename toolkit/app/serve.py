"""The gateway's process: ``python -m toolkit.app.serve ROOT``.

It is started on demand by the first kernel, run or command that needs it, and ends after half an
hour in which nobody asked anything and no run was under way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from starlette.types import ASGIApp

from toolkit.app.assembly import Assembly
from toolkit.app.sessions import Sessions
from toolkit.errors import ToolkitError
from toolkit.gateway import TeamAddress, serve
from toolkit.ledger import Ledger, LedgerWriter
from toolkit.settings import Workspace, open_workspace
from toolkit.values import RunKind, RunState

__all__ = ["gateway_app", "main", "serve_workspace"]

IDLE_S = 1800.0
_SETTLE_S = 2.0
_LONGEST_WAIT_S = 300.0
_PR_SET_DUMPABLE = 4


class _Gateway:
    """A workspace's gateway as a process serves it, with everything that has to end with it."""

    def __init__(self, workspace: Workspace, on_request: Callable[[], None]) -> None:
        self._ledger = Ledger.open(workspace.database_url, heads=workspace.ledger_heads)
        self._ledger.release_abandoned()  # of ledgers that an older version wrote
        self._writer = LedgerWriter(self._ledger)
        self._shipper = _Shipping(workspace)
        self._sessions = Sessions(self._ledger)
        self._assembly = Assembly(workspace, self._ledger, self._writer, on_request)
        self.app = self._assembly.app

    def busy(self) -> bool:
        """Whether a run is under way; sandbox sessions may be silent for days."""
        running = self._ledger.runs(state=RunState.RUNNING, limit=1000)
        return any(run.kind is not RunKind.SESSION for run in running)

    def tend(self) -> None:
        """Keep the shipper alive, and end runs that nobody wants any more."""
        self._shipper.tend()
        self._sessions.tend()
        self._assembly.jobs.tend()

    async def leave(self) -> None:
        """Let calls that are paid for be recorded, then give back connections and models."""
        await self._assembly.close(_SETTLE_S)

    def close(self) -> None:
        """Commit what is queued; the shipper sends what is left and ends on its own."""
        self._writer.close()
        self._ledger.close()
        self._shipper.end()


class _Shipping:
    """The shipper's process: started again when it dies, ever later if it does so again and again.

    Calls are safe without it; but nobody would see them in MLflow until the next gateway starts.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._started = time.monotonic()
        self._wait_s = 0.0
        self._process = _start_shipper(workspace)

    def tend(self) -> None:
        """Start it again if it is gone."""
        now = time.monotonic()
        if self._process.poll() is None:
            if now - self._started > _LONGEST_WAIT_S:
                self._wait_s = 0.0
            return
        if now - self._started >= self._wait_s:
            self._wait_s = min(max(4.0, self._wait_s * 2), _LONGEST_WAIT_S)
            self._started = now
            self._process = _start_shipper(self._workspace)

    def end(self) -> None:
        """Tell it to end; it sends what is left and goes on its own."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()


def gateway_app(
    workspace: Workspace,
    ledger: Ledger,
    writer: LedgerWriter,
    *,
    on_request: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """Return the gateway of a workspace as an ASGI application."""
    return Assembly(workspace, ledger, writer, on_request).app


def serve_workspace(
    workspace: Workspace,
    *,
    idle_s: float = IDLE_S,
    team: TeamAddress | None = None,
    begun: Callable[[], None] = lambda: None,
) -> int:
    """Serve a workspace's gateway until it is idle or told to end; return the exit code.

    Args:
        workspace: The workspace.
        idle_s: Seconds of silence after which it ends.
        team: Where it listens for other machines, if anywhere.
        begun: Called once it listens; not where another gateway serves this workspace already.
    """

    def build(on_request: Callable[[], None]) -> _Gateway:
        made = _Gateway(workspace, on_request)
        begun()
        return made

    _hide_memory()
    return serve(
        build,
        state=workspace.state,
        path=workspace.socket,
        idle_s=idle_s,
        team=team,
    )


def _hide_memory() -> None:
    """Keep other processes of the same user from reading this one's environment and memory."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _start_shipper(workspace: Workspace) -> subprocess.Popen[bytes]:
    """Start the process that carries the ledger to MLflow; it ends after us, when all is sent."""
    logs = workspace.state / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    # Provider keys are not the shipper's business; credentials of the MLflow server are.
    secrets = {
        entry
        for entry in os.environ
        if entry.endswith(("_API_KEY", "_TOKEN", "_SECRET")) and not entry.startswith("MLFLOW_")
    }
    with (logs / "shipper.log").open("ab") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "toolkit.tracing.shipper",
                str(workspace.root),
                "--parent",
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=workspace.root,
            env={name: value for name, value in os.environ.items() if name not in secrets},
        )


def main(argv: list[str] | None = None) -> int:
    """Entry point; prints one line on failure."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return serve_workspace(open_workspace(Path(arguments[0]) if arguments else None))
    except ToolkitError as error:
        step = f" ({error.next_step})" if error.next_step else ""
        print(f"toolkit gateway: {error}{step}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
