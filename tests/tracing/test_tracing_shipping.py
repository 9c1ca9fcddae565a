"""Ledger → MLflow in SQLite: everything arrives, once, whatever happens."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from toolkit.errors import LedgerError, TrackingError
from toolkit.tracing import (
    TURN,
    MemoryOutbox,
    MlflowStore,
    Shipper,
    Tracking,
    Turn,
    compare_counts,
    experiment_of,
    mlflow_trace_id,
)
from toolkit.tracing.ids import root_span_id, span_id
from toolkit.tracing.spans import call_span
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Outcome,
    RunKind,
    RunRecord,
    Verdict,
)

SPANS = "select trace_id, span_id, parent_span_id, name, type from spans order by span_id"


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def ship(store, warnings):
    """A shipper of an outbox into the real store."""

    def build(outbox: MemoryOutbox) -> Shipper:
        return Shipper(outbox, store.uri, store=store, warn=warnings.append)

    return build


def test_every_finished_call_becomes_one_span(make, store, ship, rows):
    """Calls under way wait; the rest are counted the same on both sides."""
    outbox = MemoryOutbox([make.run()], [make.call() for _ in range(230)])
    outbox.add(make.call(finished=False))
    assert ship(outbox).drain(60) == 0
    (count,) = compare_counts(outbox, store, experiment="toolkit-sandbox")
    assert count
    assert (count.calls, count.spans) == (230, 230)
    assert len(rows("select 1 from spans")) == 230 + 3  # and the roots of three shards


def test_sending_again_changes_nothing(make, store, ship, rows):
    """The same calls, shipped by another process: the same rows."""
    agent = make.call(CallKind.AGENT, "review")
    calls = [agent, make.call(parent=agent), *(make.call() for _ in range(5))]
    ship(MemoryOutbox([make.run()], calls)).drain(60)
    tables = [
        "select * from spans order by trace_id, span_id",
        "select request_id, timestamp_ms, execution_time_ms, status, trace_name from trace_info",
        "select * from trace_tags order by request_id, key",
    ]
    before = [rows(sql) for sql in tables]
    ship(MemoryOutbox([make.run()], calls)).drain(60)
    assert [rows(sql) for sql in tables] == before


class Forgetful(MemoryOutbox):
    """A ledger that fails at the first mark: what a kill after MLflow's commit looks like."""

    failed = False

    def mark_shipped(self, calls) -> None:
        if not self.failed:
            self.failed = True
            raise LedgerError("the disk is full")
        super().mark_shipped(calls)


def test_a_crash_between_commit_and_mark_doubles_nothing(make, store, ship, warnings):
    """The calls are sent again; there is one span of each, and one warning."""
    outbox = Forgetful([make.run()], [make.call() for _ in range(5)])
    shipper = ship(outbox)
    assert shipper.drain(60) == 5
    assert store.count_calls(store.experiment("toolkit-sandbox"), "session-1") == 5
    assert shipper.drain(60) == 0
    assert store.count_calls(store.experiment("toolkit-sandbox"), "session-1") == 5
    assert "the disk is full" in warnings[0]


def test_a_call_that_changed_is_replaced(make, store, ship, rows):
    """An outcome that was corrected later wins; there is still one span."""
    call = make.call(CallKind.TOOL, "read")
    outbox = MemoryOutbox([make.run()], [call])
    shipper = ship(outbox)
    shipper.drain(60)
    bad = Outcome(CallState.ERROR, error={"code": "tool_failed", "message": "no"})
    outbox.add(replace(call, outcome=bad))
    shipper.drain(60)
    assert rows("select name, status from spans where type = 'TOOL'") == [
        ("execute_tool read", "ERROR")
    ]


