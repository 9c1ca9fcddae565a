"""What the tests of isolation share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import toolkit
from toolkit.isolation import EnclosureSpec
from toolkit.isolation.groups import ControlGroup
from toolkit.values import Caps, IsolationLevel

OTHER_UID = 4242


@pytest.fixture(autouse=True)
def _bubblewrap(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("without_bubblewrap") or shutil.which("bwrap"):
        return
    if os.environ.get("CI"):
        pytest.fail("bubblewrap is not installed, and CI has to test isolation")
    pytest.skip("bubblewrap is not installed: apt install bubblewrap")


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., EnclosureSpec]:
    """Makes specifications with a working folder of their own."""

    def make(level: IsolationLevel, **more: object) -> EnclosureSpec:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        caps = more.pop("caps", Caps())
        return EnclosureSpec(level=level, work=work, python=Path(sys.executable), caps=caps, **more)

    return make


@pytest.fixture
def delegated() -> Iterator[tuple[Path, ...]]:
    """Where a process of the other user enters a control group of its own; empty: there is none.

    What systemd does with ``Delegate=yes``.  In cgroup v2 a group that shares out controllers holds
    no processes: they are in a leaf of it.
    """
    group = ControlGroup.make(Caps(), whole=True) if os.getuid() == 0 else None
    if group is None or not group.whole:
        yield ()
        return
    leaves = []
    for folder in group.folders:
        shared = folder / "cgroup.subtree_control"
        entrance = folder
        if shared.exists():
            shared.write_text("+memory +pids")
            entrance = folder / "leaf"
            entrance.mkdir()
            leaves.append(entrance)
        for each in (folder, entrance, *folder.glob("cgroup.*"), *entrance.glob("cgroup.*")):
            os.chown(each, OTHER_UID, OTHER_UID)
    yield tuple(leaves) or group.folders
    for leaf in leaves:
        leaf.rmdir()
    assert group.remove()


@pytest.fixture
def as_user(tmp_path: Path, delegated: tuple[Path, ...]) -> Callable[[str], str]:
    """Runs Python code as a user without rights, with a copy of the package that it can read."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    home = Path("/var/tmp") / f"isolation-{os.getpid()}"
    shutil.rmtree(home, ignore_errors=True)
    package = Path(toolkit.__file__).parent
    for name in ("isolation", "values"):
        shutil.copytree(package / name, home / "toolkit" / name)
    for name in ("__init__.py", "errors.py"):
        shutil.copy(package / name, home / "toolkit" / name)
    home.chmod(0o755)
    subprocess.run(["chmod", "-R", "a+rX", str(home)], check=True)

    def run(code: str) -> str:
        if python is None:
            pytest.skip("there is no interpreter that every user can read")
        who = ["--reuid", str(OTHER_UID), "--regid", str(OTHER_UID), "--clear-groups"]
        enter = "".join(f"echo 0 > {folder}/cgroup.procs && " for folder in delegated)
        ended = subprocess.run(
            ["sh", "-c", f'{enter}exec "$@"', "sh", "setpriv", *who, python, "-c", code],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    yield run
    shutil.rmtree(home, ignore_errors=True)
