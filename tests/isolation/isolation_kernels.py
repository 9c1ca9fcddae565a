"""Attempts to escape that are made by a cell of a kernel, and what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import toolkit.isolation
from toolkit.isolation.groups import ControlGroup
from toolkit.isolation.planted import Planted
from toolkit.isolation.probes import PROBES
from toolkit.kernels import KernelPlan
from toolkit.values import Caps, IsolationLevel

SCRIPT = Path(toolkit.isolation.__file__).with_name("probes.py")
# A kernel itself needs more files than the little program of the probes.
OPEN_FILES = 256
MEMORY_BYTES, PROCESSES = 400 << 20, 100
SOURCE = "import runpy; runpy.run_path({script!r})['main']([{targets!r}])"


def can_group() -> bool:
    """Whether this machine offers the control group that L3 is made of."""
    group = ControlGroup.make(Caps(), whole=True)
    if group is None:
        return False
    group.remove()
    return group.whole


def plan_of(level: IsolationLevel, planted: Planted, **more: Any) -> KernelPlan:
    """A plan with the caps that the probes try to pass."""
    limits = {"file_bytes": planted.targets["file_bytes"], "open_files": OPEN_FILES}
    if level >= IsolationLevel.L3:
        limits |= {"memory_bytes": MEMORY_BYTES, "processes": PROCESSES}
    caps = Caps(**limits)
    return KernelPlan(level=level, caps=caps, **more)


def source_of(planted: Planted) -> str:
    """The cell that makes every attempt, in the kernel's own process."""
    targets = {
        **planted.targets,
        "open_files": OPEN_FILES,
        "memory_cap": MEMORY_BYTES,
        "process_cap": PROCESSES,
    }
    return SOURCE.format(script=str(SCRIPT), targets=json.dumps(targets))


def escapes(printed: str, level: IsolationLevel, planted: Planted) -> dict[str, str]:
    """Attempts that succeeded although the level promises that they do not."""
    answers = json.loads(printed)
    assert set(answers) == set(PROBES)
    answers["write outside"] = [planted.written_outside(), "arrived"]
    return {
        name: seen
        for name, (escaped, seen) in answers.items()
        if escaped and PROBES[name][0] <= level
    }
