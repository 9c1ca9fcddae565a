"""Verification finds what was changed behind the ledger's back, and says what it cannot find."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_world import ALLOW, DENY, OK, a_call, a_run, an_intent, begin, nanos, tamper
from sqlalchemy import create_engine, text

from toolkit.ledger import FaultKind, Ledger
from toolkit.ledger.chain import entry_hash
from toolkit.values import Decision, RunState, Verdict, canonical_bytes, digest_bytes


def _write_history(ledger: Ledger) -> None:
    """Two runs with a bit of everything; the chain of run-1 has 14 entries."""
    a_run(ledger)
    a_run(ledger, "run-2")
    ledger.update_run("run-1", state=RunState.RUNNING)
    a_call(ledger, {"n": 1}, reserve=nanos("s", 10_000, 900))
    a_call(ledger, {"n": 2})
    begin(ledger, {"n": 3}, decision=DENY)
    open_call = begin(ledger, {"n": 4}, decision=Decision(Verdict.ASK), reserve=nanos("s", None, 5))
    ledger.decide(open_call.call, ALLOW)
    ledger.restart(open_call.call)
    ledger.tag(open_call.call, {"seen": "yes"})
    ledger.put_cases("run-1", [("c1", {"a": 1}), ("c2", {"a": 2})])
    ledger.answer_case("run-1", "c1", {"ok": 1}, None)
    a_call(ledger, {"n": 1}, run_id="run-2")
    assert ledger.verify() == []
    assert ledger.head("run-1").n == 14


@pytest.fixture
def history(ledger):
    _write_history(ledger)
    return ledger


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The history in a file, written once for the many tests that change one column."""
    path = tmp_path_factory.mktemp("history") / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        _write_history(ledger)
    return path


@pytest.fixture
def copied_url(written, tmp_path):
    return f"sqlite:///{shutil.copy(written, tmp_path / 'ledger.db')}"


@pytest.fixture
def copied(copied_url):
    with Ledger.open(copied_url) as ledger:
        yield ledger


def _kinds(ledger, run_id: str | None = "run-1"):
    return {fault.kind for fault in ledger.verify(run_id)}


@pytest.mark.parametrize("n", [1, 3, 4, 14])
def test_an_edited_body_is_found(copied, copied_url, n):
    """One character of any body, and the faults name the entry."""
    changed = tamper(
        copied_url,
        "UPDATE entries SET body = replace(body, ':', ': ') WHERE run_id = 'run-1' AND n = :n",
        n=n,
    )
    assert changed == 1
    assert (FaultKind.EDITED, n) in {(f.kind, f.n) for f in copied.verify("run-1")}
    assert copied.verify("run-2") == []


@pytest.mark.parametrize(
    "change",
    [
        "type = 'call.tagged'",
        "call_key = 'x'",
        "generation = 9",
        "at_us = at_us + 1",
        "hash = prev",
    ],
)
def test_an_edited_column_of_an_entry_is_found(copied, copied_url, change):
    """Everything in an entry is under its hash."""
    tamper(copied_url, f"UPDATE entries SET {change} WHERE run_id = 'run-1' AND n = 3")
    assert FaultKind.EDITED in _kinds(copied)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'error'",
        "cost_nanos = 1",
        "cost_nanos = NULL",
        "input_tokens = 1",
        "output_tokens = 1",
        "cached_tokens = 1",
        "verdict = 'ask'",
        "decision = replace(decision, 'allow', 'ask')",
        "reserved = NULL",
        "trace_key = 'loose:9'",
        "name = 'other'",
        "kind = 'tool'",
        "provider = 'x'",
        "model = 'x'",
        "request_id = 'x'",
        "ended_us = ended_us + 1",
        "started_us = started_us - 1",
        "outcome_n = intent_n",
        "intent_n = outcome_n",
        'tags = \'{"a":"b"}\'',
        "generation = 5",
        "call_key = 'x'",
    ],
)
def test_an_edited_column_of_a_call_is_found(copied, copied_url, change):
    """State, cost, tokens, decision and the pointers to the bodies are projections."""
    tamper(copied_url, f"UPDATE calls SET {change} WHERE run_id = 'run-1' AND intent_n = 3")
    kinds = _kinds(copied)
    assert kinds & {FaultKind.PROJECTION, FaultKind.MISSING_ROW}
    assert copied.verify("run-2") == []


def test_an_edited_answer_is_found(history, url):
    """The answer is kept once, in the chain."""
    tamper(url, "UPDATE entries SET body = replace(body, 'yes', 'no!') WHERE type = 'call.outcome'")
    assert FaultKind.EDITED in _kinds(history)
    assert history.calls("run-1")[0].outcome.answer == {"text": "no!"}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_an_entry_deleted_from_the_middle_is_found(copied, copied_url, n):
    """A hole in the numbers."""
    tamper(copied_url, "DELETE FROM entries WHERE run_id = 'run-1' AND n = :n", n=n)
    assert FaultKind.GAP in _kinds(copied)


