"""The format on disk: yesterday's ledgers open today, and migrations make the tables of the code."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger_world import a_call, a_run, begin
from sqlalchemy import create_engine, inspect, text

import toolkit.ledger
from toolkit.ledger import ApprovalState, CaseAnswer, ChainHead, Ledger, Limit
from toolkit.ledger.cases import _NEXT
from toolkit.ledger.chain import SWITCHES
from toolkit.ledger.schema import HEAD_VERSION, metadata
from toolkit.values import (
    CallKind,
    CallState,
    Cause,
    Environment,
    Money,
    RunKind,
    RunRecord,
    RunState,
    Usage,
    Verdict,
)

# Written once by format 0001 and never again: a change that breaks this test breaks ledgers.
GOLDEN = Path(__file__).parent / "golden" / "format-0001.sql"
HEAD = ChainHead(
    "run-golden", 17, "sha256:83bca999de64490cef6ab692545086459cc753b5c6a6c2528aeb4208891a164f"
)
GOLDEN_2 = GOLDEN.with_name("format-0002.sql")
HEADS_2 = [
    ChainHead(
        "run-golden", 21, "sha256:1107cb9c11ecdd5fe903b651ec5f8debccd9a328c4e9109ee0f80bb0156ffd17"
    ),
    ChainHead(
        SWITCHES, 3, "sha256:5c18d467deef8686edb57f114b4ca5b8abb260401518a10e54d14909874f04c3"
    ),
]
GOLDEN_3 = GOLDEN.with_name("format-0003.sql")
HEAD_3 = ChainHead(
    "eval-golden", 4, "sha256:cfcc899f9db35661c6b3e68bbf6d0b99da7a4ad97912ded7ef2616235d22168d"
)


def _written(dump: Path, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text("utf-8"))
    return path


@pytest.fixture
def golden(tmp_path):
    path = _written(GOLDEN, tmp_path / "ledger.db")
    with Ledger.open(f"sqlite:///{path}") as ledger:
        yield ledger


@pytest.fixture
def golden_2(tmp_path):
    path = _written(GOLDEN_2, tmp_path / "ledger-2.db")
    with Ledger.open(f"sqlite:///{path}") as ledger:
        yield ledger


def _migrate(connection, revision: str) -> None:
    config = Config()
    folder = Path(toolkit.ledger.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _as_format_1(source: Path, url: str) -> None:
    """Fill a database of format 1 with what its tables can hold of a SQLite ledger."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with closing(sqlite3.connect(source)) as read, engine.begin() as connection:
        read.row_factory = sqlite3.Row
        _migrate(connection, "0001")
        for table in ("runs", "entries", "calls", "traces", "budgets", "cases"):
            names = [column["name"] for column in inspect(connection).get_columns(table)]
            rows = [dict(row) for row in read.execute(f"SELECT {', '.join(names)} FROM {table}")]
            marks = ", ".join(f":{name}" for name in names)
            if rows:
                insert = text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})")
                connection.execute(insert, rows)
    engine.dispose()


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


def test_a_ledger_of_format_1_is_upgraded_in_place(tmp_path, empty_url):
    """In both databases: it opens, verifies against the old head, and takes new calls."""
    _as_format_1(_written(GOLDEN, tmp_path / "source.db"), empty_url)
    with Ledger.open(empty_url) as ledger:
        assert ledger.verify(expected=[HEAD]) == []
        held = ledger.budget("run:golden")
        assert (held.reserved, held.reserved_seconds) == (Money(100), 0.0)
        assert held.limit == Limit("run:golden", usd=Money(1_000_000))
        assert (ledger.stops(), ledger.approvals()) == ([], [])
        # Its run ended with a call in doubt, which blocked the budget from then on.
        assert ledger.release_abandoned() == 1
        held = ledger.budget("run:golden")
        assert (held.reserved, held.spent) == (Money(0), Money(800))
        ledger.stop("all", "bo", "x")
        assert ledger.verify(expected=[HEAD]) == []


def test_agents_that_format_1_only_told_in_bodies_are_found_by_costs(tmp_path, empty_url):
    """The migration copies them; a text that only looks like one is left alone."""
    source = tmp_path / "source.db"
    with Ledger.open(f"sqlite:///{source}") as ledger:
        a_run(ledger)
        a_call(ledger, {"n": 1}, agent="review")
        a_call(ledger, {"n": 2, "agent": "trick"})
        a_call(ledger, {"n": 3}, agent='rev"iew ü')
    _as_format_1(source, empty_url)
    with Ledger.open(empty_url) as ledger:
        assert ledger.verify() == []
        assert {row.group: row.calls for row in ledger.costs("agent")} == {
            "review": 1,
            'rev"iew ü': 1,
            "-": 1,
        }


def test_a_ledger_of_format_2_opens_and_verifies(golden_2):
    """Every hash and every column of runs, approvals, stops and budgets, and both noted heads."""
    assert golden_2.verify(expected=HEADS_2) == []
    assert [golden_2.head(head.run_id) for head in HEADS_2] == HEADS_2


