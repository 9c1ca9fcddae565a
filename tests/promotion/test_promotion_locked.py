"""A notebook that declares dependencies: locked, tried, sealed and run in its own environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_world import toolkit
from promotion_world import AGENT, REST, Desk

from toolkit.environments import Lock
from toolkit.values import JobRef

BLOCK = """# /// script
# requires-python = ">=3.11"
# dependencies = ["jinja2>=3"]
# ///
import importlib.util
import sys

import jinja2"""
# mlflow is in the workspace's own environment and in no locked one.
PUBLISH = """toolkit.result(
    count=len(answers),
    text=jinja2.Template("{{ n }} answers").render(n=len(answers)),
    alone=questions != ["Spain"] or importlib.util.find_spec("mlflow") is None,
    where=sys.prefix if questions == ["Spain"] else "",
)"""


@pytest.mark.scale
def test_a_declared_package_is_locked_sealed_and_used(desk: Desk) -> None:
    """From the configured index: every stage and every run use the environment of the lock."""
    path = desk.write("locked", BLOCK, AGENT, REST[0], PUBLISH)
    desk.try_out(path)
    done = desk.promote(path)
    assert done.code == 0, done.out
    stages = {s["name"]: s["passed"] for s in done.json["stages"]}
    names = ("check", "lock", "reproduce", "rehearse", "evaluate", "simulate", "seal")
    assert stages == dict.fromkeys(names, True)

    version = desk.registry.resolve(JobRef("locked"))
    files = desk.registry.load(version)
    lock = Lock.parse(files["requirements.lock"])
    assert lock.declared == ("jinja2>=3",)
    assert {"jinja2", "markupsafe", "ipykernel"} <= {p.name for p in lock.packages}
    assert b"://" not in files["requirements.lock"]
    told = version.manifest.environment
    assert (told["kind"], told["lock"]) == ("locked", lock.digest)
    assert told["lock"] == version.manifest.files["requirements.lock"].digest

    run = toolkit("run", "locked", "-p", 'questions=["Spain"]', "--json")
    assert run.code == 0, run.out
    results = run.json["results"]
    assert (results["text"], results["alone"]) == ("1 answers", True)
    home = desk.workspace.state / "environments"
    assert Path(results["where"]).parent.parent == home

    listed = toolkit("environments", "list", "--json").json["environments"]
    assert [one["packages"] for one in listed] == [len(lock.packages)]
    verified = toolkit("environments", "verify", "--json")
    assert (verified.code, verified.json["ok"]) == (0, True)
    stray = next(Path(results["where"]).glob("lib/python*/site-packages")) / "stray.pth"
    stray.parent.chmod(0o700)
    stray.write_text("import os\n")
    again = toolkit("environments", "verify", "--json")
    assert (again.code, "stray.pth" in json.dumps(again.json)) == (78, True)
