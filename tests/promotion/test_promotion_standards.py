"""Which sets, which scorers, which version: nothing of it is the promoter's to choose, and all is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gate_world import Hall, stage, warned

from toolkit.errors import IntegrityError, NotFound
from toolkit.evaluation import (
    Case,
    Evaluation,
    EvaluationSet,
    Judgement,
    Program,
    Scorer,
    ScorerKind,
    gate,
    restated,
    score,
)
from toolkit.ledger import CaseAnswer
from toolkit.policy import Gate
from toolkit.promotion import Promotion
from toolkit.promotion.production import Predecessor
from toolkit.promotion.standards import changed_scorers, set_changes
from toolkit.values import JobRef

JOB = "weigh"
CASES = [
    {"id": f"c{n}", "inputs": {"question": str(n)}, "expected": {"kg": float(n)}, "slice": "hard" if n < 10 else "plain"}
    for n in range(60)
]  # fmt: skip
SLICES = "slices: {hard: short, plain: long}\n"
NUMERIC = (
    "  - {{name: close, kind: numeric, field: kg, expected_field: kg, tolerance: {tolerance}}}\n"
)
CUSTOM = "  - {name: near, kind: custom, file: near.py, field: kg, expected_field: kg}\n"
NEAR = "def score(answer, label, inputs):\n    return abs(answer - label) <= {tolerance}\n"
COMPARED = "[{{scorer: {scorer}, minimum: 0.5, confidence: 0.9}}, {{scorer: {scorer}, non_inferior_to: production, margin: 0.1, confidence: 0.9}}]"


def exactly(inputs: dict[str, Any]) -> Any:
    """Right to the gram."""
    return {"kg": float(inputs["question"])}


def roughly(inputs: dict[str, Any]) -> Any:
    """Half a kilogram off, in nine cases of ten."""
    n = int(inputs["question"])
    return {"kg": n + (0.5 if n % 10 else 0.0)}


def gated(scorer: str) -> str:
    return COMPARED.format(scorer=scorer)


@pytest.fixture(autouse=True)
def prepared(hall: Hall) -> None:
    hall.write_set(JOB, CASES, NUMERIC.format(tolerance=0.01), SLICES)
    hall.write_gates(f"{{{JOB}: {gated('close')}}}")


def verdicts(done: Promotion) -> dict[str, tuple[str, str]]:
    return {v.label: (str(v.ruling), v.sentence) for v in done.gates}


# -- which sets -----------------------------------------------------------------------------------


def test_the_promoter_adds_sets_and_takes_none_away(hall: Hall) -> None:
    """``--evaluate easy`` does not replace the job's own set, whatever the easy one says."""
    hall.write_set("easy", CASES[:1], NUMERIC.format(tolerance=100), SLICES)
    hall.write_gates(f"{{{JOB}: {gated('close')}, easy: [{{scorer: close, minimum: 0}}]}}")
    done = hall.promote(hall.notebook("rough"), JOB, roughly, sets=("easy",))
    assert not done.accepted
    assert [each.facts["set"] for each in done.stages if each.name == "evaluate"] == [JOB, "easy"]
    assert [each.passed for each in done.stages if each.name == "evaluate"] == [False, True]
    assert [v.passed for v in done.gates] == [False, True, True]


def test_what_production_was_evaluated_on_is_evaluated_again(hall: Hall) -> None:
    """A set that was added once stays, as long as the policy has gates for it; then it is told."""
    hall.write_set("hard", CASES[:20], NUMERIC.format(tolerance=0.01), SLICES)
    both = f"{{{JOB}: {gated('close')}, hard: [{{scorer: close, minimum: 0.9}}]}}"
    hall.write_gates(both)
    assert hall.promote(hall.notebook("good"), JOB, exactly, sets=("hard",)).version == 1
    second = hall.promote(hall.notebook("rough", "2"), JOB, roughly)
    assert [each.facts["set"] for each in second.stages if each.name == "evaluate"] == [JOB, "hard"]
    assert not stage(second, "hard").passed
    hall.write_gates(f"{{{JOB}: {gated('close')}}}")
    third = hall.promote(hall.notebook("good", "3"), JOB, exactly)
    assert third.accepted
    assert any("evaluated on hard too" in each for each in third.warnings)
    assert evidence(hall, 2)["sets_gone"] == ["hard"]
    hall.write_gates(both)
    shutil.rmtree(hall.workspace.registry / "evaluations" / JOB)
    with pytest.raises(NotFound, match=JOB):
        hall.promote(hall.notebook("good", "4"), JOB, exactly, sets=("hard",))


# -- which scorers --------------------------------------------------------------------------------


def evidence(hall: Hall, version: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        hall.registry.load(JobRef(JOB, str(version)))["evidence.json"]
    )
    return found


