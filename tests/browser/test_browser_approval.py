"""A person decides in JupyterLab about a call that the running cell waits for."""

from __future__ import annotations

import os
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

from toolkit.ledger import Ledger

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
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace whose sandbox asks the role approver, which its user has, and a browser."""
    root = tmp_path_factory.mktemp("browser-approval")
    workspace = make_workspace(root)
    (root / "registry" / "tools.yaml").write_text(TOOLS)
    for rules in (root / "registry" / "policies" / "sandbox").glob("*.cedar"):
        rules.unlink()
    (root / "registry" / "policies" / "sandbox" / "rules.cedar").write_text(ASK)
    people = f"people:\n  {workspace.user}: {{roles: [approver]}}\n"
    (root / "registry" / "people.yaml").write_text(people)
    write_notebook(root / "notebooks" / "pay.ipynb", *NOTEBOOK)
    lab_settings(root / "lab-settings")
    before = dict(os.environ)
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
    page.set_viewport_size({"width": 1100, "height": 1300})
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
