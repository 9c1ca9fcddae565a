"""Jobs that run jobs, with real kernels: from a notebook, in a tree, from the command line."""

from __future__ import annotations

import pytest
from cli_world import seal, toolkit
from waiting_world import run_of

import toolkit as toolkit_
from toolkit.client import disconnect, ensure_gateway, governed_schema
from toolkit.errors import NotFound, UsageError
from toolkit.ledger import Ledger

PERMIT = '@id("jobs") permit(principal, action == Action::"call_job", resource);\n'
CHILD = ("said = toolkit.model(f'question {limit}').text", "toolkit.result(said=said, limit=limit)")
PARENT = (
    "import asyncio\ncheck = toolkit.job('kid')",
    "one, two = await asyncio.gather(check.run(limit=1), check.run(limit=limit + 5))",
    "toolkit.result(limits=[one['limit'], two['limit']], runs=[one.run_id, two.run_id])",
)


@pytest.fixture
def jobs(workspace):
    """Jobs that run jobs, and a policy that lets them."""
    rules = workspace.registry / "policies" / "production" / "jobs.cedar"
    if not rules.exists():
        rules.write_text(PERMIT)
        seal(workspace, "kid", *CHILD)
        seal(workspace, "parent", *PARENT)
    return workspace


@pytest.mark.slow
def test_a_job_runs_two_others_at_a_time_and_their_cost_is_its_own(jobs):
    """Two children with ids of their own, in the tree, in the parent's budget; once, ever."""
    done = toolkit("run", "parent", "--run-id", "run-p1", "--json")
    assert done.code == 0, done.told
    assert done.json["results"]["limits"] == [1, 7]
    with Ledger.open(jobs.database_url) as ledger:
        kids = ledger.children("run-p1")
        assert {kid.run_id for kid in kids} == set(done.json["results"]["runs"])
        assert {kid.parent_run_id for kid in kids} == {"run-p1"}
        assert {kid.state.value for kid in kids} == {"succeeded"}
        assert sorted(kid.parameters["limit"] for kid in kids) == [1, 7]
        spent = ledger.budget("run:run-p1").spent
        assert spent == sum((ledger.totals(k.run_id).cost for k in kids), start=type(spent)(0))
        assert spent.nanos > 0
        assert not ledger.verify()
    assert run_of(jobs, "run-p1").tags.get("resumed_after") is None
    assert all("resumed_after" not in kid.tags for kid in kids)


@pytest.mark.slow
def test_show_draws_the_family_of_a_run(jobs):
    """Each with its state, time and cost; the same as JSON; a run without one has no tree."""
    if "run-p1" not in [run.run_id for run in _runs(jobs)]:
        assert toolkit("run", "parent", "--run-id", "run-p1", "--json").code == 0
    told = toolkit("show", "run-p1", "--json").json["children"]
    assert [(kid["job"], kid["state"], kid["children"]) for kid in told] == [
        ("kid", "succeeded", [])
    ] * 2
    assert all(kid["seconds"] > 0 and float(kid["cost_usd"]) > 0 for kid in told)
    drawn = toolkit("show", "run-p1").out
    for kid in told:
        assert kid["run_id"] in drawn
    assert "runs below" in drawn
    assert toolkit("show", told[0]["run_id"], "--json").json["children"] == []


@pytest.mark.slow
def test_a_sandbox_session_runs_a_job_and_can_hand_it_to_a_model(jobs):
    """The schema is the sealed version's; what does not fit is told, and starts nothing."""
    ensure_gateway(jobs.root)
    disconnect()
    schema = governed_schema(toolkit_.job("kid").as_tool())["function"]
    assert (schema["name"], list(schema["parameters"]["properties"])) == ("kid", ["limit"])
    found = toolkit_.job("kid").call(limit=4)
    assert (found["limit"], found.job, found.version) == (4, "kid", 1)
    with pytest.raises(UsageError, match="limit"):
        toolkit_.job("kid").call(limit="many")
    with pytest.raises(NotFound):
        toolkit_.job("nobody").call()
    disconnect()


def _runs(workspace):
    with Ledger.open(workspace.database_url) as ledger:
        return ledger.runs(limit=1000)
