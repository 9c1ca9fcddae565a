"""`run`, `runs`, `show`, `ledger`, `costs`: every ending told truly, with its exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import sqlite3
from contextlib import closing
from decimal import Decimal

import nbformat
import psutil
import pytest
from cli_world import GOOD, seal, start, toolkit, write_notebook

from toolkit.app.running import Request, plan_version
from toolkit.app.workbench import open_workbench
from toolkit.ledger import Ledger
from toolkit.values import Environment, RunKind, RunRecord, RunState

# -- endings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cells", "options", "expected"),
    [
        ("ok", GOOD, (), ("succeeded", None, 0)),
        ("cell-error", ("1 / 0",), (), ("failed", "cell_error", 1)),
        ("exit-zero", ("import sys", "sys.exit(0)", "print('never')"), (), ("failed", "exit_called", 1)),
        ("shell", ("!false", "print('after')"), (), ("failed", "shell_failed", 1)),
        ("killed", ("import os, signal", "os.kill(os.getpid(), signal.SIGKILL)"), (), ("killed", "kernel_died", 75)),
        ("hang", ("import time", "time.sleep(60)"), ("--timeout", "2s"), ("timed_out", "run_timeout", 124)),
        ("no-result", ("if limit > 5:\n    toolkit.result(count=1)",), (), ("failed", "results_missing", 1)),
    ],
)  # fmt: skip
def test_how_a_run_ended_is_told_truly(workspace, name, cells, options, expected) -> None:
    """State, cause and exit code by what happened; the ledger, the file and the screen agree."""
    state, cause, code = expected
    path = write_notebook(workspace, name, *cells)
    done = toolkit("run", path, *options, "--json")
    told = done.json
    assert (told["state"], told["cause"], done.code) == (state, cause, code)
    assert told["exit_code"] == code
    kept = toolkit("show", told["run_id"], "--json").json
    assert (kept["state"], kept["cause"]) == (state, cause)
    executed = nbformat.read(told["notebook_output"], as_version=4)
    assert executed.metadata["toolkit"]["state"] == state
    assert told["warnings"] == []
    assert told["mlflow_run_id"]


def test_a_failed_run_names_its_cell_and_its_words(workspace) -> None:
    """For people: the state, the cell, what it raised, where the notebook is; no traceback."""
    done = toolkit("run", write_notebook(workspace, "boom", "x = 1", "raise ValueError('boom')"))
    assert done.code == 1
    assert "failed (cell_error)" in done.out
    assert "  cell 4, line 1: ValueError: boom" in done.out
    assert "ValueError: boom" in done.out
    assert "output.ipynb" in done.out


@pytest.mark.chaos  # it ends a process: `make chaos`, in CI as well
def test_sigterm_cancels_a_run(workspace, wait_for) -> None:
    """The process that gets the signal ends its kernel, records the state and exits with 143."""
    mark = workspace.root / "started"
    path = write_notebook(
        workspace, "long", f"from pathlib import Path; Path({str(mark)!r}).touch()",
        "import time; time.sleep(120)",
    )  # fmt: skip
    process = start(["run", path, "--json"], workspace.root)
    try:
        wait_for(mark.exists, "the first cell")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    told = json.loads(out)
    assert (process.returncode, told["exit_code"]) == (143, 143)
    assert (told["state"], told["cause"]) == ("cancelled", "signal")
    assert "Traceback" not in err
    assert toolkit("show", told["run_id"], "--json").json["state"] == "cancelled"


@pytest.mark.chaos
def test_a_worker_tells_programs_one_object_a_line(workspace) -> None:
    """From its start to its end, each event with its kind and time."""
    process = start(["worker", "--json"], workspace.root)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while json.loads(lines[-1])["event"] != "worker_up":
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    events = [json.loads(line) for line in (*lines, *out.splitlines())]
    assert process.returncode == 0
    assert [each["event"] for each in events][-1] == "worker_ended"
    assert all({"event", "at", "said"} <= set(each) for each in events)
    assert next(e for e in events if e["event"] == "worker_up")["slots"] > 0


@pytest.mark.chaos
def test_sigterm_before_the_kernel_is_there_cancels_a_run(workspace, wait_for) -> None:
    """From the record that it runs on: no run is left behind without a process and an end."""
    path = write_notebook(workspace, "early", "import time; time.sleep(120)")

    def runs() -> list[RunRecord]:
        with Ledger.open(workspace.database_url) as ledger:
            return ledger.runs(state=RunState.RUNNING, limit=1)

    process = start(["run", path, "--json"], workspace.root)
    try:
        wait_for(runs, "the record of the run")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    told = json.loads(out)
    assert (told["state"], told["cause"], process.returncode) == ("cancelled", "signal", 143)


def test_a_run_whose_process_is_gone_can_be_cancelled(workspace) -> None:
    """Nobody has to wait until somebody notices that it is lost."""
    gone = f"{socket.gethostname()}:{os.getpid()}:1.00"  # a number that was given out again
    with Ledger.open(workspace.database_url) as ledger:
        ledger.create_run(
            RunRecord(
                "run-gone",
                RunKind.RUN,
                Environment.PRODUCTION,
                "ben",
                RunState.RUNNING,
                runner=gone,
            )
        )
    assert toolkit("cancel", "run-gone", "--reason", "wrong month").code == 0
    told = toolkit("show", "run-gone", "--json").json
    assert (told["state"], told["cause"]) == ("cancelled", "requested")
    assert "wrong month" in told["message"]


def test_a_run_took_what_its_record_says(workspace) -> None:
    """One figure, whichever command tells it."""
    done = toolkit("run", write_notebook(workspace, "timed", "x = 1"), "--json").json
    with Ledger.open(workspace.database_url) as ledger:
        run = ledger.get_run(done["run_id"])
    assert run.ended_us is not None
    assert run.started_us is not None
    assert done["seconds"] == (run.ended_us - run.started_us) / 1e6


def test_the_same_run_id_runs_once(workspace) -> None:
    """An idempotency key: the second command tells the first one's end and executes nothing."""
    seal(workspace, "once", *GOOD)
    first = toolkit("run", "once", "--run-id", "run-once-1", "-p", "limit=1", "--json")
    again = toolkit("run", "once", "--run-id", "run-once-1", "-p", "limit=1", "--json")
    assert (first.code, again.code) == (0, 0)
    assert (first.json["repeated"], again.json["repeated"]) == (False, True)
    assert again.json["totals"] == first.json["totals"]
    listed = toolkit("runs", "once", "--json").json
    assert [run["run_id"] for run in listed] == ["run-once-1"]
    shown = toolkit("run", "once", "--run-id", "run-once-1", "-p", "limit=1")
    assert "nothing was executed" in shown.err


