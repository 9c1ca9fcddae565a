"""The HTML report of a promotion: one file, no script, readable offline for years."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from toolkit.promotion.stages import Promotion

__all__ = ["render_report"]

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_report(promotion: Promotion, facts: dict[str, Any]) -> str:
    """Return the report as HTML; every text is escaped and a policy forbids scripts."""
    wrong = []
    scorers: list[str] = []
    if promotion.evaluation is not None:
        scorers = sorted(promotion.evaluation.scores)
        better = promotion.evaluation.better
        wrong = [
            row
            for row in promotion.evaluation.rows
            if any(row.values[name] != (better.get(name, "yes") == "yes") for name in scorers)
        ]
    return _TEMPLATES.get_template("promotion.html.j2").render(
        p=promotion, facts=facts, scorers=scorers, wrong=wrong
    )
