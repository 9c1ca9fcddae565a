"""What is asked of a source, what the answer would touch, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from toolkit.values import NO_LABELS, Labels

if TYPE_CHECKING:
    from toolkit.sources.columnar import Table

__all__ = ["About", "Ask", "Check", "Operation", "Plan", "Reading", "Source"]

Operation = Literal["query", "execute", "read", "tables"]

Check = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Told the columns of an answer before it is given, where they are known only after reading.

Returns sentences to show (what production would have said); raises ``CallDenied``.
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """One read (or write) as the notebook asked for it.

    Attributes:
        operation: ``query`` and ``execute`` are for SQL, ``read`` for files and HTTP,
            ``tables`` for all.
        sql: The statement.
        parameters: Values by the names that the statement has as ``:name``; for HTTP the query.
        path: What is read, relative to the source.
        format: ``csv``, ``parquet``, ``json``, ``text`` or ``bytes``; default: from the name.
        columns: Only these columns of a file or an HTTP answer.
    """

    operation: Operation
    sql: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    format: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """What one row of a listing names.

    Attributes:
        tables, columns: What somebody would read who reads it, as in :class:`Plan`.
        group: Rows of the same table have the same one.
    """

    tables: tuple[str, ...]
    columns: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came out of a read.

    Attributes:
        table: The rows; of a write a table without columns.
        labels: The source's and those of the columns that the rows come from.
        column_labels: The labels of each column, in order; empty where all have ``labels``.
        affected: Rows that a write changed; ``None`` for reads.
        content: ``table``, ``text`` or ``bytes``: what the notebook gets.
        warnings: Sentences to show (expectations of ``on_failure: warn``).
        about: Of a listing what each row names: only what may be read is given.
    """

    table: Table
    labels: Labels = NO_LABELS
    column_labels: tuple[Labels, ...] = ()
    affected: int | None = None
    content: Literal["table", "text", "bytes"] = "table"
    warnings: tuple[str, ...] = ()
    about: tuple[About, ...] = ()

    def only(self, rows: Sequence[int]) -> Reading:
        """Return some rows of a listing, by their places in order."""
        about = tuple(self.about[row] for row in rows)
        return replace(self, table=self.table.only(rows), about=about)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a read would touch, and how it is done; nothing has been read yet.

    Attributes:
        tables: Tables, views with what lies under them, or paths; sorted.
        columns: ``table.column`` of every column that is read, wherever it stands in the query;
            for files and HTTP the names of the columns asked for, empty where they are not known.
        write: Whether it changes the source.
        fetch: Does it; ``Check`` is called where columns were not known before.
            Raises what :class:`Source` names.
    """

    tables: tuple[str, ...]
    columns: tuple[str, ...]
    write: bool
    fetch: Callable[[Check], Reading]


class Source(Protocol):
    """A source of ``registry/data.yaml``.

    Its methods block; they raise ``UsageError`` and ``CallDenied`` (what cannot be analysed, or
    is over a cap), ``NotFound``, ``ConfigurationError`` and ``InfrastructureError``, none of which
    holds a value of a row, a parameter or a credential.
    """

    def plan(self, ask: Ask) -> Plan:
        """Analyse what is asked, without reading a row."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...