def test_a_run_that_somebody_executes_is_a_conflict(workspace) -> None:
    """Two commands with one run id: the second is told to try again."""
    seal(workspace, "busy", *GOOD)
    myself = psutil.Process(os.getpid())
    ledger = Ledger.open(workspace.database_url)
    ledger.create_run(
        RunRecord(
            "run-busy", RunKind.RUN, Environment.PRODUCTION, "ben", RunState.RUNNING,
            job="busy", version=1, parameters={"limit": 2},
            runner=f"{socket.gethostname()}:{myself.pid}:{myself.create_time():.2f}",
        )
    )  # fmt: skip
    ledger.close()
    done = toolkit("run", "busy", "--run-id", "run-busy", "--json")
    assert done.code == done.json["exit_code"] == 75
    assert done.json["error"]["code"] == "busy"


# -- registered versions ----------------------------------------------------------------------


def test_a_version_runs_with_checked_parameters(workspace) -> None:
    """By alias and by number; results, totals and cost in one document."""
    seal(workspace, "asking", *GOOD)
    told = toolkit("run", "asking@production", "-p", "limit=3", "--json").json
    assert (told["job"], told["version"], told["state"]) == ("asking", 1, "succeeded")
    assert told["results"]["count"] == 3
    assert told["totals"]["by_kind"] == {"agent": 3, "model": 3, "result": 2}
    assert told["totals"]["cost_usd"] == "0.000039"
    assert told["environment"] == "production"
    for wrong, name in (("limit=many", "limit"), ("limits=1", "limits"), ("limit", "NAME=VALUE")):
        done = toolkit("run", "asking@1", "-p", wrong, "--json")
        assert done.code == 2
        assert name in done.json["error"]["message"]


def test_a_parameter_is_given_once(workspace) -> None:
    """Of two values none is dropped in silence."""
    seal(workspace, "twice", *GOOD)
    done = toolkit("run", "twice", "-p", "limit=1", "-p", "limit=3", "--json")
    assert done.code == 2
    assert "limit is given twice" in done.json["error"]["message"]


