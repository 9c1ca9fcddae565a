"""``toolkit.data("orders")``: rows of a governed source as a pandas table.

pandas and pyarrow load at the first read, not before.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.client import approvals, wire
from toolkit.client.codec import encode
from toolkit.client.connection import Connection, current
from toolkit.client.transport import Reply, read_reply
from toolkit.errors import ApprovalPending, GatewayUnavailable, error_from_json
from toolkit.values import CallKind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DataSource", "DataWarning", "data"]

ARROW = "application/vnd.apache.arrow.stream"


class DataWarning(UserWarning):
    """Rows came, and something about them is worth knowing."""


class DataSource:
    """A source of ``registry/data.yaml``; see :func:`data`.

    Every method raises:
        CallDenied: Policy, a cap or the analysis of the query said no.
        BudgetExceeded: The budget does not cover the call.
        InvalidAnswer: The rows are not what the source promises.
        InfrastructureError: The source cannot be reached.
        NotFound: There is no such source or file.
        UsageError: The query or the path makes no sense.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def query(
        self, sql: str, params: Mapping[str, Any] | None = None, *, purpose: str | None = None
    ) -> pd.DataFrame:
        """Ask a database one SELECT.

        Args:
            sql: In the dialect of the source, parameters as ``:name``.
            params: Their values.
            purpose: Why, for policy and for the record.
        """
        frame: pd.DataFrame = self._ask("query", purpose, sql=sql, parameters=_plain(params))
        return frame

    def execute(
        self, sql: str, params: Mapping[str, Any] | None = None, *, purpose: str | None = None
    ) -> int:
        """Change a database that is ``writable``, and return how many rows were changed.

        Args:
            sql: One INSERT, UPDATE or DELETE, parameters as ``:name``.
            params: Their values.
            purpose: Why, for policy and for the record.
        """
        changed: int = self._ask("execute", purpose, sql=sql, parameters=_plain(params))
        return changed

    def read(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        format: str | None = None,  # noqa: A002 - the word that pandas uses
        columns: Sequence[str] | None = None,
        purpose: str | None = None,
    ) -> Any:
        """Read a file, an object, or an HTTP answer.

        Args:
            path: Relative to the source.
            params: The query of an HTTP address.
            format: ``csv``, ``parquet``, ``json``, ``text`` or ``bytes``; default: from the name.
            columns: Only these.
            purpose: Why, for policy and for the record.

        Returns:
            A pandas table; ``str`` for ``text`` and ``bytes`` for ``bytes``.
        """
        return self._ask(
            "read",
            purpose,
            path=path,
            parameters=_plain(params),
            format=format,
            columns=list(columns) if columns else None,
        )

    def tables(self) -> pd.DataFrame:
        """Return a database's tables with their columns, or a folder's files."""
        frame: pd.DataFrame = self._ask("tables", None)
        return frame

    def _ask(self, operation: str, purpose: str | None, **given: Any) -> Any:
        arguments = {"operation": operation, **{k: v for k, v in given.items() if v}}
        connection = current()
        extra = {} if purpose is None else {"purpose": purpose}
        request = connection.identify(CallKind.DATA, self.name, arguments, **extra)
        reply, value = _send(connection, request)
        connection.announce(reply, CallKind.DATA, self.name)
        outcome = reply["outcome"]
        if outcome["state"] != "ok":
            raise error_from_json(outcome["error"] or {})
        for text in reply.get("warnings") or ():
            warnings.warn(text, DataWarning, stacklevel=3)
        return outcome["answer"].get("affected") if operation == "execute" else value

    def __repr__(self) -> str:
        return f"toolkit.data({self.name!r})"


def data(name: str) -> DataSource:
    """Return a data source that the gateway reads for this notebook.

    Credentials stay in the gateway; policy decides about every table and column::

        orders = toolkit.data("orders")
        late = orders.query("SELECT id, amount FROM orders WHERE id > :id", {"id": 3})

    Args:
        name: As ``registry/data.yaml`` has it.  Nothing is asked before the first read.
    """
    return DataSource(name)


def _plain(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: encode(value, f":{name}") for name, value in (params or {}).items()}


def _send(connection: Connection, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Send a read; where a person has to decide about it first, wait and send it again."""
    while True:
        try:
            return connection.exchange(wire.DATA, request, _taken)
        except ApprovalPending as pending:
            approvals.wait(connection, pending)


def _taken(reply: Reply) -> tuple[dict[str, Any], Any]:
    """Read an answer: JSON, or Arrow with the facts of the call in its schema."""
    if reply.kind != ARROW:
        return read_reply(reply), None
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(pa.PythonFile(_Body(reply.pieces), mode="r")).read_all()
    except (pa.ArrowException, OSError) as error:
        raise GatewayUnavailable("the gateway's answer was cut off") from error
    told: dict[str, Any] = json.loads(table.schema.metadata[b"toolkit"])
    if table.num_rows != told["rows"]:
        raise GatewayUnavailable("the gateway's answer was cut off")
    table = table.replace_schema_metadata(None)
    if told.get("content") in ("text", "bytes"):
        return told, table.column(0)[0].as_py()
    frame = _frame(table)
    frame.attrs["toolkit"] = {"call_id": told["call_id"], "digest": told["digest"]}
    return told, frame


def _frame(table: Any) -> pd.DataFrame:
    """Return a table as pandas; whole numbers stay whole where some are missing."""
    import pandas as pd
    import pyarrow as pa

    kinds = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
    }
    parts = {
        place: column.to_pandas(types_mapper=kinds.get)
        for place, column in enumerate(table.columns)
        if column.null_count and column.type in kinds
    }
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    for place, values in parts.items():
        frame.isetitem(place, values)
    return frame


class _Body(io.RawIOBase):
    """An answer as a file, of which no more than one piece is held."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            try:
                self._piece = memoryview(next(self._pieces))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count
