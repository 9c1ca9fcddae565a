"""Reads of data: decided and recorded by the door, read in this process, streamed as Arrow.

What is recorded of a read is what was asked (text, names of parameters and their digest, never
their values) and what came of it (row count, names and types of columns, a digest, labels), never a
row.  So a call that is recorded already is read again, decided again, and compared: the reply says
whether the rows are still the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any

from starlette.responses import Response, StreamingResponse

from toolkit.client import wire
from toolkit.errors import CallDenied, ToolkitError, UsageError
from toolkit.gateway.app import Handler, Links
from toolkit.gateway.data_asked import Asked, ask_of, intent_of, recorded_answer, sent
from toolkit.gateway.door import Door
from toolkit.gateway.exchange import json_reply
from toolkit.gateway.replies import call_reply
from toolkit.gateway.work import Facts, Work, Worst
from toolkit.policy import PrivacyPolicy
from toolkit.sources import Ask, Reading, Sources
from toolkit.values import (
    NO_LABELS,
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
_MOST_REMEMBERED = 2_000
_WATCHED = {DataClass.PII, Source.UNTRUSTED}
_NOT_KEPT = "recorded by number and digest of its rows: a replay reads no source again"
_AS_IT_IS = PrivacyPolicy(pii="label")
MEDIA_TYPE = "application/vnd.apache.arrow.stream"


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
        ask = ask_of(body)
        if run.kind is RunKind.REPLAY:
            return await self._replayed(run, intent_of(run, body, Asked(ask, None, None, 0.0)))
        asked = await self._analyse(str(body.get("name")), ask)
        intent = await self._labelled(run, intent_of(run, body, asked), asked)
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

    async def _analyse(self, name: str, ask: Ask) -> Asked:
        """Say what a read would touch.

        A fault of the query itself is kept: policy decides before anybody is told what a database
        holds, and it is recorded like any other outcome.

        Raises:
            NotFound, InvalidFile: There is no such source, or ``data.yaml`` has faults.
        """
        settings = await self._off(lambda: self._sources.catalog().source(name))
        asked = Asked(ask, None, None, settings.timeout_s, settings.place())
        try:
            asked.plan = await self._off(lambda: self._sources.source(name).plan(ask))
        except ToolkitError as error:
            asked.fault = error
        return asked

    async def _labelled(self, run: RunRecord, intent: Intent, asked: Asked) -> Intent:
        """Say where the values that a source would get come from; they are not in the record.

        Personal data is labelled and stays: a customer is found by an address.  A secret is noted.
        """
        values = sent(asked.ask)
        probe = replace(intent, arguments=values)
        screened, personal = await self._door.screen.incoming(run, probe, _AS_IT_IS)
        given, kept = values.get("parameters", {}), screened.arguments.get("parameters", {})
        asked.secrets = tuple(sorted(name for name in given if kept.get(name) != given[name]))
        if asked.secrets:  # whoever can guess it could check the guess against the digest
            intent = intent.but(
                arguments={**intent.arguments, "parameters_digest": digest_json(kept)}
            )
        await self._door.recall.ready(run)
        labels = self._door.flow.label(run, screened, pii=personal, asked=values)
        # A digest says nothing about where it came from.
        return intent.but(labels={**labels, "parameters_digest": NO_LABELS})

    async def _perform(
        self, run: RunRecord, intent: Intent, asked_for: Any, asked: Asked
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
        if asked.secrets:
            raise UsageError(
                f"the parameter {', '.join(asked.secrets)} holds a secret, which is not sent to a "
                "source",
                next_step="leave it out; credentials of a source belong in registry/data.yaml",
            )
        await self._off(lambda: self._fetch(run, intent, asked))
        reading = asked.reading
        if reading is None:
            raise UsageError("nothing was read")
        return Outcome(CallState.OK, answer=recorded_answer(asked, reading), labels=reading.labels)

    def _fetch(self, run: RunRecord, intent: Intent, asked: Asked) -> None:
        """Read the rows and take their digest; blocks.

        Raises:
            ToolkitError: Why nothing is given.
        """
        if asked.plan is None:
            raise asked.fault or UsageError("nothing can be read")
        reading = asked.plan.fetch(lambda columns: self._check(run, intent, asked, columns))
        if reading.about:
            reading = self._listed(run, intent, asked, reading)
        asked.digest = reading.table.digest()
        asked.reading = reading

    def _listed(self, run: RunRecord, intent: Intent, asked: Asked, reading: Reading) -> Reading:
        """Return the rows of a listing that are about what policy lets this run read."""
        session = self._door.flow.session(run.run_id)

        def readable(tables: Iterable[str], columns: Iterable[str]) -> bool:
            facts = asked.facts_of(intent.name, sorted({*tables}), sorted({*columns}))
            decision = self._door.governance.decide(run, intent, facts, session)
            return decision.verdict is Verdict.ALLOW

        groups: dict[str, list[int]] = {}
        for place, row in enumerate(reading.about):
            groups.setdefault(row.group, []).append(place)
        kept: list[int] = []
        for places in groups.values():
            rows = [reading.about[place] for place in places]
            tables = chain.from_iterable(row.tables for row in rows)
            if readable(tables, chain.from_iterable(row.columns for row in rows)):
                kept += places
            elif len(rows) > 1:
                kept += [
                    place
                    for place, row in zip(places, rows, strict=True)
                    if readable(row.tables, row.columns)
                ]
        return reading.only(sorted(kept))

    def _check(
        self, run: RunRecord, intent: Intent, asked: Asked, columns: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Ask policy again, where the columns are known only after reading.

        Raises:
            CallDenied: They may not be given.
        """
        asked.columns = columns
        if asked.plan is None or columns == asked.plan.columns:
            return ()
        facts = asked.facts_of(intent.name, asked.plan.tables, columns)
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
        self, run: RunRecord, call: CallRecord, asked: Asked, facts: Facts
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
        self, run: RunRecord, call: CallRecord, asked: Asked, told: dict[str, Any]
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
