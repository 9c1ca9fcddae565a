"""`show --follow` and `--output`: a run as it goes, seen from another process."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator

import pytest
from cli_world import start, toolkit, write_notebook

from toolkit.app.following import Event, Follower
from toolkit.app.workbench import Workbench, open_workbench
from toolkit.execution import read_cells
from toolkit.ledger import Ledger
from toolkit.values import Cause, Environment, RunKind, RunRecord, RunState, new_id

GO = (
    "import pathlib, time\nprint('before the gate', flush=True)\n"
    "while not pathlib.Path({gate!r}).exists(): time.sleep(.02)\nprint('after the gate')"
)


@pytest.fixture
def bench(workspace) -> Iterator[Workbench]:
    with open_workbench() as made:
        yield made


@pytest.mark.slow
def test_a_running_job_is_followed_from_another_terminal_to_its_end(workspace) -> None:
    """Cells, output and calls come while it runs; the last line and the exit code are the run's."""
    gate = workspace.root / "gate"
    path = write_notebook(workspace, "goes", "import toolkit\nprint('first \\x1b[31mred\\x1b[0m')",
        "toolkit.model('x')", GO.format(gate=str(gate)), "%xmode Minimal\n1 / 0", parameters=None)  # fmt: skip
    running = start(["run", path, "--run-id", "f1", "--json"], workspace.root)
    follower = None
    try:
        notebook = workspace.runs / "f1" / "output.ipynb"
        while not notebook.exists() and running.poll() is None:
            time.sleep(0.1)
        assert notebook.exists(), running.communicate()
        follower = start(["show", "f1", "--follow", "--json"], workspace.root)
        assert follower.stdout is not None
        lines: list[dict] = []
        half: dict = {}
        for line in follower.stdout:
            lines.append(json.loads(line))
            # Only its output opens the gate: it was told while the cell ran.
            if "before the gate" in lines[-1].get("text", ""):
                half = toolkit("show", "f1", "--output", "--json").json
                gate.touch()
        assert half, lines
        assert [cell["status"] for cell in half["cells"]][-2:] == ["running", "pending"]
        assert half["state"] == "running"
        assert follower.wait(60) == 1
        assert running.wait(60) == 1
    finally:
        for process in (running, follower):
            if process is not None:
                process.kill()
                process.communicate()
    *events, last = lines
    assert (last["state"], last["cause"], last["exit_code"]) == ("failed", "cell_error", 1)
    printed = "".join(e["text"] for e in events if e["kind"] == "output")
    assert printed.startswith("first \x1b[31mred\x1b[0m\n")
    assert "before the gate\nafter the gate\n" in printed
    assert "before the gate\nafter the gate\n" not in [e.get("text") for e in events]
    assert "ZeroDivisionError" in printed
    cells = [(e["what"], e["state"]) for e in events if e["kind"] == "cell"]
    assert ("cell 3", "running") in cells
    # A cell that begins and ends between two looks is told by its end alone.
    ends = [cell for cell in cells if cell[1] != "running"]
    assert ends == [*((f"cell {n}", "completed") for n in (1, 2, 3)), ("cell 4", "failed")]
    assert ("model default", "ok") in [
        (e["what"], e["state"]) for e in events if e["kind"] == "call"
    ]
    assert (events[0]["kind"], events[-1]["kind"]) == ("state", "state")
    assert events[-1]["state"] == "failed (cell_error)"

    told = toolkit("show", "f1", "--follow")
    assert told.code == 1, "a run that has ended is told at once"
    assert "first red" in told.out
    assert "\x1b" not in told.out
    shown = toolkit("show", "f1", "--output")
    assert shown.code == 0
    assert "after the gate" in shown.out