def test_spans_hang_below_their_parents(make, store, ship, rows):
    """Agent, tool in the agent, model call in the tool: one tree."""
    agent = make.call(CallKind.AGENT, "review")
    tool = make.call(CallKind.TOOL, "read", {"a": 1}, parent=agent)
    deep = make.call(parent=tool)
    ship(MemoryOutbox([make.run()], [deep, tool, agent])).drain(60)
    parents = {row[1]: row[2] for row in rows(SPANS)}
    ids = [f"{span_id(call.call_id):016x}" for call in (agent, tool, deep)]
    assert parents == {ids[0]: None, ids[1]: ids[0], ids[2]: ids[1]}


def test_a_parent_shipped_earlier_is_found_again(make, store, rows, warnings):
    """A new shipper asks the ledger for a parent that it never saw, in the child's trace."""
    agent = make.call(CallKind.AGENT, "review")
    tool = make.call(CallKind.TOOL, "read", {"a": 1}, parent=agent)
    again = replace(tool, generation=1, trace_key="other:0")
    deep = make.call(parent=tool)
    outbox = MemoryOutbox([make.run()], [agent, tool, again])
    outbox.mark_shipped([agent, tool, again])
    outbox.add(deep)
    Shipper(outbox, store.uri, store=store, warn=warnings.append).drain(60)
    ((_, _, parent, _, _),) = rows(SPANS)
    assert parent == f"{span_id(tool.call_id):016x}"


def test_a_continued_trace_has_a_root_of_its_own(make, store, ship, rows):
    """Past 200 calls a trace goes on as `…#2`, whose calls hang below its own root."""
    agent = make.call(CallKind.AGENT, "review")
    late = replace(make.call(parent=agent), trace_key=f"{agent.trace_key}#2")
    ship(MemoryOutbox([make.run()], [agent, late])).drain(60)
    root = f"{root_span_id('session-1', late.trace_key):016x}"
    by_id = {row[1]: row for row in rows(SPANS)}
    assert by_id[f"{span_id(late.call_id):016x}"][2] == root
    assert by_id[root][2:] == (None, "review.ipynb", "CHAIN")


def test_a_shards_root_grows_with_its_calls(make, store, ship):
    """Start and end of the root cover all calls so far, also for a shipper that just started."""
    calls = [make.call() for _ in range(6)]
    outbox = MemoryOutbox([make.run()], calls[2:4])
    ship(outbox).drain(60)
    outbox.add(calls[0], calls[5])
    ship(outbox).drain(60)
    outbox.add(calls[4])
    ship(outbox).drain(60)
    trace = store.client.get_trace(mlflow_trace_id("session-1", "loose:0"))
    (root,) = [span for span in trace.data.spans if span.parent_id is None]
    assert root.start_time_ns == calls[0].started_us // 1000 * 1_000_000
    assert root.end_time_ns >= calls[5].ended_us * 1000
    assert all(root.start_time_ns <= s.start_time_ns for s in trace.data.spans)
    assert all(s.end_time_ns <= root.end_time_ns for s in trace.data.spans)


def test_a_trace_carries_names_session_user_and_tags(make, store, ship):
    """What the lists in MLflow show and filter by."""
    run = make.run("run-9", kind=RunKind.RUN, job="licence-review", version=3)
    agent = make.call(CallKind.AGENT, "review", run_id="run-9", case_id="c1")
    ship(MemoryOutbox([run], [agent])).drain(60)
    (info,) = store.trace_infos([mlflow_trace_id("run-9", agent.trace_key)])
    assert info.tags["mlflow.traceName"] == "review"
    assert info.trace_metadata["mlflow.trace.session"] == "run-9"
    assert info.trace_metadata["mlflow.trace.user"] == "ana"
    wanted = {"run": "run-9", "job": "licence-review", "version": "3", "case": "c1"}
    assert {key: info.tags[f"toolkit.{key}"] for key in wanted} == wanted


def test_jobs_have_their_own_experiment(make, store, ship):
    """Sessions and trials go to the sandbox's experiment, a job's runs to the job's."""
    job = make.run("run-1", kind=RunKind.RUN, job="licence-review")
    outbox = MemoryOutbox([make.run(), job], [make.call(), make.call(run_id="run-1")])
    ship(outbox).drain(60)
    experiment = store.client.get_experiment_by_name("licence-review")
    assert experiment.tags["mlflow.experimentKind"] == "genai_development"
    assert store.count_calls(experiment.experiment_id, "run-1") == 1
    assert store.count_calls(store.experiment("toolkit-sandbox"), "session-1") == 1
    session = make.run(job="licence-review")
    assert experiment_of(session, "sandbox") == "sandbox"


