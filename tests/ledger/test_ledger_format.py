"""The format on disk: yesterday's ledgers open today, and migrations make the tables of the code."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger_world import begin
from sqlalchemy import create_engine

import toolkit.ledger
from toolkit.ledger import CaseAnswer, ChainHead, Ledger
from toolkit.ledger.schema import HEAD_VERSION, metadata
from toolkit.values import CallKind, CallState, Cause, Money, RunState, Usage, Verdict

# Written once by format 0001 and never again: a change that breaks this test breaks ledgers.
GOLDEN = Path(__file__).parent / "golden" / "format-0001.sql"
HEAD = ChainHead(
    "run-golden", 17, "sha256:83bca999de64490cef6ab692545086459cc753b5c6a6c2528aeb4208891a164f"
)


@pytest.fixture
def golden(tmp_path):
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(GOLDEN.read_text("utf-8"))
    with Ledger.open(f"sqlite:///{path}") as ledger:
        yield ledger


def test_a_ledger_of_format_1_opens_and_verifies(golden):
    """Every hash and every column, and the head that was noted when it was written."""
    assert golden.verify(expected=[HEAD]) == []
    assert golden.head("run-golden") == HEAD


def test_a_ledger_of_format_1_reads_as_it_was_written(golden):
    """Runs, calls, decisions, outcomes, budgets, cases and results."""
    run = golden.get_run("run-golden")
    assert (run.state, run.cause, run.parameters) == (
        RunState.FAILED,
        Cause.CELL_ERROR,
        {"z": 1.0, "a": "ü"},
    )
    agent, model, mail, ask, score = golden.calls("run-golden")
    assert [call.intent.kind for call in (agent, model, mail, ask, score)] == [
        CallKind.AGENT,
        CallKind.MODEL,
        CallKind.TOOL,
        CallKind.HUMAN,
        CallKind.RESULT,
    ]
    assert model.intent.arguments["messages"][0]["content"] == "Is MIT permissive? \ud83d"
    assert model.outcome.answer == {"text": "yes", "data": {"score": 1.0, "big": 2**70}}
    assert (model.outcome.usage, model.outcome.cost) == (Usage(10, 5, 2), Money(700))
    assert model.outcome.attempts[0].error == "429"
    assert (model.latency_s, model.trace_key) == (2.0, agent.trace_key)
    assert (mail.state, mail.outcome.error["code"]) == (CallState.DENIED, "denied")
    assert (ask.state, ask.decision.verdict) == (CallState.STARTED, Verdict.ALLOW)
    assert ask.tags == {"restarts": "1", "review": "open"}
    budget = golden.budget("run:golden")
    assert (budget.spent, budget.reserved) == (Money(700), Money(100))
    assert golden.results("run-golden") == {"score": 0.5}
    answers = golden.case_answers("run-golden")
    assert answers == {"c1": CaseAnswer({"permissive": True}, None, agent.key)}
    for call in (agent, model, mail, ask, score):
        assert call.key == call.intent.key
    assert begin(golden, {"text": "MIT"}, run_id="run-golden", request_id="r1",
                 kind=CallKind.AGENT, name="review", case_id="c1").call == agent  # fmt: skip


def test_the_chain_can_be_checked_without_this_toolkit(golden, tmp_path):
    """The documented format, in ten lines of the standard library."""
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        rows = connection.execute(
            "SELECT run_id, n, type, call_key, generation, at_us, prev, body, hash"
            " FROM entries ORDER BY n"
        ).fetchall()
    before = ""
    for *facts, prev, body, found in rows:
        assert prev == before
        body_digest = "sha256:" + hashlib.sha256(body.encode()).hexdigest()
        text = json.dumps([1, *facts, prev, body_digest], ensure_ascii=False, separators=(",", ":"))
        assert found == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        before = found
    assert before == HEAD.hash


def test_migrations_make_exactly_the_tables_of_the_code(empty_url):
    """Both databases; a changed table without a migration fails here."""
    Ledger.open(empty_url).close()
    engine = create_engine(empty_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD_VERSION
    engine.dispose()


def test_the_newest_migration_is_the_version_that_the_code_expects():
    """HEAD_VERSION follows the folder, whose files are numbered without a gap."""
    folder = Path(toolkit.ledger.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [HEAD_VERSION]
    numbers = sorted(path.name[1:5] for path in (folder / "versions").glob("v*.py"))
    assert numbers == [f"{n:04d}" for n in range(1, len(numbers) + 1)]


def test_opening_again_changes_nothing(url):
    """Opening a ledger that is up to date writes nothing to its tables."""
    Ledger.open(url).close()
    with Ledger.open(url) as ledger:
        assert ledger.runs() == []
        assert ledger.verify() == []
