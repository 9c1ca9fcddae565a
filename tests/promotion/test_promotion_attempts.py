"""No silent best-of-N: what an attempt is, when it is recorded, and what starts the count anew."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from gate_world import Hall, Interrupted, number, stage
from shelf_world import Later

from toolkit.document import Notebook
from toolkit.promotion import Wanted
from toolkit.promotion.counting import EVALUATING, code_digest
from toolkit.registry import Registry

CASES = [{"id": f"c{n}", "inputs": {"question": str(n)}, "expected": str(n)} for n in range(40)]
SCORERS = "  - {name: correct, kind: exact}\n"
GATES = "{city: [{scorer: correct, minimum: 0.8, confidence: 0.95}]}"
JOB = "city"


def right(inputs: dict[str, Any]) -> Any:
    """Every case."""
    return inputs["question"]


def wrong(_: dict[str, Any]) -> Any:
    """No case."""
    return "?"


def right_but(count: int) -> Any:
    """All but the first so many."""
    return lambda inputs: "?" if int(inputs["question"]) < count else inputs["question"]


@pytest.fixture(autouse=True)
def prepared(hall: Hall) -> None:
    hall.write_set(JOB, CASES, SCORERS)
    hall.write_gates(GATES)


def test_an_attempt_is_in_the_log_before_the_first_case_is_asked(hall: Hall) -> None:
    """With job, digests of the sets, of the content and the code; the verdict names the record."""
    seen: list[list[str]] = []
    hall.player.begins = lambda: seen.append([r.event for r in hall.registry.audit()])
    done = hall.promote(hall.notebook("one"), JOB, wrong)
    assert seen == [["audit.created", EVALUATING]]
    (begun,), (refused,) = hall.audit(EVALUATING), hall.audit("promotion.refused")
    assert refused.body["evaluating"] == begun.n
    assert begun.body["job"] == JOB
    assert begun.body["notebook_digest"] == done.notebook_digest
    assert begun.body["evaluation_sets"] == refused.body["evaluation_sets"]
    assert begun.body["code"] == refused.body["code"]
    assert begun.body["content"].startswith("sha256:")
    assert begun.body["asked"][JOB]["new"] is True
    assert (begun.by, hall.registry.verify()) == ("ana", [])


def test_what_cannot_be_recorded_is_not_asked(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a damaged log: no question leaves before the record is durable."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Registry, "record", full)
    with pytest.raises(OSError, match="No space"):
        hall.promote(hall.notebook("one"), JOB, right)
    assert hall.player.asked == []


@pytest.mark.parametrize("after", [0, 5, len(CASES)])
def test_an_interruption_takes_no_attempt_back(hall: Hall, after: int) -> None:
    """Ctrl-C before, amid and after the answers: the attempt stays, the next content is the second."""
    hall.player.dies_after = after
    with pytest.raises(Interrupted):
        hall.promote(hall.notebook("one"), JOB, wrong)
    hall.player.dies_after = None
    second = hall.promote(hall.notebook("two", "other"), JOB, wrong)
    assert (number(second), len(hall.audit(EVALUATING))) == (2, 2)


def test_an_evaluation_that_was_killed_goes_on_as_the_same_attempt(hall: Hall) -> None:
    """What was answered stays, the rest is asked, and nothing is drawn twice."""
    path = hall.notebook("one")
    hall.player.dies_after = 5
    with pytest.raises(Interrupted):
        hall.promote(path, JOB, wrong)
    hall.player.dies_after = None
    done = hall.promote(path, JOB, right)
    assert len(hall.player.asked) == len(CASES) - 5
    assert (number(done), done.attempt) == (1, 2), "offered twice, one attempt at the set"
    assert stage(done).facts["attempt_on_set"] == 1
    rows = done.evaluation.rows if done.evaluation else ()
    assert sum(row.output == "?" for row in rows) == 5


def test_the_same_content_from_the_record_is_the_same_attempt(hall: Hall) -> None:
    """It keeps its number and level, however often it is offered; nothing is asked."""
    first, second = hall.notebook("one"), hall.notebook("two", "other")
    assert number(hall.promote(first, JOB, wrong)) == 1
    assert number(hall.promote(second, JOB, wrong)) == 2
    for path, expected in ((first, 1), (second, 2), (first, 1)):
        again = hall.promote(path, JOB, right)
        assert (number(again), again.accepted, hall.player.asked) == (expected, False, [])
    assert number(hall.promote(hall.notebook("three", "third"), JOB, wrong)) == 3


def test_measuring_again_is_another_attempt(hall: Hall) -> None:
    """``--fresh`` draws new answers of the same content, and pays for them."""
    path = hall.notebook("one")
    numbers = [number(hall.promote(path, JOB, wrong, fresh=True)) for _ in range(3)]
    assert numbers == [1, 2, 3]
    assert number(hall.promote(path, JOB, wrong)) == 3, "the answers of the last one count"


def test_a_change_of_the_set_is_another_attempt_of_the_same_answers(hall: Hall) -> None:
    """Cases that were taken out until it passes are tries like any other."""
    path = hall.notebook("one")
    first = hall.promote(path, JOB, right_but(6))
    assert (number(first), first.accepted) == (1, False)
    for dropped in (1, 2):
        hall.write_set(JOB, CASES[dropped:], SCORERS)
        done = hall.promote(path, JOB, right_but(6))
        assert (number(done), hall.player.asked) == (dropped + 1, [])


def test_attempts_side_by_side_are_numbered_by_the_log(hall: Hall) -> None:
    """Both are announced before either has an answer: one is the first, the other the second."""
    gate = threading.Barrier(2, timeout=60)
    hall.player.begins = gate.wait  # type: ignore[assignment]
    hall.player.answer = wrong
    paths = [hall.notebook(name, name) for name in ("one", "two")]
    found: list[int] = []

    def promote(path: Path) -> None:
        found.append(number(hall.promoter().promote(Wanted(path=path, job=JOB))))

    threads = [threading.Thread(target=promote, args=(path,)) for path in paths]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    assert sorted(found) == [1, 2]


# -- what starts the count anew -------------------------------------------------------------------


def tried(hall: Hall, count: int, prefix: str) -> list[int]:
    """Fail with so many different notebooks."""
    return [
        number(hall.promote(hall.notebook(f"{prefix}{n}", f"{prefix}{n}"), JOB, wrong))
        for n in range(count)
    ]


def test_a_released_version_starts_a_new_series_once(hall: Hall) -> None:
    """Its own attempt is dear; later work starts afresh, until the same version is let in again."""
    assert tried(hall, 5, "a") == [1, 2, 3, 4, 5]
    good = hall.notebook("good", code="better = 1")
    first = hall.promote(good, JOB, right)
    assert (number(first), first.version) == (6, 1)
    assert tried(hall, 3, "b") == [1, 2, 3]
    again = hall.promote(good, JOB, right, again=True)
    assert (again.version, number(again), hall.player.asked) == (2, 6, [])
    assert tried(hall, 1, "c") == [4]
    assert hall.promote(good, JOB, right, again=True, fresh=True).version == 3
    assert tried(hall, 1, "d") == [6], "measured anew it was an attempt, and no release of anything"


def test_the_same_code_with_another_comment_starts_nothing(hall: Hall) -> None:
    """Comments, blank lines and text make other bytes; what it does was released before."""
    assert hall.promote(hall.notebook("good"), JOB, right).version == 1
    assert tried(hall, 2, "a") == [1, 2]
    done = hall.promote(hall.notebook("good2", "now with a comment"), JOB, right)
    assert (done.version, number(done)) == (2, 3)
    assert tried(hall, 1, "b") == [4]
    plain, commented = (Notebook.read(hall.notebook("x", r)) for r in ("", "a remark"))
    other = Notebook.read(hall.notebook("x", code="x = 1"))
    assert code_digest(plain) == code_digest(commented) != code_digest(other)


def test_a_version_that_waits_starts_nothing_and_forgives_nothing(hall: Hall) -> None:
    """Until it is let in; and what was tried while it waited counts afterwards."""
    hall.lets_in = False
    assert tried(hall, 2, "a") == [1, 2]
    waiting = hall.promote(hall.notebook("good", code="better = 1"), JOB, right)
    assert (waiting.waiting, number(waiting)) == ("0 of 2 approvals", 3)
    assert tried(hall, 2, "b") == [4, 5]
    hall.registry.set_alias(JOB, "production", 1, by="cho")
    assert tried(hall, 1, "c") == [3], "two while it waited, and this one"


def test_rolling_back_starts_nothing(hall: Hall) -> None:
    """The version stood there before."""
    for n in (1, 2):
        hall.promote(hall.notebook(f"good{n}", code=f"better = {n}"), JOB, right)
    assert tried(hall, 2, "a") == [1, 2]
    hall.registry.rollback(JOB, by="cho")
    assert tried(hall, 1, "b") == [3]


def test_a_lucky_refusal_keeps_its_level_in_the_next_series(hall: Hall) -> None:
    """Answers that missed at a sixth of the error do not pass at the whole of it later on."""
    assert tried(hall, 5, "a") == [1, 2, 3, 4, 5]
    lucky = hall.notebook("lucky", code="luck = 1")
    # 37 of 40 show 0.8 at 5 % (p = 0.028), and not at a sixth of that.
    before = hall.promote(lucky, JOB, right_but(3))
    assert (number(before), before.accepted) == (6, False)
    assert hall.promote(hall.notebook("good", code="better = 1"), JOB, right).accepted
    assert tried(hall, 1, "b") == [1]
    after = hall.promote(lucky, JOB, right)
    assert (number(after), after.accepted, hall.player.asked) == (6, False, [])
    hall.write_set(JOB, CASES[1:], SCORERS)
    dropped = hall.promote(lucky, JOB, right)
    assert (number(dropped), hall.player.asked) == (6, []), "nor before another set"


def test_another_job_counts_the_same_tries_and_another_set_none(hall: Hall) -> None:
    """A new name for the job is no fresh start; a set of its own has a count of its own."""
    assert tried(hall, 2, "a") == [1, 2]
    renamed = hall.promote(hall.notebook("b"), "town", wrong, sets=(JOB,))
    assert number(renamed) == 3
    hall.write_set("village", CASES, SCORERS)
    assert number(hall.promote(hall.notebook("c"), "village", wrong)) == 1


def test_attempts_are_forgotten_after_thirty_days(hall: Hall) -> None:
    """As docs/evaluation.md says."""
    assert tried(hall, 2, "a") == [1, 2]
    for days, expected in ((29.0, 3), (31.0, 2)):
        later = Hall(hall.workspace, hall.ledger, Later(days))
        done = later.promote(later.notebook(f"b{days:.0f}", f"{days}"), JOB, wrong)
        assert number(done) == expected, days


def test_attempts_of_an_older_log_still_count(hall: Hall) -> None:
    """There the verdict is the attempt, and a release of an older version starts a series."""
    digest = "sha256:" + "1" * 64

    def verdict(event: str, **more: object) -> None:
        body = {
            "job": JOB,
            "notebook_digest": digest,
            "stages": {"evaluate": event.endswith("accepted")},
            "evaluation_sets": {JOB: digest},
            **more,
        }
        hall.registry.record(event, body, by="ana")

    for _ in range(2):
        verdict("promotion.refused")
    verdict("promotion.refused", stages={"evaluate": None})
    assert tried(hall, 1, "a") == [3]
    done = hall.promote(hall.notebook("good", code="better = 1"), JOB, right)
    assert (number(done), done.version) == (4, 1)
    verdict("promotion.refused")
    assert tried(hall, 1, "b") == [2]
