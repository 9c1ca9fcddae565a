"""A shadow and a canary, run for real: heavy, so with the proofs (`make chaos`)."""

from __future__ import annotations

import pytest
from cli_world import seal, toolkit

from toolkit.ledger import Ledger
from toolkit.registry import Registry
from toolkit.settings import Workspace

pytestmark = pytest.mark.chaos

CELLS = (
    """@toolkit.tool
def write_file(text: str) -> str:
    \"\"\"Append a line.\"\"\"
    with open(path, "a") as file:
        file.write(text)
    return "written" """,
    "answer = write_file(text=text)",
    "toolkit.result(answer=answer)",
)
RULE = "promotion: {canary: {runs: 1, failures: 0.9, then: promote}}\n"


def test_a_shadow_changes_nothing_and_a_canary_is_promoted_by_its_rule(
    workspace: Workspace,
) -> None:
    """The shadow's write is answered as the stable run's was; the file has one line."""
    target = workspace.root / "written.txt"
    parameters = f'text: str = "x"\npath: str = "{target}"'
    for _ in range(2):
        seal(workspace, "both", (parameters, "parameters"), *CELLS, alias=None)
    registry = Registry(workspace.registry)
    registry.set_alias("both", "production", 1, by="ana")
    registry.releases.put_beside("both", "production", 2, None, by="ana")
    done = toolkit("run", "both", "--run-id", "run-a", "--json")
    assert done.code == 0, done.told
    with Ledger.open(workspace.database_url) as ledger:
        stable, shadow = ledger.get_run("run-a"), ledger.get_run("run-a-shadow")
        assert (stable.version, shadow.version) == (1, 2)
        assert shadow.state.value == "succeeded", shadow.message
        assert shadow.tags["shadow_of"] == "run-a"
        assert ledger.results("run-a-shadow") == ledger.results("run-a") == {"answer": "written"}
    assert target.read_text() == "x"

    policy = workspace.registry / "policies" / "production" / "policy.yaml"
    policy.write_text(policy.read_text() + RULE)
    registry.releases.put_beside("both", "production", 2, 50, by="ana")
    rollout = registry.releases.rollout("both")
    ids = {rollout.choose(f"c-{n}")[1]: f"c-{n}" for n in range(40)}
    for kind, version in (("stable", 1), ("canary", 2)):
        done = toolkit("run", "both", "--run-id", ids[kind], "--json")
        assert done.code == 0, done.told
        with Ledger.open(workspace.database_url) as ledger:
            run = ledger.get_run(ids[kind])
            assert (run.version, run.tags["rollout"]) == (version, kind)
    status = toolkit("canary", "status", "both", "--json").json
    assert status["kind"] == "stable", status
    assert registry.aliases("both") == {"production": 2}
    assert registry.alias_history("both")[-1].by == "rule of the policy"
