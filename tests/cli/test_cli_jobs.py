"""Jobs that run jobs, with real kernels: from a notebook, in a tree, from the command line."""

from __future__ import annotations

import pytest
from cli_world import seal, toolkit
from waiting_world import run_of

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
