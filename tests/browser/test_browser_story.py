"""What people see: a notebook in JupyterLab, its trace and two runs side by side in MLflow."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from browser_world import (
    LARGEST_PNG,
    REPOSITORY,
    LabPage,
    chromium,
    close_assistant,
    close_guidance,
    lab_settings,
    make_workspace,
    running_lab,
    screenshot,
    write_notebook,
)
from playwright.sync_api import TimeoutError as NotSeen

from toolkit.tracing.links import compare_runs_url

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
LONG_MS = 120_000

TOPICS = ("billing", "technical", "other")
TOOL = '''%%tool
def read_order(number: int) -> dict:
    """Look an order up."""
    return {"number": number, "city": "Lisbon", "items": 3}'''
AGENT = '''%%agent
def describe(number: int) -> str:
    """Say what an order is about."""
    order = read_order(number)
    prompt = f"Describe in five words: {order['items']} items go to {order['city']}."
    return toolkit.model(prompt, max_tokens=8).text'''
TOUR = (
    "%load_ext toolkit",
    "%toolkit panel",
    TOOL,
    AGENT,
    "described = [describe(number) for number in (17, 18)]",
    'customer = "Ana"',
    "%%model --out reply --max-tokens 16\nTranslate into French: good morning, {customer}.",
    "%toolkit calls",
    "%%model\nTranslate into French: good morning, {custommer}.",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace with its JupyterLab, MLflow and gateway, and a browser page."""
    root = tmp_path_factory.mktemp("browser")
    workspace = make_workspace(root)
    write_notebook(root / "notebooks" / "tour.ipynb", *TOUR)
    shutil.copy(REPOSITORY / "templates" / "agent.ipynb", root / "notebooks")
    lab_settings(root / "lab-settings")
    before = dict(os.environ)
    os.environ |= {
        "JUPYTERLAB_SETTINGS_DIR": str(root / "lab-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "lab-workspaces"),
        "JUPYTER_CONFIG_DIR": str(root / "jupyter-config"),
    }
    try:
        with running_lab(workspace) as lab, chromium(root / "chromium") as browser:
            yield SimpleNamespace(root=root, lab=lab, browser=browser)
    finally:
        os.environ.clear()
        os.environ |= before


@pytest.fixture(scope="module")
def tour(world):
    """The tour notebook, run from top to bottom in JupyterLab."""
    page = world.browser.new_page()
    page.set_viewport_size({"width": 1280, "height": 1600})
    opened = LabPage(page)
    opened.open(world.lab, "notebooks/tour.ipynb")
    opened.run_all()
    opened.output(9).get_by_text("UsageError").wait_for(timeout=LONG_MS)
    return opened


def test_a_notebook_shows_replies_calls_and_spending(tour):
    """A card under a model's reply, a line under a cell with calls, a live panel, an error box."""
    assert "toolkit is connected" in tour.output(1).inner_text()
    panel = tour.output(2)
    # The panel is redrawn a moment after a call, and the cells after the last one are quick.
    panel.filter(has_text=re.compile(r"calls\s*7\D")).wait_for(timeout=LONG_MS)
    shown = panel.inner_text()
    assert "read_order" in shown
    assert re.search(r"production would object\s+2\b", shown)
    assert re.search(r"cost\s+\$0\b", shown)

    line = tour.output(5).inner_text()
    assert "2 governed calls: agent describe ×2" in line
    assert "production would deny tool read_order" in line

    card = tour.output(7).inner_text()
    assert "SmolLM2-135M-Instruct" in card
    assert re.search(r"\d+ \+ \d+ tokens", card)
    assert "allowed" in card

    error = tour.output(9).inner_text()
    assert "'custommer', which is not defined" in error
    assert "Traceback" not in error

    path = tour.screenshot("jupyterlab-tour", clip=tour.clip(1, 9))
    assert path.stat().st_size < LARGEST_PNG


def _wait_for_spans(page, *names: str) -> None:
    """MLflow's page asks for a trace once: one that was opened before its spans came is loaded again."""
    deadline = time.monotonic() + LONG_MS / 1000
    for name in names:
        span = page.get_by_text(re.compile(name)).first
        while True:
            try:
                span.wait_for(timeout=20_000)
                break
            except NotSeen:
                if time.monotonic() > deadline:
                    raise
                page.reload()


def test_a_call_links_to_its_trace(tour, world):
    """The link in the table of calls opens the trace in MLflow, with every call inside."""
    with world.browser.expect_page() as opened:
        tour.output(8).get_by_text("trace ↗").first.click()
    page = opened.value
    _wait_for_spans(page, "describe", "read_order")
    page.set_viewport_size({"width": 1400, "height": 560})
    page.wait_for_timeout(1500)
    # MLflow draws the trace over its list of traces; what is beside it is not part of the story.
    close_guidance(page)
    boxes = [dialog.bounding_box() for dialog in page.get_by_role("dialog").all()]
    drawer = max((box for box in boxes if box), key=lambda box: box["width"] * box["height"])
    assert screenshot(page, "mlflow-trace", clip=drawer).stat().st_size < LARGEST_PNG
    page.close()


def _run(root, *arguments: str) -> dict:
    command = [sys.executable, "-m", "toolkit", "run", "notebooks/agent.ipynb", "--json"]
    done = subprocess.run([*command, *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_two_runs_can_be_compared(world):
    """Parameters and metrics of two runs of a notebook stand side by side in MLflow."""
    messages = ["I paid twice.", "The app crashes.", "Are you open today?"]
    runs = [_run(world.root, "-p", f"messages={json.dumps(messages[:n])}") for n in (2, 3)]
    experiment = re.search(r"/experiments/(\d+)/", runs[0]["url"])[1]
    address = compare_runs_url(
        world.lab.mlflow_url, [experiment], [run["mlflow_run_id"] for run in runs]
    )
    page = world.browser.new_page()
    page.set_viewport_size({"width": 1200, "height": 1180})
    page.goto(address, timeout=LONG_MS)
    page.get_by_text("Comparing 2 Runs").first.wait_for(timeout=LONG_MS)
    close_assistant(page)
    page.get_by_role("button", name="Visualizations").click()
    page.get_by_text("result.technical", exact=True).first.wait_for(timeout=LONG_MS)
    shown = page.locator("body").inner_text()
    for message in messages:
        assert message in shown
    for run in runs:
        assert run["mlflow_run_id"] in shown
    sorted_messages = [sum(run["results"][topic] for topic in TOPICS) for run in runs]
    assert sorted_messages == [2, 3]
    page.get_by_text("Show diff only").nth(1).click()
    page.wait_for_timeout(1000)
    assert screenshot(page, "mlflow-compare").stat().st_size < LARGEST_PNG
    page.close()


def test_the_licence_review_runs_from_top_to_bottom(world):
    """The example's sandbox notebook, Run All: packages reviewed, calls summed, results published."""
    source = REPOSITORY / "notebooks" / "licence_review.ipynb"
    text = source.read_text("utf-8")
    assert "limit: int = 40" in text
    copy = world.root / "notebooks" / "licence_review.ipynb"
    copy.write_text(text.replace("limit: int = 40", "limit: int = 12"), "utf-8")
    page = world.browser.new_page()
    page.set_viewport_size({"width": 1280, "height": 1300})
    opened = LabPage(page)
    opened.open(world.lab, "notebooks/licence_review.ipynb")
    opened.run_all()
    page.get_by_text("12 of 12 packages reviewed").wait_for(timeout=LONG_MS)
    page.get_by_text(re.compile(r"13 governed calls: agent review_licence ×12")).wait_for()
    page.get_by_text(re.compile(r"governed calls: result counts")).first.wait_for(timeout=LONG_MS)
    shown = page.locator(".jp-Notebook").inner_text()
    assert "permissive" in shown
    assert "Traceback" not in shown
    count = page.locator(".jp-CodeCell").count()
    page.locator(".jp-CodeCell").nth(count - 1).scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    assert screenshot(page, "licence-review").stat().st_size < LARGEST_PNG
    page.close()


def test_two_evaluations_can_be_compared(world):
    """The link that a promotion prints opens both evaluations side by side."""
    shutil.copytree(
        REPOSITORY / "templates" / "evaluations" / "triage",
        world.root / "registry" / "evaluations" / "triage",
    )
    promotions = []
    for measured in ((), ("--fresh",)):  # nothing has changed: else the first one is used again
        command = [sys.executable, "-m", "toolkit", "promote", "notebooks/agent.ipynb", "--json"]
        done = subprocess.run(
            [*command, "--evaluate", "triage", *measured],
            cwd=world.root, capture_output=True, text=True,
        )  # fmt: skip
        # There is no gate for this set here and nothing was run in the sandbox: refused, and shown.
        assert done.returncode == 1, done.stdout + done.stderr
        promotions.append(json.loads(done.stdout))
    first, second = (each["evaluation_mlflow_run_id"] for each in promotions)
    address = promotions[1]["links"]["compare evaluations"]
    assert first in address
    assert second in address
    page = world.browser.new_page()
    page.set_viewport_size({"width": 1500, "height": 900})
    page.goto(address, timeout=LONG_MS)
    page.get_by_text("Comparing", exact=True).first.wait_for(timeout=LONG_MS)
    close_assistant(page)
    assert page.get_by_text(re.compile(r"^agent evaluation")).count() >= 2
    # Case by case: each question is one row, with the answers of both.
    page.get_by_text(re.compile(r"What is your postal address")).first.wait_for(timeout=LONG_MS)
    assert page.get_by_text(re.compile(r"What is your postal address")).count() == 1
    page.wait_for_timeout(1500)
    assert screenshot(page, "mlflow-evaluations").stat().st_size < LARGEST_PNG
    page.close()
