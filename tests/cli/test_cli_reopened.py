"""The same run id again: what the world ended goes on from its journal, all else is told again."""

from __future__ import annotations

import nbformat
import pytest
from cli_world import GOOD, notebook_text, seal, start, toolkit
from waiting_world import open_bank, run_of
from workspace_world import TOOLS

from toolkit.app.workbench import open_workbench
from toolkit.errors import Conflict
from toolkit.execution import RunPlan
from toolkit.ledger import Ledger
from toolkit.values import RESUMED, Cause, Environment, RunKind, RunRecord, RunState, new_id

PAY = """
  pay: {effect: write, description: Pays a bill.}
"""
PAYING = """import urllib.request

@toolkit.tool(effect="write")
def pay(amount: int) -> str:
    \"\"\"Pays.\"\"\"
    with urllib.request.urlopen(bank, data=str(amount).encode(), timeout=10) as reply:
        return reply.read().decode()"""
# The first attempt dies after it has paid, the second does not.
DYING = """import os, pathlib
mark = pathlib.Path(folder, "died")
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), 9)"""


@pytest.fixture
def bank():
    with open_bank() as made:
        yield made


def write_job(workspace, bank, job, *cells):
    (workspace.registry / "tools.yaml").write_text(TOOLS + PAY)
    seal(workspace, job, f"bank = {bank.url!r}\nfolder = {str(workspace.root)!r}", PAYING, *cells)


@pytest.mark.chaos  # it ends a process: `make chaos`, in CI as well
def test_a_killed_run_goes_on_under_its_id_and_pays_once(workspace, bank):
    """The journal answers what was paid; the ending is the second one's, in all three places."""
    write_job(
        workspace, bank, "bill", "first = pay(5)", DYING, "pay(6)", "toolkit.result(ok=first)"
    )
    killed = toolkit("run", "bill@production", "--run-id", "r1", "--json")
    assert (killed.code, killed.json["state"], killed.json["cause"]) == (
        75,
        "killed",
        "kernel_died",
    )
    seen = run_of(workspace, "r1")
    assert bank.paid == ["5"]
    done = toolkit("run", "bill@production", "--run-id", "r1", "--json")
    assert (done.code, done.json["state"], done.json["results"]) == (0, "succeeded", {"ok": "paid"})
    assert not done.json["repeated"]
    assert bank.paid == ["5", "6"], "what was paid is not paid again"
    run = run_of(workspace, "r1")
    assert (run.cause, run.message, run.started_us) == (None, None, seen.started_us)
    assert run.token_digest != seen.token_digest, "the first kernel's token counts no more"
    assert run.mlflow_run_id == seen.mlflow_run_id
    assert run.tags[RESUMED] == "1"
    assert nbformat.read(done.json["notebook_output"], 4).metadata.toolkit.state == "succeeded"
    again = toolkit("run", "bill@production", "--run-id", "r1", "--json")
    assert (again.code, again.json["repeated"]) == (0, True)
    assert bank.paid == ["5", "6"]
    assert toolkit("ledger", "verify", "--json").code == 0
    with Ledger.open(workspace.database_url) as ledger:
        assert ledger.verify() == []


@pytest.mark.slow
def test_a_failed_run_is_told_again(workspace, bank):
    """The same id executes nothing, as often as it is asked."""
    write_job(workspace, bank, "fails", "pay(5)", "1 / 0", "toolkit.result(ok=1)")
    first = toolkit("run", "fails@production", "--run-id", "r2", "--json").json
    for _ in range(2):
        again = toolkit("run", "fails@production", "--run-id", "r2", "--json")
        told = again.json
        assert (again.code, told["repeated"], told["cause"]) == (1, True, "cell_error")
        assert (told["message"], told["ended"]) == (first["message"], first["ended"])
    assert bank.paid == ["5"]


@pytest.mark.parametrize("name", ["models.yaml", "data.yaml", "people.yaml", "tools.yaml"])
def test_a_half_saved_file_does_not_cost_the_run(workspace, name):
    """Refused before anything is recorded; once the file is mended, the same id runs."""
    seal(workspace, "saved", "toolkit.result(ok=1)")
    path = workspace.registry / name
    whole = path.read_text("utf-8") if path.exists() else None
    path.write_text("routes: [", "utf-8")
    broken = toolkit("run", "saved@production", "--run-id", f"r-{name}", "--json")
    assert (broken.code, broken.json["error"]["code"]) == (78, "invalid_file")
    assert name in broken.json["error"]["message"]
    assert toolkit("show", f"r-{name}", "--json").code == 78, "there is no such run"
    path.unlink() if whole is None else path.write_text(whole, "utf-8")
    again = toolkit("run", "saved@production", "--run-id", f"r-{name}", "--json")
    assert (again.code, again.json["repeated"]) == (0, False)


