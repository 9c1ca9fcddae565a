"""What is asked of the ledger without changing it."""

from __future__ import annotations

import json
import math
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from toolkit.errors import NotFound
from toolkit.ledger.budgets import budget_from
from toolkit.ledger.call_rows import select_calls
from toolkit.ledger.codec import call_from, run_from
from toolkit.ledger.link import Link
from toolkit.ledger.records import Budget, CaseAnswer, ChainHead, Totals
from toolkit.ledger.runs import SELECT_RUN
from toolkit.ledger.schema import budgets, calls, cases, entries, runs
from toolkit.ledger.transaction import unknown_run
from toolkit.values import CallKind, CallRecord, CallState, Money, RunKind, RunRecord, RunState

__all__ = [
    "all_results",
    "call_totals",
    "case_answers",
    "case_inputs",
    "chain_head",
    "count_unshipped",
    "ended_runs",
    "exact_call",
    "last_seq",
    "latest_call",
    "list_calls",
    "list_runs",
    "read_budget",
    "read_run",
    "run_by_token",
    "run_by_token_at_once",
    "unshipped_calls",
]

_LATEST = (
    select_calls(calls.c.run_id == bindparam("run"), calls.c.call_key == bindparam("key"))
    .order_by(calls.c.generation.desc())
    .limit(1)
)
_EXACT = select_calls(
    calls.c.run_id == bindparam("run"),
    calls.c.call_key == bindparam("key"),
    calls.c.generation == bindparam("gen"),
)
_PAGE = (
    select_calls(calls.c.run_id == bindparam("run"), calls.c.seq > bindparam("after"))
    .order_by(calls.c.seq)
    .limit(bindparam("most"))
)
_BY_TOKEN = (
    select(runs)
    .where(runs.c.token_digest == bindparam("token"))
    .order_by(runs.c.number.desc())
    .limit(1)
)
_WAITING = (calls.c.shipped == 0, calls.c.outcome_n.is_not(None))


def read_run(connection: Connection, run_id: str) -> RunRecord:
    """Return a run; raises NotFound."""
    row = connection.execute(SELECT_RUN, {"run": run_id}).first()
    if row is None:
        raise unknown_run(run_id)
    return run_from(row)


def run_by_token(connection: Connection, token_digest: str) -> RunRecord | None:
    """Return the newest run that a bearer token belongs to."""
    row = connection.execute(_BY_TOKEN, {"token": token_digest}).first()
    return None if row is None else run_from(row)


def run_by_token_at_once(link: Link, token_digest: str) -> RunRecord | None:
    """As :func:`run_by_token`, on the connection that writes."""
    rows = link.rows(_BY_TOKEN, {"token": token_digest})
    return run_from(rows[0]) if rows else None


def list_runs(
    connection: Connection, filters: dict[str, str | None], limit: int
) -> list[RunRecord]:
    """Return runs whose columns equal the filters, newest first."""
    where = [runs.c[name] == str(value) for name, value in filters.items() if value is not None]
    statement = select(runs).where(*where).order_by(runs.c.number.desc()).limit(limit)
    return [run_from(row) for row in connection.execute(statement)]


def latest_call(connection: Connection, run_id: str, key: str) -> CallRecord | None:
    """Return the latest generation of a call."""
    row = connection.execute(_LATEST, {"run": run_id, "key": key}).first()
    return None if row is None else call_from(row)


def last_seq(connection: Connection, run_id: str) -> int:
    """Return the number of a run's last call, 0 without one."""
    statement = select(func.max(calls.c.seq)).where(calls.c.run_id == run_id)
    return int(connection.execute(statement).scalar_one() or 0)


def exact_call(connection: Connection, run_id: str, key: str, generation: int) -> CallRecord:
    """Return one generation of a call; raises NotFound."""
    row = connection.execute(_EXACT, {"run": run_id, "key": key, "gen": generation}).first()
    if row is None:
        raise NotFound(
            f"the ledger has no call {key[:64]}, generation {generation}, in run {run_id}",
            where=run_id,
            next_step=f"list the run's calls with `toolkit show {run_id}`",
        )
    return call_from(row)


def list_calls(connection: Connection, run_id: str, after_seq: int, limit: int) -> list[CallRecord]:
    """Return calls of a run in the order in which they began."""
    values = {"run": run_id, "after": after_seq, "most": limit}
    return [call_from(row) for row in connection.execute(_PAGE, values)]


def unshipped_calls(connection: Connection, limit: int) -> list[CallRecord]:
    """Return finished calls that MLflow does not have, oldest first."""
    statement = select_calls(*_WAITING).order_by(calls.c.seq).limit(limit)
    return [call_from(row) for row in connection.execute(statement)]


def count_unshipped(connection: Connection, kind: RunKind | None = None) -> int:
    """Return how many finished calls (of runs of a kind) MLflow does not have."""
    statement = select(func.count()).select_from(calls).where(*_WAITING)
    if kind is not None:
        of_kind = select(runs.c.run_id).where(runs.c.kind == kind.value)
        statement = statement.where(calls.c.run_id.in_(of_kind))
    return int(connection.execute(statement).scalar_one())


