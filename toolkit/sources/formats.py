"""Bytes of a file or an HTTP answer to rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import IO, Any, Literal

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from toolkit.errors import InvalidAnswer, UsageError
from toolkit.sources.caps import Gauge
from toolkit.sources.columnar import Table, table_of

__all__ = ["Limited", "checked_path", "decode", "format_of"]

_SUFFIXES = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".txt": "text",
    ".md": "text",
    ".log": "text",
}
_BATCH_ROWS = 8192


class Limited(io.RawIOBase):
    """A file of which no more than the cap's bytes are read."""

    def __init__(self, inner: IO[bytes], gauge: Gauge) -> None:
        self._inner = inner
        self._gauge = gauge
        self._given = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._inner.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: Any) -> int:
        self._gauge.tick()
        caps = self._gauge.caps
        data = self._inner.read(len(buffer))
        self._given += len(data)
        # A parquet file is read in parts and its footer twice; the answer itself is counted too.
        if self._given > caps.max_bytes + (1 << 20):
            raise caps.too_many(f"it has more than {caps.max_bytes:,} bytes", "max_bytes")
        buffer[: len(data)] = data
        return len(data)


def checked_path(path: str) -> str:
    """Return a path that lies below its source.

    Raises:
        UsageError: It is absolute, goes up, or is no plain path.
    """
    parts = PurePosixPath(path).parts
    plain = path and len(path) <= 1000 and path.isprintable()
    odd = not plain or any(mark in path for mark in ("\\", "://", "::", "*", "?", "#", "%"))
    if odd or PurePosixPath(path).is_absolute() or ".." in parts or not parts:
        raise UsageError(
            f"{path[:200]!a} is not a path below the source",
            next_step="name a file relative to the source, such as 2026/10.csv",
        )
    return "/".join(parts)


def format_of(path: str, wanted: str | None, allowed: Sequence[str], *, default: str = "") -> str:
    """Return the format to read.

    Raises:
        UsageError: It is not known, or the source does not allow it.
    """
    found = wanted or _SUFFIXES.get(PurePosixPath(path).suffix.lower()) or default
    if not found:
        raise UsageError(
            f"the format of {path!a} is not plain from its name",
            next_step=f"give format= one of {', '.join(allowed)}",
        )
    if found not in allowed:
        raise UsageError(f"the source gives {', '.join(allowed)}, not {found[:40]!a}")
    return found


def decode(
    file: IO[bytes], format_: str, columns: Sequence[str], gauge: Gauge, name: str
) -> tuple[Table, Literal["table", "text", "bytes"]]:
    """Read a file in one of the formats.

    Args:
        file: Where to read.
        format_: From :func:`format_of`.
        columns: Only these, all if empty.
        gauge: Counts what is read.
        name: Of the file, for messages.

    Raises:
        InvalidAnswer: The bytes are not of the format.
        UsageError: A column is not there.
        CallDenied: It is over a cap.
    """
    limited = Limited(file, gauge)
    try:
        if format_ == "parquet":
            return _parquet(limited, columns, gauge, name), "table"
        if format_ == "csv":
            return _csv(limited, columns, gauge, name), "table"
        data = io.BufferedReader(limited).read()
        if format_ == "json":
            return _json(data, columns, gauge, name), "table"
        if format_ == "text":
            return _whole(data.decode("utf-8"), gauge), "text"
        return _whole(data, gauge), "bytes"
    except (pa.ArrowException, UnicodeDecodeError, orjson.JSONDecodeError, OSError) as error:
        # The vendor's message may quote what the file holds.
        raise InvalidAnswer(
            f"{name!a} does not read as {format_} ({type(error).__name__})",
            next_step="give its format, or mend the file",
        ) from None


def _parquet(file: Limited, columns: Sequence[str], gauge: Gauge, name: str) -> Table:
    reader = pyarrow.parquet.ParquetFile(pa.PythonFile(file, mode="r"))
    schema = reader.schema_arrow.remove_metadata()
    wanted = _wanted(schema.names, columns, name)
    batches = []
    if reader.metadata.num_rows > gauge.caps.max_rows:
        gauge.add(reader.metadata.num_rows, 0)
    for batch in reader.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
        gauge.add(batch.num_rows, batch.nbytes)
        batches.append(batch.replace_schema_metadata(None))
    fields = [schema.field(column) for column in wanted]
    return Table(batches[0].schema if batches else pa.schema(fields), batches)


def _csv(file: Limited, columns: Sequence[str], gauge: Gauge, name: str) -> Table:
    # A whole file at once: the types are those of all its rows, not of its beginning.
    table = pyarrow.csv.read_csv(
        pa.PythonFile(file, mode="r"),
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
    )
    wanted = _wanted(table.column_names, columns, name)
    table = table.select(wanted)
    gauge.add(table.num_rows, table.nbytes)
    return Table(table.schema, table.to_batches(max_chunksize=_BATCH_ROWS))


def _json(data: bytes, columns: Sequence[str], gauge: Gauge, name: str) -> Table:
    records = _records(data, name)
    names = list(dict.fromkeys(key for record in records for key in record))
    wanted = _wanted(names, columns, name)
    rows = [[record.get(column) for column in wanted] for record in records]
    gauge.add(len(rows), 0)
    cut = (rows[at : at + _BATCH_ROWS] for at in range(0, len(rows), _BATCH_ROWS))
    table = table_of(wanted, cut, [None] * len(wanted))
    gauge.add(0, table.size_bytes)
    return table


def _records(data: bytes, name: str) -> list[dict[str, Any]]:
    """Return a list of objects: one JSON array, or one object a line."""
    text = data.strip()
    if text.startswith(b"["):
        found = orjson.loads(text)
    else:
        try:
            found = [orjson.loads(text)] if text else []
        except orjson.JSONDecodeError:
            found = [orjson.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(record, dict) for record in found):
        raise InvalidAnswer(f"{name!a} is JSON, but not a list of objects")
    return list(found)


def _whole(value: str | bytes, gauge: Gauge) -> Table:
    gauge.add(1, len(value))
    kind = pa.large_string() if isinstance(value, str) else pa.large_binary()
    array = pa.array([value], kind)
    schema = pa.schema([pa.field("content", kind)])
    return Table(schema, [pa.RecordBatch.from_arrays([array], schema=schema)])


def _wanted(names: Sequence[str], columns: Sequence[str], name: str) -> list[str]:
    twice = sorted({column for column in names if list(names).count(column) > 1})
    if twice:
        raise InvalidAnswer(f"{name!a} has the column {twice[0]!a} more than once")
    missing = [column for column in columns if column not in names]
    if missing:
        raise UsageError(f"{name!a} has no column {', '.join(missing)}")
    return [column for column in names if column in columns] if columns else list(names)
