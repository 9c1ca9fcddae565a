"""The gate as a person meets it: real notebooks, real kernels, real records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from cli_world import Done, toolkit
from promotion_world import AGENT, LABELS, REST, Desk

from toolkit.document import Notebook
from toolkit.tracing import Tracking
from toolkit.values import JobRef


@pytest.fixture(scope="module")
def accepted(shared_desk: Desk) -> Done:
    """A good notebook that was tried out and promoted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_desk.workspace.root)
        path = shared_desk.write("capitals")
        shared_desk.try_out(path)
        return toolkit("promote", path, "--json")


# -- accepted ---------------------------------------------------------------------------------


def test_a_good_notebook_becomes_a_version_in_production(desk: Desk, accepted: Done) -> None:
    """Exit code 0, every stage passed, a version sealed, the alias on it, runnable at once."""
    told = accepted.json
    assert (accepted.code, told["accepted"], told["version"]) == (0, True, 1)
    assert {s["name"]: s["passed"] for s in told["stages"]} == dict.fromkeys(
        ("check", "reproduce", "rehearse", "evaluate", "simulate", "seal"), True
    )
    assert told["warnings"] == []
    assert desk.registry.aliases("capitals") == {"production": 1}
    run = toolkit("run", "capitals", "-p", 'questions=["Spain"]', "--json")
    assert (run.code, run.json["results"]) == (0, {"count": 1})


def test_what_is_sealed_is_the_notebook_without_its_outputs(desk: Desk, accepted: Done) -> None:
    """The normal form of what was offered, and its files verify."""
    version = desk.registry.resolve(JobRef("capitals"))
    files = desk.registry.load(version)
    assert set(files) == {"notebook.ipynb", "evidence.json", "report.html", "tools.json"}
    assert set(json.loads(files["tools.json"])["tools"]) == {"add", "write_file"}
    offered = Notebook.read(desk.workspace.root / "notebooks" / "capitals.ipynb")
    assert files["notebook.ipynb"] == offered.normalised()
    assert version.manifest.notebook_digest == accepted.json["notebook_digest"] == offered.digest
    assert version.manifest.results == ("count",)
    assert desk.registry.verify() == []


def test_the_evidence_holds_everything_that_was_decided_on(desk: Desk, accepted: Done) -> None:
    """Digests, stages, gates with numbers, every case with its answer: enough to ask again."""
    evidence = json.loads((Path(accepted.json["folder"]) / "evidence.json").read_text())
    assert evidence["schema"] == "evidence/1"
    assert evidence["promoted_by"] == "ana"
    assert evidence["attempt"] == 1
    assert evidence["policy_digest"].startswith("sha256:")
    assert set(evidence["evaluation_sets"]) == {"capitals"}
    (gate,) = evidence["gates"]
    assert (gate["scorer"], gate["minimum"], gate["observed"], gate["n"]) == (
        "correct",
        0.5,
        0.75,
        4,
    )
    rows = {row["case_id"]: row for row in evidence["evaluation"]["rows"]}
    assert rows["france"]["output"] == LABELS["France"]
    assert rows["peru"]["output"] == "I do not know"
    rehearsal = next(s for s in evidence["stages"] if s["name"] == "rehearse")["facts"]
    assert (rehearsal["state"], rehearsal["denied"]) == ("succeeded", 0)
    assert rehearsal["cost_usd"] != "0"


def test_an_environment_that_nobody_declared_is_the_workspaces(desk: Desk, accepted: Done) -> None:
    """Nothing is locked: the version keeps the digest of what was installed, its evidence the list."""
    told = desk.registry.resolve(JobRef("capitals", "1")).manifest.environment
    assert told["kind"] == "workspace"
    evidence = json.loads((Path(accepted.json["folder"]) / "evidence.json").read_text())
    assert len(evidence["distributions"]) == told["distributions"] > 10
    assert evidence["environment"] == told


def test_the_report_is_one_file_without_scripts(desk: Desk, accepted: Done) -> None:
    """Readable offline; nothing in it runs or is fetched."""
    html = (Path(accepted.json["folder"]) / "report.html").read_text()
    assert "capitals" in html
    assert "0.75" in html
    assert "default-src 'none'" in html
    assert not re.search(
        r"<script|\son\w+=|javascript:|src=[\"']?http|<link|@import", html, re.IGNORECASE
    )


