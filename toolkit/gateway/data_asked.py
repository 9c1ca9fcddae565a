"""What a read of data asks: read from the wire, with what is recorded of it and what policy is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from toolkit.errors import ToolkitError, UsageError
from toolkit.gateway.work import Facts
from toolkit.sources import Ask, Plan, Reading
from toolkit.values import CallKind, Effect, Intent, RunRecord, digest_json

__all__ = ["Asked", "ask_of", "intent_of", "recorded_answer", "sent"]

_PURPOSE_CHARS = 500
_OPERATIONS = ("query", "execute", "read", "tables")
# Texts and numbers in a statement, as SQLite and PostgreSQL write them.
_LITERALS = re.compile(
    r"'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"|(\$\w*\$)(.*?)\3|(?<![\w.])(\d[\d.]*)", re.DOTALL
)


@dataclass
class Asked:
    """One read on its way: what it would touch, or why nobody can tell, and what came out.

    Attributes:
        ask: As the notebook asked.
        plan, fault: What it would touch, or why nobody can tell.
        timeout_s: The most that it takes.
        place: What the catalog says of the source: ``external``, ``host``, ``region``.
        secrets: Names of parameters in which a secret was found.
        columns: Those that were read, where they are known only afterwards.
        reading, digest: What came out.
    """

    ask: Ask
    plan: Plan | None
    fault: ToolkitError | None
    timeout_s: float
    place: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    reading: Reading | None = None
    columns: tuple[str, ...] = ()
    digest: str | None = None

    @property
    def write(self) -> bool:
        return self.plan is not None and self.plan.write

    def facts(self, source: str) -> Facts:
        """Return what policy is told."""
        plan = self.plan
        return self.facts_of(source, plan.tables if plan else (), plan.columns if plan else ())

    def facts_of(self, source: str, tables: Iterable[str], columns: Iterable[str]) -> Facts:
        """Return what policy is told, if these tables and columns were read."""
        known = {"source": source, "tables": list(tables), "columns": list(columns)}
        return Facts(values={**known, "write": self.write, **self.place})


def recorded_answer(asked: Asked, reading: Reading) -> dict[str, Any]:
    """Return what is recorded of an answer: what was read, how much, and no row."""
    schema = reading.table.schema
    plan = asked.plan
    return {
        "tables": list(plan.tables) if plan else [],
        "reads": list(plan.columns or asked.columns) if plan else [],
        "rows": reading.table.rows,
        "bytes": reading.table.size_bytes,
        "columns": list(schema.names),
        "types": [str(known.type) for known in schema],
        "content": reading.content,
        "affected": reading.affected,
        "digest": asked.digest,
        "warnings": list(reading.warnings),
    }


def sent(ask: Ask) -> dict[str, Any]:
    """Return the values that a source would be given, by the names of recorded arguments.

    Beside a statement and a path stand the values that are written in them: a short one is known
    again only if it is looked at alone.
    """
    values: dict[str, Any] = {}
    if ask.parameters:
        values["parameters"] = dict(ask.parameters)
    if ask.sql:
        values["sql"] = [ask.sql, *_literals(ask.sql)]
    if ask.path:
        values["path"] = [ask.path, *map(unquote, ask.path.split("/"))]
    return values


def _literals(sql: str) -> Iterator[str]:
    for plain, quoted, _, dollar, number in _LITERALS.findall(sql):
        yield plain.replace("''", "'") or quoted.replace('""', '"') or dollar or number


def ask_of(body: dict[str, Any]) -> Ask:
    """Read what is asked from the wire.

    Raises:
        UsageError: It is malformed.
    """
    given = body.get("arguments")
    if not isinstance(given, dict) or given.get("operation") not in _OPERATIONS:
        raise UsageError(f"a read of data needs an operation: {', '.join(_OPERATIONS)}")
    known = {"operation", "sql", "parameters", "path", "format", "columns"}
    if odd := sorted(set(given) - known):
        raise UsageError(f"a read of data has no argument {', '.join(map(str, odd))}")
    texts = [given.get("sql", ""), given.get("path", ""), given.get("format") or ""]
    columns, parameters = given.get("columns") or [], given.get("parameters") or {}
    plain = all(isinstance(text, str) for text in [*texts, *columns])
    if not plain or not isinstance(parameters, dict) or not isinstance(columns, list):
        raise UsageError("a read of data is malformed")
    return Ask(
        given["operation"],
        sql=texts[0],
        parameters=parameters,
        path=texts[1],
        format=given.get("format"),
        columns=tuple(columns),
    )


def recorded_arguments(ask: Ask) -> dict[str, Any]:
    """Return what is recorded of a question: all but the values of its parameters.

    The digest of the values tells two calls apart; whoever can guess a value can check the guess.
    """
    asked: dict[str, Any] = {"operation": ask.operation}
    if ask.sql:
        asked["sql"] = ask.sql
    if ask.path:
        asked["path"] = ask.path
    if ask.format:
        asked["format"] = ask.format
    if ask.columns:
        asked["columns"] = list(ask.columns)
    if ask.parameters:
        asked["parameters"] = sorted(ask.parameters)
        asked["parameters_digest"] = digest_json(dict(ask.parameters))
    return asked


def intent_of(run: RunRecord, body: dict[str, Any], asked: Asked) -> Intent:
    """Read a call's identity from the wire; its effect is what the analysis says.

    Raises:
        UsageError: A member is missing or malformed.
    """
    purpose = body.get("purpose")
    try:
        if CallKind(str(body["kind"])) is not CallKind.DATA:
            raise UsageError("only calls of kind data are accepted here")
        return Intent(
            run_id=run.run_id,
            kind=CallKind.DATA,
            name=str(body["name"]),
            arguments=recorded_arguments(asked.ask),
            parent=body.get("parent"),
            occurrence=int(body.get("occurrence") or 0),
            request_id=str(body["request_id"]),
            effect=Effect.WRITE if asked.write else Effect.READ,
            cell=body.get("cell"),
            case_id=body.get("case_id"),
            purpose=None if purpose is None else str(purpose)[:_PURPOSE_CHARS],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"the call is malformed: {error}") from error
