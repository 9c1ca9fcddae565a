"""What a write touches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from toolkit.errors import UsageError
from toolkit.sources.live import ColumnName, LiveSchema, Relation
from toolkit.sources.queries import Query
from toolkit.sources.statement import Analysed, render
from toolkit.sources.syntax import check_parts, refused

__all__ = ["Change"]


@dataclass
class Change:
    """One INSERT, UPDATE or DELETE under analysis: of one table, without inner queries.

    Only INSERT may take its rows from a query, which is analysed like any other.
    """

    tree: exp.Expr
    dialect: str
    schema: LiveSchema
    source: str

    def analysed(self) -> Analysed:
        """Return what the statement reads and writes, with the text to execute."""
        query = self._inner_query()
        self._check_shape()
        target, columns = self._target()
        relation = self._relation(target)
        touched = {self._column(relation, name) for name in columns}
        for column in self._own_columns():
            if column.table and column.table.lower() != target.alias_or_name.lower():
                raise refused(f"the column {column.sql()!a} is not its table's", source=self.source)
            touched.add(self._column(relation, column.name))
        if isinstance(self.tree, exp.Delete) or not touched:
            touched |= {ColumnName(relation.label, name) for name in relation.columns}
        target.set("db", exp.to_identifier(relation.schema, quoted=True))
        inner = None
        if query is not None:
            inner = Query(query.copy(), self.dialect, self.schema, self.source)
            read = inner.analysed()
            query.replace(inner.tree)
        text, names = render(self.tree, self.dialect)
        return Analysed(
            sql=text,
            parameters=names,
            relations=(relation, *(read.relations if inner else ())),
            tables=frozenset({relation.label}) | (read.tables if inner else frozenset()),
            columns=frozenset(touched) | (read.columns if inner else frozenset()),
            outputs=(),
            write=True,
        )

    def _inner_query(self) -> exp.Query | None:
        inner = self.tree.args.get("expression") if isinstance(self.tree, exp.Insert) else None
        return inner if isinstance(inner, exp.Select | exp.SetOperation) else None

    def _check_shape(self) -> None:
        check_parts(self.tree, source=self.source, changing=True)
        taken = {"this", "expression", "expressions", "where", "from_", "kind"}
        odd = sorted(name for name, value in self.tree.args.items() if value and name not in taken)
        if odd or self.tree.args.get("from_"):
            what = odd[0].upper().strip("_") if odd else "FROM"
            raise refused(f"{what} is not taken in a write", source=self.source)
        inner = self._inner_query()
        for node in self.tree.find_all(exp.Query):
            if isinstance(node, exp.Values) or _inside(node, inner):
                continue
            raise refused("an inner query is not taken in a write", source=self.source)

    def _target(self) -> tuple[exp.Table, list[str]]:
        this, names = self.tree.this, []
        if isinstance(this, exp.Schema):
            names = [node.name for node in this.expressions]
            this = this.this
        if not isinstance(this, exp.Table) or this.catalog:
            raise refused("its target cannot be analysed", source=self.source)
        return this, names

    def _relation(self, table: exp.Table) -> Relation:
        folded = _folded(table.this, self.dialect)
        schema = _folded(table.args["db"], self.dialect) if table.args.get("db") else ""
        found = self.schema.find(schema, folded)
        if found is None:
            raise UsageError(f"{self.source!r} has no table {table.name!a}")
        if found.view:
            raise refused("a write to a view is not taken", source=self.source)
        return found

    def _column(self, relation: Relation, name: str) -> ColumnName:
        for known in (name, name.lower()):
            if known in relation.columns:
                return ColumnName(relation.label, known)
        raise UsageError(f"{relation.label} has no column {name!a}")

    def _own_columns(self) -> Iterator[exp.Column]:
        inner = self._inner_query()
        for column in self.tree.find_all(exp.Column):
            if not _inside(column, inner):
                yield column


def _inside(node: exp.Expr, outer: exp.Expr | None) -> bool:
    step: exp.Expr | None = node
    while step is not None:
        if step is outer:
            return True
        step = step.parent
    return False


def _folded(node: exp.Expr, dialect: str) -> str:
    """Return an identifier as the database folds it."""
    if dialect == "sqlite" or not node.args.get("quoted"):
        return node.name.lower()
    return node.name
