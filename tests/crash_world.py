"""Programs that die, or whose disk fails, at each system call that changes a folder: with strace."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KILL = "signal=KILL"
# Everything that changes the disk; reads cannot leave anything behind.
SYSCALLS = (
    "mkdir",
    "mkdirat",
    "openat",
    "write",
    "fchmod",
    "fsync",
    "rename",
    "renameat",
    "ftruncate",
    "unlink",
    "unlinkat",
    "rmdir",
)


def run_script(
    script: Path, *arguments: object, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a Python script to its end."""
    argv = [*before, sys.executable, "-B", str(script), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True)


def points(script: Path, *arguments: object, root: Path, trace: Path) -> list[tuple[str, int]]:
    """Return which invocations of which system calls change ``root``, counted from 1."""
    before = ("strace", "-qq", "-y", "-o", str(trace), "-e", f"trace={','.join(SYSCALLS)}")
    done = run_script(script, *arguments, before=before)
    assert done.returncode == 0, done.stderr
    seen: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        name = match[1]
        seen[name] = seen.get(name, 0) + 1
        if str(root) in line and "O_RDONLY" not in line:
            found.append((name, seen[name]))
    return sorted(found, key=lambda point: SYSCALLS.index(point[0]))


def fail_at(
    script: Path, *arguments: object, point: tuple[str, int], fault: str = KILL
) -> subprocess.CompletedProcess[str]:
    """Run a script that fails at one point."""
    name, number = point
    inject = f"inject={name}:{fault}:when={number}"
    before = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
    return run_script(script, *arguments, before=before)
