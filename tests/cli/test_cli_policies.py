"""`toolkit policy` at the command line: exit codes, JSON, and files that can be used."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cli_world import toolkit

from toolkit.ledger import Ledger
from toolkit.policy import PolicyBundle
from toolkit.registry import AuditRecord, Registry
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Effect,
    Environment,
    Intent,
    Labels,
    ManualClock,
    Outcome,
    RunKind,
    RunRecord,
    Source,
    Verdict,
)

LIMITS = """\
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "1.00", tokens: 1000, calls: 10, seconds: 60}
"""
TOOLS = """\
tools:
  inbox: {effect: read, description: Mail., labels: {sources: [untrusted]}, arguments: {}}
  pay: {effect: write, description: Pays., arguments: {to: {type: string, role: destination}}}
"""
RULES = """\
@id("all") permit(principal, action, resource);
@id("ask") @ask("approver") forbid(principal, action == Action::"call_tool", resource == Tool::"pay");
"""
CASES = "- {name: payments are asked about, request: {user: ana, tool: pay, arguments: {to: x}}, expect: ask}\n"
CALM = """\
@id("calm") @reason("not after reading mail")
forbid(principal, action == Action::"call_tool", resource == Tool::"pay")
when { context.session.sources.contains("untrusted") };
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with one production bundle, as the working folder."""
    (tmp_path / "toolkit.toml").write_text('user = "ana"\n')
    bundle = tmp_path / "registry" / "policies" / "production"
    bundle.mkdir(parents=True)
    (tmp_path / "registry" / "tools.yaml").write_text(TOOLS)
    (tmp_path / "registry" / "people.yaml").write_text("people: {boss: {roles: [approver]}}\n")
    (bundle / "policy.yaml").write_text(LIMITS)
    (bundle / "rules.cedar").write_text(RULES)
    (bundle / "tests.yaml").write_text(CASES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recorded(root: Path) -> Path:
    """A sandbox session that read mail and then paid, and one that only paid, an hour apart."""
    clock = ManualClock(us=int((time.time() - 7200) * 1e6))
    (root / ".toolkit").mkdir(mode=0o700)
    allow = Decision(Verdict.ALLOW, ("all",), production_verdict=Verdict.ASK)
    mail = Labels(frozenset({Source.UNTRUSTED}))
    with Ledger.open(f"sqlite:///{root / '.toolkit' / 'ledger.db'}", clock=clock) as ledger:
        for name, tools in (("session-1", ("inbox", "pay")), ("session-2", ("pay",))):
            ledger.create_run(
                RunRecord(
                    name, RunKind.SESSION, Environment.SANDBOX, "ana", notebook="notebooks/a.ipynb"
                )
            )
            for tool in tools:
                arguments = {"to": f"DE-{name}"} if tool == "pay" else {}
                effect = Effect.WRITE if tool == "pay" else Effect.READ
                intent = Intent(
                    name, CallKind.TOOL, tool, arguments, request_id=f"{name}{tool}", effect=effect
                )
                call = ledger.begin(intent, allow).call
                clock.advance(seconds=1)
                answer = mail if tool == "inbox" else None
                ledger.finish(call, Outcome(CallState.OK, answer="ok", labels=answer))
            clock.advance(seconds=3600)
    return root


def test_check_says_what_is_wrong_and_with_which_exit_code(root: Path):
    """0 nothing, 1 what cannot work as meant, 78 faults: all of them, with their lines."""
    done = toolkit("policy", "check", "--json")
    assert (done.code, done.json["exit_code"]) == (0, 0)
    (root / "registry" / "people.yaml").unlink()
    done = toolkit("policy", "check")
    assert done.code == 1
    assert "approver, which nobody in registry/people.yaml has" in done.out
    rules = root / "registry" / "policies" / "production" / "rules.cedar"
    rules.write_text(RULES + CALM.replace("session", "sessions") + CALM.replace('"calm"', '""'))
    done = toolkit("policy", "check", "production")
    assert done.code == 78
    assert "rules.cedar:3" in done.err
    assert "has no @id" in done.err
    assert "Traceback" not in done.err


def test_approvals_that_nobody_can_give_are_noted(root: Path):
    """A version that two people must let in, where nobody has their roles, or one person has."""
    limits = root / "registry" / "policies" / "production" / "policy.yaml"
    limits.write_text(LIMITS + "promotion: {approvals: 2, from: [reviewer, owner]}\n")
    people = root / "registry" / "people.yaml"
    for listed, code, said in (
        ("people: {boss: {roles: [approver]}}\n", 1, "which nobody in registry/people.yaml has"),
        ("people: {boss: {roles: [approver, owner]}}\n", 1, "only 1 of registry/people.yaml"),
        ("people: {boss: {roles: [approver, owner]}, eva: {roles: [reviewer]}}\n", 0, "ok"),
    ):
        people.write_text(listed)
        done = toolkit("policy", "check", "production")
        assert done.code == code, done.told
        assert said in done.out
    (root / "registry" / "trust").mkdir()
    (root / "registry" / "trust" / "root.json").write_text("{}")
    people.write_text("people: {boss: {roles: [approver]}}\n")
    assert toolkit("policy", "check", "production").code == 0, "the root names who approves"


def test_a_wrong_case_file_is_found_by_check(root: Path):
    """Faults in tests.yaml are faults of the bundle's folder."""
    (root / "registry" / "policies" / "production" / "tests.yaml").write_text("- {name: x}\n")
    assert toolkit("policy", "check").code == 78


