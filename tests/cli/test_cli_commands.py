"""Every command: one JSON document or words for people, its exit code, and never a traceback."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import typer
from cli_world import GOOD, notebook_text, seal, start, toolkit, write_notebook
from workspace_world import end_gateway

from toolkit.cli import app
from toolkit.cli.main import command as read_commands
from toolkit.client import disconnect
from toolkit.document import Notebook
from toolkit.registry import Registry
from toolkit.settings import open_workspace

FIXTURES = Path(__file__).parents[1] / "fixtures" / "broken"


def commands() -> list[tuple[str, ...]]:
    """Every command, subcommands included."""
    found: list[tuple[str, ...]] = []

    def walk(command, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if children is None:
            found.append(path)
        for name, child in (children or {}).items():
            walk(child, (*path, name))

    walk(typer.main.get_command(app), ())
    return found


# -- talking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself(command) -> None:
    """``--help`` says what it does, in a sentence, and exits with 0."""
    done = toolkit(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"Usage: toolkit .*\n\n  [A-Z].*", done.out)


def test_commands_that_report_take_json() -> None:
    """All of them, except the story that is told to people."""
    without = {c for c in commands() if "--json" not in toolkit(*c, "--help").out}
    assert without == {("demo",)}


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("runs", "--no-such-option"),
        ("runs", "--limit", "many"),
        ("show",),
        ("registry", "no-such"),
        ("schedule", "add", "job"),
        ("check",),
    ],
)
def test_a_command_that_is_not_understood_exits_with_2(arguments) -> None:
    """In words, and as one JSON document when JSON was asked for."""
    done = toolkit(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error ")
    assert "--help" in done.err
    with_json = toolkit(*arguments, "--json")
    assert with_json.code == with_json.json["exit_code"] == 2
    assert with_json.json["error"]["code"] == "usage"


@pytest.mark.parametrize("arguments", [(), ("registry",), ("ledger",), ("schedule",)])
def test_without_a_command_the_commands_are_shown(arguments) -> None:
    """Help on standard error, and the exit code of a usage error."""
    done = toolkit(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: toolkit")


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs",), ("show", "run-1"), ("costs",), ("inventory",), ("registry", "list"), ("check", "."),
        ("ledger", "verify"), ("schedule", "list"), ("gateway", "--ensure"), ("run", "job"), ("ui", "--stop"),
    ],
)  # fmt: skip
def test_outside_of_a_workspace_every_command_says_so(arguments, tmp_path, monkeypatch) -> None:
    """Exit code 78 and the two ways out."""
    monkeypatch.chdir(tmp_path)
    done = toolkit(*arguments, "--json")
    assert done.code == 78
    assert "toolkit init" in done.json["error"]["next_step"]
    people = toolkit(*arguments)
    assert (people.code, people.out) == (78, "")
    assert "error no toolkit.toml in" in people.err


def test_a_fault_of_ours_is_one_sentence_and_a_file() -> None:
    """The traceback is kept for the engineers, privately; the person gets a sentence and 75."""

    def explode() -> None:
        raise ZeroDivisionError("planned")

    app.command("explode")(explode)
    read_commands.cache_clear()
    try:
        done = toolkit("explode")
        with_json = toolkit("explode", "--json")
    finally:
        app.registered_commands.pop()
        read_commands.cache_clear()
    assert (done.code, done.out) == (75, "")
    assert "the toolkit itself failed: ZeroDivisionError: planned" in done.err
    (path,) = re.findall(r"at +(\S+toolkit-fault-\S+)", done.err)
    kept = Path(path)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in kept.read_text()
    assert kept.is_relative_to(tempfile.gettempdir())
    kept.unlink()
    assert with_json.code == 2  # that command has no --json


@pytest.mark.parametrize(
    ("setting", "code", "kind"),
    [
        (("TOOLKIT_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none"), 75, "ledger"),
        (("TOOLKIT_DATABASE_URL", "nonsense"), 78, "configuration"),
        (("TOOLKIT_SLOTS", "many"), 78, "invalid_file"),
    ],
)
def test_a_ledger_that_cannot_be_reached_is_told(
    workspace, monkeypatch, setting, code, kind
) -> None:
    """Try again (75) or mend the setting (78); the two are told apart."""
    monkeypatch.setenv(*setting)
    done = toolkit("runs", "--json")
    assert (done.code, done.json["error"]["code"]) == (code, kind)


# -- check ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """The broken notebooks, and one of 50 MB."""
    folder = tmp_path_factory.mktemp("broken")
    for path in FIXTURES.glob("*.ipynb"):
        (folder / path.name).write_bytes(path.read_bytes())
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    cell["source"] = "x = '" + "y" * 50_000_000 + "'"
    node = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "large.ipynb").write_text(json.dumps(node))
    return folder


def test_every_broken_notebook_gets_a_verdict(workspace, broken) -> None:
    """Thirteen files, thirteen verdicts with a rule, a sentence and a fix; exit code 1."""
    done = toolkit("check", broken, "--json")
    assert (done.code, done.json["ok"]) == (1, False)
    reports = done.json["reports"]
    assert len(reports) == len(list(broken.glob("*.ipynb"))) == 13
    for report in reports:
        errors = [f for f in report["findings"] if f["severity"] == "error"]
        assert errors, report["path"]
        assert all(f["rule"] and f["message"] and f["fix"] for f in errors)


def test_verdicts_for_people_name_file_cell_and_fix(workspace, broken) -> None:
    """One line per finding with its place, and a count at the end."""
    done = toolkit("check", broken)
    assert done.code == 1
    for path in broken.glob("*.ipynb"):
        assert path.name in done.out
    assert re.search(r"error cell \d+:\d+ +secret-in-source", done.out)
    assert "13 notebook(s): 13 not fit" in done.out


def test_a_fit_notebook_passes_and_sarif_is_written(workspace, tmp_path) -> None:
    """Exit code 0; the findings of a folder as SARIF on request."""
    path = write_notebook(workspace, "fit", *GOOD)
    done = toolkit("check", path, "--json", "--sarif", tmp_path / "out.sarif")
    assert (done.code, done.json["ok"]) == (0, True)
    assert json.loads((tmp_path / "out.sarif").read_text())["version"] == "2.1.0"
    refused = toolkit("check", path, "--sarif", tmp_path / "no" / "out.sarif", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "usage")


def test_nothing_to_check_is_told(workspace, tmp_path) -> None:
    """A slip in a path is not "all fit"; a missing file is the same to all three commands."""
    (tmp_path / "empty-folder").mkdir()
    assert toolkit("check", tmp_path / "empty-folder", "--json").code == 2
    for command in ("check", "run", "promote"):
        done = toolkit(command, tmp_path / "nothing.ipynb", "--json")
        assert (done.code, done.json["error"]["code"]) == (78, "not_found"), command
        assert done.json["error"]["next_step"]


# -- registry ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def versions(shared_workspace) -> None:
    """Two versions of one job, the second in production."""
    seal(shared_workspace, "review", *GOOD)
    seal(shared_workspace, "review", *GOOD[:-1], "toolkit.result(count=0)")


def test_the_registry_is_listed_and_shown(workspace, versions) -> None:
    """Versions with their aliases, and one version with parameters, results and digests."""
    rows = [row for row in toolkit("registry", "list", "--json").json if row["job"] == "review"]
    assert [(row["version"], row["aliases"]) for row in rows] == [(1, []), (2, ["production"])]
    shown = toolkit("registry", "show", "review", "--json").json
    assert (shown["version"], shown["results"]) == (2, ["count"])
    assert set(shown["files"]) == {"notebook.ipynb", "evidence.json"}
    people = toolkit("registry", "show", "review@1")
    assert "every digest verified" in people.out
    assert "-p limit: integer = 2" in people.out
    assert "review" in toolkit("registry", "list").out
    assert toolkit("registry", "show", "review@7", "--json").code == 78


def test_two_versions_are_compared(workspace, versions) -> None:
    """What changed, cell by cell."""
    found = toolkit("registry", "diff", "review@1", "review@2", "--json").json
    assert [cell["change"] for cell in found["cells"]] == ["changed"]
    people = toolkit("registry", "diff", "review@1", "review@2").out
    assert "+toolkit.result(count=0)" in people
    assert "no difference" in toolkit("registry", "diff", "review@1", "review@1").out


def test_an_alias_goes_back_and_the_log_tells_of_it(workspace, versions) -> None:
    """Rollback moves the alias, keeps both versions, and is recorded with who did it."""
    moved = toolkit("registry", "rollback", "review", "--json").json
    assert (moved["before"], moved["after"]) == (2, 1)
    log = toolkit("registry", "log", "--json").json
    assert log[-1]["event"] == "alias.moved"
    assert (log[-1]["by"], log[-1]["body"]["kind"]) == ("ana", "rollback")
    assert "alias.moved" in toolkit("registry", "log", "--limit", 1).out
    assert toolkit("registry", "rollback", "no-such-job", "--json").code == 78


def test_a_changed_file_is_found(workspace, versions) -> None:
    """Every digest is recomputed; a fault has its file, and exit code 78."""
    good = toolkit("registry", "verify", "--json")
    assert (good.code, good.json["ok"]) == (0, True)
    assert good.json["head"].startswith("sha256:")
    path = workspace.registry / "jobs" / "review" / "1" / "evidence.json"
    kept = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"{}")
    bad = toolkit("registry", "verify", "--json")
    people = toolkit("registry", "verify")
    path.write_bytes(kept)
    assert (bad.code, people.code) == (78, 78)
    assert "evidence.json" in bad.json["faults"][0]["where"]
    assert "evidence.json" in people.out


def test_the_inventory_lists_what_exists(workspace, versions) -> None:
    """Jobs with aliases, routes, sets."""
    found = toolkit("inventory", "--json").json
    assert {"job", "versions", "aliases"} <= set(found["jobs"][0])
    assert found["routes"]["default"] == "script/scripted-1"
    assert "review" in toolkit("inventory").out


# -- schedules --------------------------------------------------------------------------------


def test_a_schedule_is_added_paused_resumed_and_removed(workspace, versions) -> None:
    """Its life, seen from the command line and in the audit log."""
    made = toolkit(
        "schedule", "add", "review@1", "--cron", "0 3 * * *", "--tz", "Europe/Lisbon", "--name", "nightly",
        "-p", "limit=4", "--json",
    )  # fmt: skip
    assert made.code == 0
    assert (made.json["cron"], made.json["timezone"]) == ("0 3 * * *", "Europe/Lisbon")
    assert made.json["parameters"] == {"limit": 4}
    (listed,) = toolkit("schedule", "list", "--json").json
    assert (listed["name"], listed["job"], listed["paused"]) == ("nightly", "review@1", False)
    assert listed["next_fire"]
    assert toolkit("schedule", "pause", "nightly", "--json").json["state"] == "paused"
    assert toolkit("schedule", "list", "--json").json[0]["paused"] is True
    assert "paused" in toolkit("schedule", "list").out
    assert toolkit("schedule", "resume", "nightly").code == 0
    assert toolkit("schedule", "remove", "nightly").code == 0
    assert toolkit("schedule", "list", "--json").json == []
    events = [record["event"] for record in toolkit("registry", "log", "--json").json]
    assert events[-4:] == [
        "schedule.added", "schedule.paused", "schedule.resumed", "schedule.removed",
    ]  # fmt: skip


def test_what_is_settled_is_not_worth_another_try(workspace, versions) -> None:
    """A name that is taken and a run that has ended are no passing troubles: exit code 2."""
    once = ("schedule", "add", "review", "--name", "taken", "--cron", "0 3 * * *")
    other = ("schedule", "add", "review", "--name", "taken", "--cron", "0 4 * * *")
    told = [toolkit(*each, "--json") for each in (once, once, other)]
    assert [done.code for done in told] == [0, 0, 2]
    assert told[-1].json["error"]["code"] == "conflict"
    toolkit("schedule", "remove", "taken")
    run_id = toolkit("run", "review", "-p", "limit=1", "--json").json["run_id"]
    late = toolkit("cancel", run_id, "--json")
    assert (late.code, late.json["error"]["code"]) == (2, "conflict")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("review", "--cron", "every day"), 2),
        (("review", "--cron", "0 3 * * *", "--tz", "Mars/Olympus"), 2),
        (("review", "--cron", "0 3 * * *", "-p", "limit=x"), 2),
        (("no-such-job", "--cron", "0 3 * * *"), 78),
    ],
)
def test_what_could_not_run_is_not_scheduled(workspace, versions, arguments, code) -> None:
    """Refused now, by day, and nothing is left behind."""
    done = toolkit("schedule", "add", *arguments, "--json")
    assert done.code == done.json["exit_code"] == code
    assert toolkit("schedule", "list", "--json").json == []


def test_a_schedule_that_is_not_there_is_told(workspace) -> None:
    """For every change of one."""
    for verb in ("pause", "resume", "remove"):
        assert toolkit("schedule", verb, "no-such", "--json").code == 78


# -- init, doctor, gateway --------------------------------------------------------------------

SCRIPT = """answers:
  - data: {topic: billing}
