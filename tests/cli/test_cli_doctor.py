"""`doctor`: the parts that keep kernels, queue and environments going, each with what it found."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from cli_world import GOOD, seal, toolkit

from toolkit.scheduling import Engine, Schedule
from toolkit.scheduling.leases import Leases


def checks() -> dict[str, dict[str, Any]]:
    """What the doctor found, by name; of several of one name the last."""
    return {check["what"]: check for check in toolkit("doctor", "--json").json["checks"]}


def test_every_part_is_looked_at_and_timed(workspace) -> None:
    """Isolation, warm kernels, queue, signatures, environments: what is not there yet says so."""
    found = checks()
    assert {"isolation", "kernels", "engine", "signatures", "environments"} <= set(found)
    assert all(set(each) == {"what", "state", "detail", "next_step", "seconds", "passing"} for each in found.values())  # fmt: skip
    assert all(each["seconds"] >= 0 for each in found.values())
    assert sum(each["seconds"] for each in found.values()) > 0
    assert "kernels can be isolated at L" in found["isolation"]["detail"]
    assert "start cold" in found["kernels"]["detail"]
    assert "no queue yet" in found["engine"]["detail"]
    assert not (workspace.state / "engine.db").exists(), "looking makes nothing"
    assert found["signatures"]["next_step"] == "toolkit trust init"
    assert found["environments"]["detail"].startswith("0 locked ones")


def test_a_schedule_without_a_worker_is_noted(workspace) -> None:
    """A worker that is heard of is counted, and then nothing is to be done."""
    seal(workspace, "nightly", *GOOD)
    with Engine(workspace.engine_url, root=workspace.root) as engine:
        engine.add_schedule(
            Schedule("night", "nightly@production", {}, "30 2 * * *", "Europe/Berlin", "ana")
        )
    idle = checks()["engine"]
    assert (idle["state"], idle["next_step"]) == ("note", "start one: toolkit worker")
    assert idle["detail"] == "0 runs queued or running, 1 schedules, 0 workers"
    leases = Leases(workspace.engine_url, "worker-1", 30)
    try:
        leases.take()
        served = checks()["engine"]
        assert (served["state"], served["next_step"]) == ("fine", None)
        assert served["detail"].endswith("1 workers")
    finally:
        leases.drop()
        leases.close()


@pytest.mark.parametrize("broken", [False, True])
def test_an_environment_that_cannot_be_read_is_noted(workspace, broken) -> None:
    """It would be built again; how to look closer is told."""
    place = workspace.state / "environments" / ("ab" * 32)
    if broken:
        place.mkdir(parents=True)
    found = checks()["environments"]
    assert (found["state"], "1 cannot be read" in found["detail"]) == (
        ("note", True) if broken else ("fine", False)
    )
    if broken:
        assert "--environments" in found["next_step"]
        place.rmdir()


def test_warm_kernels_are_told_by_their_folder(workspace) -> None:
    """A worker or JupyterLab makes it; a zygote that does not answer is none."""
    folder = workspace.state / "zygotes" / "gone"
    folder.mkdir(parents=True)
    (folder / "socket").touch()
    assert (
        checks()["kernels"]["detail"] == "start warm; no zygote runs; the next warm start makes one"
    )
    (folder / "socket").unlink()
    folder.rmdir()
    folder.parent.rmdir()


BROKEN = {
    "data.yaml": ("sources:\n  orders: {kind: sq", "data.yaml:3: is not YAML"),
    "people.yaml": ("people:\n  ana: {rols: [owner]}\n", "rols: is not a known key"),
    "jobs.yaml": ("jobs:\n  triage: {concurency: 1}\n", "concurency: is not a known key"),
    "waivers.yaml": ("waivers: nothing\n", "waivers.yaml:1"),
    "models.yaml": ("providers: [\n", "models.yaml:"),
    "tools.yaml": ("tools: {\n", "tools.yaml:"),
    "policies/production/policy.yaml": ("mode: enforced\n", "policy.yaml:1"),
    "evaluations/broken/set.yaml": (
        "name: broken\nagent: answer\nscorers:\n  - {name: right, kind: exat}\n",
        "set.yaml:4 scorers.0.kind: ",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_file_with_a_fault_is_told_once(workspace, name) -> None:
    """Every file that people write is read; the fault is named, by one part only."""
    path, (text, told) = workspace.registry / name, BROKEN[name]
    before = path.read_text("utf-8") if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    if path.name == "set.yaml":
        (path.parent / "cases.jsonl").write_text('{"id": "a", "inputs": {}, "expected": "b"}\n')
    try:
        done = toolkit("doctor", "--json")
    finally:
        path.unlink() if before is None else path.write_text(before, "utf-8")
        shutil.rmtree(workspace.registry / "evaluations" / "broken", ignore_errors=True)
    wrong = [check["detail"] for check in done.json["checks"] if check["state"] == "wrong"]
    assert done.code == 78
    assert len(wrong) == 1, wrong
    assert str(path.name) in wrong[0] or path.parent.name in wrong[0]
    assert told in wrong[0]


def test_variables_that_sources_and_servers_need_are_named(workspace, monkeypatch) -> None:
    """A password or a token that is not set is a note for each, as for a model's key."""
    monkeypatch.delenv("ORDERS_PASSWORD", raising=False)
    files = {
        "data.yaml": "sources:\n  orders:\n    kind: sql\n    url: postgresql://reader@db.example/shop\n"
        "    password_env: ORDERS_PASSWORD\n"
        "    labels: {classes: [internal], sources: [internal]}\n",
        "tools.yaml": "tools: {}\nservers:\n  wiki: {transport: http, url: https://wiki.example/mcp,"
        " token_env: WIKI_TOKEN}\n",
    }
    before = {name: (workspace.registry / name) for name in files}
    kept = {n: p.read_text("utf-8") if p.exists() else None for n, p in before.items()}
    try:
        for name, text in files.items():
            before[name].write_text(text, "utf-8")
        notes = [c["detail"] for c in toolkit("doctor", "--json").json["checks"]]
        monkeypatch.setenv("ORDERS_PASSWORD", "set")
        after = [c["detail"] for c in toolkit("doctor", "--json").json["checks"]]
    finally:
        for name, path in before.items():
            path.unlink() if kept[name] is None else path.write_text(kept[name] or "", "utf-8")
    assert "orders: ORDERS_PASSWORD is not set here" in notes
    assert "wiki: WIKI_TOKEN is not set here" in notes
    assert "orders: ORDERS_PASSWORD is not set here" not in after


def test_servers_that_are_away_may_come_back(workspace, monkeypatch) -> None:
    """An MLflow or a ledger that does not answer is wrong, with the exit code for trying again."""
    monkeypatch.setenv("TOOLKIT_MLFLOW_URI", "http://127.0.0.1:1")
    away = toolkit("doctor", "--json")
    found = {check["what"]: check for check in away.json["checks"]}["MLflow"]
    assert (away.code, found["state"]) == (75, "wrong")
    assert found["detail"].startswith("http://127.0.0.1:1 does not answer")
    monkeypatch.delenv("TOOLKIT_MLFLOW_URI")
    monkeypatch.setenv("TOOLKIT_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert toolkit("doctor", "--json").code == 75
