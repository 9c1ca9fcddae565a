"""Each finding of a step that ran the notebook is on a page, where its `doc` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import toolkit.promotion
from toolkit.promotion.stages import finding

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "promotion.md").read_text("utf-8").partition("## Findings")[2]
ROOM = Path(toolkit.promotion.__file__).parent
STEPS = ("lock", "reproduce", "rehearse", "evaluate")


def named() -> set[str]:
    """Rules that the room's own code writes out."""
    text = "\n".join(path.read_text("utf-8") for path in ROOM.glob("*.py"))
    return set(re.findall(rf'"((?:{"|".join(STEPS)})\.[a-z-]+)"', text))


@pytest.mark.parametrize("rule", sorted(named()))
def test_a_finding_is_explained(rule: str) -> None:
    """Under its own name."""
    assert f"`{rule}`" in PAGE


def test_findings_lead_to_that_page() -> None:
    """Those of the static check have pages of their own (tests/check)."""
    assert finding("evaluate.labels", "m", fix="f").doc == "docs/promotion.md#findings"
    assert len(named()) >= 7
