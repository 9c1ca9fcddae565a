"""A runner that is killed in the middle of a write: a person says what happened, the run goes on."""

from __future__ import annotations

import pytest
from cli_world import seal, start, toolkit

from toolkit.ledger import Ledger
from toolkit.values import CallState

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize(
    ("answer", "written"),
    [(("--happened", '"by hand"'), []), (("--not-happened",), ["written\n"])],
)
def test_a_write_in_doubt_waits_for_a_person_without_a_kernel(
    answer, written, workspace, monkeypatch, wait_for
) -> None:
    """Killed, resumed, parked, decided, finished: the write is made as the person said."""
    run_id = f"run-doubt-{len(answer)}"
    mark, lines = workspace.root / f"{run_id}.mark", workspace.root / f"{run_id}.txt"
    body = f"""import time
from pathlib import Path
@toolkit.tool(effect="write")
def write_file(line: str) -> str:
    \"\"\"Appends.\"\"\"
    if not Path({str(mark)!r}).exists():
        Path({str(mark)!r}).touch()
        time.sleep(120)
    with Path({str(lines)!r}).open("a") as file:
        file.write(line)
    return "by itself\""""
    job = f"doubt-{len(answer)}"
    seal(workspace, job, body, "said = write_file('written\\n')", "toolkit.result(said=said)")
    (workspace.registry / "people.yaml").write_text("people:\n  anna: {roles: [approver]}\n")
    policy = workspace.registry / "policies" / "production" / "policy.yaml"
    if "approvals" not in policy.read_text():
        policy.write_text(policy.read_text() + "approvals: {hold: 1s}\n")
    again = ("run", f"{job}@production", "--run-id", run_id, "--leave", "--json")

    process = start(again, workspace.root)
    try:
        wait_for(mark.exists, "the write")
    finally:
        process.kill()
        process.communicate(timeout=30)
    done = toolkit(*again)
    assert (done.code, done.json["state"]) == (3, "waiting"), done.told
    (asked,) = done.json["waiting"]["requests"]
    assert "Did tool write_file happen?" in toolkit("decide", asked).out
    monkeypatch.setenv("TOOLKIT_USER", "anna")
    assert "does not say whether" in toolkit("decide", asked, "approve", "--yes").told
    assert toolkit("decide", asked, "approve", *answer, "--yes").code == 0
    monkeypatch.delenv("TOOLKIT_USER")
    done = toolkit(*again)
    assert (done.code, done.json["state"]) == (0, "succeeded"), done.told
    assert done.json["results"]["said"] == ("by itself" if written else "by hand")
    assert (lines.read_text().splitlines(keepends=True) if lines.exists() else []) == written
    with Ledger.open(workspace.database_url) as ledger:
        assert ledger.verify(run_id) == []
        states = {call.intent.name: call.state for call in ledger.calls(run_id)}
    assert states == dict.fromkeys(("write_file", "in-doubt", "said"), CallState.OK)