def test_the_audit_log_keeps_the_promotion(desk: Desk, accepted: Done) -> None:
    """Who, what, which digests, which stages, which numbers."""
    begun, record = desk.audit("capitals")[:2]
    assert (begun.event, begun.by) == ("promotion.evaluating", "ana")
    assert (record.event, record.by) == ("promotion.accepted", "ana")
    assert record.body["evaluating"] == begun.n
    assert (record.body["version"], record.body["attempt"]) == (1, 1)
    assert record.body["notebook_digest"] == accepted.json["notebook_digest"]
    assert "0.75" in record.body["gates"][0]


def test_mlflow_shows_the_version_and_the_evaluation(desk: Desk, accepted: Done) -> None:
    """A registered model's version with the alias, and a run with the scores."""
    workspace = desk.workspace
    tracking = Tracking(workspace.mlflow_uri, artifacts=workspace.artifacts)
    client = tracking.store.client
    version = client.get_model_version_by_alias("capitals", "production")
    assert version.tags["toolkit.version"] == "1"
    assert version.tags["bundle_digest"].startswith("sha256:")
    run = client.get_run(accepted.json["evaluation_mlflow_run_id"])
    assert any(value == 0.75 for name, value in run.data.metrics.items() if "correct" in name)


# -- refused ----------------------------------------------------------------------------------


def test_what_the_check_refuses_is_not_executed_and_attempts_are_counted(desk: Desk) -> None:
    """A static error ends the attempt before any kernel starts; offering again is seen."""
    path = desk.write("shelled", "!ls", AGENT, *REST)
    before = desk.executed()
    first, second = desk.promote(path), desk.promote(path)
    assert desk.executed() == before
    assert (first.code, second.code) == (1, 1)
    assert desk.rules(first, "check") == {"shell-command"}
    assert {s["name"]: s["passed"] for s in first.json["stages"]} == {
        "check": False, "reproduce": None, "rehearse": None, "evaluate": None, "simulate": None,
    }  # fmt: skip
    assert (first.json["attempt"], second.json["attempt"]) == (1, 2)
    assert [(r.event, r.body["attempt"]) for r in desk.audit("shelled")] == [
        ("promotion.refused", 1), ("promotion.refused", 2),
    ]  # fmt: skip
    assert desk.audit("shelled")[0].body["rules"] == ["shell-command"]
    assert "shelled" not in desk.registry.jobs()
    assert "shell-command" in Path(first.json["report"]).read_text()


@pytest.mark.slow
def test_a_changed_output_and_a_denied_call_are_told_in_one_attempt(desk: Desk) -> None:
    """After the check every stage runs, so one attempt tells every finding."""
    path = desk.write(
        "two-faults", AGENT, "reply = toolkit.model('Spain', route='forbidden').text\nprint(reply)", *REST
    )  # fmt: skip
    desk.try_out(path)
    node = nbformat.read(path, as_version=4)
    node.cells[3].outputs[0].text = "something nicer\n"
    nbformat.write(node, path)
    done = desk.promote(path)
    assert done.code == 1
    assert desk.rules(done, "reproduce") == {"reproduce.output"}
    (differs,) = desk.stage(done, "reproduce")["findings"]
    assert differs["cell"] == 4
    assert r"'something nicer\n' == 'label-madrid-5c0a\n' (saved == now)" in differs["message"]
    assert "x1B" not in differs["message"]
    assert desk.rules(done, "rehearse") == {"rehearse.denied", "rehearse.state"}
    denied = next(f for f in desk.stage(done, "rehearse")["findings"] if f["rule"] == "rehearse.denied")  # fmt: skip
    assert "this route is closed for maintenance" in denied["message"]
    assert desk.rules(done, "evaluate") == {"evaluate.state", "evaluate.gate.correct"}


def test_without_a_sandbox_run_and_a_set_nothing_is_promoted(desk: Desk) -> None:
    """What was not tried out and not measured is refused, each with the way to mend it."""
    done = toolkit("promote", desk.write("unmeasured"), "--json")
    assert done.code == 1
    assert desk.rules(done, "reproduce") == {"reproduce.no-journal"}
    assert desk.rules(done, "evaluate") == {"evaluate.no-set"}
    fixes = " ".join(f["fix"] for s in done.json["stages"] for f in s["findings"])
    assert "toolkit run notebooks/unmeasured.ipynb --save" in fixes
    assert "registry/evaluations/unmeasured/" in fixes
    assert desk.stage(done, "rehearse")["passed"] is True


SPY = """import json, os, toolkit.client
heard = []
connection = toolkit.client.current()
ask = connection.post
def listen(path, body):
    reply = ask(path, body)
    heard.append(json.dumps([path, reply]))
    return reply
connection.post = listen
print('listening')"""
CURIOUS = """@toolkit.agent
def answer(question: str) -> str:
    \"\"\"Answers with whatever a case came with.\"\"\"
    with open({log!r}, "a") as file:
        file.write("\\n".join([*heard, json.dumps(dict(os.environ))]) + "\\n")
    return "I do not know"
"""


