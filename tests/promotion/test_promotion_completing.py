"""A promotion that is said again while its version waits, or after it was killed, is completed."""

from __future__ import annotations

import pytest
from gate_world import Hall, stage

from toolkit.promotion import Promotion

JOB = "city"
CASES = [{"id": f"c{n}", "inputs": {"question": "1"}, "expected": "1"} for n in range(8)]


@pytest.fixture(autouse=True)
def prepared(hall: Hall) -> None:
    scorers = "  - {name: correct, kind: exact}\n"
    hall.write_gates("{city: [{scorer: correct, minimum: 0.5}], rivers: [{scorer: correct, minimum: 0.5}]}")  # fmt: skip
    for name in (JOB, "rivers"):
        hall.write_set(name, CASES, scorers)


def again(hall: Hall) -> Promotion:
    path = hall.workspace.root / "notebooks" / "one.ipynb"
    return hall.promote(path, JOB, lambda _: "1", sets=("rivers",))


def test_said_again_while_it_waits_it_still_waits(hall: Hall) -> None:
    """The same version, the same stages and numbers, nothing asked and nothing sealed."""
    hall.notebook("one")
    hall.lets_in = False
    first = again(hall)
    assert (first.version, first.waiting) == (1, "0 of 2 approvals")
    second = again(hall)
    assert (second.version, second.waiting, second.unchanged) == (1, "0 of 2 approvals", False)
    assert hall.player.asked == []
    assert hall.registry.versions(JOB) == [1]
    told = [(s.name, s.passed, s.summary) for s in second.stages if s.name != "check"]
    assert told == [(s.name, s.passed, s.summary) for s in first.stages if s.name != "check"]
    assert stage(second, "rivers").facts == stage(first, "rivers").facts


def test_said_again_once_people_agree_it_is_in(hall: Hall) -> None:
    """Its stages are told as they were, and the alias is its own."""
    hall.notebook("one")
    hall.lets_in = False
    again(hall)
    hall.lets_in = True
    done = again(hall)
    assert (done.version, done.waiting) == (1, None)
    assert hall.registry.aliases(JOB) == {"production": 1}
    assert [s.name for s in done.stages][-1] == "seal"
    assert len(hall.audit("promotion.accepted")) == 1


@pytest.mark.parametrize(("kind", "share"), [("canary", 10), ("shadow", None)])
def test_said_again_of_what_runs_beside_seals_nothing(
    hall: Hall, kind: str, share: int | None
) -> None:
    """What is a canary or a shadow already stays one; another share is another wish."""
    hall.notebook("one")
    again(hall)
    path = hall.notebook("one", code="extra = 1")
    hall.lets_in = False
    wish = {"kind": kind, "share": share, "sets": ("rivers",)}
    hall.promote(path, JOB, lambda _: "1", **wish)
    hall.registry.releases.put_beside(JOB, "production", 2, share, by="cho")
    done = hall.promote(path, JOB, lambda _: "1", **wish)
    assert (done.version, done.unchanged) == (2, True)
    assert hall.registry.versions(JOB) == [1, 2]
    other = hall.promote(path, JOB, lambda _: "1", **{**wish, "kind": "canary", "share": 20})
    assert (other.version, other.unchanged) == (3, False)
