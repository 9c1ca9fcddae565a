"""A call that waits for a person: shown, decided with buttons, sent again, taken back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from magics_gateway import WireGateway

from toolkit import client
from toolkit.client import approvals, wire
from toolkit.client.approvals import Waiting
from toolkit.errors import ApprovalPending, CallDenied, ToolkitError
from toolkit.magics.approvals import ApprovalCards, approval_markup, approval_text

PAY = '''@toolkit.tool(effect="write")
def pay(recipient: str, amount: float = 1.0) -> str:
    """Pay a bill."""
    return f"paid {amount:g} to {recipient}"'''


def request(state: str = "pending", **facts: Any) -> dict[str, Any]:
    """A request as the gateway tells it."""
    return {
        "id": "ask-1",
        "state": state,
        "waiting": state in ("pending", "escalated"),
        "role": "approver",
        "digest": "sha256:1",
        "expires_at": "2026-11-22T09:00:00.000000Z",
        "decided_by": None,
        "reason": None,
        "changed": None,
        "arguments": {"recipient": "ben", "amount": 120.0},
        "view": {
            "title": 'Pay 120 to "ben"',
            "call": "tool pay",
            "arguments": [{"name": "recipient", "value": '"<b>ben"', "origin": "came from <i>"}],
            "reasons": ["<script>alert(1)</script>"],
            "facts": [],
            "changeable": True,
        },
        **facts,
    }


class AskingGateway(WireGateway):
    """Asks a person about the first call of ``pay``; what happens then is scripted.

    Attributes:
        becomes: What ``calls/approval`` tells, one after the other; an exception is raised.
        change: What the person changed in the arguments, if anything.
        begins: The bodies that came to ``calls/begin``.
        said: The bodies that came to ``calls/approval/answer``.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.becomes: list[dict[str, Any]] = []
        self.change: dict[str, Any] | None = None
        self.begins: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == wire.APPROVAL:
            return {"approval": self.becomes.pop(0)}
        if path == wire.ANSWER_APPROVAL:
            self.said.append(body)
            return {"approval": request("rejected", decided_by="ana", reason=body["reason"])}
        if path == wire.BEGIN:
            self.begins.append(body)
        if path == wire.BEGIN and self.becomes:
            details = {"approval": request()}
            raise ApprovalPending("pay waits", details=details)
        reply = super().answer(path, body)
        if path == wire.BEGIN and self.change:
            reply["change"] = self.change
        return reply


@pytest.fixture
def gateway(monkeypatch):
    """A gateway that asks, in place of the room's own."""
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        made = AskingGateway(Path(folder) / "gateway.sock")
        monkeypatch.setenv(wire.ENV_SOCKET, made.socket)
        monkeypatch.setenv(wire.ENV_TOKEN, "t" * 40)
        client.disconnect()
        yield made
        client.disconnect()
        made.close()


def test_a_call_waits_and_is_sent_again_with_the_same_request(notebook, gateway):
    """The request stands where the person looks; the second try carries the same request id."""
    notebook.ok("import toolkit")
    notebook.ok(PAY)
    gateway.becomes = [request(), request("approved", decided_by="anna")]
    assert notebook.ok('pay("ben", 120.0)') == "paid 120 to ben"
    first, second = gateway.begins
    assert first == second
    assert first["request_id"]


def test_changed_arguments_reach_the_function(notebook, gateway):
    """What is set is set, what is dropped takes its default."""
    notebook.ok("import toolkit")
    notebook.ok(PAY)
    gateway.change = {"set": {"recipient": "contoso"}, "drop": ["amount"]}
    assert notebook.ok('pay("ben", 120.0)') == "paid 1 to contoso"


def test_an_argument_that_does_not_fit_ends_the_call(notebook, gateway):
    """The body does not run; the call has an outcome."""
    notebook.ok("import toolkit")
    notebook.ok(PAY)
    gateway.change = {"set": {"amount": "much"}, "drop": []}
    assert "pay(amount)" in str(notebook.fails('pay("ben", 120.0)'))
    assert gateway.asked(wire.FINISH)[-1]["state"] == "error"


def test_an_interrupted_cell_takes_its_request_back(gateway):
    """Nobody is left with a question whose asker has gone."""
    connection = client.connect()
    seen: list[str] = []

    def interrupt(waiting: Waiting) -> None:
        seen.append(waiting.approval["state"])

    connection.watchers.append(interrupt)

    class Interrupted(type(connection)):
        """A connection whose person presses stop during the wait."""

        def post(self, path, body):
            if path == wire.APPROVAL:
                raise KeyboardInterrupt
            return super().post(path, body)

    connection.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt):
        approvals.wait(connection, ApprovalPending("waits", details={"approval": request()}))
    (said,) = gateway.said
    assert (said["choice"], said["digest"]) == ("reject", "sha256:1")
    assert seen == ["pending", "rejected"]


class Page:
    """The part of the extension that cards need: where they are shown."""

    def __init__(self, *, in_kernel: bool) -> None:
        self.in_kernel = in_kernel
        self.shown: list[dict[str, Any]] = []

    def publish(self, bundle: dict[str, Any]) -> None:
        self.shown.append(bundle)


