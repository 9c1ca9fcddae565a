"""Reads of data: decided and recorded by the door, read in this process, streamed as Arrow.

What is recorded of a read is what was asked (text, names of parameters and their digest, never
their values) and what came of it (row count, names and types of columns, a digest, labels), never a
row.  So a call that is recorded already is read again, decided again, and compared: the reply says
whether the rows are still the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response, StreamingResponse

from toolkit.client import wire
from toolkit.errors import CallDenied, ToolkitError, UsageError
from toolkit.gateway.app import Handler, Links
from toolkit.gateway.door import Door
from toolkit.gateway.exchange import json_reply
from toolkit.gateway.replies import call_reply
from toolkit.gateway.work import Facts, Work, Worst
from toolkit.sources import Ask, Plan, Reading, Sources
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    DataClass,
    Effect,
    Intent,
    Labels,
    Outcome,
    RunKind,
    RunRecord,
    Source,
    Verdict,
    digest_json,
)

__all__ = ["DataDoor", "Remember"]

Remember = Callable[[RunRecord, Intent, list[Any], Labels], None]
"""Told the values of columns with their labels, before a kernel gets them."""

_AT_ONCE = 4
_PURPOSE_CHARS = 500
_MOST_REMEMBERED = 2_000
_WATCHED = {DataClass.PII, Source.UNTRUSTED}
_NOT_KEPT = "recorded by number and digest of its rows: a replay reads no source again"
_OPERATIONS = ("query", "execute", "read", "tables")
MEDIA_TYPE = "application/vnd.apache.arrow.stream"


@dataclass
class _Asked:
    """One read on its way: what it would touch, or why nobody can tell, and what came out."""

    ask: Ask
    plan: Plan | None
    fault: ToolkitError | None
    timeout_s: float
    reading: Reading | None = None
    digest: str | None = None

    @property
    def write(self) -> bool:
        return self.plan is not None and self.plan.write

    def facts(self, source: str) -> Facts:
        plan = self.plan
        return Facts(
            values={
                "source": source,
                "tables": list(plan.tables) if plan else [],
                "columns": list(plan.columns) if plan else [],
                "write": self.write,
            }
        )


class DataDoor:
    """The sources of ``registry/data.yaml``, behind the door.

    At most four reads go on at a time; each holds its answer (at most the source's ``max_bytes``)
    once, until the kernel has taken it.

    Args:
        door: Decides and records.
        links: Where people look at what was recorded.
        sources: The sources in force.
        remember: Told the values that a kernel gets; ``None``: nobody looks for them later.
    """

    def __init__(
        self, door: Door, links: Links, sources: Sources, *, remember: Remember | None = None
    ) -> None:
        self._door = door
        self._links = links
        self._sources = sources
        self._remember = remember
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="data")

    def handlers(self) -> dict[str, Handler]:
        """Return handlers by path of the toolkit's own protocol."""
        return {wire.DATA: self._call}

    async def close(self) -> None:
        """Give back connections; the gateway ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._sources.close)

    async def _call(self, run: RunRecord, body: dict[str, Any]) -> Response:
        ask = _ask(body)
        if run.kind is RunKind.REPLAY:
            return await self._replayed(run, _intent(run, body, _Asked(ask, None, None, 0.0)))
        asked = await self._analyse(str(body.get("name")), ask)
        intent = _intent(run, body, asked)
        facts = asked.facts(intent.name)
        work = Work(
            lambda call, _: self._perform(run, call.intent, intent.arguments, asked),
            facts,
            Worst(seconds=asked.timeout_s),
            repeatable=not asked.write,
        )
        call = await self._door.perform(run, intent, work)
        again = call.intent.request_id != intent.request_id or call.intent.run_id != run.run_id
        told = call_reply(call, run, self._links, replayed=again)
        if call.outcome is None or call.outcome.state is not CallState.OK:
            return json_reply(told)
        warnings = list(call.outcome.answer.get("warnings") or ())
        if asked.reading is None and call.intent.effect is Effect.WRITE:
            return json_reply(told)  # a write is not done twice; its record says what it changed
        if asked.reading is None:
            warnings = await self._read_again(run, call, asked, facts)
            told["replayed"] = True
        return await self._give(run, call, asked, {**told, "warnings": warnings})

    async def _replayed(self, run: RunRecord, intent: Intent) -> Response:
        """Answer from the journal, which has what a write changed and no rows of a read."""
        call = (await self._door.replayed(run, intent)).call
        done = call.outcome is not None and call.outcome.state is CallState.OK
        if done and call.intent.effect is Effect.READ:
            raise await self._door.replays.ends_here(run, intent, _NOT_KEPT)
        return json_reply(call_reply(call, run, self._links, replayed=True))

    async def _analyse(self, name: str, ask: Ask) -> _Asked:
        """Say what a read would touch.

        A fault of the query itself is kept: policy decides before anybody is told what a database
        holds, and it is recorded like any other outcome.

        Raises:
            NotFound, InvalidFile: There is no such source, or ``data.yaml`` has faults.
        """
        caps = await self._off(lambda: self._sources.caps(name))
        try:
            plan = await self._off(lambda: self._sources.source(name).plan(ask))
        except ToolkitError as error:
            return _Asked(ask, None, error, caps.timeout_s)
        return _Asked(ask, plan, None, caps.timeout_s)

    async def _perform(
        self, run: RunRecord, intent: Intent, asked_for: Any, asked: _Asked
    ) -> Outcome:
        """Read, and return what is recorded of it.

        Raises:
            ToolkitError: Why nothing is given.
        """
        if intent.arguments != asked_for:
            raise UsageError(
                "the query holds a secret or personal data that may not be recorded, or it was "
                "approved with changes; neither is put to a source",
                next_step="pass values as parameters (:name), which are not recorded",
            )
        await self._off(lambda: self._fetch(run, intent, asked))
        reading = asked.reading
        if reading is None:
            raise UsageError("nothing was read")
        return Outcome(CallState.OK, answer=_recorded_answer(asked, reading), labels=reading.labels)

    def _fetch(self, run: RunRecord, intent: Intent, asked: _Asked) -> None:
        """Read the rows and take their digest; blocks.

        Raises:
            ToolkitError: Why nothing is given.
        """
        if asked.plan is None:
            raise asked.fault or UsageError("nothing can be read")
        reading = asked.plan.fetch(lambda columns: self._check(run, intent, asked, columns))
        asked.digest = reading.table.digest()
        asked.reading = reading

    def _check(
        self, run: RunRecord, intent: Intent, asked: _Asked, columns: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Ask policy again, where the columns are known only after reading.

        Raises:
            CallDenied: They may not be given.
        """
        before = asked.facts(intent.name)
        if list(columns) == before.values["columns"]:
            return ()
        facts = Facts(values={**before.values, "columns": list(columns)})
        return self._decide(run, intent, facts, approved=())

    def _decide(
        self, run: RunRecord, intent: Intent, facts: Facts, *, approved: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Ask policy, and return what production would have said.

        Raises:
            CallDenied: It says no, or wants to ask a person that nobody has asked.
        """
        session = self._door.flow.session(run.run_id)
        decision = self._door.governance.decide(run, intent, facts, session)
        asks = decision.verdict is Verdict.ASK
        if decision.verdict is Verdict.DENY or (asks and not set(decision.policies) <= {*approved}):
            why = "; ".join(decision.reasons)
            raise CallDenied(
                f"a person has to be asked about these columns: {why}" if asks else why,
                next_step="ask for other columns: .read(path, columns=[…])" if asks else None,
                details={"policies": list(decision.policies)},
            )
        if decision.production_verdict in (None, Verdict.ALLOW):
            return decision.reasons
        return tuple(f"production: {why}" for why in decision.production_reasons)

    async def _read_again(
        self, run: RunRecord, call: CallRecord, asked: _Asked, facts: Facts
    ) -> list[str]:
        """Read what a recorded call had read, and say whether it is still the same.

        Today's policy is asked: a record is no permission to read.

        Raises:
            ToolkitError: Why nothing is given.
        """
        intent = replace(call.intent, run_id=run.run_id)
        if asked.plan is not None:
            self._decide(run, intent, facts, approved=call.decision.policies)
        await self._off(lambda: self._fetch(run, intent, asked))
        before = call.outcome.answer if call.outcome else {}
        if asked.reading is None or asked.digest == before.get("digest"):
            return list(asked.reading.warnings) if asked.reading else []
        changed = (
            f"{intent.name} gives other rows, or another order of them, than when this call was "
            f"recorded ({before.get('rows')} rows then, {asked.reading.table.rows} now): what "
            "follows may differ"
        )
        return [*asked.reading.warnings, changed]

    async def _give(
        self, run: RunRecord, call: CallRecord, asked: _Asked, told: dict[str, Any]
    ) -> Response:
        reading = asked.reading
        if reading is None:
            return json_reply(told)
        if self._remember is not None:
            await self._off(lambda: self._tell(run, call.intent, reading))
        told["content"] = reading.content
        told["rows"] = reading.table.rows
        told["digest"] = asked.digest
        return StreamingResponse(reading.table.stream(told), media_type=MEDIA_TYPE)

    def _tell(self, run: RunRecord, intent: Intent, reading: Reading) -> None:
        if self._remember is not None:
            for labels, values in _remembered(reading):
                self._remember(run, intent, values, labels)

    async def _off(self, work: Callable[[], Any]) -> Any:
        """Do blocking work in one of the threads that reads have for themselves."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _recorded_answer(asked: _Asked, reading: Reading) -> dict[str, Any]:
    schema = reading.table.schema
    return {
        "rows": reading.table.rows,
        "bytes": reading.table.size_bytes,
        "columns": list(schema.names),
        "types": [str(known.type) for known in schema],
        "content": reading.content,
        "affected": reading.affected,
        "digest": asked.digest,
        "warnings": list(reading.warnings),
    }


def _remembered(reading: Reading) -> Iterator[tuple[Labels, list[Any]]]:
    """Yield the distinct values of each column that a later call may hold.

    Of columns that are neither about persons nor from outside only the first 2,000 are kept: a
    run that reads a large table of ours has not read something that nobody can follow.
    """
    names = reading.table.schema.names
    for place in range(len(names)):
        labels = reading.column_labels[place] if reading.column_labels else reading.labels
        values: dict[Any, None] = {}
        for batch in reading.table.batches:
            values.update(
                dict.fromkeys(_plain(v) for v in batch.column(place).unique().to_pylist())
            )
            watched = _WATCHED & {*labels.classes, *labels.sources}
            if not watched and len(values) > _MOST_REMEMBERED:
                break
        found = [value for value in values if value is not None]
        if found and labels:
            watched = _WATCHED & {*labels.classes, *labels.sources}
            yield labels, found if watched else found[:_MOST_REMEMBERED]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return None if isinstance(value, bytes | list | dict) else str(value)


def _ask(body: dict[str, Any]) -> Ask:
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


def _recorded_arguments(ask: Ask) -> dict[str, Any]:
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


def _intent(run: RunRecord, body: dict[str, Any], asked: _Asked) -> Intent:
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
            arguments=_recorded_arguments(asked.ask),
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
