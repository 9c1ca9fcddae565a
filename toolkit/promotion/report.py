"""The HTML report of a promotion: one file, no script, readable offline for years."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from toolkit.evaluation import Change, Comparison, Evaluation, GateVerdict, Row, Ruling
from toolkit.promotion.since import Since
from toolkit.promotion.stages import Promotion

__all__ = ["render_report"]

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LEFT, _WIDTH = 10.0, 280.0
_COLOURS = {
    Ruling.PASS: ("ok", "#1a7f4b"),
    Ruling.FAIL: ("bad", "#b3261e"),
    Ruling.NOT_ENOUGH: ("open", "#8a5a00"),
}


@dataclass(frozen=True)
class _Plot:
    """A gate's row: every member is a place in the picture, or a text beside it."""

    verdict: GateVerdict
    label: str
    css: str
    colour: str
    drawn: bool = False
    left: float = 0.0
    right: float = 0.0
    open_left: bool = False
    open_right: bool = False
    dot: float = 0.0
    text: float = 0.0
    value: str = ""
    limits: tuple[float, ...] = ()
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class _Moved:
    """A case that is judged otherwise than in production: by whom, and what differs."""

    case_id: str
    scorers: str
    word: str
    css: str
    parts: tuple[tuple[str, Any, Any], ...]
    note: str


@dataclass(frozen=True)
class _Against:
    """One set beside production."""

    name: str
    comparison: Comparison
    moved: tuple[_Moved, ...]

    def count(self, word: str) -> int:
        """Return how many cases became worse, or better."""
        return sum(each.word == word for each in self.moved)


@dataclass(frozen=True)
class _Set:
    """One evaluation set: its gates, and the cases that a person looks at.

    ``title`` follows a heading where there are several sets.
    """

    title: str
    plots: tuple[_Plot, ...]
    wrong: tuple[Row, ...] = ()
    scorers: tuple[str, ...] = ()
    rows: int = 0


def render_report(promotion: Promotion, facts: dict[str, Any], since: Since | None = None) -> str:
    """Return the report as HTML; every text is escaped and a policy forbids scripts.

    Args:
        promotion: What is told.
        facts: Its evidence.
        since: What changed since the version in production, if there is one.
    """
    return _TEMPLATES.get_template("promotion.html.j2").render(
        p=promotion,
        facts=facts,
        sets=_sets(promotion),
        since=since,
        against=[_Against(name, c, _moved(c)) for name, c in promotion.changes.items()],
        filled=_filled,
    )


def _sets(promotion: Promotion) -> list[_Set]:
    several = len(promotion.evaluations) > 1
    return [
        _Set(
            f": {each.set_name}" if several else "",
            tuple(_plot(v) for v in promotion.gates_by_set.get(each.set_name, ())),
            tuple(_wrong(each)),
            tuple(sorted(each.scores)),
            len(each.rows),
        )
        for each in promotion.evaluations
    ]


def _wrong(evaluation: Evaluation) -> list[Row]:
    """Rows that a scorer judges as the worse, or could not judge; numbers are not right or wrong."""
    better = evaluation.better
    return [
        row
        for row in evaluation.rows
        if row.error is not None
        or row.errors
        or any(
            isinstance(value, bool) and value != (better.get(name, "yes") == "yes")
            for name, value in row.values.items()
        )
    ]


def _moved(comparison: Comparison) -> tuple[_Moved, ...]:
    """Join what several scorers say of a case; one that is worse for any comes first."""
    found: list[_Moved] = []
    for word, css, changes in (
        ("worse", "bad", comparison.regressions),
        ("better", "ok", comparison.improvements),
    ):
        cases: dict[str, list[Change]] = {}
        for change in changes:
            cases.setdefault(change.case_id, []).append(change)
        found += [
            _Moved(
                case_id,
                ", ".join(change.scorer for change in of),
                word,
                css,
                _differing(of[0]),
                "; ".join(dict.fromkeys(change.note for change in of if change.note)),
            )
            for case_id, of in cases.items()
        ]
    return tuple(found)


def _differing(change: Change) -> tuple[tuple[str, Any, Any], ...]:
    """Of two objects only the members that differ; the whole answers otherwise."""
    before, after = change.before, change.after
    if change.error is not None:
        return (("", before, change.error),)
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return (("", before, after),)
    names = dict.fromkeys((*before, *after))
    return tuple(
        (name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )


def _filled(output: dict[str, Any]) -> dict[str, Any]:
    """Leave out members that say nothing."""
    return {name: value for name, value in output.items() if value not in ("", [], {}, None)}


def _plot(verdict: GateVerdict) -> _Plot:
    css, colour = _COLOURS[verdict.ruling]
    label = verdict.label or (verdict.gate.scorer if verdict.gate else "–")
    plain = _Plot(verdict, label, css, colour)
    if verdict.observed is None:
        return plain
    limits = _limits(verdict)
    ends = [e for e in (verdict.lower, verdict.upper) if e is not None]
    low, high = _scale([verdict.observed, *ends, *limits])

    def place(value: float) -> float:
        return round(_LEFT + _WIDTH * (value - low) / (high - low), 2)

    dot = place(verdict.observed)
    return _Plot(
        verdict,
        label,
        css,
        colour,
        drawn=True,
        left=_LEFT if verdict.lower is None else place(verdict.lower),
        right=_LEFT + _WIDTH if verdict.upper is None else place(verdict.upper),
        open_left=verdict.lower is None,
        open_right=verdict.upper is None,
        dot=dot,
        text=min(max(dot, 35.0), 265.0),
        value=f"{verdict.observed:.4g}",
        limits=tuple(place(limit) for limit in limits),
        low=f"{low:.3g}",
        high=f"{high:.3g}",
    )


def _limits(verdict: GateVerdict) -> list[float]:
    asked = verdict.gate
    if asked is None:
        return []
    if asked.non_inferior_to or asked.superior_to:
        return [-asked.margin if asked.non_inferior_to else 0.0]
    return [limit for limit in (asked.minimum, asked.maximum) if limit is not None]


def _scale(shown: Iterable[float]) -> tuple[float, float]:
    """Return the ends of the axis: 0 to 1 for shares, else what is shown with some room."""
    values = list(shown)
    low, high = min(values), max(values)
    if low >= 0 and high <= 1 and high > 0.2:
        return 0.0, 1.0
    room = 0.15 * (high - low) or abs(high) or 1.0
    # What cannot be negative (a share, a cost, a time) has no axis below nought.
    return (low - room if low < 0 else max(0.0, low - room)), high + room
