"""A policy that has changed is tried on what the job did in production, before it judges a new version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli_world import toolkit
from promotion_world import Desk
from shelf_world import NOTEBOOK, Later
from workspace_world import write_workspace

from toolkit.app.explaining import simulated
from toolkit.app.simulations import simulate_job
from toolkit.app.workbench import Workbench
from toolkit.document import Notebook
from toolkit.errors import InvalidFile
from toolkit.policy import PolicyBundle
from toolkit.promotion import simulating, stage_json
from toolkit.promotion.attempt import Attempt
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.locking import Surroundings
from toolkit.promotion.simulating import JobHistory, simulate_history
from toolkit.promotion.stages import Stage
from toolkit.settings import Workspace
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Environment,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    Verdict,
    iso_utc,
)

CLOSED = """
@id("no-files") @reason("files are closed")
forbid(principal, action == Action::"call_tool", resource == Tool::"write_file");
"""
ASKED = """
@id("asked-first") @ask("approver")
forbid(principal, action == Action::"call_tool", resource == Tool::"write_file");
"""
HOSTS = """
@id("near") forbid(principal, action == Action::"call_tool", resource == Tool::"write_file")
when { context has host && context.host == "far" };
"""


@dataclass
class Past:
    """A workspace whose job is in production and has made calls."""

    workspace: Workspace
    bench: Workbench
    attempt: Attempt = field(default_factory=lambda: Attempt("steady", "n", lambda _: None))
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def bundle(self) -> PolicyBundle:
        return PolicyBundle.load(self.workspace.registry / "policies" / "production")

    def put_in_production(self, policy: str | None = "", *, stages: Sequence[Stage] = ()) -> None:
        """Seal a version that was promoted under a policy; the empty text is today's."""
        digest = self.bundle.digest if policy == "" else policy
        facts = {"by": "ana", "policy_digest": digest}
        evidence = {"stages": [stage_json(stage) for stage in stages]}
        files = {"notebook.ipynb": b"{}", "evidence.json": json.dumps(evidence).encode()}
        sealed = self.bench.registry.seal("steady", files, facts)
        self.bench.registry.set_alias("steady", "production", sealed.version, by="ana")

    def call(
        self,
        tool: str,
        verdict: Verdict = Verdict.ALLOW,
        *,
        times: int = 1,
        kind: RunKind = RunKind.RUN,
        job: str = "steady",
    ) -> None:
        """Record a production run of the job that called a tool."""
        run = RunRecord(
            f"{kind}-{job}-{len(self.bench.ledger.runs(limit=1000))}",
            kind,
            Environment.PRODUCTION,
            "ana",
            job=job,
        )
        ledger = self.bench.ledger
        ledger.create_run(run)
        decided = Decision(verdict, ("catalogued",))
        for number in range(times):
            intent = Intent(run.run_id, CallKind.TOOL, tool, {"n": number}, request_id=f"{number}")
            call = ledger.begin(intent, decided).call
            if verdict is Verdict.ALLOW:
                ledger.finish(call, Outcome(CallState.OK, answer="ok"))

    def change(self, rules: str) -> None:
        path = self.workspace.registry / "policies" / "production" / "rules.cedar"
        path.write_text(path.read_text() + rules)

    def waive(self, **members: str) -> None:
        entry = {
            "rule": "simulate.denied",
            "job": "steady",
            "owner": "ana",
            "reason": "the new version writes no files",
            "expires": iso_utc(Later(30).now_us())[:10],
            **members,
        }
        lines = [f"{name}: {value!r}" for name, value in entry.items() if value]
        text = "waivers:\n  - " + "\n    ".join(lines) + "\n"
        (self.workspace.registry / "waivers.yaml").write_text(text)

    def decide(self, job: str, bundle: PolicyBundle, since_us: int, most: int) -> JobHistory:
        self.asked.append((since_us, most))
        return simulate_job(self.bench, job, bundle, since_us, most)

    def simulate(self, *, days: float = 0.0) -> Stage:
        notebook = Notebook.parse(NOTEBOOK.encode())
        candidate = Candidate(
            job="steady",
            notebook=notebook,
            data=notebook.normalised(),
            name="notebooks/steady.ipynb",
            user="ana",
            bundle=self.bundle,
            parameters={},
            surroundings=Surroundings({"kind": "workspace"}),
        )
        clock = Later(days)
        return simulate_history(candidate, self.attempt, self.bench.registry, self.decide, clock)


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    made.state.mkdir(exist_ok=True)
    (made.registry / "people.yaml").write_text("people: {boss: {roles: [approver]}}\n")
    bench = Workbench(made)
    yield Past(made, bench)
    bench.close()


def told(stage: Stage) -> list[tuple[str, str]]:
    return [(found.rule, str(found.severity)) for found in stage.findings]


