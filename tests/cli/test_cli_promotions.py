"""`approve`, `reject`, `inbox`, `registry revoke|retire|rollback`: what several people do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_world import GOOD, Done, seal, toolkit

from toolkit.app.standing import Standing, Wish
from toolkit.app.workbench import open_workbench
from toolkit.ledger import Ledger
from toolkit.registry import Registry
from toolkit.settings import Workspace
from toolkit.values import Environment, RunKind, RunRecord, RunState

RULE = """
promotion:
  approvals: 2
  from: [reviewer, owner]
  jobs: {free: {approvals: 0}}
"""
PEOPLE = """
people:
  ana: {roles: [reviewer]}
  ben: {roles: [reviewer]}
  cho: {roles: [owner]}
  eve: {roles: [analyst]}
"""


@pytest.fixture(scope="module")
def house(shared_workspace: Workspace) -> Workspace:
    """Two people of four have to approve what goes to production."""
    policy = shared_workspace.registry / "policies" / "production" / "policy.yaml"
    policy.write_text(policy.read_text() + RULE)
    (shared_workspace.registry / "people.yaml").write_text(PEOPLE)
    return shared_workspace


@pytest.fixture(autouse=True)
def here(house: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.root)


class As:
    """Act as somebody: the settings' user."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: object) -> Done:
        before = os.environ.get("TOOLKIT_USER")
        os.environ["TOOLKIT_USER"] = self.name
        try:
            return toolkit(*arguments)
        finally:
            os.environ.pop("TOOLKIT_USER", None)
            if before is not None:
                os.environ["TOOLKIT_USER"] = before


ana, ben, cho, eve = As("ana"), As("ben"), As("cho"), As("eve")


def ask(workspace: Workspace, job: str, wish: Wish | None = None) -> tuple[int, Standing | None]:
    """Seal a version as ana and ask for it to be let in, as the promotion does."""
    number = seal(workspace, job, *GOOD, alias=None)
    os.environ["TOOLKIT_USER"] = "ana"
    try:
        with open_workbench(workspace.root) as bench:
            return number, bench.promotions.release(job, number, wish or Wish())
    finally:
        del os.environ["TOOLKIT_USER"]


def aliases(workspace: Workspace, job: str) -> dict[str, int]:
    return Registry(workspace.registry).aliases(job)


def test_two_people_let_a_version_in(house: Workspace) -> None:
    """The alias stands still until the second approval; nobody counts twice, authors never."""
    number, standing = ask(house, "pair")
    ref = f"pair@{number}"
    assert standing
    assert not standing.moved
    assert aliases(house, "pair") == {}
    (waits,) = [one for one in toolkit("inbox", "--json").json if one.get("job") == "pair"]
    assert waits["needed"] == 2
    assert waits["asked"] == "reviewer or owner (ben, cho)"
    assert f"toolkit approve {ref}" in toolkit("inbox").out
    refused = ana("approve", ref)
    assert (refused.code, "authors never approve" in refused.err) == (78, True)
    assert "does not have the role" in eve("approve", ref).err
    first = ben("approve", ref, "--json")
    assert (first.code, first.json["approved_by"]) == (3, ["ben"])
    assert ben("approve", ref, "--json").json["approved_by"] == ["ben"]
    run = toolkit("run", ref)
    assert (run.code, "nobody" in run.err or "not let in" in run.err) == (3, True)
    assert aliases(house, "pair") == {}
    done = cho("approve", ref)
    assert done.code == 0, done.told
    assert aliases(house, "pair") == {"production": number}
    assert cho("approve", ref).code == 2
    why = toolkit("registry", "show", ref, "--json").json["why"]
    assert any(
        one.startswith("approved by ben, cho for production; cho completed it") for one in why
    )
    assert "it runs as production" in why
    events = [r.event for r in Registry(house.registry).audit() if r.body.get("job") == "pair"]
    assert events == ["promotion.asked", "approval.given", "approval.given", "promotion.released"]
    assert not [one for one in toolkit("inbox", "--json").json if one.get("job") == "pair"]


def test_a_job_without_a_rule_needs_nobody(house: Workspace) -> None:
    """The default is nought: one command, as before."""
    number, standing = ask(house, "free")
    assert standing is None
    assert aliases(house, "free") == {"production": number}


def test_a_rejected_version_stays_out(house: Workspace) -> None:
    """With a reason, by somebody who may; later approvals are refused with it."""
    number, _ = ask(house, "bad")
    ref = f"bad@{number}"
    assert eve("reject", ref, "--reason", "no").code == 78
    assert ben("reject", ref, "--reason", " ").code == 2
    assert ben("reject", ref, "--reason", "misses cases").code == 0
    told = cho("approve", ref)
    assert (told.code, "rejected by ben: misses cases" in told.err) == (2, True)
    assert aliases(house, "bad") == {}


