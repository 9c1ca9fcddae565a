"""A statement's text to what it reads and writes."""

from __future__ import annotations

from typing import cast

from sqlglot import exp

from toolkit.sources.changes import Change
from toolkit.sources.live import LiveSchema
from toolkit.sources.queries import Query
from toolkit.sources.statement import Analysed
from toolkit.sources.syntax import CHANGES, check_parts, parse_statement

__all__ = ["analyse"]


def analyse(sql: str, dialect: str, schema: LiveSchema, *, source: str) -> Analysed:
    """Analyse a statement.

    Args:
        sql: As it was asked.
        dialect: ``sqlite`` or ``postgres``.
        schema: What the database holds.
        source: Name of the source, for messages.

    Raises:
        UsageError: It does not parse, or names what is not there.
        CallDenied: It holds something that cannot be analysed or is never taken.
    """
    tree = parse_statement(sql, dialect, source=source)
    if isinstance(tree, CHANGES):
        return Change(tree, dialect, schema, source).analysed()
    check_parts(tree, source=source)
    return Query(cast("exp.Query", tree), dialect, schema, source).analysed()
