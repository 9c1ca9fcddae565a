"""`doctor`: the parts that keep kernels, queue and environments going, each with what it found."""

from __future__ import annotations

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
    assert all(set(each) == {"what", "state", "detail", "next_step", "seconds"} for each in found.values())  # fmt: skip
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
