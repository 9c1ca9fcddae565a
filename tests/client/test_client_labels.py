"""Which paths lead to labels, and what the hook of a job's kernel refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.client import is_label_file


@pytest.mark.parametrize(
    "text",
    [
        "registry/evaluations",
        "/srv/shop/registry/evaluations/triage/cases.jsonl",
        "../registry//evaluations/triage",
        "a/../registry/evaluations/triage/set.yaml",
        "/mnt/evaluations/triage/cases.jsonl",
        "cat registry/evaluations/triage/cases.jsonl | head -1",
    ],
)
def test_paths_and_commands_that_lead_there_are_known(text: str) -> None:
    """However they are written, and wherever the registry is."""
    assert is_label_file(text)


@pytest.mark.parametrize(
    "text",
    ["", "evaluations", "my-registry/evaluations", "registry/evaluations.md", "reports/evaluations/x",
     "toolkit/app/evaluations.py", "registry/jobs/evaluations/1/notebook.ipynb"],
)  # fmt: skip
def test_other_paths_are_left_alone(text: str) -> None:
    """A word in common is not enough."""
    assert not is_label_file(text)


TRY = """
import glob, os, pathlib, shutil, subprocess, sys
from toolkit.client import guard_labels
guard_labels()
guard_labels()
place = pathlib.Path("registry/evaluations/triage/cases.jsonl")
ways = {
    "open": lambda: open(place).read(),
    "bytes": lambda: open(os.fsencode(place)).read(),
    "os.open": lambda: os.open(place, os.O_RDONLY),
    "read_text": lambda: place.absolute().read_text(),
    "listdir": lambda: os.listdir(place.parent),
    "copy": lambda: shutil.copy(place, "copy"),
    "link": lambda: os.symlink(place.absolute(), "link"),
    "chdir": lambda: os.chdir(place.parent),
    "system": lambda: os.system(f"cat {place} > copy"),
    "subprocess": lambda: subprocess.run(["cat", str(place)], check=True),
}
for name, way in ways.items():
    try:
        way()
    except PermissionError as error:
        print(name, str(error).startswith("the files of evaluation sets are not for"))
print(open("other.txt").read(), os.listdir("registry"), os.path.exists("copy"))
"""


def test_every_way_of_python_to_the_files_is_refused_and_no_other_is(tmp_path: Path) -> None:
    """Reading, listing, copying, linking, moving there, and commands that name them."""
    folder = tmp_path / "registry" / "evaluations" / "triage"
    folder.mkdir(parents=True)
    (folder / "cases.jsonl").write_text("secret")
    (tmp_path / "other.txt").write_text("plain")
    # No gateway answers here: what is refused is refused without one.
    environment = {name: value for name, value in os.environ.items() if name != "TOOLKIT_SOCKET"}
    done = subprocess.run(
        [sys.executable, "-c", TRY], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *refused, last = done.stdout.splitlines()
    ways = ("open", "bytes", "os.open", "read_text", "listdir", "copy", "link", "chdir", "system", "subprocess")  # fmt: skip
    assert refused == [f"{name} True" for name in ways]
    assert last == "plain ['evaluations'] False"
