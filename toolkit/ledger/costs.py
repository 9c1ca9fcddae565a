"""What model calls cost, grouped: who, which job, agent, model, route, which day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, literal, select

from toolkit.ledger.schema import calls, runs
from toolkit.values import CallKind, CallState, Money, iso_utc

__all__ = ["COST_GROUPS", "CostRow", "cost_rows"]

_DAY_US = 86_400_000_000
COST_GROUPS = ("user", "team", "job", "model", "route", "agent", "day")


@dataclass(frozen=True, slots=True)
class CostRow:
    """Sums over the model calls of one group.

    Attributes:
        group: The user, team, job, model, route, innermost agent or UTC day; ``-`` where there is none.
        calls: Model calls that were made.
        input_tokens, output_tokens: As providers counted them.
        cost: Sum of the known costs.
        unknown_cost_calls: Calls without a known cost: ``cost`` is a lower bound.
    """

    group: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: Money
    unknown_cost_calls: int


def _group(by: str) -> Any:
    available: dict[str, Any] = {
        "user": runs.c.user_name,
        "team": runs.c.team,
        "job": runs.c.job,
        "model": calls.c.provider + literal("/") + calls.c.model,
        "route": calls.c.name,
        "agent": calls.c.agent,
        # The plain operator: integer division in both stores, and times are after 1970.
        "day": calls.c.started_us.op("/")(_DAY_US),
    }
    return available[by]


def cost_rows(connection: Connection, by: str, since_us: int | None = None) -> list[CostRow]:
    """Return one row per group, dearest first; raises KeyError for an unknown ``by``."""
    group = _group(by)
    unknown = case((calls.c.cost_nanos.is_(None), 1), else_=0)
    statement = (
        select(
            group,
            func.count(),
            func.coalesce(func.sum(calls.c.input_tokens), 0),
            func.coalesce(func.sum(calls.c.output_tokens), 0),
            func.coalesce(func.sum(calls.c.cost_nanos), 0),
            func.sum(unknown),
        )
        .select_from(calls.join(runs, runs.c.run_id == calls.c.run_id))
        .where(
            calls.c.kind == CallKind.MODEL.value,
            calls.c.state.in_([CallState.OK.value, CallState.ERROR.value]),
            calls.c.started_us >= (since_us or 0),
        )
        .group_by(group)
    )
    found = [
        CostRow(
            group=_name(by, row[0]),
            calls=int(row[1]),
            input_tokens=int(row[2]),
            output_tokens=int(row[3]),
            cost=Money(int(row[4])),
            unknown_cost_calls=int(row[5]),
        )
        for row in connection.execute(statement)
    ]
    return sorted(found, key=lambda row: (-row.cost.nanos, -row.calls, row.group))


def _name(by: str, value: Any) -> str:
    if value is None:
        return "-"
    return iso_utc(int(value) * _DAY_US)[:10] if by == "day" else str(value)
