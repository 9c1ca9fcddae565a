"""Cases come from files, MLflow and recorded runs, wait for a person, and then count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Done, toolkit
from mlflow.tracking._tracking_service.utils import _get_store
from workspace_world import write_workspace

from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.tracing import MlflowStore
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Environment,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
)

CASES = [
    {"id": "fr", "inputs": {"country": "France"}, "expected": "Paris"},
    {"id": "it", "inputs": {"country": "Italy"}, "expected": "Rome"},
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace in which no gateway runs."""
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    made.state.mkdir(exist_ok=True)
    monkeypatch.chdir(root)
    return made


def write_cases(path: Path, *cases: object) -> Path:
    path.write_text("".join(c if isinstance(c, str) else json.dumps(c) + "\n" for c in cases))
    return path


def evaluation(*arguments: object) -> Done:
    return toolkit("evaluation", *arguments, "--json")


def test_imported_cases_count_once_a_person_has_accepted_them(place: Workspace) -> None:
    """A new set is made; its cases wait; accepted ones change the digest, others do not."""
    file = write_cases(place.root / "some.jsonl", *CASES)
    done = evaluation("import", "capitals", file, "--agent", "answer")
    assert (done.code, done.json) == (0, {"added": ["fr", "it"], "known": 0, "conflicts": []})
    assert evaluation("show", "capitals").code == 78, "a set without a case is none"
    first = evaluation("accept", "capitals", "fr")
    assert (first.code, first.json["added"], first.json["cases"]) == (0, 1, 1)
    (row,) = evaluation("list").json
    assert (row["cases"], row["waiting"], row["digest"]) == (1, 1, first.json["digest"])
    second = evaluation("accept", "capitals")
    assert (second.json["cases"], evaluation("list").json[0]["waiting"]) == (2, 0)
    assert second.json["digest"] != first.json["digest"]
    told = toolkit("evaluation", "show", "capitals").out
    assert "agent answer · 2 cases" in told
    assert "Paris" in told
    again = evaluation("accept", "capitals")
    assert (again.code, again.json["error"]["code"]) == (78, "not_found")


def test_a_case_that_asks_nothing_new_is_left_out(place: Workspace) -> None:
    """Equal questions are counted; one that expects something else is named, and the first kept."""
    evaluation(
        "import", "capitals", write_cases(place.root / "a.jsonl", *CASES), "--agent", "answer"
    )
    more = [
        {"id": "fr2", "inputs": {"country": "France"}, "expected": "Paris"},
        {"id": "it2", "inputs": {"country": "Italy"}, "expected": "Milan"},
        {"id": "fr", "inputs": {"country": "Peru"}, "expected": "Lima"},
    ]
    done = evaluation("import", "capitals", write_cases(place.root / "b.jsonl", *more))
    assert (done.json["known"], done.json["conflicts"]) == (1, ["it2"])
    (added,) = done.json["added"]
    assert added.startswith("fr-"), "its name was taken"


def test_all_faults_of_a_file_are_told_at_once(place: Workspace) -> None:
    """Each with its line; nothing is imported."""
    lines = ['{"id": "a"}\n', "no json\n", '{"id": "b", "inputs": {}, "extra": 1}\n', '{"id": "b", "id": "b", "inputs": {}}\n']  # fmt: skip
    done = evaluation("import", "capitals", write_cases(place.root / "bad.jsonl", *lines))
    assert done.code == 78
    places = [fault["where"] for fault in done.json["error"]["details"]["faults"]]
    assert {f"bad.jsonl:{line}" for line in (1, 2, 3, 4)} == set(places)
    assert evaluation("list").json == []


def test_a_case_that_a_scorer_cannot_use_does_not_break_a_set(place: Workspace) -> None:
    """It is refused with its reason, and the set is what it was."""
    evaluation(
        "import", "capitals", write_cases(place.root / "a.jsonl", *CASES), "--agent", "answer"
    )
    before = evaluation("accept", "capitals").json["digest"]
    folder = place.registry / "evaluations" / "capitals"
    text = (folder / "cases.jsonl").read_bytes()
    twice = evaluation("add-case", "capitals", "--id", "fr", "--inputs", "{}")
    assert (twice.code, twice.json["error"]["code"]) == (2, "usage")
    odd = evaluation("add-case", "capitals", "--id", "no good!", "--inputs", '{"country": "Peru"}')
    assert odd.code == 78
    assert (folder / "cases.jsonl").read_bytes() == text
    assert sorted(path.name for path in folder.iterdir()) == ["cases.jsonl", "set.yaml"]
    words = evaluation("add-case", "capitals", "--id", "pe", "--inputs", "{}", "--expected", "Lima")
    assert (words.code, words.json["error"]["where"]) == (2, "--expected")
    good = evaluation("add-case", "capitals", "--id", "pe", "--inputs", '{"country": "Peru"}', "--expected", '"Lima"')  # fmt: skip
    assert (good.code, good.json["cases"]) == (0, 3)
    assert good.json["digest"] != before


