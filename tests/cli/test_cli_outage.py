"""A provider that was away while a run went on: the run ends, and goes on once it is back."""

from __future__ import annotations

import json

import pytest
from cli_world import toolkit, write_notebook
from workspace_world import SCRIPT, end_gateway

from toolkit.ledger import Ledger
from toolkit.values import FAILED_FROM, CallState

AWAY = "answers:\n  - when: {contains: cloud}\n    fail: server\n"
STEADY = "first = toolkit.model('steady').text"
SWALLOWED = """from toolkit.errors import ProviderError
try:
    note = toolkit.model('a cloud that nobody needs').text
except ProviderError:
    note = 'fallback'"""
ASKED = """@toolkit.agent
def weather(place: str) -> str:
    return toolkit.model(f'cloud over {place}').text
seen = weather('Lisbon')"""


@pytest.fixture
def away(workspace):
    """The provider of a workspace, which is away until the fixture's value is called."""
    answers = workspace.root / "registry" / "answers.yaml"
    answers.write_text(AWAY + SCRIPT.partition("answers:\n")[2], "utf-8")

    def back() -> None:
        answers.write_text(SCRIPT, "utf-8")
        end_gateway(workspace)

    end_gateway(workspace)
    yield back
    answers.write_text(SCRIPT, "utf-8")
    end_gateway(workspace)


def states(ledger: Ledger, name: str) -> list[tuple[str, int, CallState]]:
    return [
        (str(call.intent.arguments), call.generation, call.state)
        for call in ledger.calls("run-cloud")
        if call.intent.name == name
    ]


def test_what_failed_by_an_outage_is_asked_anew_when_the_run_goes_on(workspace, away) -> None:
    """Not before, not what was answered, and not what the notebook got past without an answer."""
    result = "toolkit.result(first=first, note=note, seen=seen)"
    path = write_notebook(workspace, "cloud", STEADY, SWALLOWED, ASKED, result)
    command = ("run", path, "--run-id", "run-cloud", "--json")
    for _ in range(2):
        down = toolkit(*command)
        assert (down.code, down.json["cause"]) == (75, "infrastructure"), down.told
        end_gateway(workspace)
    away()
    done = toolkit(*command)
    assert done.code == 0, done.told
    with Ledger.open(workspace.database_url) as ledger:
        assert ledger.results("run-cloud") == {
            "first": "an answer",
            "note": "fallback",
            "seen": "an answer",
        }
        asked = [(text, n, state) for text, n, state in states(ledger, "default")]
        of = {
            word: [(n, state) for text, n, state in asked if word in text]
            for word in ("steady", "nobody", "Lisbon")
        }
        assert of["steady"] == [(0, CallState.OK)]
        assert of["nobody"] == [(0, CallState.ERROR)]
        failed = [(0, CallState.ERROR), (1, CallState.ERROR)]
        assert of["Lisbon"] == [*failed, (2, CallState.OK)]
        assert [n for _, n, _ in states(ledger, "weather")] == [0, 1, 2]
        assert FAILED_FROM not in ledger.get_run("run-cloud").tags
        assert ledger.verify() == []
    replayed = toolkit("replay", "run-cloud", "--json", "--network-not-isolated")
    assert json.loads(replayed.out)["state"] == "succeeded", replayed.told
