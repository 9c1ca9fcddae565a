"""A person decides in JupyterLab about a call that the running cell waits for."""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from browser_world import (
    LabPage,
    chromium,
    lab_settings,
    make_workspace,
    running_lab,
    screenshot,
    write_notebook,
)
from PIL import Image
from playwright.sync_api import TimeoutError as NotSeen
from rich.console import Console
from rich.text import Text

from toolkit.app.approvals import make_desk
from toolkit.errors import ApprovalPending
from toolkit.gateway import Approvals, Governance, Question
from toolkit.ledger import Ledger
from toolkit.policy import PolicyRequest
from toolkit.values import (
    CallKind,
    Effect,
    Environment,
    Intent,
    Labels,
    RunKind,
    RunRecord,
    RunState,
    Source,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
LONG_MS = 120_000
SMALL = 120_000

TOOLS = """
tools:
  pay:
    effect: write
    description: Pays a bill.
    arguments: {recipient: {type: string}, amount: {type: number, minimum: 0}}
    view: "Pay {amount} to {recipient}"
"""
ASK = """
@id("tools") permit(principal, action, resource);
@id("second-pair-of-eyes") @reason("payments need a second pair of eyes") @ask("approver")
forbid(principal, action == Action::"call_tool", resource == Tool::"pay");
@id("blocked-recipients") @reason("Mallory & Sons are on the list of blocked recipients")
forbid(principal, action == Action::"call_tool", resource == Tool::"pay")
when { context.arguments.recipient == "Mallory & Sons" };
"""
PAY = '''@toolkit.tool(effect="write")
def pay(recipient: str, amount: float) -> str:
    """Pay a bill."""
    return f"paid {amount:g} to {recipient}"'''
NOTEBOOK = (
    "%load_ext toolkit",
    PAY,
    'pay("Northwind Ltd", 1200)',
    'pay("Contoso", 300)',
    'pay("Fabrikam", 80)',
    'pay("Mallory & Sons", 9000)',
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace whose sandbox asks the role approver, which its user has, and a browser."""
    root = tmp_path_factory.mktemp("browser-approval")
    before = dict(os.environ)
    os.environ["TOOLKIT_USER"] = "ana"
    workspace = make_workspace(root)
    (root / "registry" / "tools.yaml").write_text(TOOLS)
    for rules in (root / "registry" / "policies" / "sandbox").glob("*.cedar"):
        rules.unlink()
    (root / "registry" / "policies" / "sandbox" / "rules.cedar").write_text(ASK)
    limits = root / "registry" / "policies" / "sandbox" / "policy.yaml"
    limits.write_text(limits.read_text().replace("mode: warn ", "mode: enforce "))
    (root / "registry" / "people.yaml").write_text("people:\n  ana: {roles: [approver]}\n")
    write_notebook(root / "notebooks" / "pay.ipynb", *NOTEBOOK)
    lab_settings(root / "lab-settings")
    os.environ |= {
        "JUPYTERLAB_SETTINGS_DIR": str(root / "lab-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "lab-workspaces"),
        "JUPYTER_CONFIG_DIR": str(root / "jupyter-config"),
    }
    try:
        with running_lab(workspace) as lab, chromium(root / "chromium") as browser:
            yield SimpleNamespace(root=root, lab=lab, browser=browser, workspace=workspace)
    finally:
        os.environ.clear()
        os.environ |= before


def test_buttons_decide_while_the_cell_waits(world):
    """Approve, approve with another amount, and reject with a reason that the cell is told."""
    page = world.browser.new_page()
    page.set_viewport_size({"width": 1100, "height": 1900})
    lab = LabPage(page)
    lab.open(world.lab, "notebooks/pay.ipynb")
    lab.run_all()

    first = lab.output(3)
    first.get_by_role("button", name="Approve").wait_for(timeout=LONG_MS)
    shown = first.inner_text()
    assert 'Pay 1200 to "Northwind Ltd"' in shown
    assert "payments need a second pair of eyes" in shown
    first.get_by_role("button", name="Approve").click()
    first.get_by_text("paid 1200 to Northwind Ltd").wait_for(timeout=LONG_MS)

    second = lab.output(4)
    second.get_by_role("button", name="Change arguments…").click(timeout=LONG_MS)
    area = second.locator("textarea")
    area.fill('{"recipient": "Contoso", "amount": -5}')
    second.get_by_role("button", name="Approve with these").click()
    second.get_by_text("argument amount is below 0").wait_for(timeout=LONG_MS)
    area.fill('{"recipient": "Contoso", "amount": 250}')

    page.mouse.move(0, 0)
    path = screenshot(page, "approval-notebook", clip=lab.clip(1, 4))
    assert path.stat().st_size < SMALL
    second.get_by_role("button", name="Approve with these").click()
    second.get_by_text("paid 250 to Contoso").wait_for(timeout=LONG_MS)

    third = lab.output(5)
    third.get_by_role("button", name="Reject").click(timeout=LONG_MS)
    third.get_by_text("a rejection needs a reason").wait_for(timeout=LONG_MS)
    third.locator("input").fill("this bill was paid in May")
    third.get_by_role("button", name="Reject").click()
    third.get_by_text("CallDenied").wait_for(timeout=LONG_MS)
    assert "this bill was paid in May" in third.inner_text()

    with Ledger.open(world.workspace.database_url) as ledger:
        decided = [approval.state.value for approval in ledger.approvals()]
        assert decided == ["rejected", "changed", "approved"]
        assert ledger.verify() == []

    denied = lab.output(6)
    # JupyterLab does not run what follows a failed cell, and for a moment the kernel drops what it is
    # asked after one: then the cell is run again, as a person would.
    for last in (False, False, True):
        page.locator(".jp-CodeCell").nth(5).locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        try:
            denied.get_by_text("CallDenied").wait_for(timeout=LONG_MS if last else 20_000)
            break
        except NotSeen:
            if last:
                raise
    assert "Mallory & Sons are on the list of blocked recipients" in denied.inner_text()
    path = screenshot(page, "call-denied", clip=lab.clip(5, 6))
    assert path.stat().st_size < SMALL


def _terminal(*commands: list[str], cwd) -> str:
    """Run commands as in a terminal and return what it shows as SVG."""
    console = Console(record=True, width=128, file=io.StringIO(), force_terminal=True)
    environment = {
        **os.environ,
        "TOOLKIT_USER": "ana",
        "FORCE_COLOR": "1",
        "COLUMNS": "128",
        "TERM": "xterm-256color",
    }
    for words in commands:
        console.print(f"$ toolkit {shlex.join(words)}", style="bold", highlight=False)
        done = subprocess.run(
            [sys.executable, "-m", "toolkit", *words],
            cwd=cwd, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        console.print(Text.from_ansi(done.stdout + done.stderr))
    return console.export_svg(title="toolkit")


def test_a_terminal_shows_who_asks_for_what_and_why(world):
    """The inbox, one request in full, the answer, and the stop switch."""
    with Ledger.open(world.workspace.database_url) as ledger:
        run = ledger.create_run(
            RunRecord("run-2026-11-21-bills", RunKind.RUN, Environment.PRODUCTION, "emil",
                      RunState.RUNNING, job="bills", version=3, team="finance")
        )  # fmt: skip
        for recipient, amount, source in (
            ("Northwind Ltd", 1200, Source.USER),
            ("Contoso, IBAN from e-mail", 300, Source.UNTRUSTED),
        ):
            intent = Intent(
                run.run_id, CallKind.TOOL, "pay", {"recipient": recipient, "amount": amount},
                request_id=recipient, effect=Effect.WRITE, agent="payer",
                labels={"recipient": Labels(frozenset({source}))},
            )  # fmt: skip
            desk = open_workbench_desk(world.workspace, ledger)
            decision = desk.bundle(Environment.SANDBOX).decide(
                PolicyRequest("emil", "call_tool", "pay", Environment.SANDBOX,
                              effect=Effect.WRITE, arguments=intent.arguments)
            )  # fmt: skip
            begun = ledger.begin(intent, decision)
            question = Question(lambda _, decided=decision: decided)
            asking = Approvals(ledger, desk).settle(run, begun, question)
            # In a thread: playwright has an event loop in this one.
            with pytest.raises(ApprovalPending), ThreadPoolExecutor(1) as pool:
                pool.submit(asyncio.run, asking).result()
        waiting = [asked.id for asked in ledger.approvals(waiting=True)]
    svg = _terminal(
        ["inbox"],
        ["decide", waiting[-1]],
        ["decide", waiting[-1], "reject", "--reason", "use the IBAN of the contract", "--yes"],
        ["stop", "--agent", "payer", "--reason", "pays from e-mails"],
        ["stop", "--list"],
        cwd=world.root,
    )
    assert "came from untrusted data" in svg.replace("&#160;", " ")
    page = world.browser.new_page()
    page.set_content(f'<body style="margin:0">{svg}</body>')
    size = page.locator("svg").bounding_box()
    path = screenshot(page, "approval-terminal", clip=size)
    with Image.open(path) as picture:  # a terminal has few colours
        picture.convert("RGB").quantize(96).save(path, optimize=True)
    assert path.stat().st_size < SMALL


def open_workbench_desk(workspace, ledger):
    """Return the desk that the workspace's commands use."""
    return make_desk(ledger, Governance(workspace.registry))
