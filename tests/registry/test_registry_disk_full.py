"""A disk that is full: nothing half is published, nothing that was there is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_world import FACTS, FILES

from toolkit.errors import InfrastructureError
from toolkit.registry import Registry

pytestmark = pytest.mark.chaos  # it mounts a file system: `make chaos`, in CI as well


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_whole_versions_only(small_disk: Path) -> None:
    """Seal until it is full, at every size of what is left: refused, whole, and mended by room."""
    registry = Registry(small_disk / "registry")
    registry.seal("a", FILES, FACTS)
    registry.set_alias("a", "production", 1, by="ana")
    ballast = small_disk / "ballast"
    refused = 0
    for left in range(0, 60_000, 4_096):
        ballast.unlink(missing_ok=True)
        fill(ballast, left)
        try:
            registry.seal("a", {"notebook.ipynb": os.urandom(8_000)}, FACTS)
        except InfrastructureError as error:
            refused += ["No space left" in error.message, "make room" in str(error.next_step)] == [True, True]  # fmt: skip
        check_whole(registry)
        before = registry.resolve("a").number
        target = registry.versions("a")[-1]
        try:
            registry.set_alias("a", "production", target, by="ana")
        except InfrastructureError:
            refused += 1
            assert registry.resolve("a").number in (before, target)
        check_whole(registry)
    assert refused > 3
    ballast.unlink()
    assert registry.seal("a", FILES, FACTS).version == registry.versions("a")[-1]
    assert registry.set_alias("a", "production", 1, by="ana") or registry.resolve("a").number == 1
    registry.set_alias("a", "production", registry.versions("a")[-1], by="ana")
    assert registry.verify() == []


def fill(path: Path, left: int) -> None:
    """Take all room but about ``left`` bytes."""
    room = os.statvfs(path.parent)
    free = room.f_bavail * room.f_frsize - left
    path.write_bytes(b"x" * max(free, 0))


def check_whole(registry: Registry) -> None:
    """Every version loads; the log is a chain, of which at most the last line is torn."""
    for number in registry.versions("a"):
        assert registry.load(f"a@{number}")
    faults = {fault.message for fault in registry.verify()}
    assert faults <= {"the last line was cut by a crash"}
    assert not list((registry.root / "jobs" / "a").glob(".sealing-*"))
