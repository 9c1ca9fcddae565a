"""Contract with MLflow's tables: what we write at once is what its own methods make of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlflow.exceptions import MlflowException
from postgres_world import postgres_server
from sqlalchemy.exc import IntegrityError
from tracing_factory import START_US, Factory

from toolkit.errors import TrackingError
from toolkit.tracing import EvaluatedCase, EvaluationLog, MlflowStore, bulk
from toolkit.tracing.evaluations import write_evaluation
from toolkit.tracing.ids import span_id
from toolkit.tracing.spans import SpanData, call_span, case_span, shard_span
from toolkit.tracing.store import _span
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Environment,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
)

RUN = RunRecord(
    "eval-1", RunKind.RUN, Environment.PRODUCTION, "ana", RunState.SUCCEEDED,
    created_us=1_700_000_000_000_000, started_us=1_700_000_000_000_000,
)  # fmt: skip
VOLATILE = {
    "entity_associations": {"association_id", "created_time"},
    "datasets": {"dataset_uuid"},
    "inputs": {"input_uuid", "source_id"},
    "input_tags": {"input_uuid"},
}
"""Columns that MLflow draws by lot or fills with the time of writing."""


class OneByOne(MlflowStore):
    """Writes as a server is written to: by MLflow's own ways."""

    def log_spans(self, experiment_id: str, spans: Sequence[SpanData]) -> None:
        self._open()[1].log_spans(experiment_id, [_span(data) for data in spans])

    def complete(self, infos: Sequence[Any]) -> None:
        for info in infos:
            self._open()[1].start_trace(info)


def rows(count: int, right: Callable[[int], bool]) -> list[EvaluatedCase]:
    return [
        EvaluatedCase(
            f"case-{n}",
            {"number": n},
            output=str(n) if n % 5 else None,
            expected=str(n) if n % 3 else None,
            scores={"exact": right(n) if n % 4 else None, "close": n / 7, "tone": "yes"},
            rationales={"exact": f"because of {n}"},
            slice="even" if n % 2 == 0 else None,
        )
        for n in range(count)
    ]


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but for what says when it was written."""
    with closing(sqlite3.connect(path)) as connection:
        names = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        found = {}
        for name in names:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            kept = ", ".join(column for column in columns if column not in VOLATILE.get(name, ()))
            found[name] = sorted(connection.execute(f"SELECT {kept} FROM {name}"), key=repr)  # noqa: S608
        return found


@pytest.fixture
def stores(
    tmp_path: Path, store: MlflowStore
) -> Callable[[int], tuple[list[MlflowStore], str, str]]:
    """Return two equal databases that hold the traces of so many cases, their experiment and run."""

    def make(count: int) -> tuple[list[MlflowStore], str, str]:
        experiment = store.experiment("evaluations")
        run_id = store.client.create_run(experiment).info.run_id
        spans = [
            case_span(RUN, f"case-{n}", inputs=n, output=n, error=None, at_us=RUN.created_us + n)
            for n in range(count)
        ]
        store.log_spans(experiment, spans)
        paths = [tmp_path / f"{name}.db" for name in ("many", "single")]
        source = store.uri.removeprefix("sqlite:///")
        for path in paths:
            with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(path)) as new:
                old.backup(new)
        kinds = zip((MlflowStore, OneByOne), paths, strict=True)
        made = [kind(f"sqlite:///{path}", artifacts=store.artifacts) for kind, path in kinds]
        return made, experiment, run_id

    return make


def test_many_at_once_are_what_one_by_one_are(stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table has the same rows: at first, with other scores, and said again."""
    monkeypatch.setattr(bulk, "_TRACES_PER_STATEMENT", 20)  # three statements, the last not full
    both, experiment, run_id = stores(46)
    for right in (lambda n: n % 2 == 0, lambda n: n % 3 == 0, lambda n: n % 3 == 0):
        log = EvaluationLog("numbers", "sha256:" + "0" * 64, rows(46, right), {"exact": 0.5})
        found = []
        for each in both:
            write_evaluation(each, experiment, run_id, RUN, log)
            found.append(tables(Path(each.uri.removeprefix("sqlite:///"))))
        assert found[0] == found[1]
        assert len(found[0]["assessments"]) == 3 * 46 + sum(1 for n in range(46) if n % 3)


def test_what_is_read_at_once_is_what_mlflow_says(stores) -> None:
    """Start, duration and state of each trace; those that do not exist are left out."""
    (store, _), _, _ = stores(5)
    names = [
        case_span(RUN, f"case-{n}", inputs=0, output=0, error=None, at_us=0).mlflow_trace_id
        for n in range(7)
    ]
    standing = store.standing(names)
    infos = {info.trace_id: info for info in store.trace_infos(names)}
    assert set(standing) == set(infos) == set(names[:5])
    for name, trace in standing.items():
        info = infos[name]
        assert (trace.start_ms, trace.took_ms) == (info.request_time, info.execution_duration)
        assert trace.state == info.state.value