def test_a_hole_that_was_closed_by_renumbering_is_found(history, url):
    """The numbers are under the hashes."""
    tamper(url, "DELETE FROM entries WHERE run_id = 'run-1' AND n = 5")
    for n in range(6, 15):
        tamper(url, "UPDATE entries SET n = n - 1 WHERE run_id = 'run-1' AND n = :n", n=n)
    assert {FaultKind.EDITED, FaultKind.BROKEN_LINK} <= _kinds(history)


def test_reordered_entries_are_found(history, url):
    """Two entries that changed places."""
    for before, after in ((3, 99), (5, 3), (99, 5)):
        tamper(url, f"UPDATE entries SET n = {after} WHERE run_id = 'run-1' AND n = {before}")
    assert {FaultKind.EDITED, FaultKind.BROKEN_LINK} <= _kinds(history)


def test_an_entry_moved_from_another_run_is_found(history, url):
    """A chain is tied to its run."""
    tamper(url, "DELETE FROM entries WHERE run_id = 'run-1' AND n = 3")
    tamper(url, "UPDATE entries SET run_id = 'run-1', n = 3 WHERE run_id = 'run-2' AND n = 2")
    assert FaultKind.EDITED in _kinds(history)
    assert FaultKind.GAP in _kinds(history, "run-2")


@pytest.mark.parametrize("table", ["calls", "cases", "runs"])
def test_a_deleted_row_is_found(history, url, table):
    """The chain knows which rows there must be."""
    tamper(url, f"DELETE FROM {table} WHERE run_id = 'run-1'")
    assert FaultKind.MISSING_ROW in _kinds(history)


def test_an_added_row_is_found(history, url):
    """A call, a case and a run that no entry tells of."""
    tamper(url, "UPDATE calls SET run_id = 'run-2' WHERE run_id = 'run-1' AND intent_n = 5")
    assert FaultKind.EXTRA_ROW in _kinds(history, "run-2")
    tamper(url, "UPDATE cases SET case_id = 'c7' WHERE case_id = 'c2'")
    assert {FaultKind.EXTRA_ROW, FaultKind.MISSING_ROW} <= _kinds(history)
    tamper(url, "UPDATE runs SET run_id = 'run-9' WHERE run_id = 'run-2'")
    assert FaultKind.EXTRA_ROW in _kinds(history, "run-9")


@pytest.mark.parametrize(
    "change", ["state = 'succeeded'", "user_name = 'eve'", "policy_digest = 'x'", "created_us = 1"]
)
def test_an_edited_run_is_found(copied, copied_url, change):
    """State changes of a run are links of its chain."""
    tamper(copied_url, f"UPDATE runs SET {change} WHERE run_id = 'run-1'")
    assert _kinds(copied) == {FaultKind.PROJECTION}


@pytest.mark.parametrize(
    "change", ["inputs = '{}'", "inputs = 'x'", "answer_n = 3", "answer_n = NULL"]
)
def test_an_edited_case_is_found(copied, copied_url, change):
    """Inputs, and which entry answers."""
    tamper(copied_url, f"UPDATE cases SET {change} WHERE case_id = 'c1'")
    assert _kinds(copied) == {FaultKind.PROJECTION}


@pytest.mark.parametrize("change", ["spent_nanos = 0", "reserved_calls = 0", "spent_tokens = 9"])
def test_an_edited_budget_is_found(copied, copied_url, change):
    """A budget is the sum of its calls; the whole ledger is needed to tell."""
    tamper(copied_url, f"UPDATE budgets SET {change} WHERE scope = 's'")
    [fault] = copied.verify()
    assert (fault.kind, fault.run_id) == (FaultKind.BUDGET, "s")
    tamper(copied_url, "DELETE FROM budgets")
    assert _kinds(copied, None) == {FaultKind.BUDGET}


def test_swapped_sequence_numbers_are_found(history, url):
    """The order in which calls are listed is the order in which they began."""
    for before, after in ((1, 99), (2, 1), (99, 2)):
        tamper(url, f"UPDATE calls SET seq = {after} WHERE seq = {before}")
    assert _kinds(history) == {FaultKind.PROJECTION}


def test_a_cut_tail_is_found_only_with_an_anchored_head(history, url):
    """Entries and rows cut together leave a shorter, sound chain: the head must be elsewhere."""
    a_run(history, "run-3")
    a_call(history, run_id="run-3")
    anchored = history.head("run-3")
    assert history.verify("run-3", expected=[anchored]) == []
    tamper(url, "DELETE FROM entries WHERE run_id = 'run-3' AND n > 1")
    tamper(url, "DELETE FROM calls WHERE run_id = 'run-3'")
    assert history.verify("run-3") == []
    [fault] = history.verify("run-3", expected=[anchored])
    assert (fault.kind, fault.n) == (FaultKind.HEAD, 3)
    assert fault.message == "the chain ends at entry 1, before the anchored entry 3"


