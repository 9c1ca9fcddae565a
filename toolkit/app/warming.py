"""What a process does once, so that all that is forked from it need not: imports and first uses."""

from __future__ import annotations

import importlib

from toolkit import execution, tracing

__all__ = ["warm_up"]

# What a run imports on its way through the rooms.
_ON_THE_WAY = (
    "toolkit.app.approvals",
    "toolkit.app.isolating",
    "toolkit.app.pages",
    "toolkit.app.running",
    "toolkit.app.trusting",
    "toolkit.gateway",
    "toolkit.isolation",
    "toolkit.ledger",
    "toolkit.registry",
    "toolkit.scheduling",
    "toolkit.sources",
)


def warm_up() -> None:
    """Import and try what ``toolkit run`` needs.

    No database, socket, or thread is left open.
    """
    for name in _ON_THE_WAY:
        importlib.import_module(name)
    execution.warm_up()
    tracing.warm_up()
