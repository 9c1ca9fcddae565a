"""What Airflow itself makes of our file: its parser reads the DAG, its test mode runs it.

`make airflow` installs Airflow into an environment of its own and names it in `AIRFLOW_PYTHON`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scale_world import notebook

from toolkit.app.exports import Export, Target, render
from toolkit.ledger import Ledger
from toolkit.registry import Registry
from toolkit.settings import Workspace
from toolkit.values import RunState

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
FAILING = notebook().replace(b"time.sleep(3)", b"1 / 0")


@pytest.fixture
def airflow(tmp_path: Path, workspace: Workspace) -> Any:
    """Returns what Airflow makes of a folder, and of the DAGs that it is to run."""
    python = os.environ.get("AIRFLOW_PYTHON")
    if not python:
        pytest.skip("AIRFLOW_PYTHON names no interpreter with Airflow: run `make airflow`")
    # Not resolved: an environment's interpreter is a link, and is found by its place.
    python = str(Path(HERE.parents[1], python))
    environment = {
        **os.environ,
        "PATH": f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
    }

    def ask(*dags: str) -> dict[str, Any]:
        steps = [["-m", "airflow", "db", "migrate"]] if dags else []
        answer = tmp_path / "answer.json"
        steps.append([str(HERE / "airflow_driver.py"), str(answer), str(tmp_path / "dags"), *dags])
        for step in steps:
            done = subprocess.run([python, *step], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return json.loads(answer.read_text())

    (tmp_path / "dags").mkdir()
    return ask


def write(folder: Path, export: Export) -> str:
    name, text = render(export, Target.AIRFLOW)
    (folder / "dags" / name).write_text(text)
    return export.name


def test_airflow_reads_every_form_of_the_file(tmp_path: Path, airflow: Any) -> None:
    """By hand, in UTC, in a zone, and with values that would be code: no import error."""
    forms = {
        write(tmp_path, Export("by-hand@1")): "NullTimetable",
        write(tmp_path, Export("utc@1", cron="30 2 * * *")): "CronTriggerTimetable",
        write(tmp_path, Export("zoned@1", cron="30 2 * * *", timezone="Europe/Berlin")): "CronTriggerTimetable",
        write(tmp_path, Export("odd@1", ("a={{ 1/0 }}\"'''\n\\",), workspace="/a b/{%")): "NullTimetable",
    }  # fmt: skip
    told = airflow()
    assert told["errors"] == {}
    assert {name: dag["timetable"] for name, dag in told["dags"].items()} == forms
    assert all(dag["retries"] == {"run": 3} and not dag["catchup"] for dag in told["dags"].values())


def test_airflow_runs_the_version_and_tells_its_end(
    tmp_path: Path, airflow: Any, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    """A good run succeeds; one that its notebook failed fails at once, without another try."""
    registry = Registry(workspace.registry)
    for job, bytes_ in (("good", notebook()), ("bad", FAILING)):
        files = {"notebook.ipynb": bytes_, "evidence.json": b'{"stages": []}'}
        registry.seal(job, files, {"by": "ana"})
    names = [write(tmp_path, Export(f"{job}@1", workspace=str(workspace.root))) for job in ("good", "bad")]  # fmt: skip
    told = airflow(*names)
    with capsys.disabled():
        print("\n ", told["runs"])
    assert told["errors"] == {}
    assert told["runs"] == [["good-1", "success", 1], ["bad-1", "failed", 1]]
    with Ledger.open(workspace.database_url) as ledger:
        runs = {run.job: run for run in ledger.runs(limit=10)}
        assert {job: run.state for job, run in runs.items()} == {
            "good": RunState.SUCCEEDED, "bad": RunState.FAILED,
        }  # fmt: skip
        assert len(ledger.runs(limit=10)) == 2
        assert [call.intent.kind for call in ledger.calls(runs["good"].run_id)] == ["model", "result"]  # fmt: skip