def test_a_tail_cut_without_its_rows_is_found(history, url):
    """A call whose outcome was cut still says that it ended."""
    tamper(url, "DELETE FROM entries WHERE run_id = 'run-2' AND n = 3")
    assert _kinds(history, "run-2") == {FaultKind.PROJECTION}


def test_a_run_that_is_gone_is_found_only_with_an_anchored_head(history, url):
    """Nothing is left to tell, but the anchor."""
    anchored = history.head("run-2")
    for table in ("runs", "entries", "calls", "traces"):
        tamper(url, f"DELETE FROM {table} WHERE run_id = 'run-2'")
    assert history.verify() == []
    assert [f.kind for f in history.verify(expected=[anchored])] == [FaultKind.HEAD]


def test_a_chain_that_was_rewritten_with_new_hashes_is_found_by_the_anchor(history, url):
    """Whoever can write the database can compute hashes; the projection or the anchor tells."""
    anchored = history.head("run-2")
    _rewrite(url, "run-2", "yes", "no!")
    assert history.verify("run-2") == []
    [fault] = history.verify(expected=[anchored])
    assert fault.message == "entry 3 is not the one that was anchored"
    _rewrite(url, "run-2", '"cost_nanos":700', '"cost_nanos":7')
    assert _kinds(history, "run-2") == {FaultKind.PROJECTION}


def _rewrite(url: str, run_id: str, old: str, new: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        chosen = text("SELECT * FROM entries WHERE run_id = :r ORDER BY n")
        prev = ""
        for row in list(connection.execute(chosen, {"r": run_id}).mappings()):
            fields = {**row, "body": row["body"].replace(old, new), "prev": prev}
            fields.pop("hash")
            prev = entry_hash(**fields)
            connection.execute(
                text("UPDATE entries SET body=:b, prev=:p, hash=:h WHERE run_id=:r AND n=:n"),
                {"b": fields["body"], "p": fields["prev"], "h": prev, "r": run_id, "n": row["n"]},
            )
    engine.dispose()


@pytest.mark.parametrize("body", ["", "[]", "null", "{}", '{"a":', "1e999"])
def test_a_body_of_another_form_is_a_fault_and_not_a_crash(copied, copied_url, body):
    """verify reports whatever it meets."""
    for n in range(1, 15):
        tamper(
            copied_url,
            "UPDATE entries SET body = :b WHERE run_id = 'run-1' AND n = :n",
            b=body,
            n=n,
        )
    assert {FaultKind.EDITED, FaultKind.NONSENSE} <= _kinds(copied)


def test_the_hash_is_the_documented_one(ledger):
    """A second implementation from the documentation gives the same chain head."""
    a_run(ledger)
    ledger.begin(an_intent(), ALLOW)
    found = ledger.head("run-1")
    assert found.n == 2
    facts = [1, "r", 2, "call.intent", "k", 0, 3, "p", digest_bytes("ü".encode())]
    assert entry_hash(
        run_id="r", n=2, type="call.intent", call_key="k", generation=0, at_us=3, prev="p", body="ü"
    ) == digest_bytes(canonical_bytes(facts))
    assert canonical_bytes(facts) == json.dumps(facts, separators=(",", ":")).encode()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_change_of_any_column_of_evidence_is_found(tmp_path_factory, data):
    """Pick a row and a column at random, put something else there, and verify complains."""
    folder = tmp_path_factory.mktemp("tamper")
    url = f"sqlite:///{folder / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        a_run(ledger)
        a_call(ledger, {"n": 1}, reserve=nanos("s", 10_000, 900))
        begin(ledger, {"n": 2}, decision=DENY)
        ledger.put_cases("run-1", [("c1", {"a": 1})])
        table = data.draw(st.sampled_from(["entries", "calls", "runs", "cases", "budgets"]))
        key = "scope" if table == "budgets" else "rowid"
        free = {"number", "shipped", "seq", "handed", "position"}
        engine = create_engine(url)
        with engine.begin() as connection:
            rows = connection.execute(text(f"SELECT {key} AS id, * FROM {table}")).mappings().all()
            row = data.draw(st.sampled_from(rows))
            names = sorted(
                name
                for name in row
                if name not in free and not name.startswith("limit_") and name != "id"
            )
            name = data.draw(st.sampled_from(names))
            new = data.draw(st.sampled_from(["", "x", 0, 7, "{}"]).filter(lambda v: v != row[name]))
            connection.execute(
                text(f"UPDATE {table} SET {name} = :v WHERE {key} = :i"), {"v": new, "i": row["id"]}
            )
        engine.dispose()
        assert ledger.verify() != [], (table, name, new)


def test_ok_outcomes_of_the_world_are_what_the_tests_say():
    """The tests above edit these very values."""
    assert OK.answer == {"text": "yes"}
    assert OK.cost.nanos == 700
