"""First uses of the vendors, before a process is forked into many."""

from __future__ import annotations

import importlib

from toolkit.execution.report import warm_page

__all__ = ["warm_up"]

_MODULES = (
    "toolkit.execution.lifecycle",
    "toolkit.execution.runner",
    # Loaded by name: jupyter_client finds its provisioners through entry points.
    "toolkit.kernels.provisioner",
    "toolkit.kernels.zygotes",
)


def warm_up() -> None:
    """Import what a run and its report need, and draw a page."""
    for name in _MODULES:
        importlib.import_module(name)
    warm_page()
