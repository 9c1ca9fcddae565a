"""What an evaluation is held against: the version in production, earlier tries, and the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from toolkit.errors import ConfigurationError, NotFound
from toolkit.evaluation import ATTEMPT_DAYS, Evaluation, EvaluationSet
from toolkit.ledger import Ledger
from toolkit.registry import AuditRecord, Registry
from toolkit.values import CallKind, CallRecord, Clock, JobRef

__all__ = ["Before", "case_measures", "count_attempts", "look_back", "production_evaluation"]

_ALIAS = "production"


@dataclass(frozen=True, slots=True)
class Before:
    """What came before an evaluation.

    Attributes:
        first: Nothing of this job is in production.
        version: The number that is.
        evaluation: What that version scored on the set; ``None`` if there is no record of it.
        attempt: Tries at this set lately, this one included.
    """

    first: bool = True
    version: int | None = None
    evaluation: Evaluation | None = None
    attempt: int = 1


def look_back(registry: Registry, job: str, chosen: EvaluationSet, clock: Clock) -> Before:
    """Find what the job's next evaluation on a set is held against.

    Raises:
        IntegrityError, InvalidFile: The registry is damaged; nothing is compared with it.
    """
    version, evaluation = production_evaluation(registry, job, chosen.name)
    attempt = count_attempts(registry.audit(), job, chosen.name, clock.now_us())
    return Before(version is None, version, evaluation, attempt)


def production_evaluation(
    registry: Registry, job: str, set_name: str
) -> tuple[int | None, Evaluation | None]:
    """Return the number of the version in production, and what it scored when it was promoted.

    The scores are read from its sealed evidence.  They are not measured again: what has changed
    since (a model behind its route, a price) counts as a difference between the versions.
    """
    try:
        version = registry.resolve(JobRef(job, _ALIAS))
    except NotFound:
        return None, None
    data = registry.load(version).get("evidence.json")
    try:
        facts = json.loads(data or b"{}")
        body = facts.get("evaluations", {}).get(set_name) or facts.get("evaluation") or {}
        found = Evaluation.from_json(body) if body.get("set_name") == set_name else None
    except (ValueError, AttributeError, ConfigurationError):
        found = None  # not readable is not evidence: a comparison then does not pass
    return version.number, found


def count_attempts(records: Iterable[AuditRecord], job: str, set_name: str, now_us: int) -> int:
    """Return the number of the next try at a set.

    Counted are promotions of the last 30 days that were evaluated on the set, of whatever job and
    notebook, since this job's last success: a new name for the job does not start afresh.  Runs of
    ``%evaluate`` in the sandbox are not counted, nor is a copy of the set under a new name, which
    needs a gate, and so a change of the policy.
    """
    oldest = datetime.fromtimestamp(now_us / 1e6, UTC) - timedelta(days=ATTEMPT_DAYS)
    count = 1
    for record in records:
        if not record.event.startswith("promotion.") or not _evaluated(record, set_name):
            continue
        if record.event == "promotion.accepted" and record.body.get("job") == job:
            count = 1
        elif datetime.fromisoformat(record.at) >= oldest:
            count += 1
    return count


def _evaluated(record: AuditRecord, set_name: str) -> bool:
    stages, sets = record.body.get("stages") or {}, record.body.get("evaluation_sets") or {}
    return stages.get("evaluate") is not None and set_name in sets


def case_measures(
    ledger: Ledger, run_id: str, case_ids: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return what each case cost (``usd``) and took (``seconds``), as the ledger recorded it.

    ``seconds`` is the time of the case's agent calls.  ``usd`` is missing where the price of one of
    its model calls is not known.  The kernel says which case a call belongs to; what it says of no
    case, or of an unknown one, is shared out over all, so that a mean cannot be talked down.  A
    notebook can still move costs from one case to another, which a 95th percentile feels.
    """
    costs: dict[str | None, int | None] = {}
    seconds: dict[str, float] = {}
    known = set(case_ids)
    for call in _calls(ledger, run_id):
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


def _calls(ledger: Ledger, run_id: str) -> Iterable[CallRecord]:
    after = 0
    while calls := ledger.calls(run_id, after_seq=after, limit=1000):
        after = calls[-1].seq
        yield from calls
