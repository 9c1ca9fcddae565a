"""Runs one notebook in one fresh kernel through papermill, and says truthfully how it ended.

Rules
-----
* The runner decides the state, from the closed set; what a notebook or papermill claims is
  not asked.  Success means: every code cell executed to its end and every expected result is
  in the ledger.
* The kernel is ours, never the one that the notebook names: an allow-listed environment,
  private unix sockets, no provider key.  The run's token is in the environment only.
* One way to stop: the first reason wins, the kernel's process group is killed at once.
* A runner that no queue watches holds a lease in the ledger.  Another machine takes the run over
  once it is over, and not before; who lost it kills the kernel, and its writes are refused.
* Nothing outlives a run: not after its end, and not after ``kill -9`` of the runner.
* The executed notebook is replaced in one step after every cell; a killed cell is *failed*,
  a cell that never ran is *pending*.
* A run that waits for people only is recorded as waiting before its kernel is ended, and holds
  neither kernel nor token from then on; it starts again from the top and its journal answers.
* Memory and file stay bounded whatever a cell prints.
* A plan may leave MLflow and the page for later: the run's process ends with the state in the
  ledger, and :meth:`Runner.catch_up` of another process does the rest, one process at a time.
* Parameters become ``name = literal`` and nothing else.
* papermill, nbclient, jupyter_client, pyzmq and nbconvert are imported in this room only, and
  only when something is run or rendered.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toolkit.execution.endings import exit_code
from toolkit.execution.facts import CellFact, Ending, Execution, OutputLimits, ProgressEvent
from toolkit.execution.processes import reap

if TYPE_CHECKING:
    from toolkit.execution.lifecycle import Runner
    from toolkit.execution.ownership import QUEUED_TAG, myself, runner_alive
    from toolkit.execution.placing import place
    from toolkit.execution.plans import Progress, RunPlan, RunReport
    from toolkit.execution.report import ReportFacts, render_html
    from toolkit.execution.resuming import ask_journal
    from toolkit.execution.runner import execute
    from toolkit.execution.shown import CellSeen, read_cells, told_cells
    from toolkit.execution.waiting import requests_of, until_us
    from toolkit.execution.warming import warm_up

__all__ = [
    "QUEUED_TAG",
    "CellFact",
    "CellSeen",
    "Ending",
    "Execution",
    "OutputLimits",
    "Progress",
    "ProgressEvent",
    "ReportFacts",
    "RunPlan",
    "RunReport",
    "Runner",
    "ask_journal",
    "execute",
    "exit_code",
    "myself",
    "place",
    "read_cells",
    "reap",
    "render_html",
    "requests_of",
    "runner_alive",
    "told_cells",
    "until_us",
    "warm_up",
]

_LATER = {
    "CellSeen": "shown",
    "QUEUED_TAG": "ownership",
    "Progress": "plans",
    "ReportFacts": "report",
    "RunPlan": "plans",
    "RunReport": "plans",
    "Runner": "lifecycle",
    "ask_journal": "resuming",
    "execute": "runner",
    "myself": "ownership",
    "place": "placing",
    "read_cells": "shown",
    "render_html": "report",
    "requests_of": "waiting",
    "runner_alive": "ownership",
    "told_cells": "shown",
    "until_us": "waiting",
    "warm_up": "warming",
}


def __getattr__(name: str) -> Any:
    """Load papermill or nbconvert with the first use: they take about a second (PEP 562)."""
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
