"""What a query reads: every table and column, and where each column of its answer comes from.

sqlglot writes all names out (aliases, ``*``, USING) against the live schema; then every table and
every column in the result must be accounted for, or the statement is refused.  What is executed
is that written-out text, never the text that was asked: a database cannot read it differently
from how it was analysed, and ``*`` cannot grow between analysis and execution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.schema import MappingSchema

from toolkit.errors import UsageError
from toolkit.sources.live import ColumnName, LiveSchema, Relation
from toolkit.sources.statement import Analysed, Output, render
from toolkit.sources.syntax import check_parts, refused

__all__ = ["Query"]


@dataclass
class Query:
    """One SELECT (or UNION …) under analysis."""

    tree: exp.Query
    dialect: str
    schema: LiveSchema
    source: str
    reads: set[ColumnName] = field(default_factory=set)
    relations: dict[str, Relation] = field(default_factory=dict)
    scopes: list[Scope] = field(default_factory=list)
    _outputs: dict[int, list[Output] | None] = field(default_factory=dict)

    def analysed(self) -> Analysed:
        """Return what the query reads, with the text to execute."""
        _check_joins(self.tree, self.source)
        _name_outputs(self.tree)
        self.tree = _qualified(self.tree, self.dialect, self.schema, self.source)
        check_parts(self.tree, source=self.source)
        self.scopes = list(traverse_scope(self.tree))
        self._account_for_tables()
        self._account_for_columns()
        outputs = self._outputs_of(self.scopes[-1]) if self.scopes else []
        text, names = render(self.tree, self.dialect)
        under = {table for r in self.relations.values() for table in r.under_tables}
        for relation in self.relations.values():
            self.reads |= relation.under
        return Analysed(
            sql=text,
            parameters=names,
            relations=tuple(self.relations.values()),
            tables=frozenset(self.relations) | under,
            columns=frozenset(self.reads),
            outputs=tuple(outputs),
        )

    def _account_for_tables(self) -> None:
        seen: set[int] = set()
        for scope in self.scopes:
            for node, found in scope.selected_sources.values():
                if isinstance(node, exp.Table):
                    seen.add(id(node))
                if isinstance(found, exp.Table):
                    relation = self._relation(found)
                    self.relations[relation.label] = relation
        for table in self.tree.find_all(exp.Table):
            if id(table) not in seen:
                raise self._strange(f"the use of {table.name!a}")

    def _relation(self, table: exp.Table) -> Relation:
        found = None if table.catalog else self.schema.find(table.db, table.name)
        if found is None:
            raise UsageError(
                f"{self.source!r} has no table {table.name!a}",
                next_step=f'see toolkit.data("{self.source}").tables()',
            )
        return found

    def _account_for_columns(self) -> None:
        seen: set[int] = set()
        for scope in self.scopes:
            for column in scope.columns:
                if column.table:
                    self._account(column, scope)
                    seen.add(id(column))
        for column in self.tree.find_all(exp.Column):
            if id(column) not in seen and not _is_alias(column):
                raise self._strange(f"the column {column.name!a}")

    def _account(self, column: exp.Column, scope: Scope) -> None:
        found = _source_of(column, scope)
        if isinstance(found, exp.Table):
            relation = self._relation(found)
            if column.name not in relation.columns:
                raise self._strange(f"the column {column.name!a}")
            self.reads |= relation.reads(column.name)
        elif found is None:
            raise self._strange(f"the column {column.name!a}")

    def _strange(self, what: str) -> Exception:
        return refused(f"{what} cannot be analysed", source=self.source)

    # -- where answers come from --------------------------------------------------------------

    def _outputs_of(self, scope: Scope) -> list[Output]:
        known = self._outputs.get(id(scope), [])
        if known is None:  # a recursive query asks for itself: anything may be in it
            return []
        if id(scope) in self._outputs:
            return known
        self._outputs[id(scope)] = None
        expression = scope.expression
        if isinstance(expression, exp.Select):
            made = [self._output(node, scope) for node in expression.selects]
        elif isinstance(expression, exp.SetOperation):
            sides = [self._outputs_of(side) for side in scope.set_operation_scopes]
            made = [_either(parts) for parts in zip(*sides, strict=False)]
        else:
            made = []
        self._outputs[id(scope)] = made
        return made

    def _output(self, node: exp.Expr, scope: Scope) -> Output:
        origins: frozenset[ColumnName] = frozenset()
        for column in node.find_all(exp.Column):
            origins |= self._origins(column, self._scope_of(column) or scope)[0]
        inner = node.unalias()
        unchanged = self._origins(inner, scope)[1] if isinstance(inner, exp.Column) else None
        return Output(node.output_name, origins, unchanged)

    def _scope_of(self, column: exp.Column) -> Scope | None:
        return next(
            (scope for scope in self.scopes if any(column is own for own in scope.columns)), None
        )

    def _origins(
        self, column: exp.Column, scope: Scope
    ) -> tuple[frozenset[ColumnName], ColumnName | None]:
        found = _source_of(column, scope)
        if isinstance(found, exp.Table):
            relation = self._relation(found)
            return relation.reads(column.name), ColumnName(relation.label, column.name)
        if not isinstance(found, Scope):
            return frozenset(), None
        if self._outputs.get(id(found), []) is None:
            return frozenset(self.reads), None
        outputs = self._outputs_of(found)
        for output in outputs:
            if output.name == column.name:
                return output.origins, output.unchanged
        # Renamed by a list of column aliases: any of them.
        return frozenset().union(*(output.origins for output in outputs)), None


def _source_of(column: exp.Column, scope: Scope | None) -> exp.Expr | Scope | None:
    """Return what a column's table alias means where the column stands."""
    while scope is not None:
        if column.table in scope.selected_sources:
            return cast("exp.Expr | Scope", scope.selected_sources[column.table][1])
        if column.table in scope.sources:
            return cast("exp.Expr | Scope", scope.sources[column.table])
        scope = scope.parent
    return None