def test_without_the_runs_folder_calls_and_states_are_told_and_it_is_said(workspace) -> None:
    """Another machine shares the database and not the disk."""
    path = write_notebook(
        workspace, "far", "print('unseen')", "toolkit.model('x')", "toolkit.result(a=1)"
    )
    assert toolkit("run", path, "--run-id", "f2", "--json").code == 0
    shutil.rmtree(workspace.runs / "f2")
    followed = toolkit("show", "f2", "--follow")
    assert followed.code == 0
    assert "not on this machine: calls and states only" in followed.out
    assert "model default" in followed.out
    assert "unseen" not in followed.out
    output = toolkit("show", "f2", "--output", "--json")
    assert (output.code, output.json["error"]["code"]) == (78, "not_found")


def test_a_run_whose_runner_is_gone_is_told_as_lost(workspace, bench) -> None:
    """Looking at a run finds out that nobody executes it any more."""
    record = RunRecord(
        new_id("run"), RunKind.TRIAL, Environment.SANDBOX, "ana",
        state=RunState.RUNNING, runner=f"{socket.gethostname()}:1:0.00",
    )  # fmt: skip
    bench.ledger.create_run(record)
    followed = toolkit("show", record.run_id, "--follow", "--json")
    last = json.loads(followed.out.splitlines()[-1])
    assert (followed.code, last["state"], last["cause"]) == (75, "lost", "runner_died")


def test_what_changes_between_two_looks_is_told_once(workspace, bench) -> None:
    """Only new output is told; replaced output is told again; a second attempt begins anew."""
    record = RunRecord(new_id("run"), RunKind.TRIAL, Environment.SANDBOX, "ana", token_digest="a")
    ledger: Ledger = bench.ledger
    run = ledger.create_run(record)
    follower = Follower(bench, record.run_id)
    follower.path.parent.mkdir(parents=True)

    def look(status: str, text: str) -> list[Event]:
        output = {"output_type": "stream", "name": "stdout", "text": text}
        cell = {
            "cell_type": "code",
            "metadata": {"papermill": {"status": status}},
            "outputs": [output],
        }
        draft = follower.path.with_suffix(".tmp")
        draft.write_text(json.dumps({"cells": [cell]}))
        draft.replace(follower.path)
        return [event for event in follower.look()[1] if event.kind != "state"]

    one = "cell 1"
    assert look("running", "a") == [Event("cell", one, "running"), Event("output", one, text="a")]
    assert look("running", "ab") == [Event("output", one, text="b")]
    assert follower.look()[1] == []
    assert look("running", "x") == [Event("output", one, text="x")]
    assert look("completed", "xy") == [
        Event("output", one, text="y"),
        Event("cell", one, "completed"),
    ]
    killed = ledger.update_run(run.run_id, state=RunState.KILLED, cause=Cause.KERNEL_DIED)
    ledger.take(killed, state=RunState.RUNNING, cause=None, ended_us=None, token_digest="b")
    assert [e.kind for e in look("running", "xy")] == ["note", "cell", "output"]


def test_any_output_is_readable(tmp_path) -> None:
    """Lists of lines, tracebacks, pictures and things that are no text."""
    outputs = [
        {"output_type": "stream", "text": ["a\n", "b\n"]},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": []},
        {"output_type": "display_data", "data": {"image/png": "…"}},
        {"output_type": "execute_result", "data": {"text/plain": "1"}},
    ]
    added = {"toolkit": {"added": True}}
    path = tmp_path / "n.ipynb"
    cells = [{"cell_type": "code", "metadata": added}, {"cell_type": "code", "outputs": outputs}]
    path.write_text(json.dumps({"cells": cells}))
    assert [(c.label, c.text) for c in read_cells(path)] == [
        ("an added cell", ""), ("cell 1", "a\nb\nE: v\n<image/png>\n1\n"),
    ]  # fmt: skip


def test_an_unknown_run_cannot_be_followed(workspace) -> None:
    """Neither the ledger nor the queue knows it."""
    done = toolkit("show", "run-nowhere", "--follow", "--json")
    assert (done.code, done.json["error"]["code"]) == (78, "not_found")