def test_the_limits_of_a_job_hold_for_its_runs(workspace) -> None:
    """The cell that takes too long is named; a run by hand is under them as well."""
    seal(workspace, "slow", "import time", "time.sleep(60)")
    jobs = workspace.registry / "jobs.yaml"
    jobs.write_text("jobs:\n  slow: {limits: {cell: 1s}}\n")
    told = toolkit("run", "slow", "--json")
    assert (told.json["state"], told.json["cause"], told.code) == ("timed_out", "cell_timeout", 124)
    assert "cell 4" in told.json["message"]
    jobs.write_text("jobs:\n  slow: {limits: {run: 2s}}\n")
    told = toolkit("run", "slow", "--json")
    assert (told.json["state"], told.json["cause"], told.code) == ("timed_out", "run_timeout", 124)
    jobs.unlink()
    with open_workbench(workspace.root) as bench:  # the policy allows 120 s
        for asked, limit in ((3600.0, 120.0), (60.0, 60.0), (None, 120.0)):
            plan = plan_version(bench, Request("slow", {}, timeout_s=asked), [])
            assert plan.timeout_s == limit


@pytest.mark.parametrize(
    "reference", ["unheard-of", "asking@99", "asking@staging", "missing.ipynb"]
)
def test_what_is_not_there_is_not_run(workspace, reference) -> None:
    """Configuration error, with what to look at."""
    seal(workspace, "asking", *GOOD)
    done = toolkit("run", reference, "--json")
    assert done.code == 78
    assert done.json["error"]["code"] == "not_found"


def test_changed_bytes_are_not_run(workspace) -> None:
    """The registry is not trusted: the digest is checked before every run."""
    version = seal(workspace, "touched", *GOOD)
    path = workspace.registry / "jobs" / "touched" / str(version) / "notebook.ipynb"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good.replace(b"question", b"Question"))
    done = toolkit("run", "touched", "--json")
    path.write_bytes(good)
    assert (done.code, done.json["error"]["code"]) == (78, "integrity")


def test_a_denied_call_ends_a_production_run(workspace) -> None:
    """The policy's own reason reaches the person."""
    seal(workspace, "closed", "toolkit.model('x', route='forbidden')", "toolkit.result(a=1)")
    done = toolkit("run", "closed", "--json")
    assert (done.code, done.json["state"], done.json["cause"]) == (1, "denied", "policy")
    assert "closed for maintenance" in done.json["message"]


def test_a_run_left_to_a_worker_is_queued_and_checked_now(workspace) -> None:
    """``--no-wait`` refuses at once what a worker would refuse at night."""
    seal(workspace, "later", *GOOD)
    done = toolkit("run", "later", "--no-wait", "--run-id", "run-later", "--json")
    assert (done.code, done.json["state"]) == (0, "queued")
    assert toolkit("run", "later", "--no-wait", "-p", "limit=x", "--json").code == 2
    path = write_notebook(workspace, "later", *GOOD)
    refused = toolkit("run", path, "--no-wait", "--json")
    assert refused.code == 2
    assert "toolkit promote" in refused.json["error"]["next_step"]


def test_save_writes_outputs_back_into_a_notebook_that_succeeded(workspace) -> None:
    """What a person would have after Run All and save; never for a failed run."""
    path = write_notebook(workspace, "keep", "print('kept', limit)")
    assert toolkit("run", path, "--save", "--json").code == 0
    saved = nbformat.read(workspace.root / path, as_version=4)
    assert saved.cells[-1].outputs[0].text == "kept 2\n"
    assert [cell.execution_count for cell in saved.cells] == [1, 2, 3]
    bad = write_notebook(workspace, "keep-not", "print('x')", "1 / 0")
    before = (workspace.root / bad).read_bytes()
    assert toolkit("run", bad, "--save", "--json").code == 1
    assert (workspace.root / bad).read_bytes() == before
    assert toolkit("run", path, "--save", "-p", "limit=1", "--json").code == 2


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1d", "nan", "inf", "99999h"])
def test_what_is_no_duration_is_refused(workspace, text) -> None:
    """With the forms that are understood."""
    done = toolkit("run", "any", f"--timeout={text}", "--json")
    assert done.code == 2
    assert "15m" in done.json["error"]["next_step"]


# -- looking at runs --------------------------------------------------------------------------


@pytest.fixture
def told(workspace) -> dict:
    """A run with three model calls, one of unknown price and one failed."""
    path = write_notebook(
        workspace, "mixed",
        "toolkit.model('x'); toolkit.model('x', route='unpriced')",
        "try:\n    toolkit.model('broken')\nexcept Exception as error:\n    print(type(error).__name__)",
        "toolkit.result(done=True)",
    )  # fmt: skip
    done = toolkit("run", path, "--run-id", "trial-mixed", "--json")
    assert done.code == 0, done.told
    return done.json


