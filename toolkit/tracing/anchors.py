"""How far an audit log had got, kept in MLflow: where the registry's disk is not.

An anchor is a tag of the experiment :data:`ANCHOR_EXPERIMENT`, one per log: ``toolkit.audit.`` and the first
16 hex digits of the hash of the log's record 1; its value is JSON.  It only ever moves forward.

In MLflow's own SQLite file the tag is read and written without loading MLflow (3 s of processor time for
`toolkit stop`); tests hold that against MLflow's methods.  What that cannot do, MLflow does.
"""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from toolkit.errors import TrackingError
from toolkit.tracing.store import MlflowStore
from toolkit.tracing.vendor import is_database, redact, tracking_errors

__all__ = ["ANCHOR_EXPERIMENT", "Anchor", "Anchors"]

ANCHOR_EXPERIMENT = "toolkit-registry"

_PREFIX = "toolkit.audit."
_T = TypeVar("_T")
_REACHED_S = 2.0
_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """What MLflow was told last of a log.

    Attributes:
        log: Hash of the log's record 1, which names it.
        records: How many records it had.
        head: Hash of the last of them.
        where: The registry's address; for people, and to notice that a log was begun anew.
        at: When, ISO 8601 in UTC.
    """

    log: str
    records: int
    head: str
    where: str
    at: str

    @property
    def key(self) -> str:
        """Name of the tag."""
        return f"{_PREFIX}{self.log.removeprefix('sha256:')[:16]}"

    @classmethod
    def read(cls, value: str) -> Anchor | None:
        """Read a tag's value; ``None`` if it is not one of an anchor."""
        with suppress(ValueError, TypeError):
            found = cls(**json.loads(value))
            if isinstance(found.records, int) and isinstance(found.head, str):
                return found
        return None


class Anchors:
    """Reads and writes anchors.

    Args:
        store: MLflow.
    """

    def __init__(self, store: MlflowStore) -> None:
        self._store = store

    @property
    def made(self) -> bool:
        """Whether anything was ever shown in MLflow, as far as a file shows it."""
        return self._store.made

    def check(self) -> None:
        """Look whether MLflow is there; nothing is made, and nobody is waited for.

        Raises:
            TrackingError: It is not.
        """
        if is_database(self._store.uri):
            if self._store.made:
                return
            raise TrackingError(
                "MLflow's database does not exist yet",
                where=redact(self._store.uri),
                next_step="it is made by the first run",
            )
        parts = urlsplit(self._store.uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), _REACHED_S).close()
        except OSError as error:
            raise TrackingError(
                f"MLflow's server does not answer: {error.strerror or error}",
                where=redact(self._store.uri),
                next_step="start it, or set mlflow_uri",
            ) from error

    def all(self) -> list[Anchor]:
        """Return every anchor that MLflow has.

        Raises:
            TrackingError: MLflow failed.
        """
        tags = self._read_tags()
        if tags is None:
            with tracking_errors("read anchors of the audit log", self._store.uri):
                found = self._store.client.get_experiment_by_name(ANCHOR_EXPERIMENT)
            tags = {} if found is None else found.tags
        read = (Anchor.read(value) for key, value in tags.items() if key.startswith(_PREFIX))
        return [anchor for anchor in read if anchor is not None]

    def write(self, anchor: Anchor) -> None:
        """Keep an anchor in place of the log's former one.

        Raises:
            TrackingError: MLflow failed.
        """
        value = json.dumps(asdict(anchor), sort_keys=True)
        if self._write_tag(anchor.key, value):
            return
        experiment = self._store.experiment(ANCHOR_EXPERIMENT)
        with tracking_errors("anchor the audit log", self._store.uri):
            self._store.client.set_experiment_tag(experiment, anchor.key, value)

    def _read_tags(self) -> dict[str, str] | None:
        def read(connection: sqlite3.Connection, experiment: int) -> dict[str, str]:
            select = "SELECT key, value FROM experiment_tags WHERE experiment_id = ?"
            return {
                str(key): str(value) for key, value in connection.execute(select, (experiment,))
            }

        return self._beside(read)

    def _write_tag(self, key: str, value: str) -> bool:
        def write(connection: sqlite3.Connection, experiment: int) -> bool:
            insert = (
                "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?) "
                "ON CONFLICT (key, experiment_id) DO UPDATE SET value = excluded.value"
            )
            with connection:
                connection.execute(insert, (key, value, experiment))
            return True

        return self._beside(write) or False

    def _beside(self, use: Callable[[sqlite3.Connection, int], _T]) -> _T | None:
        """Use MLflow's SQLite file without MLflow; ``None``: that could not be done."""
        path = self._store.file
        if path is None or not path.exists():
            return None
        find = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
        try:
            with closing(sqlite3.connect(path, timeout=_BUSY_S)) as connection:
                found = connection.execute(find, (ANCHOR_EXPERIMENT,)).fetchall()
                # With workspaces a name may be there more than once: MLflow knows which is meant.
                return use(connection, int(found[0][0])) if len(found) == 1 else None
        except sqlite3.Error:
            return None