def test_ids_of_experiments_are_kept_for_links(make, store, ship):
    """A link is made from `experiments.json`, without importing MLflow; damage is replaced."""
    file = store.artifacts.parent / "experiments.json"
    ship(MemoryOutbox([make.run()], [make.call()])).drain(60)
    sandbox = store.experiment("toolkit-sandbox")
    assert json.loads(file.read_text()) == {"toolkit-sandbox": sandbox}
    file.write_text("{")
    other = store.experiment("licence-review")
    assert json.loads(file.read_text()) == {"licence-review": other}


def test_an_unknown_cost_stays_unknown_in_mlflow(make, store, ship, rows):
    """MLflow knows a price for gpt-4o and must not use it; known costs are exact."""
    run = make.run()
    lost = make.call(outcome=make.answer(cost=None), trace_key="loose:7")
    free = make.call(outcome=make.answer(cost=None, model="nobody-knows"), trace_key="loose:8")
    paid = make.call(trace_key="loose:9")
    ship(MemoryOutbox([run], [lost, free, paid])).drain(60)
    costs = dict(rows("select name || model_name, total_cost from spans where type='CHAT_MODEL'"))
    assert costs == {
        "chat gpt-4ogpt-4o (price unknown)": None,
        "chat gpt-4onobody-knows (price unknown)": None,
        "chat gpt-4ogpt-4o": 0.0123,
    }
    infos = {
        i.trace_id: i
        for i in store.trace_infos(
            mlflow_trace_id("session-1", key) for key in ("loose:7", "loose:9")
        )
    }
    assert "mlflow.trace.cost" not in infos[mlflow_trace_id("session-1", "loose:7")].trace_metadata
    assert "mlflow.trace.cost" in infos[mlflow_trace_id("session-1", "loose:9")].trace_metadata


def test_a_failed_agent_is_a_failed_trace(make, store, ship):
    """The state of a trace is the state of the agent's call."""
    error = Outcome(CallState.ERROR, error={"code": "tool_failed", "message": "boom"})
    agent = make.call(CallKind.AGENT, "review", outcome=error)
    child = make.call(parent=agent)
    outbox = MemoryOutbox([make.run()], [child])
    shipper = ship(outbox)
    shipper.drain(60)
    outbox.add(agent)
    shipper.drain(60)
    (info,) = store.trace_infos([mlflow_trace_id("session-1", agent.trace_key)])
    assert str(info.state.value) == "ERROR"


def test_an_agent_at_work_is_shown_with_its_name(make, store, ship):
    """Children arrive first; the trace has a name and is in progress until its root arrives."""
    agent = make.call(CallKind.AGENT, "review", finished=False)
    outbox = MemoryOutbox([make.run()], [agent, make.call(parent=agent)])
    ship(outbox).drain(60)
    (info,) = store.trace_infos([mlflow_trace_id("session-1", agent.trace_key)])
    assert (str(info.state.value), info.tags["mlflow.traceName"]) == ("IN_PROGRESS", "review")


def test_traces_are_linked_to_the_run_that_mlflow_knows(make, store, ship, rows):
    """250 traces of one run, linked 100 at a time; traces shipped before that are linked too."""
    run = make.run()
    outbox = MemoryOutbox([run], [make.call(trace_key=f"k{n}:0") for n in range(240)])
    shipper = ship(outbox)
    shipper.drain(60)
    run = replace(run, mlflow_run_id=Tracking(store.uri, store=store).start_run(run))
    outbox.put_run(run)
    outbox.add(*(make.call(trace_key=f"k{n}:0") for n in range(230, 250)))
    shipper.drain(60)
    linked = rows("select source_id from entity_associations where source_type = 'trace'")
    assert len(linked) == len(set(linked)) == 250


