"""What a kernel does on the wire: open a run, ask a model, begin a tool."""

from __future__ import annotations

from toolkit.client import Connection, wire
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallKind, Environment, RunKind, RunRecord, RunState

_opened: list[Connection] = []


def close_runs() -> None:
    """Close the connections that :func:`open_run` made."""
    while _opened:
        _opened.pop().close()


def open_run(workspace: Workspace, run_id: str, **facts) -> Connection:
    """Record a production run and return a kernel's connection to it."""
    token = new_token()
    ledger = Ledger.open(workspace.database_url)
    run = RunRecord(
        run_id=run_id,
        kind=facts.pop("kind", RunKind.RUN),
        environment=facts.pop("environment", Environment.PRODUCTION),
        user="ana",
        state=RunState.RUNNING,
        token_digest=token_digest(token),
        **facts,
    )
    if ledger.create_run(run).token_digest != token_digest(token):
        ledger.update_run(run_id, token_digest=token_digest(token))
    ledger.close()
    made = Connection(str(workspace.socket), root=workspace.root, token=token)
    _opened.append(made)
    return made.open()


def ask(connection: Connection, text: str, *, route: str = "default", **extra) -> dict:
    """Make one model call over the wire."""
    arguments = {"messages": [{"role": "user", "content": text}], **extra}
    return connection.post(wire.MODEL, connection.identify(CallKind.MODEL, route, arguments))


def begin(connection: Connection, name: str, arguments: dict, effect: str = "read") -> dict:
    """Begin one tool call over the wire."""
    request = connection.identify(CallKind.TOOL, name, arguments, effect=effect)
    return connection.post(wire.BEGIN, request)
