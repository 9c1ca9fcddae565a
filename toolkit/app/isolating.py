"""How far kernels are isolated here: what policy asks for, as far as this machine reaches."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from toolkit.isolation import Probe, ProbeReport, Reached, choose_level, probe_again, reached_level
from toolkit.kernels import KernelPlan
from toolkit.policy import PolicyBundle
from toolkit.settings import Workspace
from toolkit.values import IsolationLevel

__all__ = [
    "Probe",
    "ProbeReport",
    "kernel_plan",
    "probe_all",
    "probe_cache",
    "reached_here",
    "zygote_folder",
]


def probe_cache() -> Path | None:
    """Return the file that keeps what was probed since this machine was started.

    One for all workspaces of a user; ``None``, so that every process probes for itself, where
    the folder is not private to the user.
    """
    folder = Path(tempfile.gettempdir()) / f"toolkit-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder / "isolation.json" if private and folder.is_dir() else None


def kernel_plan(
    workspace: Workspace, bundle: PolicyBundle, least: IsolationLevel = IsolationLevel.L0
) -> KernelPlan:
    """Return how kernels under a policy bundle are started on this machine.

    Args:
        workspace: Where they are started.
        bundle: The policy.
        least: A minimum beside the bundle's own.

    Raises:
        ConfigurationError: The machine does not reach the minimum.
    """
    asked = bundle.isolation
    minimum = max(asked.minimum, least)
    level = max(minimum, asked.preferred)
    # Limits of the operating system are there, or setting them fails; nothing to probe.
    if level >= IsolationLevel.L2:
        level = choose_level(minimum, level, probe_cache()).level
    zygotes = zygote_folder(workspace)
    return KernelPlan(
        level=level,
        caps=asked.caps,
        hidden=(workspace.state,) if level >= IsolationLevel.L2 else (),
        warm=zygotes.is_dir(),
        zygotes=zygotes,
    )


def zygote_folder(workspace: Workspace) -> Path:
    """Return the folder of zygotes; where it is there, kernels of runs start warm.

    A worker and JupyterLab make it.  A single `toolkit run` in a new workspace does not: a zygote
    takes memory, and pays with the second kernel.
    """
    return workspace.state / "zygotes"


def reached_here() -> Reached:
    """Return the highest level of this machine."""
    return reached_level(IsolationLevel.L3, probe_cache())


def probe_all() -> list[ProbeReport]:
    """Try every level; nothing is taken from what was probed before, and runs believe it from now on."""
    return probe_again(probe_cache())