def test_a_call_that_mlflow_refuses_does_not_block_the_others(make, store, ship, rows, warnings):
    """The batch is halved around it; it gets a stub, a warning and a count."""
    calls = [make.call() for _ in range(20)]
    calls[13] = replace(calls[13], started_us=2**70, ended_us=2**70)
    outbox = MemoryOutbox([make.run()], calls)
    shipper = ship(outbox)
    assert shipper.drain(60) == 0
    assert (shipper.stats.shipped, shipper.stats.refused) == (19, 1)
    assert len(warnings) == 1
    assert calls[13].call_id in warnings[0]
    assert store.count_calls(store.experiment("toolkit-sandbox"), "session-1") == 20
    assert rows("select count(*) from spans where name = 'chat (not shown)'") == [(1,)]


def test_a_call_that_cannot_be_written_as_a_span_gets_a_stub(make, store, ship, warnings):
    """A decision or outcome that breaks our own code holds nobody up."""
    call = replace(make.call(), decision=Decision(Verdict.ALLOW, policies=None))
    outbox = MemoryOutbox([make.run()], [call, make.call()])
    shipper = ship(outbox)
    assert shipper.drain(60) == 0
    assert (shipper.stats.shipped, shipper.stats.refused) == (1, 1)


def test_a_call_of_an_unknown_run_is_shipped(make, store, ship):
    """A run that the ledger does not find is no reason to drop its calls."""
    outbox = MemoryOutbox([], [make.call()])
    assert ship(outbox).drain(60) == 0
    assert store.count_calls(store.experiment("toolkit-sandbox"), "session-1") == 1


def test_mlflow_down_is_one_warning_and_later_everything(make, store, warnings):
    """Nothing is lost and nothing raises; when MLflow is back, the outbox empties."""
    outbox = MemoryOutbox([make.run()], [make.call() for _ in range(3)])
    away = MlflowStore("http://127.0.0.1:9")  # the discard port: nobody listens
    shipper = Shipper(outbox, away.uri, store=away, warn=warnings.append)
    assert shipper.drain(1) == 3
    assert shipper.drain(1) == 3
    assert shipper.stats.down
    assert shipper.stats.failures == 2
    assert len(warnings) == 1
    with pytest.raises(TrackingError) as raised:
        shipper.ship_once()
    assert raised.value.next_step
    assert Shipper(outbox, store.uri, store=store).drain(60) == 0


def test_a_database_that_comes_back_is_caught_up_with(make, tmp_path, empty_database, warnings):
    """The same shipper goes on when its database is there again."""
    folder = tmp_path / "later"
    folder.write_text("in the way")
    outbox = MemoryOutbox([make.run()], [make.call()])
    shipper = Shipper(outbox, f"sqlite:///{folder / 'm.db'}", warn=warnings.append)
    assert shipper.drain(1) == 1
    folder.unlink()
    folder.mkdir()
    (folder / "m.db").write_bytes(empty_database.read_bytes())
    assert shipper.drain(60) == 0
    assert not shipper.stats.down
    assert [("later" in warnings[0]), "again" in warnings[1]] == [True, True]


def test_the_loop_ends_after_draining(make, store, ship):
    """A stop drains first; an idle loop ends when nobody needs it any more."""
    outbox = MemoryOutbox([make.run()], [make.call() for _ in range(3)])
    stop = threading.Event()
    stop.set()
    ship(outbox).run_forever(stop)
    assert outbox.unshipped_count() == 0
    outbox.add(make.call())
    ship(outbox).run_forever(threading.Event(), poll_s=0.01, idle=lambda: True)
    assert outbox.unshipped_count() == 0


