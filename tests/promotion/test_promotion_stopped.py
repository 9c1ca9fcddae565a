"""A promotion that waits for a person says so, and one Ctrl-C ends the whole of it."""

from __future__ import annotations

import signal

import pytest
from cli_world import start
from promotion_world import AGENT, REST, Desk
from waiting_world import ask_people

from toolkit.ledger import Ledger
from toolkit.values import RunKind, RunState

PAY = """@toolkit.tool(effect="write")
def pay(recipient: str, amount: float) -> str:
    \"\"\"Pays a bill.\"\"\"
    return "paid\""""


@pytest.mark.chaos  # it ends a process: `make chaos`, in CI as well
def test_a_rehearsal_tells_whom_it_waits_for_and_ctrl_c_ends_the_promotion(
    desk: Desk, wait_for
) -> None:
    """The request is named while it waits; after Ctrl-C nothing further is begun: 143."""
    ask_people(desk.workspace)
    path = desk.write("paying", AGENT, PAY, "pay('ana', 5.0)", *REST)
    desk.try_out(path)
    process = start(["promote", path, "--evaluate", "capitals"], desk.workspace.root)

    def asked() -> list[str]:
        with Ledger.open(desk.workspace.database_url) as ledger:
            return [one.id for one in ledger.approvals(waiting=True)]

    try:
        wait_for(asked, "the request")
        (request,) = asked()
        assert process.stderr is not None
        said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert f"toolkit decide {request}" in said
    assert "rehearsal waits" in said
    assert process.returncode == 143
    assert "stopped in the step rehearse" in " ".join(err.split())
    assert "evaluate" not in out
    with Ledger.open(desk.workspace.database_url) as ledger:
        (rehearsal,) = ledger.runs(kind=RunKind.REHEARSAL)
        assert rehearsal.state is RunState.CANCELLED
        assert ledger.runs(kind=RunKind.EVALUATION) == []
