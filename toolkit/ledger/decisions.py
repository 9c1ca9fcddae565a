"""Recorded decisions, one after the other: what a changed policy is tried on.

Lean: no outcome is parsed but for its labels, and nothing is held beyond one page of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, bindparam, case, func, select
from sqlalchemy.sql.elements import ColumnElement

from toolkit.ledger.codec import decision_from
from toolkit.ledger.schema import calls, entries, runs
from toolkit.values import (
    IN_DOUBT,
    CallKind,
    CallState,
    Decision,
    Effect,
    Environment,
    Labels,
    RunKind,
)

__all__ = ["RecordedDecision", "count_decisions", "decision_pages", "newest_of_job"]

_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """One call with what was decided about it before it was made.

    Attributes:
        seq: Its number in the ledger.
        run_id, run_kind, environment, user, team, job, version, notebook: Of its run.
        call_key, generation: Which call of the run.
        kind, name, effect, arguments, agent, purpose, labels: Of its intent.
        decision: As it was recorded with the intent; a person's later word is not in it.
        provider, model: Who answered, where the call has an outcome; ``answered``: whether it is
            an answer.
        answer_labels: Labels of the answer; ``None`` if there is none, or it was not asked for.
        started_us, ended_us: Microseconds since the epoch.
    """

    seq: int
    run_id: str
    run_kind: RunKind
    environment: Environment
    user: str
    team: str | None
    job: str | None
    version: int | None
    notebook: str | None
    call_key: str
    generation: int
    kind: CallKind
    name: str
    effect: Effect
    arguments: Any
    agent: str | None
    purpose: str | None
    labels: dict[str, Labels]
    decision: Decision
    provider: str | None
    model: str | None
    answer_labels: Labels | None
    started_us: int
    ended_us: int | None
    answered: bool = True


def decision_pages(
    read: Callable[[Callable[[Connection], Any]], Any],
    *,
    since_us: int = 0,
    run_id: str | None = None,
    notebook: str | None = None,
    answers: bool = False,
    share: tuple[int, int] | None = None,
    job: str | None = None,
    kinds: Collection[RunKind] = (),
    page: int = _PAGE,
) -> Iterator[RecordedDecision]:
    """Yield calls in the order in which they began.

    Args:
        read: Runs a function on a snapshot of the ledger.
        since_us: Calls that began at this moment or later.  With ``answers`` the earlier calls
            of the same runs come, too: what a run had read by then is known from them.
        run_id: Only the calls of this run.
        notebook: Only the calls of the runs of this notebook.
        answers: Whether the labels of the answers are wanted.
        share: ``(which, of)``: only every ``of``-th run, so that processes can share the work.
        job: Only the calls of this job's runs.
        kinds: Only the calls of runs of these kinds; none: of every kind.
        page: Rows that are read at a time.
    """
    first = read(lambda c: _first(c, since_us, with_earlier=answers))
    after = None if first is None else first - 1
    least = 0 if answers else since_us
    while after is not None:
        at = after
        values = {
            "after": at,
            "since": least,
            "run": run_id,
            "notebook": notebook,
            "share": share,
            "job": job,
            "kinds": kinds,
            "page": page,
        }
        rows = read(lambda c, v=values: _page(c, v, answers=answers))  # type: ignore[misc]
        for row in rows:
            yield _decision(row)
        after = rows[-1].seq if len(rows) == page else None


# What the gateway decides by itself, whatever policies say: no news about them.
_BY_POLICY = (calls.c.kind != CallKind.VALUE.value) & ~(
    (calls.c.kind == CallKind.HUMAN.value) & (calls.c.name == IN_DOUBT)
)


def count_decisions(connection: Connection, since_us: int) -> int:
    """Return how many calls that policy decides about began at a moment or later."""
    found = select(func.count()).select_from(calls)
    found = found.where(calls.c.started_us >= since_us, _BY_POLICY)
    return int(connection.execute(found).scalar() or 0)


def newest_of_job(
    connection: Connection, job: str, kinds: Collection[RunKind], since_us: int, most: int
) -> tuple[int, int]:
    """Return how many calls of a job began at a moment or later, and when the newest ones did.

    Args:
        connection: A snapshot of the ledger.
        job: Whose runs are looked at.
        kinds: Runs of these kinds count.
        since_us: Microseconds since the epoch.
        most: At most this many calls are wanted; 1 or more.

    Returns:
        The number of calls, and the moment from which on there are ``most`` of them (more only
        where several began in that microsecond); ``since_us`` if there are fewer.
    """
    source = calls.join(runs, runs.c.run_id == calls.c.run_id)
    wanted = (
        runs.c.job == job,
        runs.c.kind.in_([kind.value for kind in kinds]),
        calls.c.started_us >= since_us,
        _BY_POLICY,
    )
    counted = connection.execute(select(func.count()).select_from(source).where(*wanted))
    count = int(counted.scalar() or 0)
    if count <= most:
        return count, since_us
    newest = select(calls.c.started_us).select_from(source).where(*wanted)
    newest = newest.order_by(calls.c.started_us.desc()).offset(most - 1).limit(1)
    return count, int(connection.execute(newest).scalar() or since_us)


def _first(connection: Connection, since_us: int, *, with_earlier: bool) -> int | None:
    found = select(func.min(calls.c.seq)).where(calls.c.started_us >= since_us)
    if with_earlier:
        touched = select(calls.c.run_id).where(calls.c.started_us >= since_us)
        found = select(func.min(calls.c.seq)).where(calls.c.run_id.in_(touched))
    return connection.execute(found).scalar()


def _page(connection: Connection, values: dict[str, Any], *, answers: bool) -> list[Any]:
    intents, outcomes = entries.alias(), entries.alias()
    labels: ColumnElement[Any] | None = None
    if answers and connection.dialect.name == "sqlite":
        labels = func.json_extract(outcomes.c.body, "$.labels")
    elif answers:
        # PostgreSQL's JSON functions refuse texts with half a surrogate pair, which may be here.
        labels = case((outcomes.c.body.contains('"labels":{'), outcomes.c.body))
    statement = _select(intents, outcomes, labels, values)
    bound = {name: value for name, value in values.items() if name not in {"share", "kinds"}}
    return list(connection.execute(statement, bound))


def _select(intents: Any, outcomes: Any, labels: Any, values: dict[str, Any]) -> Select[Any]:
    columns = [
        *(calls.c.seq, calls.c.run_id, calls.c.call_key, calls.c.generation),
        *(calls.c.started_us, calls.c.ended_us, calls.c.provider, calls.c.model),
        calls.c.state,
        *(runs.c.kind.label("run_kind"), runs.c.environment, runs.c.user_name, runs.c.team),
        *(runs.c.job, runs.c.version, runs.c.notebook, intents.c.body.label("intent_body")),
    ]
    source = calls.join(runs, runs.c.run_id == calls.c.run_id).join(
        intents, (intents.c.run_id == calls.c.run_id) & (intents.c.n == calls.c.intent_n)
    )
    if labels is not None:
        columns.append(labels.label("answer_labels"))
        source = source.outerjoin(
            outcomes, (outcomes.c.run_id == calls.c.run_id) & (outcomes.c.n == calls.c.outcome_n)
        )
    statement = select(*columns).select_from(source)
    statement = statement.where(
        calls.c.seq > bindparam("after"), calls.c.started_us >= bindparam("since"), _BY_POLICY
    )
    if values["run"] is not None:
        statement = statement.where(calls.c.run_id == bindparam("run"))
    if values["notebook"] is not None:
        statement = statement.where(runs.c.notebook == bindparam("notebook"))
    if values["job"] is not None:
        statement = statement.where(runs.c.job == bindparam("job"))
    if values["kinds"]:
        statement = statement.where(runs.c.kind.in_([kind.value for kind in values["kinds"]]))
    if values["share"] is not None:
        which, of = values["share"]
        statement = statement.where(runs.c.number % of == which)
    return statement.order_by(calls.c.seq).limit(bindparam("page"))


def _decision(row: Any) -> RecordedDecision:
    body = json.loads(row.intent_body)
    return RecordedDecision(
        seq=row.seq,
        run_id=row.run_id,
        run_kind=RunKind(row.run_kind),
        environment=Environment(row.environment),
        user=row.user_name,
        team=row.team,
        job=row.job,
        version=row.version,
        notebook=row.notebook,
        call_key=row.call_key,
        generation=row.generation,
        kind=CallKind(body["kind"]),
        name=body["name"],
        effect=Effect(body["effect"]),
        arguments=body["arguments"],
        agent=body.get("agent"),
        purpose=body.get("purpose"),
        labels={name: Labels.from_json(value) for name, value in body.get("labels", {}).items()},
        decision=decision_from(body["decision"]),
        provider=row.provider,
        model=row.model,
        answer_labels=_labels(getattr(row, "answer_labels", None)),
        started_us=row.started_us,
        ended_us=row.ended_us,
        answered=row.state == CallState.OK,
    )


def _labels(text: str | None) -> Labels | None:
    if text is None:
        return None
    value = json.loads(text)
    found = value.get("labels") if "answer" in value else value
    return None if found is None else Labels.from_json(found)