def test_runs_lists_newest_first(workspace, told) -> None:
    """Runs and trials; sessions and steps of promotions only when asked for."""
    listed = toolkit("runs", "--limit", 2, "--json").json
    assert len(listed) <= 2
    everything = toolkit("runs", "--all", "--limit", 1000, "--json").json
    started = [run["started"] for run in everything if run["started"]]
    assert started == sorted(started, reverse=True)
    assert "trial-mixed" in toolkit("runs").out
    unknown = toolkit("runs", "no-such-job", "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (78, "not_found")


def test_show_explains_a_run(workspace, told) -> None:
    """Calls with state, decision and cost; an unknown price is unknown, a refused request is free."""
    shown = toolkit("show", "trial-mixed", "--json").json
    models = [call for call in shown["calls"] if call["kind"] == "model"]
    assert [call["state"] for call in models] == ["ok", "ok", "error"]
    assert [call["cost_usd"] for call in models] == ["0.000013", None, "0"]
    assert models[2]["error"]["details"]["kind"] == "server"
    assert shown["totals"]["unknown_cost_calls"] >= 1
    assert shown["results"] == {"done": True}
    people = toolkit("show", "trial-mixed")
    assert "of unknown price" in people.out
    assert "model default" in people.out
    missing = toolkit("show", "run-nowhere", "--json")
    assert (missing.code, missing.json["error"]["code"]) == (78, "not_found")


def test_the_chain_of_calls_verifies_until_somebody_touches_it(workspace, told) -> None:
    """One run or all; a record that was changed behind the ledger's back is a fault, exit 78."""
    told = toolkit("ledger", "verify", "trial-mixed", "--json").json
    assert (told["ok"], told["faults"]) == (True, [])
    assert told["anchors"] == {"runs": 1, "not_anchored": []}, "kept when the run ended"
    assert "every chain is whole" in toolkit("ledger", "verify").out
    with closing(sqlite3.connect(workspace.state / "ledger.db")) as database:
        number, body = database.execute(
            "select n, body from entries where run_id = 'trial-mixed' and type = 'call.outcome' limit 1"
        ).fetchone()
        change = "update entries set body = ? where run_id = 'trial-mixed' and n = ?"
        database.execute(change, (body.replace("an answer", "another answer"), number))
        database.commit()
        done = toolkit("ledger", "verify", "--json")
        people = toolkit("ledger", "verify", "trial-mixed")
        database.execute(change, (body, number))
        database.commit()
    assert "an answer" in body
    assert (done.code, done.json["ok"]) == (78, False)
    assert people.code == 78
    assert "trial-mixed" in people.out
    assert toolkit("ledger", "verify").code == 0


def test_export_is_csv_for_auditors(workspace, told) -> None:
    """Facts of every call and no payloads; the same as JSON; into a file on request."""
    rows = list(csv.DictReader(io.StringIO(toolkit("ledger", "export", "trial-mixed").out)))
    models = [row for row in rows if row["kind"] == "model"]
    assert [row["cost_usd"] for row in models][:2] == ["0.000013", "unknown"]
    assert models[0]["policies"] == "sandbox"
    assert not any("answer" in json.dumps(row) for row in rows)
    same = toolkit("ledger", "export", "trial-mixed", "--json").json
    assert [row["call_id"] for row in same] == [row["call_id"] for row in rows]
    target = workspace.root / "calls.csv"
    assert toolkit("ledger", "export", "trial-mixed", "--output", target).out == ""
    assert list(csv.DictReader(target.open())) == rows
    wrong = toolkit("ledger", "export", "trial-mixed", "--output", "no/such/folder.csv", "--json")
    assert (wrong.code, wrong.json["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize("by", ["user", "job", "model", "route", "day"])
def test_costs_add_up_however_they_are_grouped(workspace, told, by) -> None:
    """The same total in every grouping; unknown prices are counted, not added."""
    rows = toolkit("costs", "--by", by, "--json").json
    total = sum(Decimal(row["cost_usd"]) for row in rows)
    ledger = Ledger.open(workspace.database_url)
    runs = ledger.runs(limit=1000)
    expected = sum(ledger.totals(run.run_id).cost.usd for run in runs)
    ledger.close()
    assert total == expected > 0
    assert sum(row["unknown_cost_calls"] for row in rows) >= 1
    assert set(rows[0]) >= {by, "calls", "input_tokens", "output_tokens"}
    assert toolkit("costs", "--by", by).code == 0


def test_costs_by_something_else_is_a_usage_error(workspace) -> None:
    """With the groupings that there are."""
    done = toolkit("costs", "--by", "mood", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "usage")
    assert "route" in done.json["error"]["next_step"]