def partly(inputs: dict[str, Any]) -> Any:
    """Half a kilogram off in every third case."""
    n = int(inputs["question"])
    return {"kg": n + (0.5 if n % 3 == 0 else 0.0)}


def mostly(inputs: dict[str, Any]) -> Any:
    """Far off in sixteen cases, and half a kilogram in all the others."""
    n = int(inputs["question"])
    return {"kg": n + (5.0 if n < 16 else 0.5)}


def test_a_wider_tolerance_judges_both_versions(hall: Hall) -> None:
    """Production's recorded answers are judged again, so nothing is won by it; the change is told."""
    assert hall.promote(hall.notebook("good"), JOB, partly).version == 1
    strict = hall.promote(hall.notebook("rough", "1"), JOB, mostly)
    assert verdicts(strict)["close against production"][0] == "fail"
    hall.write_set(JOB, CASES, NUMERIC.format(tolerance=1.0), SLICES)
    worse = hall.promote(hall.notebook("rough", "2"), JOB, mostly)
    ruling, sentence = verdicts(worse)["close against production"]
    # By the strict verdicts of then it would be better in 20 cases that only the scorer made good.
    assert (ruling, "-0.267 (0 cases better, 16 worse of 60)" in sentence) == ("fail", True)
    assert not worse.accepted
    done = hall.promote(hall.notebook("rough", "3"), JOB, roughly)
    ruling, sentence = verdicts(done)["close against production"]
    assert (ruling, "+0.000 (0 cases better, 0 worse of 60)" in sentence) == ("pass", True)
    assert stage(done).facts["judged_again"] == {"scorers": ["close"]}
    assert warned(done) == [f"{JOB} since version 1: the scorer close: tolerance 0.01 → 1.0"]
    told = {"since": 1, "scorers": ["the scorer close: tolerance 0.01 → 1.0"]}
    assert evidence(hall, 2)["set_changes"] == {JOB: told}
    assert hall.audit("promotion.accepted")[-1].body["set_changes"] == {JOB: told}
    assert "tolerance 0.01 → 1.0" in Path(done.report or "").read_text("utf-8")
    assert "judged again by the scorers of now: close" in Path(done.report or "").read_text("utf-8")


def test_a_stricter_scorer_is_no_disadvantage_either(hall: Hall) -> None:
    """Production was let in by a loose one: under the strict one both are as bad."""
    hall.write_set(JOB, CASES, NUMERIC.format(tolerance=1.0), SLICES)
    hall.write_gates(
        f"{{{JOB}: [{{scorer: close, non_inferior_to: production, margin: 0.05, confidence: 0.9}}]}}"
    )
    assert hall.promote(hall.notebook("one"), JOB, roughly).version == 1
    hall.write_set(JOB, CASES, NUMERIC.format(tolerance=0.01), SLICES)
    done = hall.promote(hall.notebook("two", "2"), JOB, roughly)
    assert "(0 cases better, 0 worse of 60)" in verdicts(done)["close against production"][1]


def test_a_scorer_that_is_a_file_is_asked_about_productions_answers(hall: Hall) -> None:
    """Its text counts with its digest; a loosened one is asked again, and finds both as good."""
    hall.write_set(JOB, CASES, CUSTOM, SLICES)
    hall.write_gates(f"{{{JOB}: {gated('near')}}}")
    program = hall.workspace.registry / "evaluations" / JOB / "near.py"
    program.write_text(NEAR.format(tolerance=0.01))
    assert hall.promote(hall.notebook("good"), JOB, exactly).version == 1
    program.write_text(NEAR.format(tolerance=1.0))
    done = hall.promote(hall.notebook("rough", "2"), JOB, roughly)
    assert "+0.000 (0 cases better, 0 worse of 60)" in verdicts(done)["near against production"][1]
    asked = stage(done).facts["judged_again"]["asked"]["near"]
    # Six answers are the same as the candidate's, and nobody is asked about these twice.
    assert (asked["asked"], asked["failed"]) == (54, 0)
    (told,) = warned(done)
    assert "the scorer near: outside.digest sha256:" in told


def test_a_file_that_fails_on_productions_answers_is_not_enough_evidence(hall: Hall) -> None:
    """A scorer that crashes on what production said must not leave it out of the comparison."""
    hall.write_set(JOB, CASES, CUSTOM, SLICES)
    hall.write_gates(f"{{{JOB}: {gated('near')}}}")
    program = hall.workspace.registry / "evaluations" / JOB / "near.py"
    program.write_text(NEAR.format(tolerance=0.01))
    assert hall.promote(hall.notebook("good"), JOB, exactly).version == 1
    crashes = "def score(answer, label, inputs):\n    return 1 / (answer - label) > 0\n"
    program.write_text(crashes)
    done = hall.promote(
        hall.notebook("other", "2"), JOB, lambda i: {"kg": float(i["question"]) + 1}
    )
    ruling, sentence = verdicts(done)["near against production"]
    assert ruling == "not enough evidence"
    assert "another than the one that judged version 1" in sentence
    assert not done.accepted