def test_test_runs_the_cases_beside_the_bundle(root: Path):
    """Exit code 0 when all pass, 1 when one does not, 78 without cases."""
    done = toolkit("policy", "test", "--json")
    assert (done.code, done.json["cases"][0]["verdict"]) == (0, "ask")
    cases = root / "registry" / "policies" / "production" / "tests.yaml"
    cases.write_text(CASES.replace("expect: ask", "expect: allow"))
    done = toolkit("policy", "test")
    assert done.code == 1
    assert "is ask, expected allow" in done.out
    cases.unlink()
    assert toolkit("policy", "test").code == 78


def test_simulate_decides_the_past_again(recorded: Path):
    """What a session had read by then counts; without the change nothing differs."""
    done = toolkit("policy", "simulate", "--json")
    assert done.code == 0
    assert (done.json["calls"], done.json["same"]) == (3, 2)
    assert done.json["counts"]["newly_allowed"] == 1  # the recorded verdict of inbox was ask
    changed = recorded / "new" / "production"
    changed.mkdir(parents=True)
    (changed / "policy.yaml").write_text(LIMITS)
    (changed / "rules.cedar").write_text(RULES + CALM)
    done = toolkit("policy", "simulate", "--bundle", "new/production", "--json")
    (denied,) = [g for g in done.json["changed"] if g["change"] == "newly denied"]
    assert (denied["calls"], denied["policies"]) == (1, ["calm"])
    assert denied["examples"][0]["call_id"].startswith("session-1/")
    assert denied["examples"][0]["reasons"] == ["not after reading mail"]
    shown = toolkit("policy", "simulate", "--bundle", "new/production")
    assert "not after reading mail" in shown.out


def test_simulate_looks_back_as_far_as_it_is_told(recorded: Path):
    """`--since` counts from now; what is no time is a usage error."""
    calls = lambda since: toolkit("policy", "simulate", "--since", since, "--json")  # noqa: E731
    assert calls("all").json["calls"] == 3
    assert calls("90m").json["calls"] == 1
    assert calls("30m").json["calls"] == 0
    assert calls("soon").code == 2


def test_mine_proposes_a_bundle_that_can_be_used(recorded: Path):
    """By notebook or run; the files are a registry of their own, written only into a new folder."""
    done = toolkit("policy", "mine", "notebooks/a.ipynb", "--out", "mined", "--json")
    assert done.code == 0
    assert (done.json["calls"], done.json["runs"]) == (3, 2)
    bundle = PolicyBundle.load(recorded / "mined" / "policies" / "production")
    assert {policy.id for policy in bundle.policies} == {"mined-tool-inbox", "mined-tool-pay"}
    assert bundle.tools["pay"].arguments["to"].role == "destination"
    again = toolkit("policy", "simulate", "--bundle", "mined/policies/production", "--json")
    assert again.json["counts"]["newly_denied"] == 0
    assert toolkit("policy", "mine", "notebooks/a.ipynb", "--out", "mined").code == 2
    one = toolkit("policy", "mine", "session-2")
    assert "DE-session-2" in one.out
    assert "DE-session-1" not in one.out
    assert toolkit("policy", "mine", "notebooks/b.ipynb").code == 78


def _log(root: Path, event: str) -> list[AuditRecord]:
    return [record for record in Registry(root / "registry").audit() if record.event == event]


def test_a_policy_that_is_promoted_is_tried_on_everything_recorded(recorded: Path):
    """What differs is shown, and kept with the record; that something is denied refuses nothing."""
    rules = recorded / "registry" / "policies" / "production" / "rules.cedar"
    rules.write_text(RULES + CALM)
    looked = toolkit("policy", "promote", "production", "--dry-run")
    assert looked.code == 3
    assert "3 recorded calls" in looked.out
    assert "newly denied: session-1/" in looked.out
    assert "nothing is signed" in looked.out
    assert _log(recorded, "policy.promoted") == []
    done = toolkit("policy", "promote", "production", "--json")
    assert (done.code, done.json["in_force"]) == (0, True)
    assert done.json["simulation"]["counts"]["newly_denied"] == 1
    (record,) = _log(recorded, "policy.promoted")
    kept = record.body["simulation"]
    assert kept == done.json["simulation"]
    assert (kept["policy_digest"], kept["calls"]) == (done.json["digest"], 3)
    assert kept["changed"][0]["policies"] == ["calm"]
    again = toolkit("policy", "promote", "production", "--json")
    assert (again.code, again.json["simulation"]) == (0, None)


def test_a_ledger_that_is_away_does_not_keep_a_policy_from_its_people(recorded: Path):
    """It is said and recorded that nothing was decided again."""
    (recorded / ".toolkit" / "ledger.db").write_bytes(b"no database" * 1000)
    done = toolkit("policy", "promote", "production")
    assert done.code == 0, done.told
    assert "were not decided again" in done.err
    (record,) = _log(recorded, "policy.promoted")
    assert record.body["simulation"]["failed"]
