"""What a set asks of a version: sealed with it, so that the next one's set is held against it in words.

A *standard* is the evidence's ``standards.<set>``: ``scorers`` and ``gates`` as JSON, ``judges`` (for
MLflow's scorers the digest of all that their verdicts depend on, :func:`judge_key`), ``agent``,
``target``, ``parameters`` and ``trials``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.evaluation import (
    Comparison,
    EvaluationSet,
    GateLike,
    MlflowScorer,
    Scorer,
    label_of,
)
from toolkit.promotion.production import Predecessor
from toolkit.values import Digest, digest_json

__all__ = ["SetChanges", "changed_scorers", "gate_json", "judge_key", "set_changes", "standard"]

_WAYS = ("agent", "target", "parameters", "trials")
_NAMED = 10
_SHORT = 60
_LIMITS = ("minimum", "maximum", "confidence", "method", "margin", "sequential")


def standard(
    chosen: EvaluationSet, gates: Iterable[GateLike], world: Digest = ""
) -> dict[str, Any]:
    """Return what a set asks, as JSON values for the evidence.

    Args:
        chosen: The set.
        gates: The policy's gates for it.
        world: Digest of what is so whatever the candidate (:class:`.recall.Memory`).
    """
    asked = [scorer for scorer in chosen.scorers if isinstance(scorer.outside, MlflowScorer)]
    return {
        "scorers": {scorer.name: scorer.to_json() for scorer in chosen.scorers},
        "judges": {scorer.name: judge_key(scorer, world) for scorer in asked},
        "gates": [gate_json(each) for each in gates],
        **{name: getattr(chosen, name) for name in _WAYS},
    }


def judge_key(scorer: Scorer, world: Digest) -> Digest:
    """Return the digest of all that a judge's verdicts depend on: its definition, models, policies."""
    return digest_json({"step": "judge", "world": world, "scorer": scorer.to_json()})


def gate_json(asked: GateLike) -> dict[str, Any]:
    """Return what a gate asks."""
    names = ("confidence", "method", "statistic", "slice", "pass_hat_k", "non_inferior_to")
    more = ("superior_to", "margin", "sequential", "minimum", "maximum")
    found = {name: getattr(asked, name) for name in (*names, *more)}
    return {"scorer": asked.scorer, "label": label_of(asked), **found}


def changed_scorers(chosen: EvaluationSet, world: Digest, before: Predecessor) -> frozenset[str]:
    """Return the scorers that did not make the verdicts on the version before as they are now.

    Where it is not on record what they were, they did not.
    """
    old, now = before.standard(chosen.name), standard(chosen, (), world)
    if old is None:
        # The digest covers every scorer, but not the models that judges ask.
        same = before.sets.get(chosen.name) == chosen.digest
        return frozenset(now["judges"] if same else now["scorers"])
    known, judged = _dict(old.get("scorers")), _dict(old.get("judges"))
    return frozenset(
        name
        for name, made in now["scorers"].items()
        if known.get(name) != _plain(made) or judged.get(name) != now["judges"].get(name)
    )


