"""What was measured on the same content is not measured again, and what has changed is."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from cli_world import Done, toolkit
from promotion_world import Desk

from toolkit.values import JobRef

pytestmark = pytest.mark.chaos  # half a minute of kernels; its parts are tested by default


@pytest.fixture(scope="module")
def first(shared_desk: Desk) -> Done:
    """A notebook that was promoted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_desk.workspace.root)
        path = shared_desk.write("steady")
        shared_desk.try_out(path)
        return shared_desk.promote(path)


STEADY = Path("notebooks/steady.ipynb")


def test_an_unchanged_notebook_is_not_sealed_again(desk: Desk, first: Done) -> None:
    """The version that stands is returned; nothing runs, nothing is recorded."""
    assert (first.code, first.json["version"], first.json["unchanged"]) == (0, 1, False)
    before, log = desk.executed(), len(list(desk.registry.audit()))
    done = desk.promote(STEADY)
    assert (done.code, done.json["version"], done.json["unchanged"]) == (0, 1, True)
    assert [stage["name"] for stage in done.json["stages"]] == ["check"]
    assert (desk.executed(), len(list(desk.registry.audit()))) == (before, log)
    told = toolkit("promote", STEADY, "--evaluate", "capitals")
    assert "unchanged steady@1" in told.out
    assert "--again" in told.out


def test_again_seals_from_what_was_measured(desk: Desk, first: Done) -> None:
    """No kernel, no model call; the evidence says which promotion measured it."""
    before = desk.executed()
    done = desk.promote(STEADY, "--again")
    assert (done.code, done.json["version"]) == (0, 2)
    assert desk.executed() == before
    for name in ("reproduce", "rehearse", "evaluate"):
        stage, earlier = desk.stage(done, name), desk.stage(first, name)
        assert "cached from the promotion of steady@1" in stage["summary"]
        cached = stage["facts"]["cached"]
        one = cached[0] if isinstance(cached, list) else cached
        assert (one["run_id"], one["version"]) == (earlier["facts"]["run_id"], 1)
    evidence = json.loads(desk.registry.load(desk.registry.resolve(JobRef("steady")))["evidence.json"])  # fmt: skip
    assert [row["output"] for row in evidence["evaluation"]["rows"]][:1] == ["label-paris-81f3"]
    assert done.json["gates"] == first.json["gates"]
    assert done.json["attempt"] == 2


def test_a_new_case_is_asked_and_the_others_are_not(desk: Desk, first: Done) -> None:
    """One more case in the set costs one answer."""
    cases = desk.workspace.registry / "evaluations" / "capitals" / "cases.jsonl"
    text = cases.read_text()
    cases.write_text(text + '{"id": "chile", "inputs": {"question": "Chile"}, "expected": "x"}\n')
    try:
        done = desk.promote(STEADY)
    finally:
        cases.write_text(text)
    assert (done.code, done.json["unchanged"]) == (0, False)
    facts = desk.stage(done, "evaluate")["facts"]
    assert (facts["cases"], facts["cached_answers"]) == (5, 4)
    assert facts["calls"] == 3, "the notebook's own result, an agent, a model"
    (gate,) = done.json["gates"]
    assert (gate["observed"], gate["n"]) == (0.6, 5)


def test_a_stricter_gate_judges_what_was_measured(desk: Desk, first: Done) -> None:
    """A gate changes no answer: nothing is measured again, and the verdict is another."""
    policy = desk.workspace.registry / "policies" / "production" / "policy.yaml"
    text = policy.read_text()
    policy.write_text(text.replace("minimum: 0.5", "minimum: 0.9"))
    before = desk.executed()
    try:
        done = desk.promote(STEADY)
    finally:
        policy.write_text(text)
    assert (done.code, desk.rules(done, "evaluate")) == (1, {"evaluate.gate.correct"})
    assert desk.executed() == before


def test_a_record_that_was_changed_in_the_ledger_is_not_used(desk: Desk, first: Done) -> None:
    """The head that the audit log keeps no longer fits: the case is asked again."""
    run_ids = [each["run_id"] for each in _measured(desk)]
    database = desk.workspace.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(database) as connection:
        for run_id in run_ids:
            connection.execute(
                "UPDATE entries SET body = replace(body, 'label-paris', 'label-forged') "
                "WHERE run_id = ?",
                (run_id,),
            )
    done = desk.promote(STEADY, "--again")
    facts = desk.stage(done, "evaluate")["facts"]
    assert facts["run_id"] not in run_ids
    assert "label-forged" not in Path(done.json["folder"], "evidence.json").read_text()


def _measured(desk: Desk) -> list[dict[str, str]]:
    return [each for r in desk.audit("steady") for each in r.body.get("measurements", ())]
