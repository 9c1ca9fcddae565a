"""MLflow's store of experiments, traces and spans, as far as we write to it.

``TracingClient`` is MLflow's own layer under the fluent API, semi-private, and the only one with
bulk ``log_spans``; MLflow is pinned to 3.17 and ``tests/tracing`` is the contract test.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import re
import sqlite3
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from filelock import FileLock, Timeout
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from toolkit.tracing.bulk import TraceStanding, log_spans, merge_traces, read_standing
from toolkit.tracing.conventions import Mlflow
from toolkit.tracing.querying import count_calls, traces_of
from toolkit.tracing.spans import SpanData
from toolkit.tracing.vendor import is_database, load_quietly, tracking_errors

__all__ = ["MlflowStore", "TraceStore"]

_log = logging.getLogger("toolkit.tracing")

# A resource's attributes would become tags of every trace.
_RESOURCE = Resource({})
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_LINKS_PER_CALL = 100
_READS_PER_CALL = 100


class TraceStore(Protocol):
    """Where the shipper puts spans."""

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, creating it if needed."""
        ...

    def log_spans(self, experiment_id: str, spans: Sequence[SpanData]) -> None:
        """Store spans; a span that is there already is replaced."""
        ...

    def bounds(self, trace_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return first start and last end (ms since the epoch) of those traces that exist."""
        ...

    def link(self, trace_ids: Sequence[str], mlflow_run_id: str) -> None: ...

    def tag(self, trace_id: str, tags: Mapping[str, str]) -> None: ...

    def probe(self, experiment_id: str) -> None:
        """Write something small and harmless; raise TrackingError if that fails."""
        ...

    def forget(self) -> None:
        """Drop what is remembered of the other side (after it failed)."""
        ...


def _span(data: SpanData) -> Any:
    from mlflow.entities import Span

    context = SpanContext(data.trace, data.span, is_remote=False, trace_flags=_SAMPLED)
    parent = None
    if data.parent is not None:
        parent = SpanContext(data.trace, data.parent, is_remote=False, trace_flags=_SAMPLED)
    status = Status(StatusCode.OK) if data.error is None else Status(StatusCode.ERROR, data.error)
    return Span(
        ReadableSpan(
            name=data.name,
            context=context,
            parent=parent,
            resource=_RESOURCE,
            attributes=data.attributes | {Mlflow.TRACE_ID: f'"{data.mlflow_trace_id}"'},
            start_time=data.start_ns,
            end_time=data.end_ns,
            status=status,
            events=[Event(event.name, event.attributes, event.at_ns) for event in data.events],
            links=_links(data),
        )
    )


def _links(data: SpanData) -> tuple[Link, ...]:
    if data.caller is None:
        return ()
    trace, span = data.caller
    context = SpanContext(trace, span, is_remote=True, trace_flags=_SAMPLED)
    return (Link(context, {"toolkit.link": "caller"}),)


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; an empty one if it is missing or damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _open_once(path: Path) -> None:
    """Raise what SQLite says about a file that it cannot open.

    MLflow would try ten times, for 100 s in all, and who tells it of a run would wait.
    """
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("PRAGMA schema_version")


def _folder_name(experiment: str) -> str:
    """Return a folder name for an experiment's artifacts; different names never share one."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", experiment).lstrip(".")[:80]
    if safe == experiment:
        return safe
    return f"{safe}-{hashlib.sha256(experiment.encode('utf-8', 'replace')).hexdigest()[:8]}"


class MlflowStore:
    """MLflow behind a tracking URI: a database that we write to, or a server.

    Args:
        uri: ``sqlite:///…``, ``postgresql://…`` or ``http(s)://…``.
        artifacts: Folder of artifacts when ``uri`` is a database.  Experiments get absolute
            ``file:`` locations in it, which a server on this machine can read as well; a server
            that is reached over HTTP decides for itself.  Beside the folder, ``experiments.json``
            keeps the ids of experiments by name, for links.
    """

    def __init__(self, uri: str, *, artifacts: Path | None = None) -> None:
        self.uri = uri
        self.artifacts = artifacts.resolve() if artifacts else None
        self._lock = threading.RLock()
        self._experiments: dict[str, str] = {}
        self._clients: tuple[Any, Any] | None = None

    @property
    def client(self) -> Any:
        """``mlflow.MlflowClient``; the database is created on first use."""
        return self._open()[0]

    def _open(self) -> tuple[Any, Any]:
        with self._lock:
            if self._clients is None:
                with tracking_errors("open its store", self.uri):
                    self._clients = self._connect()
            return self._clients

    def _connect(self) -> tuple[Any, Any]:
        load_quietly()
        first = "mlflow" not in sys.modules
        from mlflow import MlflowClient
        from mlflow.tracing.client import TracingClient

        if is_database(self.uri):
            self._create_database()
        if first:
            gc.freeze()  # 300,000 objects that stay: every collection would look at them again
        client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return client, TracingClient(self.uri)

    def _create_database(self) -> None:
        """Create the tables, in one process at a time.

        MLflow looks whether the tables exist and then creates them; two processes that do so at
        once both fail half way.
        """
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        path, root = self.file, self.artifacts.as_uri() if self.artifacts else "./mlartifacts"
        if path is None:
            SqlAlchemyStore(self.uri, root)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                self._build_database(path, root)
            _open_once(path)
            # A database of an older MLflow is migrated here.
            SqlAlchemyStore(self.uri, root)

    def _build_database(self, path: Path, root: str) -> None:
        """Make the database beside its place and put it there when it is whole.

        MLflow makes its tables in many steps, and a database that a killed process left half way
        cannot be opened ever again.
        """
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        part = path.with_name(f"{path.name}.part")
        for left in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm"))):
            left.unlink(missing_ok=True)
        _open_once(part)
        # The experiment "Default" gets its artifact location here, once and for all.
        SqlAlchemyStore(f"{self.uri.partition('?')[0]}.part", root).engine.dispose()
        # Readers (the interface) and the one writer do not stop each other; the mode is a
        # property of the file and stays.
        with closing(sqlite3.connect(part)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        part.replace(path)

    @property
    def made(self) -> bool:
        """Whether there is something at the URI, as far as a file shows it."""
        return self.file is None or self.file.exists()

    @property
    def file(self) -> Path | None:
        """The SQLite file, if that is what is at the URI."""
        scheme, _, rest = self.uri.partition(":///")
        return Path(unquote(rest.partition("?")[0])) if scheme == "sqlite" and rest else None

    def experiment(self, name: str) -> str:
        """Return the id of an experiment; created, tagged and un-deleted as needed.

        Raises:
            TrackingError: MLflow failed.
        """
        with self._lock:
            if name not in self._experiments:
                with tracking_errors(f"open the experiment {name}", self.uri):
                    self._experiments[name] = self._find_or_create(name)
                self._note(name, self._experiments[name])
            return self._experiments[name]

    def _find_or_create(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        client = self.client
        found = client.get_experiment_by_name(name)
        if found is None:
            location = None
            if self.artifacts is not None and is_database(self.uri):
                location = (self.artifacts / _folder_name(name)).as_uri()
            # This kind gives the experiment the pages for traces, sessions and evaluations.
            tags = {"mlflow.experimentKind": "genai_development"}
            try:
                return str(client.create_experiment(name, artifact_location=location, tags=tags))
            except MlflowException:
                found = client.get_experiment_by_name(name)  # another process was first
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _note(self, name: str, experiment_id: str) -> None:
        """Keep the id in ``experiments.json``: links are then made without asking MLflow."""
        if self.artifacts is None:
            return
        path = self.artifacts.parent / "experiments.json"
        try:
            with FileLock(path.with_suffix(".lock"), timeout=5):
                known = _read_object(path)
                if known.get(name) != experiment_id:
                    part = path.with_suffix(".part")
                    part.write_text(json.dumps(known | {name: experiment_id}, indent=2), "utf-8")
                    part.replace(path)
        except (OSError, Timeout) as error:
            _log.debug("%s is not written: %s", path, error)  # a link less

    def log_spans(self, experiment_id: str, spans: Sequence[SpanData]) -> None:
        """Store spans in one transaction; a span that is there already is replaced.

        Raises:
            TrackingError: MLflow failed; nothing was stored.
        """
        with tracking_errors(f"store {len(spans)} spans", self.uri):
            tracing, made = self._open()[1], [_span(data) for data in spans]
            if is_database(self.uri):
                log_spans(tracing.store, experiment_id, made)
            else:
                tracing.log_spans(experiment_id, made)

    def bounds(self, trace_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return first start and last end (ms since the epoch) of those traces that exist.

        Raises:
            TrackingError: MLflow failed.
        """
        return {
            name: (trace.start_ms, trace.start_ms + (trace.took_ms or 0))
            for name, trace in self.standing(trace_ids).items()
        }

    def standing(self, trace_ids: Iterable[str]) -> dict[str, TraceStanding]:
        """Return when and how those traces ended that exist.

        Raises:
            TrackingError: MLflow failed.
        """
        if not is_database(self.uri):
            return {
                info.trace_id: TraceStanding(
                    info.request_time, info.execution_duration, info.state.value
                )
                for info in self.trace_infos(trace_ids)
            }
        names = list(dict.fromkeys(trace_ids))
        with tracking_errors(f"read {len(names)} traces", self.uri):
            return read_standing(self._open()[1].store, names)

    def trace_infos(self, trace_ids: Iterable[str]) -> list[Any]:
        """Return MLflow's ``TraceInfo`` of those traces that exist.

        Raises:
            TrackingError: MLflow failed.
        """
        names = list(dict.fromkeys(trace_ids))
        store = self._open()[1].store
        found: list[Any] = []
        with tracking_errors(f"read {len(names)} traces", self.uri):
            for at in range(0, len(names), _READS_PER_CALL):
                found += store.batch_get_trace_infos(names[at : at + _READS_PER_CALL])
        return found

    def complete(self, infos: Sequence[Any]) -> None:
        """Merge what ``TraceInfo`` say into traces that exist; assessments are merged by id.

        In a database all in one transaction, at a server one after the other.

        Raises:
            TrackingError: MLflow failed; again completes what is missing.
        """
        with tracking_errors(f"complete {len(infos)} traces", self.uri):
            tracing = self._open()[1]
            if is_database(self.uri):
                merge_traces(tracing.store, infos)
            else:
                for info in infos:
                    tracing.start_trace(info)

    def link(self, trace_ids: Sequence[str], mlflow_run_id: str) -> None:
        """Show traces on the page of an MLflow run; links that exist are kept.

        Raises:
            TrackingError: MLflow failed.
        """
        names = list(dict.fromkeys(trace_ids))
        with tracking_errors(f"link {len(names)} traces to a run", self.uri):
            for at in range(0, len(names), _LINKS_PER_CALL):
                self.client.link_traces_to_run(names[at : at + _LINKS_PER_CALL], mlflow_run_id)

    def tag(self, trace_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a trace; ``mlflow.traceName`` is its name.

        Raises:
            TrackingError: MLflow failed.
        """
        with tracking_errors(f"tag the trace {trace_id}", self.uri):
            for key, value in tags.items():
                self.client.set_trace_tag(trace_id, key, value)

    def probe(self, experiment_id: str) -> None:
        """Write something small and harmless.

        Raises:
            TrackingError: MLflow does not take it, so it would take nothing.
        """
        with tracking_errors("take a small write", self.uri):
            self.client.set_experiment_tag(experiment_id, "toolkit.probe", "1")

    def forget(self) -> None:
        """Drop remembered experiments: they may have been deleted on the other side."""
        with self._lock:
            self._experiments.clear()

    def count_calls(self, experiment_id: str, run_id: str, *, session: bool = True) -> int:
        """Return the spans of a run that stand for calls (roots of shards and attempts do not).

        Args:
            experiment_id: MLflow's id of the run's experiment.
            run_id: The run.
            session: Whether its traces are a session (:func:`.attributes.has_session`).

        Raises:
            TrackingError: MLflow failed.
        """
        store = self._open()[1].store
        with tracking_errors(f"count the spans of {run_id}", self.uri):
            return count_calls(store, experiment_id, traces_of(run_id, session=session))
