"""Kernels of our provisioner in a real JupyterLab: one forked from a zygote, one that is kept in."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser_world import (
    LabPage,
    chromium,
    lab_settings,
    make_workspace,
    running_lab,
    write_notebook,
)

from toolkit.app.isolating import zygote_folder
from toolkit.kernels import KernelPlan, kernel_spec, stop_zygotes, write_kernel_spec
from toolkit.settings import Workspace
from toolkit.values import IsolationLevel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
LONG_MS = 120_000
WARM = "Python 3 (toolkit, warm)"
KEPT_IN = "Python 3 (kept in)"
PARENT = (
    "import os, pathlib\n"
    "print('parent', pathlib.Path(f'/proc/{os.getppid()}/comm').read_text().strip())"
)
REACH = (
    "import socket\ntry:\n    socket.create_connection(('127.0.0.1', PORT), 5)\n    print('reached')\n"
    "except OSError as error:\n    print('held', type(error).__name__)"
)
CALL = "import toolkit\nprint('answered' if toolkit.model('Say hello.', max_tokens=4).text else '')"


def use_kernel(path: Path, name: str, shown: str) -> None:
    """Name the kernel in a notebook's metadata, as JupyterLab saves it."""
    body = json.loads(path.read_text())
    body["metadata"]["kernelspec"] = {"name": name, "display_name": shown, "language": "python"}
    path.write_text(json.dumps(body))


def offer_kept_in(workspace: Workspace) -> None:
    """Add a kernel of level L2 to those that JupyterLab offers."""
    spec = kernel_spec(
        Path(sys.executable), KernelPlan(level=IsolationLevel.L2), display_name=KEPT_IN
    )
    write_kernel_spec(workspace.state / "jupyter" / "data" / "kernels" / "kept-in", spec)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace with its JupyterLab, to which a kernelspec of level L2 is added, and a browser."""
    root = tmp_path_factory.mktemp("kernels")
    workspace = make_workspace(root)
    lab_settings(root / "lab-settings")
    before = dict(os.environ)
    os.environ |= {
        "JUPYTERLAB_SETTINGS_DIR": str(root / "lab-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "lab-workspaces"),
        "JUPYTER_CONFIG_DIR": str(root / "jupyter-config"),
    }
    try:
        with running_lab(workspace) as lab, chromium(root / "chromium") as browser:
            offer_kept_in(workspace)
            yield SimpleNamespace(root=root, workspace=workspace, lab=lab, browser=browser)
    finally:
        stop_zygotes(zygote_folder(workspace))
        os.environ.clear()
        os.environ |= before


def test_jupyterlab_starts_a_warm_kernel_and_restarts_it_warm(world):
    """The kernel's parent is a zygote's keeper; it calls the gateway as any other does."""
    path = world.root / "notebooks" / "warm.ipynb"
    write_notebook(path, PARENT, CALL)
    use_kernel(path, "toolkit", WARM)
    page = world.browser.new_page()
    opened = LabPage(page)
    # The first start may find its zygote still importing, and is cold then; the next one is warm.
    opened.open(world.lab, "notebooks/warm.ipynb", WARM)
    opened.run_all()
    opened.output(2).get_by_text("answered").wait_for(timeout=LONG_MS)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    opened.output(1).get_by_text("parent kernel-keeper").wait_for(timeout=LONG_MS)
    opened.output(2).get_by_text("answered").wait_for(timeout=LONG_MS)
    page.close()


def test_jupyterlab_speaks_with_a_kernel_that_reaches_nothing(world):
    """Level L2: JupyterLab's own port is out of reach from the cell, and its output is shown."""
    path = world.root / "notebooks" / "kept-in.ipynb"
    port = world.lab.lab_url.partition("127.0.0.1:")[2].partition("/")[0]
    write_notebook(path, REACH.replace("PORT", port))
    use_kernel(path, "kept-in", KEPT_IN)
    page = world.browser.new_page()
    opened = LabPage(page)
    opened.open(world.lab, "notebooks/kept-in.ipynb", KEPT_IN)
    opened.run_all()
    # The browser may have opened the other notebook again, behind this one.
    cells = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-Cell-outputArea")
    cells.nth(0).get_by_text(re.compile("held|reached")).wait_for(timeout=LONG_MS)
    assert "held" in cells.nth(0).inner_text()
    page.close()
