"""What changed since the version in production: its files, what it rests on, what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from toolkit.errors import NotFound
from toolkit.evaluation import EvaluationSet
from toolkit.promotion import evidence
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.stages import Promotion
from toolkit.registry import CellChange, Registry, ValueChange, VersionDiff
from toolkit.values import JobRef

__all__ = ["CellText", "Fact", "Measure", "Since", "since_production"]

_MOST_LINES = 400
_MOST_VALUE = 200
_ABOUT = (
    ("policy_digest", "policy"),
    ("environment", "environment"),
    ("results", "declared results"),
    ("by", "promoted by"),
    ("timeouts", "timeouts"),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is otherwise than in production.

    Attributes:
        what: ``policy``, ``parameter``, ``package``, ``evaluation set``, ``tool``, ``score`` …
        name: Which one; empty where there is only one.
        change: ``added``, ``removed`` or ``changed``.
        before, now: As text, cut where it is long.
    """

    what: str
    name: str
    change: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class CellText:
    """One cell: its id, how it changed, and lines that begin with ``+``, ``-`` or a blank."""

    cell: str
    change: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that both versions have: what a step cost or took.

    Attributes:
        step: ``rehearse``, or ``evaluate NAME``.
        name: ``cost``, ``time``, ``calls`` or ``tokens``.
        before, now: As text; ``–`` where it was not measured.
        ratio: ``now`` over ``before``; ``None`` where one is missing or nought.
    """

    step: str
    name: str
    before: str
    now: str
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Since:
    """Everything that differs from the version in production.

    Attributes:
        ref: That version, ``triage@3``.
        facts, cells, measures: See there.
        more_lines: Lines of cells beyond those that are kept.
        tools_unknown: That version keeps no tools: whether one changed is not known.
    """

    ref: str
    facts: tuple[Fact, ...]
    cells: tuple[CellText, ...]
    measures: tuple[Measure, ...]
    more_lines: int = 0
    tools_unknown: bool = False


def since_production(
    registry: Registry,
    candidate: Candidate | None,
    sets: list[EvaluationSet],
    promotion: Promotion,
    facts: dict[str, Any],
) -> Since | None:
    """Compare a candidate with the version in production; ``None`` if there is none of either.

    Args:
        registry: Where versions are.
        candidate: What was offered; ``None`` if the check refused it.
        sets: What it was evaluated on.
        promotion: What came of it.
        facts: The evidence.

    Raises:
        IntegrityError: The version in production is damaged.
    """
    if candidate is None:
        return None
    try:
        version = registry.resolve(JobRef(promotion.job, "production"))
    except NotFound:
        return None
    files = {**candidate.files, "evidence.json": evidence.to_bytes(facts)}
    manifest = {**evidence.manifest(candidate, sets, promotion, facts), "by": candidate.user}
    found = registry.diff_draft(version, files, manifest)
    cells, more = _cells(found.cells)
    return Since(
        ref=version.ref,
        facts=tuple(_changed(found)),
        cells=cells,
        measures=tuple(_measures(_proof(registry.load(version)), facts)),
        more_lines=more,
        tools_unknown=bool(found.tools_unknown),
    )


def _changed(found: VersionDiff) -> Iterator[Fact]:
    about = dict(_ABOUT)
    facts = {change.name: change for change in found.facts}
    for name, word in about.items():
        if name in facts:
            yield _fact(word, facts[name], name="")
    for word, changes in (
        ("parameter", found.parameters),
        ("package", found.packages),
        ("evaluation set", found.sets),
        ("tool", found.tools),
        ("score", found.scores),
    ):
        for change in changes:
            yield _fact(word, change, name=change.name)


def _fact(what: str, change: ValueChange, *, name: str) -> Fact:
    return Fact(what, name, str(change.change), _text(change.before), _text(change.after))


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_VALUE else f"{text[:_MOST_VALUE]}…"


def _cells(changes: tuple[CellChange, ...]) -> tuple[tuple[CellText, ...], int]:
    found, kept, more = list[CellText](), 0, 0
    for each in changes:
        before, after = (each.before or "").splitlines(), (each.after or "").splitlines()
        lines = list(unified_diff(before, after, lineterm="", n=2))[2:]
        room = max(0, _MOST_LINES - kept)
        more += len(lines[room:])
        kept += len(lines[:room])
        found.append(CellText(each.cell, str(each.change), tuple(lines[:room])))
    return tuple(found), more


def _proof(files: dict[str, bytes]) -> dict[str, Any]:
    try:
        found = json.loads(files.get("evidence.json") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _measures(before: dict[str, Any], now: dict[str, Any]) -> Iterator[Measure]:
    """Costs and times of steps that both went through; an older one may lack some."""
    old, new = _steps(before), _steps(now)
    for step, facts in new.items():
        for name in ("cost", "time", "calls", "tokens"):
            was, is_ = _number(old.get(step), name), _number(facts, name)
            if was is None and is_ is None:
                continue
            ratio = is_ / was if was and is_ is not None else None
            yield Measure(step, name, _said(name, was), _said(name, is_), ratio)


def _steps(proof: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    stages = proof.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        facts = stage.get("facts") if isinstance(stage, dict) else None
        if not isinstance(facts, dict):
            continue
        if stage.get("name") == "rehearse":
            found["rehearse"] = facts
        elif stage.get("name") == "evaluate" and facts.get("set"):
            found[f"evaluate {facts['set']}"] = facts
    return found


def _number(facts: dict[str, Any] | None, name: str) -> float | None:
    """Return one number of a step's facts; the cost of calls without a price is not one."""
    if facts is None or (name == "cost" and facts.get("unknown_cost_calls")):
        return None
    try:
        if name == "tokens":
            return float(facts["input_tokens"]) + float(facts["output_tokens"])
        return float(facts[{"cost": "cost_usd", "time": "seconds"}.get(name, name)])
    except (KeyError, TypeError, ValueError):
        return None


def _said(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name == "cost":
        return f"${value:.6f}"
    return f"{value:.2f} s" if name == "time" else f"{value:,.0f}"