def test_a_changed_request_or_policy_takes_approvals_back(house: Workspace) -> None:
    """An approval is of the version, the policy and the way it is let in."""
    number, _ = ask(house, "bound")
    ben("approve", f"bound@{number}")
    path = house.registry / "jobs" / "bound" / "requests" / f"{number}.json"
    path.write_text(path.read_text().replace('"alias": "production"', '"alias": "elsewhere"'))
    (waits,) = [one for one in toolkit("inbox", "--json").json if one.get("job") == "bound"]
    assert waits["approved_by"] == []
    assert "something else" in waits["notes"][0]


def test_rollback_revoke_and_retire(house: Workspace) -> None:
    """Waiting runs end, new ones are refused with 78 and the reason."""
    for _ in range(3):
        number, _ = ask(house, "free")
    assert toolkit("registry", "rollback", "free", "--to", number - 2).code == 0
    assert aliases(house, "free") == {"production": number - 2}
    toolkit("registry", "rollback", "free", "--to", number)
    with Ledger.open(house.database_url) as ledger:
        for state in (RunState.WAITING, RunState.SUCCEEDED):
            ledger.create_run(
                RunRecord(
                    run_id=f"free-{state.value}",
                    kind=RunKind.RUN,
                    environment=Environment.PRODUCTION,
                    user="ana",
                    job="free",
                    version=number,
                    state=state,
                )
            )
    assert toolkit("registry", "revoke", f"free@{number}", "--reason", "").code == 2
    done = ben("registry", "revoke", f"free@{number}", "--reason", "leaks", "--json")
    assert done.code == 0, done.told
    assert done.json["runs"] == [{"run_id": "free-waiting", "said": "cancelled"}]
    with Ledger.open(house.database_url) as ledger:
        assert ledger.get_run("free-waiting").state is RunState.CANCELLED
    run = toolkit("run", f"free@{number}")
    assert (run.code, "is revoked by ben: leaks" in run.err) == (78, True)
    assert "production" in aliases(house, "free")
    only = seal(house, "lone", "toolkit.result(ok=1)")
    assert ben("registry", "revoke", f"lone@{only}", "--reason", "leaks too").code == 0
    run = toolkit("run", "lone@production")
    said = " ".join(run.err.split())
    assert (run.code, f"lone@{only} is revoked by ben: leaks too" in said) == (78, True), said
    assert "revoked.1" not in run.err
    (listed,) = [r for r in toolkit("registry", "list", "--json").json if r["job"] == "lone"]
    assert (listed["aliases"], listed["revoked"]) == ([], True)
    assert toolkit("registry", "retire", "free", "--reason", "replaced").code == 0
    run = toolkit("run", "free")
    assert (run.code, "is retired by" in run.err) == (78, True)
    assert Registry(house.registry).verify() == []


def test_the_way_in_survives_a_crash_between_move_and_close(house: Workspace) -> None:
    """The alias has moved, the request is open: whoever settles it closes it, nothing moves twice."""
    number, _ = ask(house, "crash")
    ben("approve", f"crash@{number}")
    path = house.registry / "jobs" / "crash" / "requests" / f"{number}.json"
    cho("approve", f"crash@{number}")
    closed = path.read_text()
    path.write_text(
        closed.replace('"state": "released"', '"state": "waiting"').replace(
            '"closed_by": "cho"', '"closed_by": null'
        )
    )
    moves = len(Registry(house.registry).alias_history("crash"))
    assert toolkit("registry", "release", f"crash@{number}").code == 0
    assert len(Registry(house.registry).alias_history("crash")) == moves
    assert '"released"' in path.read_text()
    assert Path(path).exists()


def test_a_policy_is_promoted_by_those_whose_role_it_is(house: Workspace) -> None:
    """Its digest goes into the audit log; who promotes jobs does not promote policies."""
    people = house.registry / "people.yaml"
    before = people.read_text()
    people.write_text(before + "  dan: {roles: [policy-approver]}\n")
    try:
        told = ana("policy", "promote", "production")
        assert (told.code, "does not have the role policy-approver" in told.err) == (78, True)
        done = As("dan")("policy", "promote", "production", "--json")
        assert (done.code, done.json["in_force"]) == (0, True)
    finally:
        people.write_text(before)
    records = [r for r in Registry(house.registry).audit() if r.event == "policy.promoted"]
    assert [(r.by, r.body["policy_digest"]) for r in records] == [("dan", done.json["digest"])]
