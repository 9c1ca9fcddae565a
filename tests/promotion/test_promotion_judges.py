"""Scorers of a set's own and MLflow's judges in a promotion: asked, paid for, remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_world import Done
from promotion_world import AGENT, REST, SET, Desk

from toolkit.ledger import Ledger
from toolkit.values import JobRef, RunState

pytestmark = pytest.mark.slow

OWN = """
  - {name: own, kind: custom, file: own.py}
  - name: brief
    kind: mlflow
    mlflow: Guidelines
    route: judge
    arguments: {guidelines: [Be brief.]}
"""
FILE = """
def score(answer, label, inputs):
    return {"score": answer == label, "reason": "by the set's own file"}
"""
JUDGE = """
  judge:
    provider: script
    model: scripted-judge
    max_tokens: 64
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
"""
VERDICTS = """
answers:
  - when: {route: judge, contains: rome}
    text: I cannot say that in JSON
  - when: {route: judge}
    text: '{"result": "yes", "rationale": "short enough"}'
"""


@pytest.fixture(scope="module")
def judged(shared_desk: Desk) -> Iterator[Done]:
    """A notebook that was promoted with a file and a judge among the scorers of its set."""
    registry = shared_desk.workspace.registry
    folder, models, answers = (
        registry / "evaluations" / "capitals",
        registry / "models.yaml",
        registry / "answers.yaml",
    )
    policy = registry / "policies" / "production" / "policy.yaml"
    gates = "{scorer: correct, minimum: 0.5}, {scorer: own, minimum: 0.5}"
    changed = {
        folder / "set.yaml": SET + OWN.lstrip("\n"),
        folder / "own.py": FILE,
        models: models.read_text() + JUDGE,
        answers: VERDICTS + answers.read_text().replace("answers:\n", "").lstrip("\n"),
        policy: policy.read_text().replace("{scorer: correct, minimum: 0.5}", gates),
    }
    for path, text in changed.items():
        path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_desk.workspace.root)
        path = shared_desk.write("judged")
        shared_desk.try_out(path)
        yield shared_desk.promote(path)


def test_a_promotion_asks_the_sets_own_scorers(desk: Desk, judged: Done) -> None:
    """Their scores have gates like others, and the evidence has their reasons and failures."""
    assert judged.code == 0, judged.out
    assert judged.json["warnings"] == []
    facts = desk.stage(judged, "evaluate")["facts"]["scorers"]
    assert (facts["asked"], facts["failed"], facts["cached"]) == (8, 1, 0)
    assert facts["isolation"] in ("L1", "L2", "L3")
    version = desk.registry.resolve(JobRef("judged"))
    evidence = json.loads(desk.registry.load(version)["evidence.json"])
    rows = {row["case_id"]: row for row in evidence["evaluation"]["rows"]}
    assert rows["france"]["values"] == {"correct": True, "own": True, "brief": True}
    assert rows["france"]["notes"] == {"own": "by the set's own file", "brief": "short enough"}
    assert "does not fit the schema" in rows["italy"]["errors"]["brief"]
    assert "brief" not in rows["italy"]["values"]
    assert evidence["evaluation"]["scores"]["brief"]["n"] == 3


def test_judges_are_paid_for_in_a_run_of_their_own(desk: Desk, judged: Done) -> None:
    """The evaluation's own cost is the candidate's; what judges cost stands beside it."""
    facts = desk.stage(judged, "evaluate")["facts"]
    scorers = facts["scorers"]
    assert scorers["run_id"] != facts["run_id"]
    assert float(scorers["cost_usd"]) > 0
    ledger = Ledger.open(desk.workspace.database_url)
    try:
        run = ledger.get_run(scorers["run_id"])
        assert (run.state, run.job, run.tags["judges"]) == (
            RunState.SUCCEEDED,
            "judged",
            "capitals",
        )
        calls = list(ledger.calls(run.run_id, limit=100))
        assert {call.intent.name for call in calls} == {"judge"}
        labels = [value for inputs in ledger.case_inputs(run.run_id).values() for value in inputs]
        assert set(labels) == {"content"}, "cases of a judge hold a digest, no label"
    finally:
        ledger.close()


def test_no_judge_is_asked_twice(desk: Desk, judged: Done) -> None:
    """Sealing again takes verdicts from the ledger; only what failed is asked once more."""
    done = desk.promote(desk.write("judged"), "--again")
    assert done.code == 0, done.out
    first, again = (desk.stage(each, "evaluate")["facts"]["scorers"] for each in (judged, done))
    assert (again["cached"], again["asked"]) == (3, 5), "3 verdicts; 4 by the file, 1 that failed"
    assert again["run_id"] != first["run_id"]
    assert again["calls"] < first["calls"]


def test_another_file_is_another_set(desk: Desk, judged: Done) -> None:
    """A changed scorer is measured anew: what stood before does not stand."""
    path = desk.workspace.registry / "evaluations" / "capitals" / "own.py"
    before = desk.promote(desk.write("judged"))
    assert before.json["unchanged"] is True
    path.write_text(FILE.replace("answer == label", "False"))
    try:
        done = desk.promote(desk.write("judged"))
    finally:
        path.write_text(FILE)
    assert (done.code, desk.rules(done, "evaluate")) == (1, {"evaluate.gate.own"})
    facts = desk.stage(done, "evaluate")["facts"]
    assert facts["cached_answers"] == 4, "the answers are still those of before"
    assert facts["scorers"]["cached"] == 3


def test_a_changed_judge_is_asked_about_productions_answers(desk: Desk, judged: Done) -> None:
    """Two versions are compared under one judge; what it was just asked it is not asked again."""
    assert judged.code == 0
    path = desk.workspace.registry / "evaluations" / "capitals" / "set.yaml"
    before = path.read_text()
    path.write_text(before.replace("[Be brief.]", "[Be brief and kind.]"))
    silent = AGENT.replace("toolkit.model(question).text", '"I do not know"')
    try:
        done = desk.promote(desk.write("judged", silent, *REST))
    finally:
        path.write_text(before)
    assert done.code == 1
    facts = desk.stage(done, "evaluate")["facts"]
    again = facts["judged_again"]
    assert again["scorers"] == ["brief"]
    # Of four answers one is the candidate's as well, and on one the judge fails as before.
    assert (again["asked"]["brief"]["asked"], again["asked"]["brief"]["failed"]) == (3, 1)
    assert again["asked"]["brief"]["run_id"] != facts["scorers"]["run_id"]
    (told,) = done.json["set_changes"]["capitals"]["scorers"]
    assert told.endswith('["Be brief."] → ["Be brief and kind."]')
