"""The gateway's process: ``python -m toolkit.app.serve ROOT``.

It is started on demand by the first kernel, run or command that needs it, and ends after half an
hour in which nobody asked anything and no run was under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette

from toolkit.app.evaluations import SandboxEvaluations
from toolkit.app.pages import Pages
from toolkit.errors import ToolkitError
from toolkit.gateway import Door, Governance, Identity, build_app, serve
from toolkit.ledger import Ledger, LedgerWriter
from toolkit.providers import Catalog, Providers
from toolkit.settings import Workspace, open_workspace
from toolkit.values import RunKind, RunState

__all__ = ["gateway_app", "main", "serve_workspace"]

IDLE_S = 1800.0
_RETIRE_S = 120.0
_PR_SET_DUMPABLE = 4


class _CurrentProviders:
    """The providers of the catalog that is in force; rebuilt when ``models.yaml`` changes."""

    def __init__(self, governance: Governance) -> None:
        self._governance = governance
        self._catalog: Catalog | None = None
        self._providers: Providers | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def __call__(self) -> Providers:
        catalog = self._governance.catalog()
        if self._providers is None or catalog is not self._catalog:
            if self._providers is not None:
                self._retire(self._providers)
            self._catalog = catalog
            self._providers = Providers(catalog, environ=os.environ)
        return self._providers

    def _retire(self, old: Providers) -> None:
        """Close replaced providers (a loaded model among them) once their calls have ended."""

        async def close() -> None:
            await asyncio.sleep(_RETIRE_S)
            await old.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def gateway_app(
    workspace: Workspace,
    ledger: Ledger,
    writer: LedgerWriter,
    *,
    on_request: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return the gateway of a workspace as an ASGI application."""
    governance = Governance(
        workspace.registry, default_route=workspace.settings.default_route or None
    )
    door = Door(ledger, writer, governance, _CurrentProviders(governance))
    identity = Identity(ledger, workspace.user, workspace.settings.team or None)
    return build_app(
        door,
        identity,
        Pages(workspace),
        extension=SandboxEvaluations(workspace.registry, ledger, governance),
        on_request=on_request,
    )


def serve_workspace(workspace: Workspace, *, idle_s: float = IDLE_S) -> int:
    """Serve a workspace's gateway until it is idle or told to end; return the exit code."""
    _hide_memory()
    ledger = Ledger.open(workspace.database_url)
    writer = LedgerWriter(ledger)
    shipper = _start_shipper(workspace)

    def build(on_request: Callable[[], None]) -> Starlette:
        return gateway_app(workspace, ledger, writer, on_request=on_request)

    def busy() -> bool:
        running = ledger.runs(state=RunState.RUNNING, limit=1000)
        return any(run.kind is not RunKind.SESSION for run in running)

    def close() -> None:
        writer.close()
        ledger.close()
        with contextlib.suppress(ProcessLookupError):
            shipper.terminate()

    return serve(
        build,
        state=workspace.state,
        path=workspace.socket,
        idle_s=idle_s,
        busy=busy,
        close=close,
    )


def _hide_memory() -> None:
    """Keep other processes of the same user from reading this one's environment and memory."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _start_shipper(workspace: Workspace) -> subprocess.Popen[bytes]:
    """Start the process that carries the ledger to MLflow; it ends after us, when all is sent."""
    logs = workspace.state / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    secrets = {entry for entry in os.environ if entry.endswith(("_API_KEY", "_TOKEN", "_SECRET"))}
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
