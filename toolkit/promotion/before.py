"""What an evaluation is held against: the version in production, earlier tries, and the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.evaluation import Evaluation, EvaluationSet
from toolkit.ledger import Ledger
from toolkit.promotion.production import Predecessor
from toolkit.values import CallKind, CallRecord

__all__ = ["Before", "case_measures", "look_back"]

_NEVER = "no version is in production yet"


@dataclass(frozen=True, slots=True)
class Before:
    """What came before an evaluation.

    Attributes:
        first: Why there is no version to compare with: nothing of this job ever stood in production,
            or all that did is revoked.  Empty: there is one.
        version: The number of the version to compare with.
        evaluation: What that version scored on the set; ``None`` if there is no record of it.
        attempt: Tries at this set lately, this one included.
        predecessor: That version, and why it is this one.
    """

    first: str = _NEVER
    version: int | None = None
    evaluation: Evaluation | None = None
    attempt: int = 1
    predecessor: Predecessor = Predecessor()  # noqa: RUF009 - frozen


def look_back(predecessor: Predecessor, chosen: EvaluationSet, attempt: int = 1) -> Before:
    """Return what an evaluation on a set is held against.

    Args:
        predecessor: The version in production, or the last that stood there.
        chosen: The set.
        attempt: The number of this try (:mod:`.counting`).
    """
    number = predecessor.version
    found = predecessor.evaluation(chosen.name)
    first = (predecessor.why or _NEVER) if number is None else ""
    return Before(first, number, found, attempt, predecessor)


def case_measures(
    ledger: Ledger, run_id: str, case_ids: Sequence[str], *, after_seq: int = 0
) -> dict[str, dict[str, float]]:
    """Return what each case cost (``usd``) and took (``seconds``), as the ledger recorded it.

    ``seconds`` is the time of the case's agent calls.  ``usd`` is missing where the price of one of
    its model calls is not known.  The kernel says which case a call belongs to; what it says of no
    case, or of an unknown one, is shared out over all, so that a mean cannot be talked down.  A
    notebook can still move costs from one case to another, which a 95th percentile feels.

    Args:
        ledger: Where the run stands.
        run_id: The run or session that answered.
        case_ids: As the run was given them.
        after_seq: Number of the last call that was made before the first case was asked.
    """
    costs: dict[str | None, int | None] = {}
    seconds: dict[str, float] = {}
    known = set(case_ids)
    for call in _calls(ledger, run_id, after_seq):
        case = call.intent.case_id if call.intent.case_id in known else None
        if call.intent.kind is CallKind.MODEL and call.outcome is not None:
            so_far, cost = costs.get(case, 0), call.outcome.cost
            costs[case] = None if so_far is None or cost is None else so_far + cost.nanos
        elif call.intent.kind is CallKind.AGENT and call.intent.parent is None and case is not None:
            seconds[case] = seconds.get(case, 0.0) + (call.latency_s or 0.0)
    common, found = costs.get(None, 0), {}
    for case in case_ids:
        own = costs.get(case, 0)
        measured = {"seconds": seconds[case]} if case in seconds else {}
        if own is not None and common is not None:
            measured["usd"] = (own + common / len(case_ids)) / 1e9
        found[case] = measured
    return found


def _calls(ledger: Ledger, run_id: str, after: int) -> Iterable[CallRecord]:
    while calls := ledger.calls(run_id, after_seq=after, limit=1000):
        after = calls[-1].seq
        yield from calls
