"""First uses of the vendors, before a process is forked into many."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from toolkit.execution.report import ReportFacts, render_html
from toolkit.execution.vendors import nbformat
from toolkit.values import RunState

__all__ = ["warm_up"]

_MODULES = (
    "toolkit.execution.lifecycle",
    "toolkit.execution.runner",
    # Loaded by name: jupyter_client finds its provisioners through entry points.
    "toolkit.kernels.provisioner",
    "toolkit.kernels.zygotes",
)


def warm_up() -> None:
    """Import what a run and its report need, and render a page: that compiles the templates."""
    for name in _MODULES:
        importlib.import_module(name)
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_code_cell("1", execution_count=1)]
    node.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    facts = ReportFacts(run_id="run", state=RunState.SUCCEEDED)
    with tempfile.TemporaryDirectory(prefix="toolkit-warm-") as name:
        path = Path(name, "output.ipynb")
        path.write_text(nbformat.writes(node), "utf-8")
        render_html(path, path.with_suffix(".html"), facts)