@pytest.mark.slow
def test_labels_never_reach_the_kernel_and_the_gate_tells_its_numbers(
    desk: Desk, tmp_path: Path
) -> None:
    """A notebook that listens to all that the gateway says learns no label, and fails the gate."""
    log = tmp_path / "heard.txt"
    path = desk.write("curious", SPY, CURIOUS.format(log=str(log)), *REST)
    desk.try_out(path)
    done = desk.promote(path)
    assert done.code == 1
    assert desk.rules(done, "evaluate") == {"evaluate.gate.correct"}
    (gate,) = done.json["gates"]
    assert (gate["passed"], gate["observed"], gate["n"]) == (False, 0.0, 4)
    assert "below the minimum 0.5: 2 cases too many are wrong" in gate["sentence"]
    heard = log.read_text()
    assert '"case_id": "france"' in heard, "it did hear the cases"
    run_id = desk.stage(done, "evaluate")["facts"]["run_id"]
    executed = (desk.workspace.runs / run_id / "output.ipynb").read_text()
    for label in LABELS.values():
        assert label not in heard
        assert label not in executed
    assert desk.audit("curious")[-1].body["gates"] == [gate["sentence"]]


FORGED = """@toolkit.agent
def answer(question: str) -> str:
    \"\"\"Knows nothing.\"\"\"
    return "I do not know"

def perfect(function):
    print('4 of 4 cases correct')
    return 4

toolkit.serve_cases = perfect
toolkit.client.serve_cases = perfect"""


@pytest.mark.slow
def test_a_notebook_that_claims_to_have_answered_does_not_pass(desk: Desk) -> None:
    """Scores come from what the gateway recorded; without answers every case is missing."""
    path = desk.write("forged", "import toolkit.client", FORGED, *REST)
    desk.try_out(path)
    done = desk.promote(path)
    assert (done.code, done.json["accepted"]) == (1, False)
    (gate,) = done.json["gates"]
    assert (gate["passed"], gate["observed"]) == (False, 0.0)
    assert desk.stage(done, "evaluate")["facts"]["missing"] == 4


# -- MLflow is down ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_mlflow_the_verdict_stands_with_warnings(
    desk: Desk, accepted: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails open, loudly: the version is sealed, exit code 0, and it does not take for ever."""
    monkeypatch.setenv("TOOLKIT_MLFLOW_URI", "http://127.0.0.1:9")
    done = desk.promote(Path("notebooks/capitals.ipynb"), "--fresh")
    assert (done.code, done.json["accepted"], done.json["version"]) == (0, True, 2)
    told = " ".join(done.json["warnings"])
    assert "MLflow does not show the evaluation" in told
    assert "MLflow does not show the version" in told
    assert done.json["attempt"] == 2
    assert desk.registry.aliases("capitals") == {"production": 2}


# -- called wrongly ---------------------------------------------------------------------------


def test_a_promotion_that_cannot_begin_says_why(desk: Desk) -> None:
    """No such file, no such set, wrong parameter, no name: nothing is executed or recorded."""
    path = desk.write("unnamed job!")
    before = desk.executed()
    assert toolkit("promote", "notebooks/none.ipynb", "--json").code == 78
    assert toolkit("promote", path, "--json").code == 2
    named = desk.promote(path, "--name", "named", "-p", "questions=[1]")
    assert (named.code, named.json["error"]["code"]) == (2, "usage")
    unknown = desk.promote(path, "--name", "named", "-p", "question=x")
    assert (unknown.code, unknown.json["error"]["code"]) == (2, "usage")
    missing = toolkit("promote", path, "--name", "named", "--evaluate", "no-such", "--json")
    assert (missing.code, missing.json["error"]["code"]) == (78, "not_found")
    assert desk.executed() == before
    assert desk.audit("named") == []


def test_people_read_stages_findings_and_the_verdict(desk: Desk) -> None:
    """As they happen, with a mark, a time and a sentence; then what to do."""
    done = toolkit("promote", desk.write("loud", "!ls", AGENT, *REST), "--evaluate", "capitals")
    assert done.code == 1
    assert re.search(r"^check +failed ", done.out, re.MULTILINE)
    assert re.search(r"error cell 3:1 +shell-command", done.out)
    assert "refused loud: 1 finding(s); attempt 1" in done.out