def _either(parts: tuple[Output, ...]) -> Output:
    origins = frozenset[ColumnName]().union(*(part.origins for part in parts))
    same = {part.unchanged for part in parts}
    return Output(parts[0].name, origins, same.pop() if len(same) == 1 else None)


def _is_alias(column: exp.Column) -> bool:
    """Whether a bare name stands in ORDER BY or GROUP BY for a column of the answer."""
    if column.table:
        return False
    node: exp.Expr | None = column
    while node is not None and not isinstance(node, exp.Order | exp.Group):
        if isinstance(node, exp.Query | exp.Window):
            return False
        node = node.parent
    query = node.parent if node is not None else None
    return isinstance(query, exp.Query) and column.name in query.named_selects


def _check_joins(tree: exp.Expr, source: str) -> None:
    for join in tree.find_all(exp.Join):
        if join.method == "NATURAL":
            raise refused(
                "a natural join does not say which columns it reads",
                source=source,
                next_step="name the columns: JOIN … USING (…) or ON …",
            )
    for table in tree.find_all(exp.Table):
        alias = table.args.get("alias")
        if alias is not None and alias.args.get("columns"):
            raise refused(
                "renaming a table's columns in FROM is not taken",
                source=source,
                next_step="rename columns in SELECT: column AS name",
            )


def _name_outputs(tree: exp.Query) -> None:
    """Give computed columns names: the function's, else ``column_2`` for the second one."""
    select: exp.Expr | None = tree
    while isinstance(select, exp.SetOperation | exp.Subquery):
        select = select.this
    if not isinstance(select, exp.Select):
        return
    taken = {node.output_name for node in select.selects}
    for place, node in enumerate(list(select.selects), 1):
        if node.output_name or node.is_star:
            continue
        name = f"column_{place}"
        if isinstance(node, exp.Func) and not isinstance(node, exp.Cast | exp.Connector):
            name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
        name = name if name not in taken else f"{name}_{place}"
        taken.add(name)
        node.replace(exp.alias_(node.copy(), name, quoted=True))


def _qualified(tree: exp.Expr, dialect: str, schema: LiveSchema, source: str) -> exp.Query:
    known = MappingSchema(dict(schema.mapping()), dialect=dialect, normalize=False)
    try:
        return cast(
            "exp.Query",
            qualify(
                tree,
                dialect=dialect,
                schema=known,
                db=schema.default,
                validate_qualify_columns=True,
                allow_partial_qualification=False,
                quote_identifiers=True,
            ),
        )
    except SqlglotError as error:
        text = str(error).partition("\n")[0].partition(". Line")[0]
        raise UsageError(
            f"the query cannot be resolved: {text}",
            where=f"registry/data.yaml: sources.{source}",
            next_step=f'see toolkit.data("{source}").tables() for tables and columns',
        ) from error
    except (RecursionError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise refused(f"it cannot be analysed ({type(error).__name__})", source=source) from error