def ended_runs(connection: Connection) -> list[str]:
    """Return the ids of runs that have ended, in their order."""
    ended = [state.value for state in RunState if state.terminal]
    statement = select(runs.c.run_id).where(runs.c.state.in_(ended)).order_by(runs.c.run_id)
    return list(connection.execute(statement).scalars())


def chain_head(connection: Connection, run_id: str) -> ChainHead:
    """Return the last link of a run's chain; raises NotFound."""
    statement = (
        select(entries.c.n, entries.c.hash)
        .where(entries.c.run_id == run_id)
        .order_by(entries.c.n.desc())
        .limit(1)
    )
    row = connection.execute(statement).first()
    if row is None:
        raise unknown_run(run_id)
    return ChainHead(run_id, row.n, row.hash)


def read_budget(connection: Connection, scope: str) -> Budget | None:
    """Return where a scope stands, ``None`` before its first reservation."""
    row = connection.execute(select(budgets).where(budgets.c.scope == scope)).first()
    return None if row is None else budget_from(row)


def all_results(connection: Connection, run_id: str) -> dict[str, Any]:
    """Return the last value of each published result."""
    statement = select_calls(
        calls.c.run_id == run_id,
        calls.c.kind == CallKind.RESULT.value,
        calls.c.state == CallState.OK.value,
    ).order_by(calls.c.outcome_n)
    found: dict[str, Any] = {}
    for row in connection.execute(statement):
        arguments = json.loads(row.intent_body)["arguments"]
        named = isinstance(arguments, dict) and "value" in arguments
        found[row.name] = arguments["value"] if named else arguments
    return found


def case_answers(connection: Connection, run_id: str) -> dict[str, CaseAnswer]:
    """Return the answers of an evaluation by case, in the order of the cases."""
    made: dict[str, tuple[bool, str]] = {}
    statement = (
        select(calls.c.case_id, calls.c.call_key, calls.c.kind)
        .where(calls.c.run_id == run_id, calls.c.case_id.is_not(None), calls.c.parent.is_(None))
        .order_by(calls.c.seq)
    )
    for row in connection.execute(statement):
        is_agent = row.kind == CallKind.AGENT.value
        if is_agent or not made.get(row.case_id, (False, ""))[0]:
            made[row.case_id] = (is_agent, row.call_key)
    answered = (
        select(cases.c.case_id, entries.c.body)
        .join(entries, (entries.c.run_id == cases.c.run_id) & (entries.c.n == cases.c.answer_n))
        .where(cases.c.run_id == run_id)
        .order_by(cases.c.position)
    )
    answers: dict[str, CaseAnswer] = {}
    for case_id, text in connection.execute(answered):
        body = json.loads(text)
        key = made[case_id][1] if case_id in made else None
        answers[case_id] = CaseAnswer(body["output"], body["error"], key)
    return answers


def case_inputs(connection: Connection, run_id: str) -> dict[str, dict[str, Any]]:
    """Return what each case of an evaluation asks, in the order of the cases."""
    rows = (
        select(cases.c.case_id, cases.c.inputs)
        .where(cases.c.run_id == run_id)
        .order_by(cases.c.position)
    )
    return {row.case_id: json.loads(row.inputs) for row in connection.execute(rows)}


_FACTS = select(
    calls.c.kind,
    calls.c.state,
    calls.c.parent,
    calls.c.started_us,
    calls.c.ended_us,
    calls.c.cost_nanos,
    calls.c.input_tokens,
    calls.c.output_tokens,
).where(calls.c.run_id == bindparam("run"))


def call_totals(connection: Connection, run_id: str) -> Totals:
    """Return the sums over a run's calls."""
    rows = list(connection.execute(_FACTS, {"run": run_id}))
    by_kind: dict[str, int] = {}
    for row in rows:
        by_kind[row.kind] = by_kind.get(row.kind, 0) + 1
    made = [row for row in rows if row.state in (CallState.OK, CallState.ERROR)]
    times = sorted((row.ended_us - row.started_us) / 1e6 for row in made)
    top = [(row.ended_us - row.started_us) / 1e6 for row in made if row.parent is None]
    models = [row for row in made if row.kind == CallKind.MODEL]
    return Totals(
        calls=len(rows),
        by_kind=by_kind,
        errors=sum(row.state == CallState.ERROR for row in rows),
        denied=sum(row.state == CallState.DENIED for row in rows),
        unfinished=sum(row.state == CallState.STARTED for row in rows),
        input_tokens=sum(row.input_tokens or 0 for row in rows),
        output_tokens=sum(row.output_tokens or 0 for row in rows),
        cost=Money(sum(row.cost_nanos or 0 for row in rows)),
        unknown_cost_calls=sum(row.cost_nanos is None for row in models),
        latency_p50_s=_percentile(times, 50),
        latency_p95_s=_percentile(times, 95),
        spent_seconds=math.fsum(top),
    )


def _percentile(ordered: list[float], percent: int) -> float | None:
    """Nearest rank: the smallest value with at least ``percent`` of the values at or below it."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
