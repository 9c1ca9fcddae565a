"""What is remarkable about a call is shown in the notebook, as text and never as markup."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magics_gateway import WireGateway

from toolkit import client
from toolkit.client import ModelReply, wire
from toolkit.magics import NBVAL_SANITIZE, cards

NOTES = [
    ["data", "to: from outside, personal data"],
    ["approval", "bo (finance) approved it: known supplier"],
    ["shadow", "in shadow mode, would deny: not on Fridays"],
    ["attempt", "1/2 openai/gpt-4o failed after 0.80 s: <b>slow</b>"],
    ["attempt", "2/2 local/smollm2 (fallback: timeout) answered in 1.20 s"],
]
REPLY = ModelReply(text="MIT", model="smollm2", input_tokens=12, output_tokens=5)


class TellingGateway(WireGateway):
    """A gateway that tells agent and notes of the calls of one route."""

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        told = super().answer(path, body)
        if path != wire.CALLS:
            return told
        more = {"agent": "triage", "notes": NOTES}
        return {"calls": [row | (more if row["name"] == "r1" else {}) for row in told["calls"]]}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[TellingGateway]:
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        made = TellingGateway(Path(folder) / "gateway.sock")
        monkeypatch.setenv(wire.ENV_SOCKET, made.socket)
        monkeypatch.setenv(wire.ENV_TOKEN, "t" * 40)
        client.disconnect()
        yield made
        client.disconnect()
        made.close()


def _sanitized(markup: str) -> str:
    from nbval.plugin import get_sanitize_patterns

    for pattern, replacement in get_sanitize_patterns(NBVAL_SANITIZE):
        markup = re.sub(pattern, replacement, markup)
    return markup


def test_calls_tells_agent_and_notes_below_the_table(notebook):
    """One block per call that has notes, under its time and name; others have none."""
    notebook.ok("for n in range(3):\n    toolkit.model(str(n), route=f'r{n}')")
    notebook.ok("%toolkit calls")
    (bundle,) = notebook.published
    table, _, remarks = bundle["text/plain"].partition("\n\n")
    assert table.splitlines()[0].split()[-1] == "agent"
    assert [line.split()[-1] for line in table.splitlines()[1:]] == ["s", "triage", "s"]
    assert remarks.splitlines() == [
        "05:16:01 model r1",
        "  data      to: from outside, personal data",
        "  approval  bo (finance) approved it: known supplier",
        "  shadow    in shadow mode, would deny: not on Fridays",
        "  attempt   1/2 openai/gpt-4o failed after 0.80 s: <b>slow</b>",
        "            2/2 local/smollm2 (fallback: timeout) answered in 1.20 s",
    ]
    assert "&lt;b&gt;slow&lt;/b&gt;" in bundle["text/html"]
    assert bundle["text/html"].count("</section>") == 1
    assert "\n" not in bundle["text/html"]


def test_a_replys_card_has_the_notes_and_a_replay_compares_equal():
    """They stand in the volatile part; the text twin and what nbval compares stay as they were."""
    notes = cards.read_notes({"notes": NOTES})
    plain, noted = cards.reply_bundle(REPLY), cards.reply_bundle(REPLY, notes)
    assert "known supplier" in noted["text/html"]
    assert noted["text/plain"] == plain["text/plain"] == "MIT"
    assert "known supplier" not in _sanitized(noted["text/html"])


def test_what_the_pill_says_is_not_said_again():
    """The policies' reasons are on the card already."""
    notes = [("policy", "no models at night [night]"), ("production", "would deny")]
    assert cards.reply_bundle(REPLY, notes) == cards.reply_bundle(REPLY)


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_note_cannot_write_markup_or_steer_a_terminal(subject, text):
    """Whatever a notebook or a provider put into it."""
    notes = cards.read_notes({"notes": [[subject + "<i>", f"</section><script>{text}"]]})
    markup = cards.reply_bundle(REPLY, notes)["text/html"]
    assert "<script" not in markup
    assert "<i>" not in markup
    assert markup.count("</section>") == markup.count("<section")
    assert all(c.isprintable() or c == "\n" for c in cards.notes_text(notes))