def test_a_first_version_has_no_policy_to_compare_with(past: Past) -> None:
    """Nothing is in production: the step passes and says so, and nothing is decided again."""
    past.change(CLOSED)
    stage = past.simulate()
    assert (stage.name, stage.passed, stage.findings) == ("simulate", True, ())
    assert "nothing of the job is in production" in stage.summary
    assert past.asked == []


def test_the_same_policy_is_not_tried(past: Past) -> None:
    """The digest is the one that is sealed with the version in production."""
    past.put_in_production()
    past.call("write_file")
    stage = past.simulate()
    assert stage.passed is True
    assert stage.summary == "the policy is the one that steady@1 was promoted under"
    assert stage.facts["policy_before"] == stage.facts["policy_now"] == past.bundle.digest
    assert past.asked == []


def test_without_history_a_changed_policy_passes(past: Past) -> None:
    """It says that there was nothing to decide again."""
    past.put_in_production()
    past.change(CLOSED)
    stage = past.simulate()
    assert (stage.passed, stage.facts["recorded"]) == (True, 0)
    assert "its history of 30 days has no calls" in stage.summary


def test_a_call_that_would_be_denied_now_refuses_the_promotion(past: Past) -> None:
    """With the policy that fires, its reason, how many calls, and one of them."""
    past.put_in_production()
    before = past.bundle.digest
    past.call("write_file", times=3)
    past.call("add", times=2, kind=RunKind.REHEARSAL)
    past.change(CLOSED)
    stage = past.simulate()
    assert stage.passed is False
    assert told(stage) == [("simulate.denied", "error")]
    (found,) = stage.findings
    assert found.message == (
        "newly denied: 3 × call_tool 'write_file', by no-files: files are closed; "
        f"the first is {_first(stage)} of ana"
    )
    assert "waive simulate.denied" in found.fix
    facts = stage.facts
    assert (facts["policy_before"], facts["policy_now"]) == (before, past.bundle.digest)
    assert (facts["recorded"], facts["calls"], facts["same"], facts["days"]) == (5, 5, 2, 30)
    assert facts["counts"] == {"newly_denied": 3, "newly_asked": 0, "newly_allowed": 0}
    assert facts["changed"][0]["policies"] == ["no-files"]
    assert "3 newly denied, 0 newly asked, 0 newly allowed" in stage.summary


def _first(stage: Stage) -> str:
    return str(stage.facts["changed"][0]["examples"][0]["call_id"])


def test_what_would_ask_or_be_allowed_now_is_told(past: Past) -> None:
    """Warnings: the promotion goes on."""
    past.put_in_production()
    past.call("write_file")
    past.call("add", Verdict.DENY)
    past.change(ASKED)
    stage = past.simulate()
    assert stage.passed is True
    assert told(stage) == [("simulate.asked", "warning"), ("simulate.allowed", "warning")]


def test_a_policy_that_nobody_knows_counts_as_another(past: Past) -> None:
    """A version of an older toolkit has no digest."""
    past.put_in_production(policy=None)
    past.call("write_file")
    past.change(CLOSED)
    stage = past.simulate()
    assert (stage.passed, stage.facts["policy_before"]) == (False, None)
    assert stage.summary.startswith("nobody knows the policy of steady@1: 1 calls")


def test_only_this_jobs_runs_and_rehearsals_are_its_history(past: Past) -> None:
    """Not those of another job, nor the cases of an evaluation."""
    past.put_in_production()
    past.call("write_file", job="other")
    past.call("write_file", kind=RunKind.EVALUATION)
    past.change(CLOSED)
    assert past.simulate().facts["recorded"] == 0


