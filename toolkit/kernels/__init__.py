"""Kernels from one provisioner, for the runner, JupyterLab and nbval alike: warm, isolated, or plain.

Rules
-----
* A zygote per interpreter imports what most notebooks import, freezes it, and forks a kernel per
  request.  It decides nothing, holds no secret, and never reads a request: its child does.
* A kernel has the environment, the working folder and the limits of its request, and nothing of
  the zygote's but memory that was there before any request.  Randomness is seeded anew.
* A zygote forks only while it has one thread, the descriptors that it knows, and the files on disk
  that it imported; else it says why and ends.
* Every kernel has a keeper that holds its process id, tells how it ended, and kills its group when
  the connection to whoever asked for it closes, however that happened.  A kernel whose keeper dies
  is killed by the operating system.
* No zygote, or one that cannot serve, means a cold start and a sentence that says so, never an
  error.
* :mod:`toolkit.kernels.zygote`, ``birth``, ``channel`` and ``freshness`` run in the environment of
  the version: standard library and the environment's own packages only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toolkit.kernels.plan import KernelPlan

if TYPE_CHECKING:
    from toolkit.kernels.freshness import Imported
    from toolkit.kernels.provisioner import ToolkitProvisioner
    from toolkit.kernels.spec import PROVISIONER_NAME, kernel_spec, write_kernel_spec
    from toolkit.kernels.zygotes import WarmKernel, WarmRequest, Zygote, stop_zygotes

__all__ = [
    "PROVISIONER_NAME",
    "Imported",
    "KernelPlan",
    "ToolkitProvisioner",
    "WarmKernel",
    "WarmRequest",
    "Zygote",
    "kernel_spec",
    "stop_zygotes",
    "write_kernel_spec",
]

_LATER = {
    "Imported": "freshness",
    "PROVISIONER_NAME": "spec",
    "ToolkitProvisioner": "provisioner",
    "WarmKernel": "zygotes",
    "WarmRequest": "zygotes",
    "Zygote": "zygotes",
    "kernel_spec": "spec",
    "stop_zygotes": "zygotes",
    "write_kernel_spec": "spec",
}


def __getattr__(name: str) -> Any:
    """Load jupyter_client with the first use; a zygote never does so for this (PEP 562)."""
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