def test_two_processes_take_turns(make, store, tmp_path):
    """Who comes second finds the outbox empty, and MLflow is told of nothing twice."""
    path = tmp_path / TURN
    outbox = MemoryOutbox([make.run()], [make.call() for _ in range(50)])
    second = Shipper(outbox, store.uri, store=store, turn=Turn(path))
    left: list[int] = []
    thread = threading.Thread(target=lambda: left.append(second.drain(60)))
    with Turn(path).taken():
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        outbox.mark_shipped(outbox.unshipped())
    thread.join()
    assert left == [0]
    assert second.stats.shipped == 0


def test_a_process_that_hangs_is_not_waited_for_for_ever(make, store, ship, tmp_path):
    """Its calls are sent by somebody else; a folder that takes no lock is no reason to wait either."""
    outbox = MemoryOutbox([make.run()], [make.call()])
    with Turn(tmp_path / TURN).taken():
        turn = Turn(tmp_path / TURN, patience_s=0.1)
        assert Shipper(outbox, store.uri, store=store, turn=turn).drain(60) == 0
    outbox.add(make.call())
    nowhere = Turn(tmp_path / "missing" / "folder" / TURN)
    assert Shipper(outbox, store.uri, store=store, turn=nowhere).drain(60) == 0


class Coming(MemoryOutbox):
    """An outbox into which another call comes whenever somebody looks whether there are some."""

    def __init__(self, run: RunRecord, calls: Iterator[CallRecord]) -> None:
        super().__init__([run])
        self.coming = calls
        self.batches: list[int] = []
        self.read = threading.Event()

    def unshipped_count(self, kind: RunKind | None = None) -> int:
        if kind is None:
            self.add(*itertools.islice(self.coming, 1))
        return super().unshipped_count(kind)

    def unshipped(self, *, limit: int = 1000) -> list[CallRecord]:
        found = super().unshipped(limit=limit)
        self.batches.append(len(found))
        self.read.set()
        return found


def test_calls_that_come_one_after_the_other_are_shipped_together(make, ship):
    """A burst is let pass; when no more calls come, they are sent in one request."""
    outbox = Coming(make.run(), iter([make.call() for _ in range(40)]))
    ship(outbox).run_forever(threading.Event(), poll_s=0, gather_s=60, idle=lambda: True)
    assert outbox.batches[0] == 40


def test_calls_that_never_end_are_shipped_all_the_same(make, ship):
    """Nobody waits longer than the time for gathering, nor for more than one request holds."""
    endless = (make.call() for _ in itertools.count())
    slow = Coming(make.run(), endless)
    ship(slow).run_forever(slow.read, poll_s=0.001, gather_s=0.05, drain_s=0)
    assert slow.batches
    full = Coming(make.run(), endless)
    ship(full).run_forever(full.read, poll_s=0, gather_s=600, drain_s=0)
    assert full.batches[0] == 900


def test_spans_of_an_evaluation_are_not_left_for_its_end(make, ship):
    """Somebody waits for all of its cases, nobody for one: a hundred calls are a request."""
    measured = Coming(make.run(kind=RunKind.EVALUATION), (make.call() for _ in itertools.count()))
    ship(measured).run_forever(measured.read, poll_s=0, gather_s=600, drain_s=0)
    assert measured.batches[0] == 100


def test_no_password_in_an_error(make):
    """A tracking URI may hold a password; an error must not."""
    away = MlflowStore("http://ana:geheim@127.0.0.1:9")
    with pytest.raises(TrackingError) as raised:
        away.experiment("x")
    assert "geheim" not in str(raised.value.to_json())


def test_big_batches_are_split(make, store, ship):
    """Spans of 8 MiB together make a request; more make more."""
    big = {"text": "x" * 60_000}
    items = [(make.call(CallKind.TOOL, "t", big), None) for _ in range(2)]
    spans = [(call, call_span(call, None, parent=1)) for call, _ in items] * 150
    sizes = Counter(len(chunk) for chunk in Shipper._chunks(spans))
    assert sum(size * n for size, n in sizes.items()) == 300
    assert len(list(sizes.elements())) == 3
    small = [(make.call(), None) for _ in range(2000)]
    assert [len(chunk) for chunk in Shipper._chunks(small)] == [900, 900, 200]