def test_recorded_runs_become_cases(place: Workspace) -> None:
    """Parameters and results of runs that succeeded in time, or the calls of one agent."""
    ledger = Ledger.open(place.database_url)
    for number, state in enumerate((RunState.SUCCEEDED, RunState.FAILED, RunState.SUCCEEDED)):
        run = ledger.create_run(
            RunRecord(f"run-{number}", RunKind.RUN, Environment.PRODUCTION, "ana", job="triage",
                      version=1, parameters={"order": number})
        )  # fmt: skip
        for kind, name, arguments, answer in (
            (CallKind.AGENT, "describe", {"number": number}, {"city": "Porto"}),
            (CallKind.RESULT, "count", {"value": number + 7}, number + 7),
        ):
            intent = Intent(run.run_id, kind, name, arguments, request_id=f"{number}{name}")
            begun = ledger.begin(
                intent, Decision(Verdict.ALLOW, ("all",), policy_digest="sha256:0")
            )
            ledger.finish(begun.call, Outcome(CallState.OK, answer))
        ledger.update_run(run.run_id, state=state)
    ledger.close()
    done = evaluation("import", "whole", "--from-runs", "triage", "--since", "30d")
    assert done.json["added"] == ["run-0", "run-2"]
    evaluation("accept", "whole")
    shown = evaluation("show", "whole").json
    assert (shown["target"], shown["agent"]) == ("job", None)
    assert [(c["inputs"], c["expected"]) for c in shown["cases"]] == [
        ({"order": 0}, {"count": 7}), ({"order": 2}, {"count": 9}),
    ]  # fmt: skip
    evaluation("import", "asked", "--from-runs", "triage", "--agent", "describe")
    evaluation("accept", "asked")
    (first, _) = evaluation("show", "asked").json["cases"]
    assert (first["inputs"], first["expected"]) == ({"number": 0}, {"city": "Porto"})
    none = evaluation("import", "late", "--from-runs", "triage", "--since", "2100-01-01")
    assert (none.code, none.json["error"]["code"]) == (78, "not_found")
    assert "late" not in [row["set"] for row in evaluation("list").json]


@pytest.mark.chaos  # MLflow takes seconds to make a database
def test_an_mlflow_dataset_is_imported_by_name_or_id(place: Workspace) -> None:
    """Inputs and expectations as they are; a name that is not there is told."""
    store = MlflowStore(place.mlflow_uri, artifacts=place.artifacts)
    dataset = store.client.create_dataset("caps", experiment_id=[store.experiment("x")])
    record = {"inputs": {"country": "France"}, "expectations": {"expected_response": "Paris"}}
    _get_store(place.mlflow_uri).upsert_dataset_records(dataset.dataset_id, [record])
    done = evaluation("import", "caps", "--mlflow-dataset", "caps", "--agent", "answer")
    assert done.code == 0, done.told
    assert len(done.json["added"]) == 1
    evaluation("accept", "caps")
    (case,) = evaluation("show", "caps").json["cases"]
    assert (case["inputs"], case["expected"]) == (
        {"country": "France"}, {"expected_response": "Paris"},
    )  # fmt: skip
    by_id = evaluation("import", "caps", "--mlflow-dataset", dataset.dataset_id)
    assert by_id.json["known"] == 1
    unknown = evaluation("import", "caps", "--mlflow-dataset", "nope")
    assert (unknown.code, "MLflow has no dataset 'nope'" in unknown.out) == (78, True)


def test_one_source_is_named(place: Workspace) -> None:
    """None, or two: nothing is guessed."""
    assert evaluation("import", "x").code == 2
    assert evaluation("import", "x", "--from-runs", "a", "--mlflow-dataset", "b").code == 2
    assert toolkit("evaluation", "list").out.startswith("there is no evaluation set")


def test_a_set_whose_cases_all_wait_has_no_faults(place: Workspace) -> None:
    """The list says how many wait; importing them again says so, too."""
    file = write_cases(place.root / "some.jsonl", *CASES)
    evaluation("import", "capitals", file, "--agent", "answer")
    (row,) = evaluation("list").json
    assert (row["cases"], row["waiting"], row["error"]) == (0, 2, None)
    assert "no case yet: toolkit evaluation accept capitals" in toolkit("evaluation", "list").out
    again = toolkit("evaluation", "import", "capitals", file)
    assert "2 case(s) wait for review" in again.out
    assert "0 new; 2 known before" in again.out
    unknown = evaluation("import", "x", "--from-runs", "nojob").json["error"]
    assert "no job 'nojob' was ever heard of here" in unknown["message"]


def test_a_policy_with_faults_hides_no_set(place: Workspace) -> None:
    """How many gates there are is not known; all else is told."""
    file = write_cases(place.root / "some.jsonl", *CASES)
    evaluation("import", "capitals", file, "--agent", "answer")
    evaluation("accept", "capitals")
    (place.registry / "policies" / "production" / "policy.yaml").write_text("mode: enforced\n")
    (row,) = evaluation("list").json
    assert (row["cases"], row["gates"]) == (2, None)
    shown = toolkit("evaluation", "show", "capitals")
    assert (shown.code, "its policy has faults" in shown.out) == (0, True)


def test_a_refused_case_is_told_at_the_sets_own_place(place: Workspace) -> None:
    """Not in the copy on which it was tried, which is gone."""
    file = write_cases(place.root / "some.jsonl", *CASES)
    evaluation("import", "capitals", file, "--agent", "answer")
    evaluation("accept", "capitals")
    head = place.registry / "evaluations" / "capitals" / "set.yaml"
    head.write_text(head.read_text() + "slices: {plain: all}\n")
    refused = evaluation(
        "add-case", "capitals", "--id", "new", "--inputs", "{}", "--slice", "plian"
    )
    assert refused.code == 78
    assert refused.json["error"]["where"] == str(head.parent)
    assert "toolkit-set-" not in refused.told