def test_history_is_bounded_and_the_bound_is_told(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest calls count, and calls that are older than a month do not."""
    monkeypatch.setattr(simulating, "MOST_CALLS", 4)
    past.put_in_production()
    past.call("write_file", times=3)
    past.call("add", times=4)
    past.change(CLOSED)
    stage = past.simulate()
    assert (stage.passed, stage.facts["recorded"], stage.facts["calls"]) == (True, 7, 4)
    assert "the newest 4 of 7 calls of 30 days" in stage.summary
    assert past.simulate(days=31).facts["recorded"] == 0


def test_what_is_decided_by_unrecorded_facts_is_said_to_be_unknown(past: Past) -> None:
    """A warning for each resource: nothing is guessed."""
    past.put_in_production()
    past.call("write_file", times=2)
    past.change(HOSTS)
    stage = past.simulate()
    assert (stage.passed, told(stage)) == (True, [("simulate.unknown", "warning")])
    assert "2 cannot be told" in stage.summary


def test_a_waiver_lets_a_denied_call_pass_and_is_kept(past: Past) -> None:
    """The new version no longer makes the call, says somebody, until a day."""
    past.put_in_production()
    past.call("write_file")
    past.change(CLOSED)
    past.waive()
    stage = past.simulate()
    assert (stage.passed, stage.findings) == (True, ())
    assert stage.summary.endswith("; 1 waived")
    (kept,) = past.attempt.facts["waivers"]
    assert (kept["rule"], kept["owner"]) == ("simulate.denied", "ana")


def test_a_waiver_that_ended_excuses_nothing(past: Past) -> None:
    """It is an error of its own; another job's says nothing here."""
    past.put_in_production()
    past.call("write_file")
    past.change(CLOSED)
    past.waive(expires="2020-01-31")
    assert set(told(past.simulate())) == {("simulate.denied", "error"), ("expired-waiver", "error")}
    past.waive(job="another")
    assert told(past.simulate()) == [("simulate.denied", "error")]


def test_a_waiver_of_a_step_is_not_the_checks(past: Past) -> None:
    """`toolkit check` neither uses it nor finds it unused; it is about no cell."""
    past.waive()
    path = past.workspace.root / "notebooks" / "steady.ipynb"
    path.write_text(NOTEBOOK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(past.workspace.root)
        done = toolkit("check", path, "--json")
    assert "unused-waiver" not in done.out
    past.waive(cell="3fa9c1d2")
    past.put_in_production(policy="sha256:" + "0" * 64)
    with pytest.raises(InvalidFile, match="1 fault"):
        past.simulate()


def test_registry_show_tells_which_calls_the_policy_decides_otherwise(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By groups, with counts and one call of each, as it was sealed with the version."""
    past.put_in_production()
    past.call("write_file", times=3)
    past.call("read_inbox", Verdict.DENY)
    past.change(CLOSED)
    past.waive()
    stage = past.simulate()
    past.put_in_production(stages=[stage])
    monkeypatch.chdir(past.workspace.root)
    told = toolkit("registry", "show", "steady@2", "--json").json["simulation"]
    assert told["passed"] is True
    assert told["counts"] == stage.facts["counts"]
    assert (told["more_groups"], told["not_told"]) == (0, [])
    denied = next(group for group in told["groups"] if group["change"] == "newly denied")
    assert (denied["calls"], denied["policies"]) == (3, ["no-files"])
    assert denied["example"]["reasons"] == ["files are closed"]
    shown = toolkit("registry", "show", "steady@2").out
    for words in ("newly denied", "write_file", "no-files", "files are closed"):
        assert words in shown
    assert str(denied["example"]["call_id"])[:20] in shown
    assert toolkit("registry", "show", "steady@1", "--json").json["simulation"] is None
    assert "recorded calls under its policy" not in toolkit("registry", "show", "steady@1").out


def test_evidence_of_another_shape_is_shown_as_far_as_it_goes(past: Past) -> None:
    """What was sealed is data: odd values end no command."""
    odd: dict[str, Any] = {"counts": {"newly_denied": "many"}, "changed": [{"calls": None}, 7]}
    assert simulated({"stages": [{"name": "simulate", "facts": odd}]}) == {
        "passed": False,
        "calls": 0,
        "counts": {"newly_denied": 0, "newly_asked": 0, "newly_allowed": 0},
        "groups": [
            {"change": None, "action": None, "resource": None}
            | {"policies": [], "calls": 0, "example": None}
        ],
        "more_groups": 0,
        "not_told": [],
    }
    assert simulated({"stages": [{"name": "simulate", "facts": None}]}) is None


@pytest.mark.slow
def test_a_promotion_under_a_stricter_policy_is_refused_with_the_call(desk: Desk) -> None:
    """The whole gate: the version in production called a tool that the new policy closes."""
    tool = (
        "@toolkit.tool\ndef add(a: int, b: int) -> int:\n    return a + b",
        "if len(questions) > 1:\n    print(add(1, 2))",
    )
    path = desk.write("adder", *_cells(tool))
    desk.try_out(path)
    first = desk.promote(path)
    assert (first.code, desk.stage(first, "simulate")["passed"]) == (0, True), first.out
    rules = desk.workspace.registry / "policies" / "production" / "rules.cedar"
    text = rules.read_text()
    rules.write_text(text + CLOSED.replace("write_file", "add"))
    try:
        # The rehearsal of these parameters does not call it: only the history knows.
        done = desk.promote(path, "-p", 'questions=["France"]')
    finally:
        rules.write_text(text)
    assert done.code == 1
    assert desk.rules(done, "simulate") == {"simulate.denied"}
    assert desk.stage(done, "rehearse")["passed"] is True
    report = Path(done.json["report"]).read_text()
    assert "newly denied" in report
    assert "no-files" in report
    body: dict[str, Any] = desk.audit("adder")[-1].body
    assert body["stages"]["simulate"] is False
    assert "simulate.denied" in body["rules"]


def _cells(more: tuple[str, ...]) -> tuple[str, ...]:
    from promotion_world import AGENT, REST

    return (AGENT, *more, *REST)
