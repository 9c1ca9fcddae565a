"""What a person reads of a new version: what changed since production, set by set, here and in MLflow."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_world import Done, toolkit
from promotion_world import AGENT, REST, SET, Desk

from toolkit.promotion.since import since_production
from toolkit.tracing import Tracking
from toolkit.values import digest_json

pytestmark = pytest.mark.slow


@dataclass
class Second:
    """A version that replaced another, on two sets."""

    first: Done
    done: Done

    @property
    def report(self) -> str:
        return (Path(self.done.json["folder"]) / "report.html").read_text()


def _second_set(desk: Desk) -> None:
    folder = desk.workspace.registry / "evaluations" / "rivers"
    folder.mkdir()
    (folder / "set.yaml").write_text(SET.replace("capitals", "rivers"))
    cases = [("seine", "France", "label-paris-81f3"), ("nile", "Egypt", "never")]
    lines = (
        json.dumps({"id": name, "inputs": {"question": question}, "expected": expected})
        for name, question, expected in cases
    )
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n")
    policy = desk.workspace.registry / "policies" / "production" / "policy.yaml"
    both = "0.5}], rivers: [{scorer: correct, minimum: 0.25}]}"
    policy.write_text(policy.read_text().replace("0.5}]}", both))


@pytest.fixture(scope="module")
def second(shared_desk: Desk) -> Second:
    """Promoted on one set; then on two, with another cell, default, tool and policy."""
    with pytest.MonkeyPatch.context() as patch:
        desk = shared_desk
        patch.chdir(desk.workspace.root)
        path = desk.write("atlas")
        desk.try_out(path)
        first = desk.promote(path)
        assert first.code == 0, first.out
        _second_set(desk)
        tools = desk.workspace.registry / "tools.yaml"
        tools.write_text(
            tools.read_text().replace("Adds two numbers.", "Adds two <i>whole</i> ones.")
        )
        # A new cell, and a default that is another.
        path = desk.write("atlas", AGENT, "greeting = '<script>alert(1)</script>'", *REST)
        text = Path(path).read_text()
        Path(path).write_text(text.replace('\\"Chile\\"', '\\"Spain\\"'))
        desk.try_out(path)
        done = desk.promote(path, "--evaluate", "rivers")
        assert done.code == 0, done.out
        return Second(first, done)


def test_the_report_tells_what_changed_since_production(second: Second) -> None:
    """Cells line by line, the default, the policy, the tool, the new set; escaped, without scripts."""
    html = second.report
    assert "Since atlas@1, the version in production" in html
    assert "+greeting = &#39;&lt;script&gt;alert(1)&lt;/script&gt;&#39;" in html
    assert "<script" not in html
    assert re.search(r"<td>parameter <code>questions</code></td><td>changed</td>", html)
    assert re.search(r"<td>policy</td><td>changed</td>", html)
    assert re.search(r"<td>evaluation set <code>rivers</code></td><td>added</td>", html)
    assert re.search(r"<td>tool <code>add</code></td><td>changed</td>", html)
    assert "Adds two &lt;i&gt;whole&lt;/i&gt; ones." in html
    assert re.search(r"<td>environment</td>", html) is None, "the environment is the same"


def test_the_report_compares_cost_and_time(second: Second) -> None:
    """The rehearsal's and each set's, where both were measured."""
    html = second.report
    assert "Cost and time" in html
    rows = re.findall(r'<tr><td>(rehearse|evaluate \w+)</td><td>(\w+)</td><td class="n">([^<]*)</td><td class="n">([^<]*)</td>', html)  # fmt: skip
    told = {(step, name): (before, now) for step, name, before, now in rows}
    for step in ("rehearse", "evaluate capitals"):
        assert re.fullmatch(r"\$0\.0000\d\d", told[step, "cost"][0]), told
        assert told[step, "time"][1].endswith(" s")
    assert told["evaluate rivers", "cost"][0] == "–", "it was not measured before"


def test_each_set_has_its_gates_and_cases(second: Second) -> None:
    """Not only the last one's; the case of each that went wrong."""
    html = second.report
    for name in ("capitals", "rivers"):
        assert f"<td>evaluate {name}</td>" in html
        assert f"<h2>Gates: {name}</h2>" in html
    assert "<h2>Cases to look at: capitals (1 of 4)</h2>" in html
    assert "<h2>Cases to look at: rivers (1 of 2)</h2>" in html
    assert "<td>peru</td>" in html
    assert "<td>nile</td>" in html


def test_a_report_of_one_set_names_no_set(second: Second) -> None:
    """And a first version has nothing to be compared with."""
    html = (Path(second.first.json["folder"]) / "report.html").read_text()
    assert "<h2>Gates</h2>" in html
    assert "<h2>Cases to look at (1 of 4)</h2>" in html
    assert "the version in production</h2>" not in html


def test_the_version_binds_both_sets(desk: Desk, second: Second) -> None:
    """Evidence says which gate is of which set; diff names the set and the tool."""
    version = desk.registry.resolve("atlas")
    evidence = json.loads(desk.registry.load(version)["evidence.json"])
    assert version.manifest.evaluation_digest == digest_json(evidence["evaluation_sets"])
    assert [gate["set"] for gate in evidence["gates"]] == ["capitals", "rivers"]
    shown = toolkit("registry", "diff", "atlas@1", "atlas@2")
    assert re.search(r"tool\s+add\s+changed", shown.out)
    assert re.search(r"evaluation set\s+rivers\s+added", shown.out)


def test_nothing_is_compared_with_a_notebook_that_was_not_read(desk: Desk) -> None:
    """The check refused it: there is no candidate."""
    assert since_production(desk.registry, None, [], None, {}) is None  # type: ignore[arg-type]


def test_mlflow_shows_what_the_version_rests_on(desk: Desk, second: Second) -> None:
    """Digests and evaluation runs are tags; the report is a file of the rehearsal's run."""
    workspace = desk.workspace
    tracking = Tracking(workspace.mlflow_uri, artifacts=workspace.artifacts)
    client = tracking.store.client
    shown = client.get_model_version_by_alias("atlas", "production")
    version = desk.registry.resolve("atlas")
    evidence = json.loads(desk.registry.load(version)["evidence.json"])
    assert shown.tags["bundle_digest"] == version.bundle_digest
    assert shown.tags["policy_digest"] == version.manifest.policy_digest
    assert shown.tags["evaluation_digest"] == version.manifest.evaluation_digest
    runs = evidence["evaluation_mlflow_runs"]
    assert set(runs) == {"capitals", "rivers"}
    for name, digest in evidence["evaluation_sets"].items():
        assert shown.tags[f"evaluation_digest.{name}"] == digest
        assert shown.tags[f"evaluation_run.{name}"] == runs[name]
        assert client.get_run(runs[name]).data.tags["toolkit.evaluation_digest"] == digest
    run_id, _, path = shown.tags["report"].removeprefix("runs:/").partition("/")
    assert (run_id, path) == (shown.run_id, "promotion/atlas-2/report.html")
    assert f"/runs/{run_id}/artifacts/{path}" in shown.description
    root = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    assert (root / path).read_text() == second.report
