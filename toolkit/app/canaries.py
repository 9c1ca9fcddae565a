"""Is what runs beside production good enough?  A rule over what the ledger recorded of both."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import ToolkitError
from toolkit.evaluation import wilson_interval
from toolkit.values import Environment, RunKind, RunRecord, RunState, iso_utc

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench
    from toolkit.policy import CanaryRule
    from toolkit.registry import Rollout

__all__ = ["Arm", "Judged", "apply_rule", "difference", "judge", "judge_rollout"]

_log = logging.getLogger(__name__)
_MOST = 10_000
_NOT_COUNTED = (RunState.CANCELLED, RunState.SKIPPED)


@dataclass(frozen=True, slots=True)
class Arm:
    """What runs of one version came to since the rollout began.

    Attributes:
        runs: Runs that ended, but for cancelled and skipped ones.
        failed: Those that did not succeed.
        denied: Those with a denied call.
        nanos: Cost of all of them in billionths of a dollar; ``None``: a price is unknown.
    """

    runs: int = 0
    failed: int = 0
    denied: int = 0
    nanos: int | None = 0

    @property
    def mean_usd(self) -> float | None:
        """Dollars of a run on average; ``None`` without runs or with unknown prices."""
        return None if self.nanos is None or not self.runs else self.nanos / 1e9 / self.runs

    def to_json(self) -> dict[str, Any]:
        """Return the numbers."""
        return {
            "runs": self.runs,
            "failed": self.failed,
            "denied": self.denied,
            "mean_usd": self.mean_usd,
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """What a rule says.

    Attributes:
        verdict: ``good``, ``worse`` or ``undecided``.
        sentences: Each bound with its numbers.
    """

    verdict: Literal["good", "worse", "undecided"]
    sentences: tuple[str, ...]


def difference(hits: int, n: int, hits_before: int, n_before: int) -> tuple[float, float, float]:
    """Return how much one share is above another, with its 95 % interval.

    Method 10 of R. G. Newcombe, "Interval estimation for the difference between independent
    proportions: comparison of eleven methods", Statistics in Medicine 17 (1998), 873-890: the
    two Wilson intervals, squared and added.

    Returns:
        Difference, lower, upper; nothing is known without runs: 0, -1, 1.
    """
    if not n or not n_before:
        return 0.0, -1.0, 1.0
    p, q = hits / n, hits_before / n_before
    (low, high), (low_before, high_before) = (
        wilson_interval(hits, n),
        wilson_interval(hits_before, n_before),
    )
    d = p - q
    return (
        d,
        d - math.hypot(p - low, high_before - q),
        d + math.hypot(high - p, q - low_before),
    )


def judge(rule: CanaryRule, stable: Arm, candidate: Arm) -> Judged:
    """Hold a candidate against the stable version.

    Worse, at any number of runs: a share is above the stable one's by more than its bound, and
    surely above it (its interval does not reach 0).  Worse, after ``runs`` of each: it costs more than
    its bound; costs are compared as means, without a test.  Good: after ``runs`` of each, every
    interval ends within its bound.  It is looked at after every run, so a *worse* by chance is
    somewhat likelier than 2.5 %.
    """
    enough = min(stable.runs, candidate.runs) >= rule.runs
    verdicts, said = [], []
    for name, bound, hits, before in (
        ("failures", rule.failures, candidate.failed, stable.failed),
        ("denied", rule.denied, candidate.denied, stable.denied),
    ):
        if bound is None:
            continue
        d, low, high = difference(hits, candidate.runs, before, stable.runs)
        if d > bound and low > 0:
            verdicts.append("worse")
        else:
            verdicts.append("good" if enough and high <= bound else "undecided")
        said.append(
            f"{name}: {hits} of {candidate.runs} against {before} of {stable.runs}, "
            f"{d:+.3f} [{low:+.3f}, {high:+.3f}], bound {bound:+.3f}: {verdicts[-1]}"
        )
    if rule.cost is not None:
        mine, other = candidate.mean_usd, stable.mean_usd
        if not enough or mine is None or other is None:
            verdicts.append("undecided")
        else:
            verdicts.append("worse" if mine > other * rule.cost else "good")
        known = f"${mine or 0:.6f} against ${other or 0:.6f} a run"
        said.append(f"cost: {known}, bound {rule.cost:g} times: {verdicts[-1]}")
    if not enough:
        said.append(f"runs: {candidate.runs} and {stable.runs}, it takes {rule.runs} of each")
    if "worse" in verdicts:
        return Judged("worse", tuple(said))
    good = enough and all(one == "good" for one in verdicts)
    return Judged("good" if good else "undecided", tuple(said))


def judge_rollout(
    bench: Workbench, job: str, alias: str
) -> tuple[Rollout, Arm, Arm, Judged | None]:
    """Return what runs beside an alias, both arms since it began, and what the rule says.

    The rule is the policy's ``promotion.canary``; without one, people decide: ``None``.
    """
    rollout = bench.registry.releases.rollout(job, alias)
    if rollout.candidate is None:
        return rollout, Arm(), Arm(), None
    began = [
        move.at
        for move in bench.registry.alias_history(job)
        if move.alias.startswith(f"{alias}.") and move.after == rollout.candidate
    ]
    since = began[-1] if began else ""
    runs = bench.ledger.runs(job=job, kind=RunKind.RUN, limit=_MOST)
    ended = [run for run in runs if _counts(run, since)]
    stable = _arm(bench, [run for run in ended if run.version == rollout.stable])
    candidate = _arm(bench, [run for run in ended if run.version == rollout.candidate])
    rule = bench.governance.bundle(Environment.PRODUCTION).promotion.of(job).canary
    return rollout, stable, candidate, judge(rule, stable, candidate) if rule else None


def apply_rule(bench: Workbench, job: str, alias: str) -> Judged | None:
    """Abort what is worse, promote what is good where the rule says so; return what it said."""
    if bench.registry.releases.rollout(job, alias).candidate is None:
        return None
    rule = bench.governance.bundle(Environment.PRODUCTION).promotion.of(job).canary
    rollout, _, _, judged = judge_rollout(bench, job, alias)
    if rule is None or judged is None or judged.verdict == "undecided":
        return judged
    if judged.verdict == "good" and (rule.then != "promote" or rollout.kind != "canary"):
        return judged
    why = "; ".join(judged.sentences)
    act = bench.registry.releases.abort if judged.verdict == "worse" else bench.registry.releases.promote  # fmt: skip
    try:
        act(job, alias, by="rule of the policy", reason=why)
        bench.promotions.mirror(job)
    except ToolkitError as error:
        _log.warning("the rule could not move %s@%s: %s", job, alias, error)
    return judged


def _counts(run: RunRecord, since: str) -> bool:
    return (
        run.state.terminal
        and run.state not in _NOT_COUNTED
        and "rollout" in run.tags
        and iso_utc(run.created_us) >= since
    )


def _arm(bench: Workbench, runs: list[RunRecord]) -> Arm:
    failed = denied = 0
    nanos: int | None = 0
    for run in runs:
        totals = bench.ledger.totals(run.run_id)
        failed += run.state is not RunState.SUCCEEDED
        denied += bool(totals.denied)
        unknown = nanos is None or totals.unknown_cost_calls
        nanos = None if unknown else (nanos or 0) + totals.cost.nanos
    return Arm(len(runs), failed, denied, nanos)
