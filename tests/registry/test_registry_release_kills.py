"""A release that is killed at any system call leaves the old state or the new one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from registry_world import FACTS, FILES

from toolkit.registry import Registry

pytestmark = pytest.mark.chaos

SCRIPT = Path(__file__).with_name("release_script.py")
OLD = {"production": 3, "production.canary-10": 4}
NEW = {"production": 2, "production.canary-10": 4, "revoked.3": 3}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", ["fsync", "rename", "write"])
def test_a_revocation_that_is_killed_is_done_or_not_begun(tmp_path: Path, name: str) -> None:
    """Production never points at nothing, and saying it again completes it."""
    made = tmp_path / "made"
    registry = Registry(made)
    for number in (1, 2, 3, 4):
        registry.seal("a", FILES, FACTS)
        if number < 4:
            registry.set_alias("a", "production", number, by="ana")
    registry.releases.put_beside("a", "production", 4, 10, by="ana")
    assert registry.aliases("a") == OLD
    seen = set()
    for step in range(1, 40):
        root = tmp_path / f"r-{step}"
        shutil.copytree(made, root)
        inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}"]
        inject += ["-e", f"inject={name}:signal=KILL:when={step}"]
        argv = [*inject, sys.executable, "-B", str(SCRIPT), str(root), "a"]
        ended = subprocess.run(argv, capture_output=True).returncode
        after = Registry(root)
        found = after.aliases("a")
        assert found in (OLD, NEW), (step, found)
        assert after.verify() == [], step
        seen.add("new" if found == NEW else "old")
        after.releases.revoke("a", 3, by="ben", reason="again")
        assert after.aliases("a") == NEW
        assert after.verify() == []
        shutil.rmtree(root)
        if ended == 0:
            break
    assert "new" in seen
    assert name == "rename" or "old" in seen