@dataclass(frozen=True, slots=True)
class SetChanges:
    """What of a set differs from what the version before was evaluated on.

    Attributes:
        set_name: The set.
        version: That version.
        scorers, gates, ways: Sentences; the last are about the agent, parameters, trials.
        cases: Sentences about cases that are gone, new or changed.
    """

    set_name: str
    version: int
    scorers: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    ways: tuple[str, ...] = ()
    cases: tuple[str, ...] = field(default=())

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of them, the ones that change a verdict first."""
        return (*self.scorers, *self.gates, *self.cases, *self.ways)

    def to_json(self) -> dict[str, Any]:
        """Return what the evidence and the audit log keep."""
        names = ("scorers", "gates", "cases", "ways")
        found = {name: list(getattr(self, name)) for name in names if getattr(self, name)}
        return {"since": self.version, **found}


def set_changes(
    chosen: EvaluationSet,
    gates: Iterable[GateLike],
    before: Predecessor,
    comparison: Comparison | None,
    policy_digest: Digest,
) -> SetChanges | None:
    """Say what changed in a set, its scorers and limits since the version before; ``None``: nothing.

    Args:
        chosen: The set as it is now.
        gates: The policy's gates for it.
        before: The version before.
        comparison: The two evaluations, case by case; ``None``: one of them is missing.
        policy_digest: Of the policy in force.
    """
    if before.version is None or chosen.name not in before.sets:
        return None
    old, now = before.standard(chosen.name), _plain(standard(chosen, gates))
    cases = tuple(_cases(comparison, before.version)) if comparison else ()
    if old is None:
        told = _unknown(chosen, before, policy_digest)
        found = SetChanges(chosen.name, before.version, told, cases=cases)
    else:
        found = SetChanges(
            chosen.name,
            before.version,
            tuple(_moved("scorer", _dict(old.get("scorers")), now["scorers"])),
            tuple(_moved("gate", _by_label(old.get("gates")), _by_label(now["gates"]))),
            tuple(_members("", {n: old.get(n) for n in _WAYS}, {n: now[n] for n in _WAYS})),
            cases,
        )
    return found if found.sentences else None


def _unknown(chosen: EvaluationSet, before: Predecessor, policy_digest: Digest) -> tuple[str, ...]:
    """Of a version that was sealed before standards were."""
    same_set = before.sets.get(chosen.name) == chosen.digest
    same_policy = before.evidence.get("policy_digest") == policy_digest
    said = f"what it was for version {before.version} is not on record"
    told = [] if same_set else [f"the set is another; {said}, so its answers were judged again"]
    return (*told, *([] if same_policy else [f"the policy with the limits is another; {said}"]))


def _cases(found: Comparison, version: int) -> Iterator[str]:
    if found.removed:
        bad = len(found.removed_bad)
        hard = f", of which version {version} had {bad} wrong" if bad else ""
        yield f"{_count(found.removed)} gone ({_names(found.removed)}){hard}"
    if found.changed:
        told = _names(found.changed)
        yield f"{_count(found.changed)} asking or expecting something else, not compared ({told})"
    if found.moved:
        yield f"{_count(found.moved)} in another slice ({_names(found.moved)})"
    if found.added:
        yield f"{_count(found.added)} new ({_names(found.added)})"


def _moved(
    what: str, old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            yield f"the {what} {name} is gone ({_short(old[name], what)})"
        elif name not in old:
            yield f"the {what} {name} is new ({_short(new[name], what)})"
        else:
            yield from _members(f"the {what} {name}: ", old[name], new[name])


def _members(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Tell each member that differs, objects by theirs."""
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _members(f"{place}{name}.", before, after)
        else:
            yield f"{place}{name} {_text(before)} → {_text(after)}"


def _short(found: Mapping[str, Any], what: str) -> str:
    if what == "scorer":
        return str(found.get("kind"))
    told = [f"{n} {_text(found[n])}" for n in _LIMITS[:3] if found.get(n) is not None]
    return ", ".join(told) or "without limits"


def _by_label(found: Any) -> dict[str, dict[str, Any]]:
    """Return gates by what they are about; a second one on the same counts as another."""
    named: dict[str, dict[str, Any]] = {}
    for each in found if isinstance(found, list) else ():
        label, place = str(_dict(each).get("label")), 1
        name = label
        while name in named:
            place += 1
            name = f"{label} ({place})"
        named[name] = _dict(each)
    return named


def _count(cases: tuple[str, ...]) -> str:
    return f"{len(cases)} case{'s' if len(cases) > 1 else ''}"


def _names(cases: tuple[str, ...]) -> str:
    more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
    return f"{', '.join(cases[:_NAMED])}{more}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def _plain(value: Any) -> Any:
    """Return a value as it is after it was written and read."""
    return json.loads(json.dumps(value))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