"""
MODELS = """default_route: default
providers: {script: {kind: scripted, script: answers.yaml}}
routes:
  default: {provider: script, model: scripted-1, max_tokens: 64, price: {input_per_million_usd: 1, output_per_million_usd: 1}}
"""


@pytest.mark.slow
def test_a_new_workspace_is_whole_and_its_template_runs(
    tmp_path, monkeypatch, mlflow_template
) -> None:
    """``init``, then doctor without a fault; the template is fit, and runs with any provider."""
    root = tmp_path / "new"
    made = toolkit("init", root, "--json")
    assert made.code == 0
    assert all((root / name).is_file() for name in made.json["files"])
    again = toolkit("init", root, "--json")
    assert (again.code, again.json["error"]["code"]) == (2, "usage")
    monkeypatch.chdir(root)
    doctor = toolkit("doctor", "--json")
    assert doctor.code == 0, doctor.out
    assert {check["state"] for check in doctor.json["checks"]} <= {"fine", "note"}
    shutil.copy(root / "templates" / "agent.ipynb", root / "notebooks" / "triage.ipynb")
    checked = toolkit("check", "notebooks", "--json")
    assert (checked.code, checked.json["reports"][0]["findings"]) == (0, [])
    (root / "registry" / "models.yaml").write_text(MODELS)
    (root / "registry" / "answers.yaml").write_text(SCRIPT)
    shutil.copy(mlflow_template, open_workspace(root).state / "mlflow.db")
    try:
        done = toolkit("run", "notebooks/triage.ipynb", "--json")
        assert done.code == 0, done.out
        assert done.json["results"]["counts"]["billing"] == 3
    finally:
        disconnect()
        end_gateway(open_workspace(root))


def test_the_doctor_names_what_is_wrong_and_how_to_mend_it(workspace) -> None:
    """Every part is looked at, whatever is wrong with the others; exit code 78."""
    fine = toolkit("doctor", "--json")
    assert (fine.code, fine.json["ok"]) == (0, True)
    path = workspace.registry / "models.yaml"
    good = path.read_text()
    path.write_text("routes: 3\n")
    workspace.state.chmod(0o755)
    bad, people = toolkit("doctor", "--json"), toolkit("doctor")
    path.write_text(good)
    workspace.state.chmod(0o700)
    assert bad.code == people.code == 78
    wrong = {check["what"]: check for check in bad.json["checks"] if check["state"] == "wrong"}
    assert set(wrong) == {"models", "workspace"}
    assert wrong["workspace"]["next_step"] == f"chmod 700 {workspace.state}"
    assert {"ledger", "registry", "gateway"} <= {check["what"] for check in bad.json["checks"]}
    assert "chmod 700" in people.out


def test_the_doctor_outside_of_a_workspace(tmp_path, monkeypatch) -> None:
    """A finding like any other."""
    monkeypatch.chdir(tmp_path)
    done = toolkit("doctor", "--json")
    assert (done.code, done.json["ok"]) == (78, False)


def test_the_gateway_is_started_and_stopped(workspace) -> None:
    """In the background, once; stopping twice is no fault."""
    first = toolkit("gateway", "--ensure", "--json").json
    assert first == toolkit("gateway", "--ensure", "--json").json
    assert Path(first["socket"]).is_socket()
    assert toolkit("gateway", "--stop", "--json").json == {"stopped": True}
    assert toolkit("gateway", "--stop", "--json").json == {"stopped": False}
    assert toolkit("ui", "--stop", "--json").json == {"stopped": False}


def test_names_from_files_cannot_write_to_the_terminal(workspace) -> None:
    """Control characters and markup of a notebook are shown, not obeyed."""
    text = notebook_text("x = 1")
    assert Notebook.parse(text.encode()).results == ()
    path = workspace.root / "notebooks" / "a[bold]b\x1b[2J.ipynb"
    path.write_text(text)
    done = toolkit("check", path)
    path.unlink()
    assert "\x1b" not in done.told
    assert "a[bold]b\\x1b[2J.ipynb" in done.out


def test_nothing_here_left_a_trace_in_the_registry(workspace, versions) -> None:
    """What commands refused did not change the truth."""
    assert Registry(workspace.registry).verify() == []


@pytest.mark.parametrize(
    ("arguments", "told", "asked"),
    [
        (("runs", "--limit", "0"), "'--limit'", "toolkit runs"),
        (("worker", "--slots", "0x"), "'--slots'", "toolkit worker"),
        (("check",), "Missing argument 'NB'", "toolkit check"),
        (("export", "foo", "x"), "'TARGET': 'foo' is not one of", "toolkit export"),
        (("trust", "rotat"), "Did you mean 'rotate'?", "toolkit trust"),
    ],
)
def test_a_usage_error_names_the_option_and_the_commands_own_help(arguments, told, asked) -> None:
    """What is wrong as it was typed, and where to look it up."""
    done = toolkit(*arguments)
    assert done.code == 2
    assert told in done.err
    assert "Value error" not in done.err
    assert f"see `{asked} --help`" in done.err


def test_a_reader_that_goes_away_is_no_failure(tmp_path) -> None:
    """`toolkit doctor | head -1` ends with 0, as every command whose output is cut does."""
    (tmp_path / "toolkit.toml").write_text("")
    process = start(["doctor"], tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read()
    assert (process.wait(), told) == (0, "")
