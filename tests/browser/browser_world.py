"""What the browser tests share: a workspace, its JupyterLab and MLflow, and one chromium."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, sync_playwright

from toolkit.app.services import Lab, run_lab
from toolkit.errors import GatewayUnavailable
from toolkit.gateway import read_record, stop_gateway
from toolkit.ledger import is_alive
from toolkit.settings import Workspace, open_workspace

REPOSITORY = Path(__file__).resolve().parents[2]
SCREENSHOTS = REPOSITORY / "docs" / "screenshots"
LARGEST_PNG = 300_000
CHROMIUM = "/usr/bin/chromium"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# All cells are drawn, not only those in sight; no news are fetched and nobody is asked about them.
_LAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def make_workspace(root: Path) -> Workspace:
    """Copy this repository's registry into a new workspace."""
    shutil.copytree(REPOSITORY / "registry", root / "registry")
    shutil.copy(REPOSITORY / "toolkit.toml", root)
    (root / "notebooks").mkdir()
    return open_workspace(root)


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    notebook = new_notebook(
        cells=[new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(cells, 1)],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
        },
    )
    nbformat.write(notebook, path)


def lab_settings(folder: Path) -> None:
    """Write JupyterLab's user settings for ``JUPYTERLAB_SETTINGS_DIR``."""
    for name, values in _LAB_SETTINGS.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def _wait_until_open(url: str, seconds: float = 120) -> None:
    """Wait until a server answers at all; refused connections are how a starting one looks."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            httpx.get(url, timeout=30)
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return


@contextmanager
def running_lab(workspace: Workspace) -> Iterator[Lab]:
    """Start JupyterLab, MLflow's UI and the gateway of a workspace; end the three."""
    lab = run_lab(workspace, port=0, browser=False, extra=[])
    try:
        _wait_until_open(lab.lab_url)
        yield lab
    finally:
        record = read_record(workspace.state)
        lab.close()
        with contextlib.suppress(GatewayUnavailable):
            stop_gateway(workspace.state, timeout_s=20)
        assert record is None or _ends(record.pid)


def _ends(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends in time; a child that nobody has waited for counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_alive(pid):
            return True
        time.sleep(0.1)
    return False


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Start chromium with a profile of its own; pages log their errors into ``profile``."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=CHROMIUM,
            headless=True,
            args=_FLAGS,
            viewport={"width": 1280, "height": 900},
        )
        try:
            yield context
        finally:
            context.close()


@dataclass
class LabPage:
    """JupyterLab in a browser page, seen as a person sees it.

    Attributes:
        page: Playwright's page.
    """

    page: Page

    def open(self, lab: Lab, notebook: str, kernel: str = "Python 3 (ipykernel)") -> None:
        """Open a notebook and wait for its kernel."""
        base, _, token = lab.lab_url.partition("?token=")
        base = base.partition("/lab")[0]
        self.page.goto(f"{base}/lab/tree/{notebook}?token={token}", timeout=120_000)
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        # The indicator in the toolbar says "idle" before there is a kernel; the status bar does not.
        self.page.wait_for_selector(f'text="{kernel} | Idle"', timeout=120_000)

    def run_all(self) -> None:
        """Choose Run > Run All Cells."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()

    def output(self, number: int) -> Any:
        """Return the output area of the nth code cell, from 1."""
        return self.page.locator(".jp-CodeCell").nth(number - 1).locator(".jp-Cell-outputArea")

    def clip(self, first: int, last: int) -> dict[str, float]:
        """Return the rectangle of the cells from ``first`` to ``last``."""
        top = self.page.locator(".jp-CodeCell").nth(first - 1).bounding_box()
        end = self.page.locator(".jp-CodeCell").nth(last - 1).bounding_box()
        return {
            "x": top["x"],
            "y": top["y"],
            "width": top["width"],
            "height": end["y"] + end["height"] - top["y"] + 8,
        }

    def screenshot(self, name: str, *, clip: dict[str, float] | None = None) -> Path:
        """Save what is on the screen into ``docs/screenshots``."""
        return screenshot(self.page, name, clip=clip)


def screenshot(page: Page, name: str, *, clip: dict[str, float] | None = None) -> Path:
    """Save a page as ``docs/screenshots/<name>.png``, small enough for a repository."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=str(path), clip=clip, animations="disabled")
    shrink(path)
    return path


def close_assistant(page: Page) -> None:
    """Close MLflow's assistant, which needs a model of its own and opens beside every page."""
    close = page.get_by_role("button", name="Close", exact=True)
    if close.count():
        close.last.click()


def close_guidance(page: Page) -> None:
    """Close the hint that MLflow shows to a new person; it lies under an open trace."""
    close = page.get_by_role("button", name="Close guidance")
    if close.count():
        close.dispatch_event("click")
        close.wait_for(state="detached")


def shrink(path: Path) -> None:
    """Reduce a screenshot to 128 colours where it is larger than a repository should carry."""
    if path.stat().st_size < LARGEST_PNG:
        return
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)
