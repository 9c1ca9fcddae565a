"""Simulate: what the job did in production, decided again under a policy that has changed since.

The version in production was promoted under a policy, whose digest is sealed with it.  Where the
policy in force has another digest, the calls that the job's runs and rehearsals made in the last
:data:`DAYS` days are decided again, :data:`MOST_CALLS` at most, the newest.  A call that was let
through then and would be denied now is an error: a run that makes it again ends at night.  Who knows
that the new version no longer makes it waives the finding (docs/waivers.md).  A call that would ask a
person now, one that would be allowed now, and calls that nothing can be said about are warnings.

Known limits: a call is decided with today's roles; columns, hosts and regions are not in the record,
so that policies which look at them are said nothing about (docs/policy.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from toolkit.errors import NotFound
from toolkit.policy import Change, Changed, PolicyBundle, Simulation
from toolkit.promotion.attempt import Attempt
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.check import Finding, Report, Severity, Waivers
from toolkit.promotion.checking import WAIVERS
from toolkit.promotion.stages import Stage, finding
from toolkit.registry import Registry, Version
from toolkit.values import Clock, JobRef, RunKind, iso_utc

__all__ = ["DAYS", "KINDS", "MOST_CALLS", "DecideAgain", "JobHistory", "simulate_history"]

DAYS = 30
"""How far back the job's history is looked at."""
MOST_CALLS = 20_000
"""How many calls at most; deciding so many takes a few seconds."""
KINDS = (RunKind.RUN, RunKind.REHEARSAL)
"""Runs of these kinds are the job's history."""

_DAY_US = 86_400_000_000
_GROUPS = 50
"""Differences that the evidence keeps and the report draws; all of them are counted."""
_RULES = {
    Change.NEWLY_DENIED: ("simulate.denied", Severity.ERROR),
    Change.NEWLY_ASKED: ("simulate.asked", Severity.WARNING),
    Change.NEWLY_ALLOWED: ("simulate.allowed", Severity.WARNING),
}
_FIXES = {
    Change.NEWLY_DENIED: "have the policy permit it (then: toolkit policy simulate), or waive "
    "simulate.denied for the job if the new version does not make this call (docs/waivers.md)",
    Change.NEWLY_ASKED: "see to it that somebody answers when the job runs, or change the policy",
    Change.NEWLY_ALLOWED: "look whether the policy was meant to let it through",
}
_WHYS = {
    Change.NEWLY_DENIED: "the job made this call in production; a run that makes it again fails",
    Change.NEWLY_ASKED: "the job made this call without asking; its runs would wait for a person",
    Change.NEWLY_ALLOWED: "what was held back before would happen now",
}


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A job's recorded calls under a bundle.

    Attributes:
        simulation: What the bundle says of them.
        recorded: How many calls the job made in the time that was asked for.
        from_us: The calls since this moment were decided again, microseconds since the epoch.
    """

    simulation: Simulation
    recorded: int
    from_us: int


DecideAgain = Callable[[str, PolicyBundle, int, int], JobHistory]
"""Given job, bundle, the first moment (microseconds) and the most calls; returns what came of it."""


def simulate_history(
    candidate: Candidate,
    attempt: Attempt,
    registry: Registry,
    decide_again: DecideAgain,
    clock: Clock,
) -> Stage:
    """Hold the job's history against the policy, if that is another than production's.

    Waivers that excuse a finding of it are added to the attempt's.

    Raises:
        InvalidFile, NotFound: ``waivers.yaml`` or ``people.yaml`` has faults.
        IntegrityError: The version in production is damaged.
        LedgerError: The ledger cannot be read.
    """
    started = time.monotonic()
    version = _in_production(registry, candidate.job)
    if version is None:
        return _passed("nothing of the job is in production: no policy to compare with", started)
    before, now = version.manifest.policy_digest, candidate.bundle.digest
    facts: dict[str, Any] = {
        "version": version.number,
        "policy_before": before,
        "policy_now": now,
    }
    if before == now:
        told = f"the policy is the one that {version.ref} was promoted under"
        return replace(_passed(told, started), facts=facts)
    oldest_us = max(0, clock.now_us() - DAYS * _DAY_US)
    history = decide_again(candidate.job, candidate.bundle, oldest_us, MOST_CALLS)
    facts |= _facts(history)
    findings = _findings(history.simulation)
    report = Waivers.load(registry.root / WAIVERS, clock.now_us()).apply(
        Report(candidate.name, tuple(findings)),
        notebook=candidate.name,
        job=candidate.job,
        stage="simulate",
    )
    if report.waived:
        told_before = attempt.facts.get("waivers") or []
        attempt.facts["waivers"] = [*told_before, *(one.to_json() for one in report.waived)]
    summary = _summary(version, history)
    if report.waived:
        summary += f"; {len(report.waived)} waived"
    took = time.monotonic() - started
    return Stage("simulate", report.ok, summary, report.findings, took, facts)


def _in_production(registry: Registry, job: str) -> Version | None:
    try:
        return registry.resolve(JobRef(job, "production"))
    except NotFound:
        return None


def _passed(summary: str, started: float) -> Stage:
    return Stage("simulate", passed=True, summary=summary, seconds=time.monotonic() - started)


def _summary(version: Version, history: JobHistory) -> str:
    found = history.simulation
    known = version.manifest.policy_digest is not None
    changed = "the policy has changed since" if known else "nobody knows the policy of"
    if not history.recorded:
        return f"{changed} {version.ref}; its history of {DAYS} days has no calls"
    counts = ", ".join(f"{found.count(change):,} {change}" for change in Change)
    of = (
        f"the newest {found.calls:,} of {history.recorded:,} calls"
        if history.recorded > found.calls
        else f"{found.calls:,} calls"
    )
    told = f"{changed} {version.ref}: {of} of {DAYS} days decided again, {counts}"
    unknown = sum(found.not_told.values())
    return f"{told}, {unknown:,} cannot be told" if unknown else told


def _facts(history: JobHistory) -> dict[str, Any]:
    told = history.simulation.to_json()
    groups = told.pop("changed")
    del told["policy_digest"]
    return {
        "days": DAYS,
        "recorded": history.recorded,
        "since": iso_utc(history.from_us),
        **told,
        "changed": groups[:_GROUPS],
        "groups": len(groups),
    }


def _findings(found: Simulation) -> list[Finding]:
    findings = [_finding(group) for group in found.changed]
    if found.more:
        # Groups beyond the limit have no finding of their own: what they are is not known.
        findings.append(
            finding(
                "simulate.denied",
                f"{found.more:,} more calls differ than are told apart",
                fix="see them with: toolkit policy simulate",
                why="some of them may be denied",
            )
        )
    findings += [
        finding(
            "simulate.unknown",
            f"{action} {resource!a}: {calls:,} calls are decided by facts that are not recorded",
            fix="try the job out under the new policy: its rehearsal is",
            why="nothing is said about these calls",
            severity=Severity.WARNING,
        )
        for (action, resource), calls in sorted(found.not_told.items())
    ]
    return findings


def _finding(group: Changed) -> Finding:
    rule, severity = _RULES[group.change]
    told = f"{group.change}: {group.calls:,} × {group.action} {group.resource!a}"
    by = ", ".join(group.policies)
    told += f", by {by}" if by else ", no policy permits it"
    if group.examples:
        example = group.examples[0]
        reasons = f": {'; '.join(example.reasons)}" if example.reasons else ""
        told += f"{reasons}; the first is {example.call_id} of {example.user}"
    return finding(rule, told, fix=_FIXES[group.change], why=_WHYS[group.change], severity=severity)