@pytest.mark.slow
def test_a_file_that_breaks_while_a_run_is_on_does_not_cost_it(workspace):
    """The gateway refuses its calls; the run goes on under its id once the file is mended."""
    models = workspace.registry / "models.yaml"
    whole = models.read_text("utf-8")
    breaking = f"""import pathlib, time
mark = pathlib.Path({str(workspace.root / "broken")!r})
if not mark.exists():
    mark.touch()
    pathlib.Path({str(models)!r}).write_text("routes: [")
    time.sleep(1)"""
    seal(workspace, "late", breaking, *GOOD)
    first = toolkit("run", "late@production", "--run-id", "r-late")
    assert first.code == 75
    assert "failed (infrastructure)" in first.out
    assert "InvalidFile" in first.out
    assert "cell 6: cell 6" not in first.out
    models.write_text(whole, "utf-8")
    again = toolkit("run", "late@production", "--run-id", "r-late", "--json")
    assert (again.code, again.json["state"]) == (0, "succeeded")


@pytest.mark.parametrize(
    ("state", "cause", "goes_on"),
    [
        (RunState.LOST, Cause.RUNNER_DIED, True),
        (RunState.CANCELLED, Cause.REQUESTED, False),
        (RunState.DENIED, Cause.BUDGET, False),
    ],
)
def test_who_ended_a_run_decides_whether_it_goes_on(workspace, state, cause, goes_on):
    """A person's or a policy's end holds; a machine's does not."""
    record = RunRecord(new_id("run"), RunKind.TRIAL, Environment.SANDBOX, "ana")
    plan = RunPlan(record, notebook_text("print('ran')", parameters=None).encode())
    with open_workbench() as bench:
        bench.ledger.create_run(record)
        bench.ledger.update_run(record.run_id, state=state, cause=cause, message="so it was")
        report = bench.runner.run(plan)
        assert report.repeated is not goes_on
        assert (report.output is not None) is goes_on
        wanted = (RunState.SUCCEEDED, None) if goes_on else (state, "so it was")
        assert (report.run.state, report.run.message) == wanted
        assert bench.ledger.verify() == []


def test_who_lost_the_run_does_not_end_it(workspace):
    """A runner that was taken for dead and is not: its ending does not reach the one who goes on."""
    record = RunRecord(new_id("run"), RunKind.TRIAL, Environment.SANDBOX, "ana")
    with open_workbench() as bench:

        def steal(*_: object) -> None:
            if bench.ledger.get_run(record.run_id).runner == "elsewhere:1:0":
                return
            lost = bench.ledger.update_run(
                record.run_id, state=RunState.LOST, cause=Cause.RUNNER_DIED
            )
            bench.ledger.take(
                lost,
                state=RunState.RUNNING,
                cause=None,
                ended_us=None,
                runner="elsewhere:1:0",
                token_digest="sha256:other",
            )

        plan = RunPlan(record, notebook_text("1 / 0", parameters=None).encode())
        with pytest.raises(Conflict, match="was taken by elsewhere:1:0"):
            bench.runner.run(plan, on_progress=steal)
        run = bench.ledger.get_run(record.run_id)
        assert (run.state, run.runner, run.cause) == (RunState.RUNNING, "elsewhere:1:0", None)
        assert bench.ledger.verify() == []


@pytest.mark.chaos
def test_a_run_whose_runner_was_killed_goes_on(workspace, bank, wait_for):
    """Nobody was left to record an ending: the next start does, and pays nothing twice."""
    hang = (
        "import pathlib, time\nmark = pathlib.Path(folder, 'here')\n"
        "if not mark.exists():\n    mark.touch()\n    time.sleep(600)"
    )
    write_job(workspace, bank, "left", "pay(5)", hang, "toolkit.result(ok=1)")
    process = start(["run", "left@production", "--run-id", "r3", "--json"], workspace.root)
    try:
        wait_for((workspace.root / "here").exists, "the second cell")
    finally:
        process.kill()
        process.communicate()
    (listed,) = [r for r in toolkit("runs", "--json").json if r["run_id"] == "r3"]
    assert (listed["state"], listed["cause"]) == ("lost", "runner_died")
    done = toolkit("run", "left@production", "--run-id", "r3", "--json")
    assert (done.code, done.json["state"]) == (0, "succeeded"), done.told
    assert bank.paid == ["5"]
