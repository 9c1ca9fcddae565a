"""Format 1 of root, alias index, policy change and answer: what an older toolkit signed is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from second_answers import decide_answer
from second_verifier import decide
from trust_world import JOB, POLICY

from toolkit.registry import Registry
from toolkit.trust import RootFacts, read_answer, read_root, read_statement, statement_bytes
from toolkit.trust.dsse import Envelope
from toolkit.values import ManualClock, digest_json

GOLDEN = Path(__file__).with_name("golden") / "signed-1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "signed-1")
    return tmp_path / "signed-1"


def opened(place: Path, *, state: str = "state.json") -> Registry:
    clock = ManualClock(int((place / "clock").read_text()))
    return Registry(place / "registry", clock=clock, trust_state=place / state)


@pytest.mark.parametrize("state", ["state.json", "a-new-machine.json"])
def test_a_registry_signed_in_format_1_is_read(place: Path, state: str) -> None:
    """Everything is in order; the policy has no end and asks for no approvals."""
    registry = opened(place, state=state)
    assert registry.verify() == []
    assert registry.trust
    verifier = registry.trust.verifier
    found = verifier.alias(JOB, "production")
    assert found.version.promotion.version == 1
    assert found.approvals
    assert found.approvals.people == {"ben"}
    change = verifier.policy("production")
    assert change
    assert (change.policy_digest, change.number, change.expires) == (POLICY, 1, None)
    facts = verifier.root().facts
    assert (facts.separate, facts.policies) == (None, None)
    kept = json.loads((place / "state.json").read_bytes())
    for known in (kept, None):
        assert decide(place / "registry", known, verifier.clock.now_us(), JOB, "production") is None


def test_what_says_nothing_new_is_written_as_it_was() -> None:
    """The root's bytes are the same after reading: format 1 has one form."""
    for name in ("1.root.json", "2.root.json"):
        payload = Envelope.stored((GOLDEN / "registry/trust" / name).read_bytes()).payload
        facts, _ = read_statement(payload, RootFacts)
        assert statement_bytes(facts) == payload
        newer = facts.model_copy(update={"separate": True})
        assert b'"predicateType":"urn:agent-toolkit:root:2"' in statement_bytes(newer)


def test_an_answer_about_a_call_in_format_1_is_read() -> None:
    """By both verifiers, and written again it is the same bytes."""
    folder = GOLDEN.with_name("answer-1")
    before = None
    for number in (1, 2):
        where = f"{number}.root.json"
        before = read_root(Envelope.stored((folder / "trust" / where).read_bytes()), before, where)
    data = (folder / "answer.dsse.json").read_bytes()
    assert before is not None
    answer = read_answer(data, before, "answer.dsse.json")
    assert (answer.person, answer.choice, answer.run) == ("ben", "changed", "run-1")
    assert answer.arguments_digest == digest_json({"recipient": "ben ltd", "amount": 5})
    assert answer.reason_digest == digest_json("less")
    assert statement_bytes(answer) == Envelope.stored(data).payload
    assert decide_answer(folder, data, answer.approval) == "ben"
