"""Why a version was let through, in words: from its sealed evidence, its approvals, its aliases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import NotFound, ToolkitError
from toolkit.registry import Version

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench

__all__ = ["explain", "simulated"]

_COUNTS = ("newly_denied", "newly_asked", "newly_allowed")


def explain(bench: Workbench, version: Version, evidence: Mapping[str, Any]) -> list[str]:
    """Return sentences: who promoted it, every gate, waivers, approvals, where it runs.

    The evidence is what was sealed with the version; its text is shown, never believed further.
    """
    manifest = version.manifest
    attempt = evidence.get("attempt")
    tries = f", attempt {attempt} of this notebook" if attempt else ""
    said = [f"{manifest.by} promoted it{tries}"]
    said += _evidence(evidence)
    if manifest.policy_digest:
        now = bench.promotions.bundle().digest
        same = "the one in force" if now == manifest.policy_digest else "another is in force now"
        said.append(f"it was judged by the policy {manifest.policy_digest[:19]}…: {same}")
    said += _people(bench, version)
    said += _aliases(bench, version)
    return said


def simulated(evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the job's recorded calls became under the policy that a version was judged by.

    Returns:
        ``passed``, ``calls`` (decided again), ``counts`` by kind of difference, ``groups`` (each with
        ``change``, ``action``, ``resource``, ``policies``, ``calls`` and one ``example`` or ``None``),
        ``more_groups`` (beyond those that were sealed) and ``not_told``, as
        :meth:`toolkit.policy.Simulation.to_json` has it.  ``None``: nothing was decided again.
    """
    stages = _dicts(evidence.get("stages"))
    stage = next((one for one in stages if one.get("name") == "simulate"), {})
    facts = stage.get("facts")
    counts = facts.get("counts") if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or not isinstance(counts, dict):
        return None
    groups = _dicts(facts.get("changed"))
    return {
        "passed": bool(stage.get("passed")),
        "calls": _number(facts, "calls"),
        "counts": {name: _number(counts, name) for name in _COUNTS},
        "groups": [_group(group) for group in groups],
        "more_groups": max(0, _number(facts, "groups") - len(groups)),
        "not_told": [
            {
                "action": one.get("action"),
                "resource": one.get("resource"),
                "calls": _number(one, "calls"),
            }
            for one in _dicts(facts.get("not_told"))
        ],
    }


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    examples = _dicts(group.get("examples"))
    policies = group.get("policies")
    return {
        **{name: group.get(name) for name in ("change", "action", "resource")},
        "policies": [str(one) for one in policies] if isinstance(policies, list) else [],
        "calls": _number(group, "calls"),
        "example": next(iter(examples), None),
    }


def _number(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0


def _evidence(evidence: Mapping[str, Any]) -> Iterator[str]:
    for gate in _dicts(evidence.get("gates")):
        passed = "passed" if gate.get("passed") else "did not pass"
        yield f"a gate {passed}: {gate.get('sentence')}"
    if not evidence.get("gates"):
        yield "its evidence has no gate"
    yield from _changes(evidence)
    for waiver in _dicts(evidence.get("waivers")):
        rule = waiver.get("rule") or _rule(waiver)
        yield (
            f"a finding was waived: {rule}, by {waiver.get('owner')} until "
            f"{waiver.get('expires')}: {waiver.get('reason')}"
        )


def _changes(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Tell what of the evaluation itself was otherwise for the version before."""
    changed = evidence.get("set_changes")
    for name, found in changed.items() if isinstance(changed, dict) else ():
        each = found if isinstance(found, dict) else {}
        for kind in ("scorers", "gates", "cases", "ways"):
            told = each.get(kind)
            for sentence in told if isinstance(told, list) else ():
                yield f"the set {name} changed since version {each.get('since')}: {sentence}"
    gone = evidence.get("sets_gone")
    for name in gone if isinstance(gone, list) else ():
        yield f"the set {name}, which the version before was evaluated on, was not asked"


def _rule(waiver: Mapping[str, Any]) -> Any:
    found = waiver.get("finding")
    return found.get("rule") if isinstance(found, dict) else "unknown rule"


def _people(bench: Workbench, version: Version) -> Iterator[str]:
    try:
        standing = bench.promotions.standing(
            bench.registry.requests.get(version.name, version.number)
        )
    except NotFound:
        yield "nobody was asked to approve it: the policy did not ask for it"
        return
    except ToolkitError as error:
        yield f"its approvals cannot be read: {error.message}"
        return
    request = standing.request
    if request.state == "released":
        given = sorted({one.person for one in request.given}) or list(standing.people)
        yield (
            f"approved by {', '.join(given) or 'people whose approvals have expired since'} for "
            f"{request.goal}; {request.closed_by} completed it {request.closed_at}"
        )
    else:
        yield standing.sentence


def _aliases(bench: Workbench, version: Version) -> Iterator[str]:
    known = bench.registry.aliases(version.name)
    points = [
        alias
        for alias, number in known.items()
        if number == version.number and not alias.startswith(("revoked.", "retired"))
    ]
    yield f"it runs as {', '.join(points)}" if points else "no alias points at it"
    try:
        bench.registry.releases.check_runs(version.name, version.number)
    except ToolkitError as error:
        yield error.message


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