def test_cases_that_are_gone_new_changed_or_moved_are_told(hall: Hall) -> None:
    """Those that production had wrong by their number: a set that loses them has become easier."""
    assert (
        hall.promote(
            hall.notebook("good"),
            JOB,
            lambda i: {"kg": 0.0 if int(i["question"]) < 9 else float(i["question"])},
        ).version
        == 1
    )
    cases = [dict(each) for each in CASES[4:]]
    cases[0]["expected"] = {"kg": 99.0}
    cases[1]["slice"] = "plain"
    cases.append(
        {"id": "c99", "inputs": {"question": "99"}, "expected": {"kg": 99.0}, "slice": "plain"}
    )
    hall.write_set(JOB, cases, NUMERIC.format(tolerance=0.01), SLICES)
    done = hall.promote(hall.notebook("good", "2"), JOB, exactly)
    assert warned(done) == [
        f"{JOB} since version 1: 4 cases gone (c0, c1, c2, c3), of which version 1 had 3 wrong",
        f"{JOB} since version 1: 1 case asking or expecting something else, not compared (c4)",
        f"{JOB} since version 1: 1 case in another slice (c5)",
        f"{JOB} since version 1: 1 case new (c99)",
    ]
    changes = evidence(hall, 2)["changes"][JOB]
    assert (changes["removed"], changes["moved"]) == (["c0", "c1", "c2", "c3"], ["c5"])


def test_hard_cases_that_go_with_a_looser_scorer_are_told_as_they_were_judged(hall: Hall) -> None:
    """What production had wrong is counted by the verdicts of then."""
    hall.write_gates(f"{{{JOB}: [{{scorer: close, minimum: 0.1}}]}}")
    assert hall.promote(hall.notebook("rough"), JOB, roughly).version == 1
    hall.write_set(JOB, CASES[5:], NUMERIC.format(tolerance=1.0), SLICES)
    done = hall.promote(hall.notebook("rough", "2"), JOB, roughly)
    assert [each.partition(": ")[2] for each in warned(done)] == [
        "the scorer close: tolerance 0.01 → 1.0",
        "5 cases gone (c0, c1, c2, c3, c4), of which version 1 had 4 wrong",
    ]


def test_limits_scorers_and_ways_that_changed_are_told(hall: Hall) -> None:
    """Old and new, limit for limit; and a scorer or a gate that is there no more."""
    two = NUMERIC.format(tolerance=0.01) + "  - {name: whole, kind: json_subset}\n"
    hall.write_set(JOB, CASES, two, SLICES)
    hall.write_gates(
        f"{{{JOB}: [{{scorer: close, minimum: 0.75, confidence: 0.95}}, {{scorer: whole, minimum: 0.1}}]}}"
    )
    assert hall.promote(hall.notebook("good"), JOB, exactly).version == 1
    hall.write_set(JOB, CASES, NUMERIC.format(tolerance=0.01), f"{SLICES}trials: 2\n")
    hall.write_gates(f"{{{JOB}: [{{scorer: close, minimum: 0.5, confidence: 0.9}}]}}")
    done = hall.promote(hall.notebook("good", "2"), JOB, exactly)
    assert done.accepted
    assert [each.partition(": ")[2] for each in warned(done)] == [
        "the scorer whole is gone (json_subset)",
        "the gate close: confidence 0.95 → 0.9",
        "the gate close: minimum 0.75 → 0.5",
        "the gate whole is gone (minimum 0.1)",
        "trials 1 → 2",
    ]


def test_nothing_is_told_where_nothing_changed(hall: Hall) -> None:
    """Another notebook before the same set: no warning, nothing judged again."""
    assert hall.promote(hall.notebook("good"), JOB, exactly).version == 1
    done = hall.promote(hall.notebook("good", "2"), JOB, exactly)
    assert done.accepted
    assert (warned(done), "set_changes" in evidence(hall, 2)) == ([], False)
    assert "judged_again" not in stage(done).facts


def test_a_version_from_before_standards_were_sealed_is_judged_again(hall: Hall) -> None:
    """What its scorers were is not on record: its answers are, and it is said so."""
    hall.promote(hall.notebook("good"), JOB, exactly)
    facts = {k: v for k, v in evidence(hall, 1).items() if k != "standards"}
    chosen = EvaluationSet.load(hall.workspace.registry / "evaluations" / JOB)
    before = Predecessor(1, evidence=facts)
    assert changed_scorers(chosen, "", before) == frozenset()
    assert set_changes(chosen, (), before, None, facts["policy_digest"]) is None
    hall.write_set(JOB, CASES[1:], NUMERIC.format(tolerance=1.0), SLICES)
    other = EvaluationSet.load(hall.workspace.registry / "evaluations" / JOB)
    assert changed_scorers(other, "", before) == {"close"}
    told = set_changes(other, (), before, None, "sha256:other")
    assert told is not None
    assert [each.partition(";")[0] for each in told.sentences] == [
        "the set is another",
        "the policy with the limits is another",
    ]


