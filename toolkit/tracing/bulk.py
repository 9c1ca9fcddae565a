"""Many traces of MLflow's database at once, where its own methods take them one by one.

``start_trace`` of a trace that is there first tries to insert, is refused, rolls back, and then reads
and merges row by row: 8 ms for each case of an evaluation.  Reading a ``TraceInfo`` takes three
statements each.  Here the rows of many traces are read, merged in memory and written with one statement
for each table.  ``log_spans`` takes many spans, but flushes each new trace by itself, and reads every tag
before it writes it: 2.5 ms for a trace of one span.  Its session is given other ways to do both.

This uses the tables and private methods of ``SqlAlchemyStore`` in MLflow 3.17.  The contract test
(``tests/tracing/test_tracing_bulk.py``) writes the same by MLflow's own ways and by these, and
compares every table of the two databases.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TraceStanding", "log_spans", "merge_traces", "read_standing"]


_TRACES_PER_STATEMENT = 200
"""SQLite takes a limited number of values in one statement."""

_Rows = tuple[Any, list[Any]]
"""A column that names the trace, and rows of its table."""


@dataclass(frozen=True, slots=True)
class TraceStanding:
    """What MLflow says of a trace as a whole.

    Attributes:
        start_ms: Milliseconds since the epoch.
        took_ms: Milliseconds; ``None`` while it is not known.
        state: MLflow's ``TraceState``, as text.
    """

    start_ms: int
    took_ms: int | None
    state: str


def read_standing(store: Any, names: Sequence[str]) -> dict[str, TraceStanding]:
    """Return the standing of those traces that exist, by their ids."""
    from mlflow.store.tracking.dbmodels.models import SqlTraceInfo as Trace

    columns = (Trace.request_id, Trace.timestamp_ms, Trace.execution_time_ms, Trace.status)
    found: dict[str, TraceStanding] = {}
    with store.ManagedSessionMaker() as session:
        for at in range(0, len(names), _TRACES_PER_STATEMENT):
            chosen = Trace.request_id.in_(names[at : at + _TRACES_PER_STATEMENT])
            for name, *facts in session.query(*columns).filter(chosen):
                found[name] = TraceStanding(*facts)
    return found


def log_spans(store: Any, experiment_id: str, spans: Sequence[Any]) -> None:
    """Store spans in one transaction, as the store's own method does; see the module.

    Args:
        store: MLflow's ``SqlAlchemyStore``.
        experiment_id: Where new traces go.
        spans: MLflow's ``Span``.

    Raises:
        Exception: Whatever MLflow or its database raises; nothing is written then.
    """
    quick = copy.copy(store)  # the store itself stays as MLflow made it
    quick.ManagedSessionMaker = _gathering(store.ManagedSessionMaker)
    try:
        quick.log_spans(experiment_id, list(spans))
    except Exception as error:
        # Another process made one of the traces meanwhile: MLflow's own way begins again.
        if type(error.__cause__).__name__ != "IntegrityError":
            raise
        store.log_spans(experiment_id, list(spans))


def _gathering(make: Any) -> Any:
    """Return a maker of sessions that write new traces together, and tags and metadata at the end."""
    from mlflow.store.tracking.dbmodels.models import SqlTraceInfo, SqlTraceMetadata, SqlTraceTag

    @contextlib.contextmanager
    def made(**options: Any) -> Iterator[Any]:
        with make(**options) as session:
            late: dict[Any, dict[tuple[str, str], Any]] = {SqlTraceTag: {}, SqlTraceMetadata: {}}
            merge, execute = session.merge, session.execute
            add, flush = session.add, session.flush
            added: set[type] = set()  # of what; looking through all that is new takes too long

            def merge_late(instance: Any, **how: Any) -> Any:
                rows = late.get(type(instance))
                if rows is None:
                    return merge(instance, **how)
                rows[instance.request_id, instance.key] = instance
                return instance

            def add_noted(instance: Any, **how: Any) -> None:
                added.add(type(instance))
                add(instance, **how)

            def flush_now(*objects: Any) -> None:
                flush(*objects)
                added.clear()

            def flush_and_execute(*arguments: Any, **how: Any) -> Any:
                flush_now()
                return execute(*arguments, **how)

            def flush_late(*objects: Any) -> None:
                # New traces wait for the next statement: that of their spans, which refer to them.
                if added != {SqlTraceInfo} or session.dirty or session.deleted:
                    flush_now(*objects)

            session.merge, session.execute = merge_late, flush_and_execute
            session.add, session.flush = add_noted, flush_late
            yield session
            session.merge, session.execute = merge, execute
            session.add, session.flush = add, flush
            flush()
            for model, rows in late.items():
                # In order: two writers that lock the same rows do not wait for each other for good.
                _merge(session, model.request_id, [rows[key] for key in sorted(rows)])

    return made


def merge_traces(store: Any, infos: Sequence[Any]) -> None:
    """Merge tags, metadata and assessments into existing traces, in one transaction.

    Args:
        store: MLflow's ``SqlAlchemyStore``.
        infos: ``TraceInfo`` as ``start_trace`` takes them, of traces of one experiment; what they say
            of time and state is as MLflow has it.

    Raises:
        Exception: Whatever MLflow or its database raises; nothing is written then.
    """
    if not infos:
        return
    with store.ManagedSessionMaker(read_only=False) as session:
        _invalidate(session, infos)
        names = [info.trace_id for info in infos]
        for at in range(0, len(names), _TRACES_PER_STATEMENT):
            # Fails for a trace that is gone, or whose spans were moved out of the database.
            store._advance_db_payload_generations_for_db_span_writes(  # noqa: SLF001 - see above
                session, names[at : at + _TRACES_PER_STATEMENT]
            )
        for rows_of in (_tags, _metadata, _assessments):
            _merge(session, *rows_of(infos))


def _invalidate(session: Any, infos: Sequence[Any]) -> None:
    """Let the sums that MLflow keeps by day be made again; before any row is locked."""
    from mlflow.store.tracking.utils.sql_trace_rollups import (
        RollupFamily,
        enqueue_rollup_rebuild_partitions,
    )

    times = [info.request_time for info in infos]
    experiment = int(infos[0].experiment_id)
    families = (RollupFamily.TRACE_METRIC, RollupFamily.ASSESSMENT)
    enqueue_rollup_rebuild_partitions(session, [(each, experiment, times) for each in families])


def _tags(infos: Sequence[Any]) -> _Rows:
    from mlflow.store.tracking.dbmodels.models import SqlTraceTag as Tag

    rows = [
        Tag(request_id=info.trace_id, key=key, value=value)
        for info in infos
        for key, value in info.tags.items()
    ]
    return Tag.request_id, rows


def _metadata(infos: Sequence[Any]) -> _Rows:
    from mlflow.store.tracking.dbmodels.models import SqlTraceMetadata as Metadata
    from mlflow.tracing.constant import TraceMetadataKey

    final = {TraceMetadataKey.TRACE_INFO_FINALIZED: "true"}
    rows = [
        Metadata(request_id=info.trace_id, key=key, value=value)
        for info in infos
        for key, value in (info.trace_metadata | final).items()
    ]
    return Metadata.request_id, rows


def _assessments(infos: Sequence[Any]) -> _Rows:
    from mlflow.store.tracking.dbmodels.models import SqlAssessments

    rows = []
    for info in infos:
        for assessment in info.assessments:
            row = SqlAssessments.from_mlflow_entity(assessment)
            row.trace_id = info.trace_id
            row.experiment_id = int(info.experiment_id)
            row.trace_timestamp_ms = info.request_time
            rows.append(row)
    return SqlAssessments.trace_id, rows


def _merge(session: Any, trace: Any, rows: Sequence[Any]) -> None:
    """Insert the rows of one table that are new, and change those that are there.

    Args:
        session: An open one.
        trace: The column that names the trace.
        rows: All of one table.
    """
    key_of = trace.class_.__mapper__.primary_key_from_instance
    names = list(dict.fromkeys(getattr(row, trace.key) for row in rows))
    there: dict[tuple[Any, ...], Any] = {}  # the session forgets what nobody holds
    for at in range(0, len(names), _TRACES_PER_STATEMENT):
        chosen = trace.in_(names[at : at + _TRACES_PER_STATEMENT])
        found = session.query(trace.class_).filter(chosen)
        there.update({tuple(key_of(row)): row for row in found})
    for row in rows:
        if tuple(key_of(row)) in there:
            session.merge(row)  # the one that was read is changed
        else:
            session.add(row)
    session.flush()
