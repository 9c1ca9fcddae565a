"""`show`: agent, labels, attempts, who decided and what is only tried out, over a real ledger."""

from __future__ import annotations

import io

import pytest
from cli_world import toolkit
from rich.console import Console

from toolkit.cli import show
from toolkit.ledger import Ledger
from toolkit.values import (
    Attempt,
    CallKind,
    CallRecord,
    CallState,
    DataClass,
    Decision,
    Effect,
    Environment,
    Intent,
    Labels,
    ManualClock,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Source,
    Usage,
    Verdict,
)

START_US = 1_790_000_000_000_000
RUN = "trial-facts"
OUTSIDE = Labels(frozenset({Source.UNTRUSTED}), frozenset({DataClass.PII}))
ALLOW = Decision(Verdict.ALLOW, ("allow-all",))
ASK = Decision(
    Verdict.ASK, ("pay",), ("payments need a second pair of eyes",), approver="finance",
    expires_s=3600,
)  # fmt: skip


class _Desk:
    """Writes the calls of one run, a second apart."""

    def __init__(self, ledger: Ledger, clock: ManualClock) -> None:
        self.ledger, self.clock, self.number = ledger, clock, 0

    def begin(self, decision: Decision = ALLOW, **facts: object) -> CallRecord:
        self.number += 1
        self.clock.advance(seconds=1)
        values = {"kind": CallKind.TOOL, "name": "pay", "arguments": {"n": self.number}} | facts
        intent = Intent(RUN, request_id=f"r{self.number}", effect=Effect.WRITE, **values)
        return self.ledger.begin(intent, decision).call

    def end(self, call: CallRecord, outcome: Outcome) -> None:
        self.clock.advance(seconds=1)
        self.ledger.finish(call, outcome)

    def ask(self, call: CallRecord, verdict: str, reason: str) -> None:
        until = self.clock.now_us() + 3600 * 1_000_000
        asked = self.ledger.ask(call, role="finance", view={"title": "pay"}, expires_us=until)
        self.clock.advance(seconds=42)
        self.ledger.answer(asked.id, by="bo", verdict=verdict, digest=asked.digest, reason=reason)


@pytest.fixture(scope="module")
def told(shared_workspace):
    """An agent that reads a mail, fails over to another model, asks people, and is stopped."""
    clock = ManualClock(START_US)
    with Ledger.open(shared_workspace.database_url, clock=clock) as ledger:
        ledger.create_run(RunRecord(RUN, RunKind.TRIAL, Environment.SANDBOX, "ana"))
        ledger.update_run(RUN, state=RunState.RUNNING)
        desk = _Desk(ledger, clock)
        agent = desk.begin(kind=CallKind.AGENT, name="triage")
        inside = {"agent": "triage", "parent": agent.key}
        mail = desk.begin(name="read_mail", **inside)
        desk.end(mail, Outcome(CallState.OK, {"text": "x"}, labels=OUTSIDE))
        attempts = (
            Attempt("openai/gpt-4o", START_US, START_US + 800_000, "no answer within 0.8 s"),
            Attempt("local/smollm2", START_US + 800_000, START_US + 2_000_000, None,
                    "fallback: timeout"),
        )  # fmt: skip
        model = desk.begin(
            kind=CallKind.MODEL,
            name="default",
            purpose="refund of [bold]order[/] 7\x1b[2J",
            **inside,
        )
        desk.end(
            model,
            Outcome(CallState.OK, {"text": "y"}, usage=Usage(10, 2), cost=Money(1_000_000),
                    provider="local", model="smollm2", attempts=attempts),
        )  # fmt: skip
        paid = desk.begin(ASK, labels={"to": OUTSIDE}, **inside)
        desk.ask(paid, "approved", "known supplier")
        reasons = (*ASK.reasons, "bo (finance) approved it: known supplier")
        paid = ledger.decide(
            paid, Decision(Verdict.ALLOW, ("pay",), reasons, approver="finance", expires_s=3600)
        )
        desk.end(paid, Outcome(CallState.OK, {"ok": True}))
        refused = desk.begin(ASK, **inside)
        desk.ask(refused, "rejected", "too much")
        desk.end(refused, Outcome(CallState.DENIED, error={"message": "bo rejected 'pay'"}))
        waiting = desk.begin(ASK, **inside)
        until = clock.now_us() + 3600 * 1_000_000
        ledger.ask(waiting, role="finance", view={}, expires_us=until)
        tried = Decision(Verdict.ALLOW, shadow=("in shadow mode, would deny: not on Fridays",))
        desk.end(desk.begin(tried, name="send"), Outcome(CallState.OK, 1))
    return shared_workspace


