"""Group commit: many operations, one flush, each on its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_world import ALLOW, OK, a_run, an_intent, begin, nanos, tamper

from toolkit.errors import BudgetExceeded, LedgerError, NotFound
from toolkit.ledger import LedgerWriter


@pytest.fixture
def writer(ledger):
    a_run(ledger)
    with LedgerWriter(ledger) as opened:
        yield opened


def _together(writer, *works):
    """Submit everything while the thread is held, so that one commit takes it all."""
    held, go = threading.Event(), threading.Event()

    def hold(_session):
        held.set()
        go.wait()

    first = writer.submit(hold)
    held.wait()
    futures = [writer.submit(work) for work in works]
    go.set()
    first.result()
    return futures


def test_begin_and_finish_resolve_to_what_the_ledger_gives(ledger, writer):
    """The futures hold what Ledger.begin and finish return, already recorded."""
    intent = an_intent({"n": 1})
    begun = writer.begin(intent, ALLOW).result()
    assert begun.fresh
    assert ledger.lookup("run-1", intent.key) == begun.call
    writer.restart(begun.call).result()
    done = writer.finish(begun.call, OK).result()
    assert ledger.lookup("run-1", intent.key) == done
    assert ledger.verify() == []


def test_one_failing_operation_does_not_lose_the_others(ledger, writer):
    """BudgetExceeded, NotFound, a plain bug and a database's complaint stay with their own future."""
    good, poor, lost, bug, twice, last = _together(
        writer,
        lambda s: s.begin(an_intent({"n": 1}), ALLOW, reserve=nanos("s", 10, 6)),
        lambda s: s.begin(an_intent({"n": 2}), ALLOW, reserve=nanos("s", 10, 6)),
        lambda s: s.begin(an_intent(run_id="none"), ALLOW),
        lambda s: (s.begin(an_intent({"n": 3}), ALLOW), 1 / 0),
        lambda s: s.begin(an_intent({"n": 4}, name=7), ALLOW),
        lambda s: s.begin(an_intent({"n": 5}), ALLOW, reserve=nanos("s", 10, 4)),
    )
    assert good.result().fresh
    assert last.result().fresh
    for future, error in ((poor, BudgetExceeded), (lost, NotFound), (bug, ZeroDivisionError)):
        with pytest.raises(error):
            future.result()
    with pytest.raises(TypeError):
        twice.result()
    assert [call.intent.arguments["n"] for call in ledger.calls("run-1")] == [1, 5]
    assert ledger.head("run-1").n == 3
    assert ledger.budget("s").reserved.nanos == 10
    assert ledger.verify() == []


def test_a_statement_that_the_database_refuses_stays_with_its_own_future(ledger, writer, url):
    """A violated constraint in one operation does not spoil the transaction of the others."""
    begin(ledger, {"n": 0})
    # A foreign row in the way of the next entry of run-2's chain.
    a_run(ledger, "run-2")
    tamper(url, "UPDATE entries SET n = 1 + n WHERE run_id = 'run-2'")
    tamper(
        url,
        "INSERT INTO calls (run_id, call_key, generation, kind, name, effect, trace_key, verdict,"
        " decision, intent_n, started_us, state, tags, shipped)"
        " SELECT 'run-2', 'x', 0, kind, name, effect, trace_key, verdict, decision, 99, 0, state,"
        " tags, 0 FROM calls",
    )
    tamper(url, "UPDATE calls SET request_id = 'taken' WHERE run_id = 'run-2'")
    bad, good = _together(
        writer,
        lambda s: s.begin(an_intent({"n": 1}, run_id="run-2", request_id="taken"), ALLOW),
        lambda s: s.begin(an_intent({"n": 1}), ALLOW),
    )
    assert good.result().fresh
    with pytest.raises(LedgerError):
        bad.result()
    assert ledger.verify("run-1") == []


def test_operations_of_one_group_see_each_other(ledger, writer):
    """A resent request in the same commit is the same call."""
    intent = an_intent({"n": 1})
    one, two = _together(writer, lambda s: s.begin(intent, ALLOW), lambda s: s.begin(intent, ALLOW))
    assert (one.result().fresh, two.result().fresh) == (True, False)
    assert two.result().call == one.result().call


def test_a_cancelled_operation_is_not_recorded(ledger, writer):
    """A caller that went away before its turn leaves nothing."""
    held, go = threading.Event(), threading.Event()
    first = writer.submit(lambda _: (held.set(), go.wait()))
    held.wait()
    gone = writer.begin(an_intent({"n": 1}), ALLOW)
    stays = writer.begin(an_intent({"n": 2}), ALLOW)
    assert gone.cancel()
    go.set()
    first.result()
    stays.result()
    assert [call.intent.arguments["n"] for call in ledger.calls("run-1")] == [2]


def test_sixteen_submitters_get_one_chain(ledger, writer):
    """Concurrent callers: every call is there once, the chain is whole."""

    def work(who):
        for number in range(10):
            call = writer.begin(an_intent({"who": who, "n": number}), ALLOW).result().call
            writer.finish(call, OK).result()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    totals = ledger.totals("run-1")
    assert (totals.calls, totals.unfinished) == (160, 0)
    assert ledger.head("run-1").n == 321
    assert ledger.verify() == []


def test_two_writers_on_two_runs_and_one_budget_do_not_stop_each_other(ledger, url):
    """Groups that lock the same rows in another order are tried again, not failed."""
    for run_id in ("run-1", "run-2"):
        a_run(ledger, run_id)

    def work(writer, run_id, who):
        for number in range(8):
            reserve = nanos(f"team:{number % 2}", None, 10)
            intent = an_intent({"who": who, "n": number}, run_id=run_id)
            writer.begin(intent, ALLOW, reserve=reserve).result()

    with (
        LedgerWriter(ledger) as one,
        LedgerWriter(ledger, max_batch=4) as two,
        ThreadPoolExecutor(8) as pool,
    ):
        jobs = [
            pool.submit(work, (one, two)[who % 2], f"run-{1 + who // 2 % 2}", who)
            for who in range(8)
        ]
        for job in jobs:
            job.result()
    assert ledger.budget("team:0").reserved_calls == 32
    assert ledger.verify() == []


def test_closing_commits_what_is_queued_and_refuses_the_rest(ledger):
    """close() drains; a closed writer says so."""
    a_run(ledger)
    writer = LedgerWriter(ledger)
    futures = [writer.begin(an_intent({"n": n}), ALLOW) for n in range(30)]
    writer.close()
    writer.close()
    assert all(future.done() and future.result().fresh for future in futures)
    with pytest.raises(LedgerError, match="writer is closed"):
        writer.begin(an_intent(), ALLOW)