def test_what_cannot_be_judged_again_is_left_out_with_its_reason() -> None:
    """The pure part: values are replaced where case and answer are there, or there is a reason."""
    cases = tuple(Case(f"c{n}", {"n": n}, float(n)) for n in range(30))
    strict = Scorer("close", ScorerKind.NUMERIC, tolerance=0.1)
    loose = Scorer("close", ScorerKind.NUMERIC, tolerance=1.0)
    own = Scorer("own", ScorerKind.CUSTOM, outside=Program("own.py", "score", ""))
    answers = {c.id: CaseAnswer(c.expected + 0.5, None, None) for c in cases[1:]}
    old: Evaluation = score(EvaluationSet("s", "a", (strict,), cases), answers)
    now = EvaluationSet("s", "a", (loose, own), cases[:20])
    found = restated(old, now, {"close", "own"}, {}, {"own": "nobody was asked"})
    assert (old.scores["close"].mean, found.scores["close"].n) == (0.0, 20)
    assert found.scores["close"].hits == 19, "a missing answer is as bad as it was"
    wanted = Gate("own", non_inferior_to="production", margin=0.1, confidence=0.9)
    said = {c.id: {"own": Judgement(value=True)} for c in cases[:20]}
    candidate = score(
        now, {c.id: CaseAnswer(c.expected, None, None) for c in cases[:20]}, verdicts=said
    )
    (ruled,) = gate(candidate, [wanted], baseline=found)
    assert (str(ruled.ruling), ruled.sentence) == (
        "not enough evidence",
        "own against production: nobody was asked",
    )


# -- which version --------------------------------------------------------------------------------


def test_a_retired_job_is_held_against_its_last_version(hall: Hall) -> None:
    """Taking production away does not take the comparison away."""
    assert hall.promote(hall.notebook("good"), JOB, exactly).version == 1
    hall.registry.releases.retire(JOB, by="ana", reason="a trick")
    assert "production" not in hall.registry.aliases(JOB)
    done = hall.promote(hall.notebook("rough", "2"), JOB, roughly)
    ruling, sentence = verdicts(done)["close against production"]
    assert (ruling, "54 worse of 60" in sentence) == ("fail", True)
    facts = stage(done).facts
    assert facts["compared_with"] == 1
    assert (
        facts["compared_because"]
        == "production points at no version, and it was the last that stood there"
    )
    assert "compared with version 1: production points at no version" in stage(done).summary
    assert "Compared with version 1: production points" in Path(done.report or "").read_text(
        "utf-8"
    )


def test_a_revoked_version_is_passed_over_for_the_one_before(hall: Hall) -> None:
    """It was ended because it was no good; the one before it is the bar, and then none is."""
    for n in (1, 2):
        assert (
            hall.promote(hall.notebook(f"good{n}", f"{n}", f"better = {n}"), JOB, exactly).version
            == n
        )
    hall.registry.releases.retire(JOB, by="ana", reason="a trick")
    hall.registry.releases.revoke(JOB, 2, by="cho", reason="leaks")
    second = hall.promote(hall.notebook("rough", "2"), JOB, roughly)
    facts = stage(second).facts
    assert facts["compared_with"] == 1
    assert "the last that stood there (2) is revoked" in facts["compared_because"]
    assert verdicts(second)["close against production"][0] == "fail"
    hall.registry.releases.revoke(JOB, 1, by="cho", reason="leaks as well")
    third = hall.promote(hall.notebook("rough", "3"), JOB, roughly)
    facts = stage(third).facts
    assert facts["compared_with"] is None
    assert facts["compared_because"] == "every version that stood in production is revoked"
    assert verdicts(third)["close against production"] == (
        "pass",
        (
            "close against production: every version that stood in production is revoked, "
            "so there is none to compare"
        ),
    )


def test_a_version_whose_files_are_gone_is_no_reason_to_compare_with_nothing(hall: Hall) -> None:
    """The log says that it stood there: it has to be restored."""
    assert hall.promote(hall.notebook("good"), JOB, exactly).version == 1
    shutil.rmtree(hall.workspace.registry / "jobs" / JOB)
    with pytest.raises(IntegrityError, match=f"{JOB}@1 stood in production last"):
        hall.promote(hall.notebook("rough", "2"), JOB, roughly)
