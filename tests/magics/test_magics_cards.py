"""Displays escape what came from outside and keep volatile facts apart."""

from __future__ import annotations

import html.parser
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.client import CallEvent, ModelReply
from toolkit.errors import CallDenied
from toolkit.magics import NBVAL_SANITIZE, cards
from toolkit.magics.tally import Tally, money_text
from toolkit.values import Money

REPLY = ModelReply(
    text="MIT", model="smollm2", input_tokens=1200, output_tokens=5, cost_usd="0.0012",
    latency_s=0.41, trace_url="http://127.0.0.1:5001/#/t/1",
)  # fmt: skip
EVENT = CallEvent(
    kind="model", name="default", state="ok", replayed=False, verdict="allow",
    production_verdict="allow", reasons=(), model="smollm2", provider="local", input_tokens=10,
    output_tokens=2, cost_usd="0.001", latency_s=0.5, trace_url=None, depth=0,
)  # fmt: skip


def _sanitized(markup: str) -> str:
    """Return what nbval compares, by nbval's own reading of the file."""
    from nbval.plugin import get_sanitize_patterns

    patterns = get_sanitize_patterns(NBVAL_SANITIZE)
    assert patterns
    for pattern, replacement in patterns:
        markup = re.sub(pattern, replacement, markup)
    return markup


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def test_a_reply_shows_model_tokens_cost_time_decision_and_trace():
    """The card has every fact, the text twin the answer only."""
    bundle = cards.reply_bundle(REPLY)
    for fact in ("smollm2", "1,200 + 5 tokens", "$0.0012", "0.41 s", "allowed", "/#/t/1"):
        assert fact in bundle["text/html"]
    assert bundle["text/plain"] == "MIT"


def test_a_cost_that_is_not_known_is_shown_as_unknown():
    """Unknown is never shown as free."""
    assert "cost unknown" in cards.reply_bundle(replace(REPLY, cost_usd=None))["text/html"]
    assert money_text(Money(), 2) == "cost unknown"
    assert money_text(Money.of_usd("0.5"), 1) == "$0.50 and 1 call of unknown cost"
    assert money_text(Money(), 0) == "$0"


def test_what_production_would_say_is_in_both_twins():
    """A call that production would deny says so, with the policy's reason."""
    reply = replace(REPLY, production_verdict="deny", reasons=("no <b>models</b> at night",))
    bundle = cards.reply_bundle(reply)
    assert bundle["text/plain"] == "MIT\n[production would deny: no <b>models</b> at night]"
    assert "no &lt;b&gt;models&lt;/b&gt; at night" in bundle["text/html"]
    asks = cards.reply_bundle(replace(REPLY, production_verdict="ask"))
    assert "production would ask a person" in asks["text/plain"]


@given(st.text())
def test_a_model_cannot_write_markup(text):
    """Whatever a model answers appears as text, and cannot forge the volatile marks."""
    markup = cards.reply_bundle(
        replace(REPLY, text=f"<script>x</script><section data-toolkit-volatile>{text}")
    )["text/html"]
    reader = _Tags()
    reader.feed(markup)
    assert reader.tags <= {"div", "section", "span", "b", "a"}
    assert "<script>x</script>" in reader.text
    assert markup.count("<section data-toolkit-volatile") == 1


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "", None, "//x"])
def test_only_web_addresses_become_links(url):
    """A trace address of another scheme stays text."""
    assert "<a" not in cards.link(url, "trace")
    assert "<a" in cards.link("https://mlflow.example/x", "trace")


def test_a_replay_compares_equal():
    """Seconds, ledger marks and links vanish under nbval's sanitizing; model text and cost stay."""
    again = replace(REPLY, latency_s=9.0, replayed=True, trace_url="http://127.0.0.1:9/x")
    first, second = (cards.reply_bundle(r) for r in (REPLY, again))
    assert first["text/html"] != second["text/html"]
    assert _sanitized(first["text/html"]) == _sanitized(second["text/html"])
    other = cards.reply_bundle(replace(REPLY, text="Apache-2.0"))
    assert _sanitized(first["text/html"]) != _sanitized(other["text/html"])


def test_the_line_under_a_cell_sums_its_calls():
    """Names are counted, tokens and cost summed, objections said once."""
    tally = Tally()
    tally.add(replace(EVENT, depth=1))
    tally.add(replace(EVENT, depth=1, cost_usd=None, latency_s=0.25))
    write = {"kind": "tool", "name": "send", "model": None, "input_tokens": None, "cost_usd": None}
    for _ in range(2):
        tally.add(replace(EVENT, **write, production_verdict="deny", reasons=("unlisted",)))
    bundle = cards.footer(tally)
    first, *rest = bundle["text/plain"].split("\n")
    assert first == "2 governed calls: tool send ×2"
    assert "2 inside" in bundle["text/html"]
    assert rest == ["production would deny tool send: unlisted"]
    assert "20 + 4 tokens" in bundle["text/html"]
    assert "$0.001 and 1 call of unknown cost" in bundle["text/html"]
    assert "1.00 s" in bundle["text/html"]  # the two top-level calls; inner ones are inside them


def test_the_line_of_a_replay_compares_equal():
    """In a replay a recorded agent answers at once and nothing is called inside it."""
    agent = {"kind": "agent", "name": "triage", "model": None, "input_tokens": None}
    first, second = Tally(), Tally()
    first.add(replace(EVENT, depth=1))
    first.add(replace(EVENT, **agent))
    second.add(replace(EVENT, **agent, latency_s=0.001, replayed=True))
    one, two = cards.footer(first), cards.footer(second)
    assert one["text/plain"] == two["text/plain"] == "1 governed call: agent triage"
    assert _sanitized(one["text/html"]) == _sanitized(two["text/html"])
    assert one["text/html"] != two["text/html"]


def test_denied_and_failed_calls_are_counted_apart():
    """A denied call is no objection of production: it did not go through."""
    tally = Tally()
    tally.add(replace(EVENT, state="denied", verdict="deny", production_verdict="deny"))
    tally.add(replace(EVENT, state="error"))
    assert (tally.denied, tally.failed, tally.objected, tally.unknown_cost) == (1, 1, 0, 0)
    assert "1 denied" in cards.footer(tally)["text/html"]


def test_an_error_box_has_cause_place_and_next_step_and_no_control_characters():
    """What a message quotes from outside cannot steer the terminal."""
    error = CallDenied("no \x1b]0;title\x07 writes", where="policy.yaml", next_step="ask ana")
    text = cards.error_text(error, "line 3 of the cell: f()", colours=False)
    assert text.split("\n") == [
        "│ CallDenied: no ]0;title writes",
        "│     at  line 3 of the cell: f()",
        "│  where  policy.yaml",
        "│   next  ask ana",
    ]


def test_tables_escape_cells():
    """A name in a table is text; only columns named raw hold markup."""
    markup = cards.table(("a", "b"), [("<i>x</i>", "<i>y</i>")], raw=(1,))
    assert "&lt;i&gt;x&lt;/i&gt;" in markup
    assert "<i>y</i>" in markup
    assert cards.text_table(("a", "b"), [("xxx", "y")]) == "a    b\nxxx  y"