def test_nothing_is_written_when_one_trace_is_gone(stores) -> None:
    """One transaction: a trace that somebody deleted leaves all of them as they were."""
    (store, _), experiment, run_id = stores(5)
    path = Path(store.uri.removeprefix("sqlite:///"))
    infos = store.trace_infos(
        case_span(RUN, f"case-{n}", inputs=0, output=0, error=None, at_us=0).mlflow_trace_id
        for n in range(5)
    )
    for info in infos:
        info.tags["toolkit.case"] = "new"
    store.client.delete_traces(experiment, trace_ids=[infos[3].trace_id])
    before = tables(path)
    with pytest.raises(TrackingError, match="complete 5 traces"):
        store.complete(infos)
    assert tables(path) == before
    assert run_id


def drawn(make: Factory) -> list[list[SpanData]]:
    """Return three requests of a shipper: agents with calls below, shards that grow, what changed."""
    run = make.run()
    requests: list[list[SpanData]] = []
    for part in range(2):
        calls: list[tuple[CallRecord, int | None]] = []
        for n in range(30):
            agent = make.call(CallKind.AGENT, "review", case_id=f"case-{n}" if n % 2 else None)
            calls.append((agent, None))
            if part or n % 3:
                calls.append((make.call(parent=agent), span_id(agent.call_id)))
        loose = [make.call(CallKind.TOOL, f"look {n} up") for n in range(5)]
        failed = Outcome(CallState.ERROR, error={"code": "provider", "message": "no answer"})
        loose.append(make.call(outcome=failed))
        key = loose[0].trace_key
        loose = [replace(each, trace_key=key) for each in loose]
        root = shard_span(loose[0], run, start_ms=START_US // 1000, end_ms=START_US // 1000 + part)
        calls += [(each, root.span) for each in loose]
        requests.append([root, *(call_span(each, run, parent=above) for each, above in calls)])
    again = [replace(each, name=f"{each.name} again") for each in requests[0][::3]]
    return [*requests, again]


@pytest.mark.parametrize("rollups", ["false", "true"])
def test_spans_of_many_traces_are_what_mlflow_makes_of_them(
    stores, make: Factory, rollups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every table has the same rows: of new traces, of traces that grow, and of spans sent again."""
    monkeypatch.setenv("MLFLOW_SQL_TRACE_ROLLUPS_ENABLED", rollups)
    both, experiment, _ = stores(3)
    for spans in drawn(make):
        found = []
        for each in both:
            each.log_spans(experiment, spans)
            found.append(tables(Path(each.uri.removeprefix("sqlite:///"))))
        assert found[0] == found[1]
        assert len(found[0]["spans"]) > len(spans)


def test_a_trace_that_another_process_makes_meanwhile_is_not_refused() -> None:
    """MLflow's own way begins again where ours cannot; any other fault is told as it is."""

    class Store:
        """Refuses what comes by our way."""

        ManagedSessionMaker = staticmethod(lambda **_: None)
        stored: ClassVar[list[Any]] = []
        cause: Exception = IntegrityError("insert", {}, ValueError("UNIQUE"))

        def log_spans(self, _: str, spans: list[Any]) -> None:
            if "ManagedSessionMaker" in vars(self):
                raise MlflowException("refused") from self.cause
            self.stored.extend(spans)

    bulk.log_spans(Store(), "1", ["a span"])
    assert Store.stored == ["a span"]
    Store.cause = ValueError("another reason")
    with pytest.raises(MlflowException, match="refused"):
        bulk.log_spans(Store(), "1", ["a span"])
    assert Store.stored == ["a span"]


def test_no_span_is_stored_where_one_is_refused(stores, make: Factory) -> None:
    """One transaction: a span that no database takes leaves everything as it was."""
    (store, _), experiment, _ = stores(3)
    path = Path(store.uri.removeprefix("sqlite:///"))
    spans = drawn(make)[0]
    broken = replace(spans[7], start_ns=2**70, end_ns=2**70)
    before = tables(path)
    with pytest.raises(TrackingError, match=f"store {len(spans)} spans"):
        store.log_spans(experiment, [*spans[:7], broken, *spans[8:]])
    assert tables(path) == before
    store.log_spans(experiment, spans)
    assert len(tables(path)["spans"]) == len(spans) + 3


@pytest.mark.slow
def test_the_same_in_postgresql(tmp_path: Path) -> None:
    """MLflow's tables in a server: written, changed and said again."""
    with postgres_server() as server:
        uri = server.get_uri().replace("postgresql:", "postgresql+psycopg:")
        store = MlflowStore(uri, artifacts=tmp_path / "artifacts")
        experiment = store.experiment("evaluations")
        run_id = store.client.create_run(experiment).info.run_id
        for right in (True, False, False):
            cases = rows(230, lambda _, right=right: right)
            log = EvaluationLog("numbers", "sha256:" + "0" * 64, cases, {"exact": 0.5})
            write_evaluation(store, experiment, run_id, RUN, log)
            names = [
                each.info.trace_id
                for each in store.client.search_traces([experiment], max_results=500)
            ]
            said = [
                each.value
                for info in store.trace_infos(names)
                for each in info.assessments
                if each.name == "exact"
            ]
            assert len(names) == len(said) == 230
            assert {each for each in said if each is not None} == {right}
