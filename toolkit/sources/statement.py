"""An analysed statement, and the text of it that a database gets."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlglot import exp

from toolkit.sources.live import ColumnName, Relation

__all__ = ["Analysed", "Output", "render"]


@dataclass(frozen=True, slots=True)
class Output:
    """One column of an answer.

    Attributes:
        name: Its name.
        origins: Every column that its values are computed from.
        unchanged: The column that it is, where nothing is computed.
    """

    name: str
    origins: frozenset[ColumnName]
    unchanged: ColumnName | None = None


@dataclass(frozen=True, slots=True)
class Analysed:
    """A statement that may be put to its database, if policy allows.

    Attributes:
        sql: What is executed, in the driver's style of parameters.
        parameters: Names in it.
        relations: What it names.
        tables: Labels of tables and views, and of tables under views.
        columns: Every column that is read or written.
        outputs: The columns of its answer.
        write: Whether it changes something.
    """

    sql: str
    parameters: frozenset[str]
    relations: tuple[Relation, ...]
    tables: frozenset[str]
    columns: frozenset[ColumnName]
    outputs: tuple[Output, ...]
    write: bool = False


def render(tree: exp.Expr, dialect: str) -> tuple[str, frozenset[str]]:
    """Return the text to execute, comments left out, and the names of its parameters."""
    tree = tree.copy()
    mark = secrets.token_hex(8)
    names: dict[str, str] = {}
    for node in list(tree.find_all(exp.Placeholder)):
        names[node.this] = f"p{mark}{len(names)}" if node.this not in names else names[node.this]
        node.set("this", names[node.this])
    text = tree.sql(dialect=dialect, comments=False)
    if dialect == "postgres":  # psycopg reads % as the beginning of a parameter
        for token in names.values():
            text = text.replace(f"%({token})s", f":{token}")
        text = text.replace("%", "%%")
    for name, token in names.items():
        text = text.replace(f":{token}", f"%({name})s" if dialect == "postgres" else f":{name}")
    return text, frozenset(names)
