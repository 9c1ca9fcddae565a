"""What a database holds right now: relations, their columns, and what lies under views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ColumnName", "LiveSchema", "Relation"]


@dataclass(frozen=True, slots=True, order=True)
class ColumnName:
    """A column as policies name it: ``orders.email``.

    Attributes:
        table: Without the default schema: ``orders``, or ``sales.orders``.
        column: Its name.
    """

    table: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view.

    Attributes:
        schema, name: As the database has them.
        label: The name that policies use.
        columns: Declared type by column, in order.
        under: For a view every column that it reads, of views under it too.
        under_tables: For a view the tables that it reads.
        derived: Generated columns, which are computed from other ones.
        parts: ``(schema, name)`` of partitions, which a plan may name in its place.
        view: Whether it is a view.
    """

    schema: str
    name: str
    label: str
    columns: Mapping[str, str]
    under: frozenset[ColumnName] = frozenset()
    under_tables: frozenset[str] = frozenset()
    derived: frozenset[str] = frozenset()
    parts: frozenset[tuple[str, str]] = frozenset()
    view: bool = False

    def reads(self, column: str) -> frozenset[ColumnName]:
        """Return what is read when ``column`` is: itself, and what it may be computed from.

        A view counts with all that it reads, used or not.  A generated column counts with
        every column of its table, because databases do not tell which of them it is made of.
        """
        own = frozenset({ColumnName(self.label, column)})
        if column in self.derived:
            own |= frozenset(ColumnName(self.label, name) for name in self.columns)
        return own | self.under


@dataclass(frozen=True, slots=True)
class LiveSchema:
    """The relations of a database by schema and name."""

    default: str
    relations: Mapping[tuple[str, str], Relation] = field(default_factory=dict)

    def find(self, schema: str, name: str) -> Relation | None:
        """Return a relation; an empty schema is the default one."""
        return self.relations.get((schema or self.default, name))

    def mapping(self) -> dict[str, dict[str, dict[str, str]]]:
        """Return schema → table → column → type, as sqlglot wants it."""
        found: dict[str, dict[str, dict[str, str]]] = {self.default: {}}
        for (schema, name), relation in self.relations.items():
            found.setdefault(schema, {})[name] = dict.fromkeys(relation.columns, "text")
        return found