def test_what_is_remarkable_is_said_below_the_table(workspace, told) -> None:
    """Each remark under the number of its call; calls without any have none."""
    shown = toolkit("show", RUN).out
    table, _, remarks = shown.partition("about these calls")
    assert "triage" in table
    assert [line.split()[0] for line in remarks.splitlines() if line[:1].isdigit()] == list(
        "234567"
    )
    for sentence in (
        "from outside, personal data",
        "1/2 openai/gpt-4o failed after 0.80 s: no answer within 0.8 s",
        "2/2 local/smollm2 (fallback: timeout) answered in 1.20 s",
        "to: from outside, personal data",
        "payments need a second pair of eyes [pay]",
        "approved by bo (finance) after 42.0 s: known supplier",
        "rejected by bo (finance) after 42.0 s: too much",
        "waits for the role finance until",
        "in shadow mode, would deny: not on Fridays",
    ):
        assert sentence in remarks


def test_calls_inside_others_are_indented_and_a_waiting_call_says_so(workspace, told) -> None:
    """The table is a tree, with states a person knows."""
    lines = toolkit("show", RUN).out.splitlines()
    rows = [line for line in lines if line.strip()[:1].isdigit()][:7]
    assert "1  agent triage" in rows[0]
    assert "2    tool read_mail" in rows[1]
    assert "waiting" in rows[5]


def test_what_a_notebook_wrote_cannot_write_to_the_terminal(workspace, told) -> None:
    """Markup and control characters of a purpose are shown."""
    shown = toolkit("show", RUN).out
    assert "\x1b[2J" not in shown
    assert "refund of [bold]order[/] 7\\x1b[2J" in shown


def test_programs_get_the_same_facts(workspace, told) -> None:
    """Labels, attempts with reasons, and who decided, as JSON values."""
    calls = toolkit("show", RUN, "--json").json["calls"]
    assert [call["agent"] for call in calls] == [None, *["triage"] * 5, None]
    assert calls[1]["answer_labels"] == {"sources": ["untrusted"], "classes": ["pii"]}
    assert [attempt["reason"] for attempt in calls[2]["attempts"]] == [None, "fallback: timeout"]
    assert calls[3]["labels"] == {"to": {"sources": ["untrusted"], "classes": ["pii"]}}
    states = [(call["approval"] or {}).get("state") for call in calls]
    assert states == [None, None, None, "approved", "rejected", "pending", None]
    assert calls[3]["approval"]["decided_by"] == "bo"
    assert calls[5]["state"] == "waiting"
    assert calls[6]["shadow"] == ["in shadow mode, would deny: not on Fridays"]


def test_a_table_that_does_not_fit_becomes_a_block_for_each_row() -> None:
    """No word is broken letter by letter, and no column is lost."""
    row = (
        "run-2026-11-22-abcdef01234567",
        "triage@3",
        show.state_text("succeeded"),
        "31.0 s",
        "ana",
    )
    columns = ("run", "what", "state", ">took", "user")
    for width, lines in ((40, 5), (100, 2)):
        paper = io.StringIO()
        Console(file=paper, width=width).print(show.table(None, columns, [row]))
        told = paper.getvalue()
        assert all(word in told for word in ("run-2026-11-22-abcdef01234567", "triage@3", "succeeded", "31.0 s"))  # fmt: skip
        assert len(told.splitlines()) == lines
