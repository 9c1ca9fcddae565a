"""Names that were ever recorded: who ran, which jobs, and what was called."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from toolkit.ledger.schema import calls, runs
from toolkit.values import CallKind

__all__ = ["seen_names"]


def seen_names(connection: Connection, kind: str) -> set[str]:
    """Return the names of one kind; raises KeyError for an unknown one.

    Args:
        connection: Of the ledger's database.
        kind: ``job``, ``user``, ``team``, ``agent``, ``route`` or ``tool``.
    """
    statements: dict[str, list[Any]] = {
        "job": [select(runs.c.job)],
        "user": [select(runs.c.user_name)],
        "team": [select(runs.c.team)],
        "agent": [select(calls.c.agent), _called(CallKind.AGENT)],
        "route": [_called(CallKind.MODEL)],
        "tool": [_called(CallKind.TOOL)],
    }
    found: set[str] = set()
    for statement in statements[kind]:
        found |= {name for (name,) in connection.execute(statement.distinct()) if name}
    return found


def _called(kind: CallKind) -> Any:
    return select(calls.c.name).where(calls.c.kind == kind.value)