class Kernel:
    """The part of a connection that answers go through."""

    def __init__(self, environment: str = "sandbox", error: ToolkitError | None = None) -> None:
        self.environment = environment
        self.error = error
        self.posted: list[dict[str, Any]] = []

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == wire.ANSWER_APPROVAL
        if self.error is not None:
            raise self.error
        self.posted.append(body)
        return {"approval": request("approved")}


def buttons(widget: Any) -> dict[str, Any]:
    """Return the buttons of a card by what stands on them."""
    found: dict[str, Any] = {}
    for child in widget.children:
        if hasattr(child, "children"):
            found |= buttons(child)
        elif type(child).__name__ == "Button":
            found[child.description] = child
    return found


def card_of(kernel: Kernel) -> tuple[Any, Page]:
    """Show one request; return its card."""
    page = Page(in_kernel=True)
    cards = ApprovalCards(page)
    cards(Waiting(kernel, request()))
    return cards._cards["ask-1"], page


def test_a_request_is_shown_once_and_never_compared(capsys):
    """One widget, without a text twin: a reproduction, which asks nobody, has no such output."""
    page = Page(in_kernel=True)
    cards = ApprovalCards(page)
    for state in ("pending", "escalated", "approved"):
        cards(Waiting(Kernel(), request(state)))
    (bundle,) = page.shown
    assert "text/plain" not in bundle
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert capsys.readouterr().out == ""


def test_buttons_answer_as_the_person():
    """Approve, approve with other arguments, reject with a reason, stop."""
    for label, said, body in (
        ("Approve", "", {"choice": "approve", "reason": None, "arguments": None}),
        ("Reject", " no ", {"choice": "reject", "reason": "no", "arguments": None}),
        ("Stop the run", "mad", {"choice": "stop", "reason": "mad", "arguments": None}),
    ):
        kernel = Kernel()
        card, _ = card_of(kernel)
        card._reason.value = said
        buttons(card.widget)[label].click()
        (posted,) = kernel.posted
        assert {name: posted[name] for name in body} == body
        assert posted["digest"] == "sha256:1"


def test_arguments_are_edited_as_json():
    """What is no JSON is told beside the buttons and sends nothing."""
    kernel = Kernel()
    card, _ = card_of(kernel)
    buttons(card.widget)["Change arguments…"].click()
    card._arguments.value = '{"recipient": '
    buttons(card.widget)["Approve with these"].click()
    assert kernel.posted == []
    assert "not JSON" in card._said.value
    card._arguments.value = '{"recipient": "x", "amount": 1}'
    buttons(card.widget)["Approve with these"].click()
    assert kernel.posted[0]["arguments"] == {"recipient": "x", "amount": 1}


def test_a_write_in_doubt_is_answered_with_what_became_of_it():
    """It happened and answered this, or it did not; a bare approval is not offered."""
    view = request()["view"] | {"kind": "in_doubt", "changeable": False}
    for label, answer, told in (
        ("It happened", '"paid"', {"happened": True, "answer": "paid"}),
        ("It did not: make it", "", {"happened": False}),
    ):
        kernel = Kernel()
        cards = ApprovalCards(Page(in_kernel=True))
        cards(Waiting(kernel, request(view=view)))
        card = cards._cards["ask-1"]
        found = buttons(card.widget)
        assert "Approve" not in found
        if answer:
            found[label].click()
            assert (kernel.posted, "answer is not JSON" in card._said.value) == ([], True)
        card._arguments.value = answer
        found[label].click()
        (posted,) = kernel.posted
        assert (posted["choice"], posted["arguments"]) == ("approve", told)


def test_a_refused_answer_is_told_beside_the_buttons():
    """Escaped, with the next step; the buttons stay."""
    card, _ = card_of(Kernel(error=CallDenied("<b>carl</b> may not", next_step="ask ana")))
    buttons(card.widget)["Approve"].click()
    assert "&lt;b&gt;carl&lt;/b&gt; may not. Next: ask ana." in card._said.value


def test_a_job_has_no_buttons():
    """In production nobody decides from within the run."""
    card, _ = card_of(Kernel("production"))
    assert buttons(card.widget) == {}


def test_a_terminal_gets_lines(capsys):
    """IPython without a notebook shows the call and the command that decides."""
    cards = ApprovalCards(Page(in_kernel=False))
    cards(Waiting(Kernel(), request()))
    told = capsys.readouterr().out
    assert 'Pay 120 to "ben"' in told
    assert "toolkit decide ask-1" in told


def test_everything_in_a_card_is_escaped():
    """Names, values, origins, reasons and what a person wrote."""
    markup = approval_markup(request("rejected", decided_by="<u>", reason="<img src=x>\x1b[2J"))
    for tag in ("<script>", "<b>ben", "<i>", "<u>", "<img"):
        assert tag not in markup
    assert "\x1b" not in approval_text(request("rejected", decided_by="a", reason="\x1b[2J"))
