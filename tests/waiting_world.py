"""A job that pays, a person who is asked about it, and the bank that counts payments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cli_world import seal
from loopback_world import serving

from toolkit.ledger import Approval, Ledger
from toolkit.registry import Registry
from toolkit.settings import Workspace
from toolkit.values import RunRecord

ASK = """
@id("pay") @reason("payments need a second pair of eyes") @ask("approver")%s
forbid(principal, action == Action::"call_tool", resource == Tool::"pay");
"""
PAY = """
  pay:
    effect: write
    description: Pays a bill.
    arguments: {recipient: {type: string}, amount: {type: number, minimum: 0}}
    view: "Pay {amount} to {recipient}"
"""
PEOPLE = """
people:
  anna: {roles: [approver]}
  dora: {roles: [director]}
"""
APPROVALS = "approvals: {hold: 1s%s}\n"

PAYING = """import urllib.request

@toolkit.tool(effect="write")
def pay(recipient: str, amount: float) -> str:
    \"\"\"Pays.\"\"\"
    body = f"{recipient} {amount}".encode()
    with urllib.request.urlopen(bank, data=body, timeout=10) as reply:
        return reply.read().decode()"""

CELLS = (
    "before = toolkit.model('what is due?').text",
    PAYING,
    "said = pay('ben ltd', 120.0)",
    "toolkit.result(said=said, before=before)",
)


class Bank:
    """A real server that counts what it was told to pay."""

    def __init__(self) -> None:
        paid = self.paid = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                paid.append(self.rfile.read(size).decode())
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"paid")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@contextmanager
def open_bank() -> Iterator[Bank]:
    """Run a bank for a while."""
    bank = Bank()
    with serving(bank.server):
        yield bank


def ask_people(workspace: Workspace, *, expires: str = "", approvals: str = "") -> None:
    """Let policy ask anna about payments in production."""
    tools = workspace.registry / "tools.yaml"
    production = workspace.registry / "policies" / "production"
    if "pay:" not in tools.read_text():
        tools.write_text(tools.read_text() + PAY)
        policy = production / "policy.yaml"
        policy.write_text(policy.read_text() + APPROVALS % approvals)
        (workspace.registry / "people.yaml").write_text(PEOPLE)
    asked = f'\n@expires("{expires}")' if expires else ""
    (production / "ask.cedar").write_text(ASK % asked)


def paying_job(workspace: Workspace, bank: Bank, job: str = "pay-bill") -> str:
    """Seal the job and return its name."""
    seal(workspace, job, f"bank = {bank.url!r}", *CELLS)
    return job


def run_of(workspace: Workspace, run_id: str) -> RunRecord:
    """A run as the ledger has it."""
    with Ledger.open(workspace.database_url) as ledger:
        return ledger.get_run(run_id)


def request_of(workspace: Workspace, run_id: str) -> Approval:
    """The one request of a run."""
    with Ledger.open(workspace.database_url) as ledger:
        (found,) = [each for each in ledger.approvals(limit=1000) if each.run_id == run_id]
        return found


def audited(workspace: Workspace, approval_id: str) -> int:
    """How many answers to a request the registry's audit log holds."""
    return sum(
        entry.event == "approval.answered" and entry.body.get("approval") == approval_id
        for entry in Registry(workspace.registry).audit()
    )