def test_a_ledger_of_format_2_reads_as_it_was_written(golden_2):
    """Labels, attempts, seconds, decisions of people, stops, and what a late outcome put right."""
    model, pay, drill, late, lost, wait = golden_2.calls("run-golden")
    assert (model.intent.agent, model.intent.purpose) == ("review", "decide")
    assert model.intent.labels["messages"].tainted
    assert model.outcome.attempts[1].reason == "fallback: 429"
    assert (model.outcome.seconds, model.outcome.labels) == (0.75, model.intent.labels["messages"])
    assert model.decision.shadow == ("forbid-pii would deny it",)
    assert (drill.state, drill.decision.policies) == (CallState.DENIED, ("stop",))
    assert [late.state, lost.state, wait.state] == ["ok", "started", "started"]
    changed, expired = golden_2.approval_of(pay), golden_2.approval_of(wait)
    assert (changed.state, changed.decided_by, changed.arguments, changed.decider) == (
        ApprovalState.CHANGED,
        "di",
        {"usd": 4},
        "board",
    )
    assert (expired.state, expired.reason) == (ApprovalState.EXPIRED, "the run has ended")
    assert [(stop.scope, stop.by) for stop in golden_2.stops()] == [("team:sales", "bo")]
    assert [change.stopped for change in golden_2.stop_history()] == [True, False, True]
    team = golden_2.budget("team:legal:2026-09")
    assert (team.limit.concurrent, team.spent, team.spent_seconds) == (4, Money(1120), 22.25)
    assert (team.reserved, team.reserved_calls) == (Money(0), 0)


@pytest.fixture
def golden_3(tmp_path):
    path = _written(GOLDEN_3, tmp_path / "ledger-3.db")
    with Ledger.open(f"sqlite:///{path}") as ledger:
        yield ledger


def test_a_ledger_of_format_3_goes_on_with_its_evaluation(golden_3):
    """Every hash; then the cases in the order in which they were given, handed out ones only again."""
    assert golden_3.verify(expected=[HEAD_3]) == []
    (answered,) = golden_3.case_answers("eval-golden").items()
    assert (answered[0], answered[1].output) == ("b", {"licence": "MIT"})
    assert golden_3.next_case("eval-golden") == ("d", {"text": "three"})
    assert golden_3.next_case("eval-golden", reset=True) == ("a", {"text": "two"})
    assert golden_3.next_case("eval-golden") == ("d", {"text": "three"})


GOLDEN_4 = GOLDEN.with_name("format-0004.sql")
HEADS_4 = [
    ChainHead(
        "run-golden", 1, "sha256:9cd589ad1aa2157e00e6b4f55f232dc6569e8685af61d2bc1acdeea23966d7dc"
    ),
    ChainHead(
        "run-older", 1, "sha256:b15c4aefbef11c569e3715a7d3c99a4a07c01b1acf8d5ad6c0724bd6902752f5"
    ),
]


def test_a_ledger_of_format_4_knows_whose_lease_is_over(tmp_path):
    """A runner of another machine that was gone is; one that never held a lease may live."""
    path = _written(GOLDEN_4, tmp_path / "ledger-4.db")
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert ledger.verify(expected=HEADS_4) == []
        leased, older = (ledger.get_run(head.run_id) for head in HEADS_4)
        lease = ledger.lease("run-golden")
        assert (lease.runner, lease.until_us) == (leased.runner, 1_790_000_030_000_000)
        assert (ledger.lease("run-older"), ledger.lives(older)) == (None, True)
        # Valid or not by the clock of today, which this test does not know: renewed, then over.
        assert ledger.renew(leased, -1.0)
        assert not ledger.lives(leased)


GOLDEN_5 = GOLDEN.with_name("format-0005.sql")
HEAD_5 = ChainHead(
    "run-golden", 1, "sha256:4ed8f5ce8fb9ae4a828a73089bb66ba267aea9864dbdfc7de17e8f6d97cf62db"
)


def test_a_ledger_of_format_5_says_what_a_run_showed(tmp_path):
    """The cells as they were told, with members that are this version's."""
    path = _written(GOLDEN_5, tmp_path / "ledger-5.db")
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert ledger.verify(expected=[HEAD_5]) == []
        told = ledger.told_cells("run-golden")
        assert told.at_us == 1_790_000_000_000_000
        (cell,) = told.cells
        assert cell == {
            "label": "cell 1",
            "status": "running",
            "text": "\x1b[1m55 licences\x1b[0m\n…",
            "seconds": None,
            "code": True,
            "cut": 12,
        }


def test_the_next_case_is_found_by_its_index(empty_url):
    """Not by reading every case of the run: that is done in the gateway's event loop."""
    with Ledger.open(empty_url) as ledger:
        ledger.create_run(RunRecord("eval-1", RunKind.EVALUATION, Environment.SANDBOX, "ana"))
        ledger.put_cases("eval-1", [(f"c{n}", {"n": n}) for n in range(2_000)])
    engine = create_engine(empty_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        sqlite = engine.dialect.name == "sqlite"
        connection.execute(text("ANALYZE" if sqlite else "ANALYZE cases"))
        asked = _NEXT.params(run="eval-1").compile(engine, compile_kwargs={"literal_binds": True})
        plan = connection.execute(text(f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{asked}"))
        assert "cases_waiting" in str(plan.all())
    engine.dispose()


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
