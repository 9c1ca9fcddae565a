"""The licence review on the gate: refused, let in by two people, and stopped for two cases.

The notebooks, the cases and the limits are the example's; see docs/promotion.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Done
from story_world import FIRST, JOB, SECOND, Story, gates, stage, write_story
from workspace_world import end_gateway

from toolkit.client import disconnect
from toolkit.values import JobRef

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A signed workspace in which nothing was promoted yet."""
    base = tmp_path_factory.mktemp("story")
    (base / "ws").mkdir()
    made = write_story(base / "ws")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        made.begin()
        yield made
    disconnect()
    end_gateway(made.workspace)


@pytest.fixture
def here(story: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.chdir(story.root)
    return story


@pytest.fixture(scope="module")
def first(story: Story) -> Done:
    """The version that asks the model for everything."""
    return story.offer(FIRST)


@pytest.fixture(scope="module")
def second(story: Story, first: Done) -> Done:
    """The version with rules."""
    assert first.code == 1
    return story.offer(SECOND)


@pytest.fixture(scope="module")
def approved(story: Story, second: Done) -> list[tuple[str, Done, dict[str, int]]]:
    """Who said what about it, one after the other, and where the aliases were after each."""
    assert second.code == 3, second.told
    return story.approve()


@pytest.fixture(scope="module")
def third(story: Story, approved: list[tuple[str, Done, dict[str, int]]]) -> Done:
    """The second version with one condition less: wrong in two cases more."""
    assert approved[-1][1].code == 0
    story.tidy()
    return story.offer(SECOND)


def test_the_first_version_fails_with_its_confidence_bound(here: Story, first: Done) -> None:
    """Right in half of the cases: the bound says that it is no chance, and nothing is sealed."""
    assert (first.code, first.json["accepted"], first.json["version"]) == (1, False, None)
    correct, wrong, compared = gates(first)
    assert correct["verdict"] == wrong["verdict"] == "fail"
    assert correct["upper"] < 0.75
    assert re.search(
        r"correct is 0\.\d+ \(\d+ of 86\); with 95 % confidence at least 0\.\d+ and at most "
        r"0\.\d+, which misses the minimum 0\.75 \(Clopper-Pearson\)",
        correct["sentence"],
    )
    assert compared["sentence"].endswith("no version is in production yet, so there is none to compare")  # fmt: skip
    assert {s["name"]: s["passed"] for s in first.json["stages"]} == {
        "check": True, "reproduce": True, "rehearse": True, "evaluate": False, "simulate": True,
    }  # fmt: skip
    assert JOB not in here.registry.jobs()
    html = Path(first.json["report"]).read_text("utf-8")
    assert "misses the minimum 0.75" in html
    assert "refused" in html


def test_the_second_version_passes_and_waits_for_two_people(second: Done) -> None:
    """The bound keeps the limit at the confidence of a second try; it is sealed, and not in."""
    assert second.code == 3, second.told
    assert (second.json["accepted"], second.json["version"]) == (True, 1)
    assert [each["verdict"] for each in gates(second)] == ["pass"] * 3
    correct = gates(second)[0]
    assert correct["lower"] >= 0.75
    assert "with 97.5 % confidence" in correct["sentence"]
    assert "attempt 2 on this set" in correct["sentence"]
    assert "0 of 2 approvals" in second.json["waiting"]
    assert stage(second, "evaluate")["facts"]["cases"] == 86


def test_the_alias_moves_with_the_second_person(
    here: Story, approved: list[tuple[str, Done, dict[str, int]]]
) -> None:
    """The author may not, nobody counts twice, and until the second person nothing has moved."""
    author, one, again, two = approved
    assert author[1].code == 78
    assert author[1].json["error"]["message"] == "ana does not have the role approver"
    assert (one[1].code, one[1].json["approved_by"]) == (3, ["ben"])
    assert (again[1].code, again[1].json["approved_by"]) == (3, ["ben"])
    assert (two[1].code, two[1].json["approved_by"]) == (0, ["ben", "cho"])
    assert [where for _, _, where in approved] == [{}, {}, {}, {"production": 1}]
    why = " ".join(here.ana("registry", "show", f"{JOB}@1", "--json").json["why"])
    assert "approved by ben, cho for production; cho completed it" in why
    assert "with 97.5 % confidence at least" in why
    assert here.registry.verify() == []


def test_a_version_worse_by_a_hair_is_stopped_by_the_paired_test(here: Story, third: Done) -> None:
    """Both limits are kept; case by case it is not shown to be no worse, and production stays."""
    assert (third.code, third.json["accepted"]) == (1, False)
    correct, wrong, compared = gates(third)
    assert correct["verdict"] == wrong["verdict"] == "pass"
    assert correct["lower"] >= 0.75
    assert compared["verdict"] == "not enough evidence"
    assert "0 cases better, 2 worse of 86" in compared["sentence"]
    assert "does not decide on the margin -0.05 to production" in compared["sentence"]
    assert "Tango's score interval" in compared["sentence"]
    (told,) = stage(third, "evaluate")["findings"]
    assert told["rule"] == "evaluate.gate.correct"
    assert "cryptography, packaging" in told["fix"]
    assert here.registry.aliases(JOB) == {"production": 1}
    assert here.registry.resolve(JobRef(JOB, "production")).number == 1


def test_the_report_lists_the_cases_that_got_worse(third: Done) -> None:
    """Each with its answer in production, its answer now, and how many were compared."""
    html = Path(third.json["report"]).read_text("utf-8")
    part = html[html.index("Against production") :]
    assert "86 cases compared, 2 judged worse, 0 better" in part
    for case in ("cryptography", "packaging"):
        row = re.search(rf"<tr><td>{case}</td>(.*?)</tr>", part, re.DOTALL)
        assert row is not None
        assert "worse" in row[1]
        assert re.search(r"licence</span> Apache-2\.0 OR BSD-\d-Clause → needs a person", row[1])


def test_the_audit_log_tells_the_whole_story(here: Story, third: Done) -> None:
    """Two refusals, one release, who approved; the chain holds."""
    assert third.code == 1
    records = [r for r in here.registry.audit() if r.body.get("job") == JOB]
    assert [r.event for r in records] == [
        "promotion.evaluating", "promotion.refused",
        "promotion.evaluating", "promotion.accepted", "promotion.asked",
        "approval.given", "approval.given", "promotion.released",
        "promotion.evaluating", "promotion.refused",
    ]  # fmt: skip
    assert [r.by for r in records if r.event == "approval.given"] == ["ben", "cho"]
    assert records[-1].body["gates"][2] == gates(third)[2]["sentence"]
    assert here.registry.verify() == []
    evidence = json.loads(here.registry.load(JobRef(JOB, "1"))["evidence.json"])
    assert len(evidence["evaluation"]["rows"]) == 86


def test_a_policy_that_is_weakened_in_the_same_change_judges_nothing(
    here: Story, third: Done
) -> None:
    """The limits are signed: whoever lowers them with the notebook is refused before any trial."""
    assert third.code == 1
    before = here.policy.read_text("utf-8")
    here.policy.write_text(before.replace("margin: 0.05", "margin: 0.5"), "utf-8")
    try:
        done = here.act("ana", "promote", SECOND, "--name", JOB, "--json")
    finally:
        here.policy.write_text(before, "utf-8")
    assert done.code == 78
    assert "the policy of production was changed and not promoted" in done.json["error"]["message"]
    assert "toolkit policy promote production" in done.json["error"]["next_step"]
    assert here.registry.aliases(JOB) == {"production": 1}
    (record,) = [r for r in here.registry.audit() if r.event == "promotion.policy-refused"]
    assert (record.by, record.body["job"]) == ("ana", JOB)
