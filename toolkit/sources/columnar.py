"""Rows as Arrow: digested canonically, held once and sent piece by piece."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from toolkit.errors import ConfigurationError
from toolkit.values import canonical_bytes, digest_json

__all__ = ["Table", "column_of", "table_of"]

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_DIGITS = 38


class Table:
    """An Arrow schema with its batches, each held until it was sent.

    Attributes:
        schema: Names and types.
        rows: How many there are.
        size_bytes: As Arrow holds them.
    """

    def __init__(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = deque(batch for batch in batches if batch.num_rows)
        self.rows = sum(batch.num_rows for batch in self._batches)
        self.size_bytes = sum(batch.nbytes for batch in self._batches)

    @property
    def batches(self) -> Sequence[pa.RecordBatch]:
        """The batches that are still held."""
        return tuple(self._batches)

    def select(self, names: Sequence[str]) -> Table:
        """Return the table with some columns only."""
        places = [self.schema.get_field_index(name) for name in names]
        schema = pa.schema([self.schema.field(place) for place in places])
        return Table(schema, [batch.select(places) for batch in self._batches])

    def only(self, rows: Sequence[int]) -> Table:
        """Return the table with some rows only, by their places in order."""
        wanted = frozenset(rows)
        kept, start = [], 0
        for batch in self._batches:
            places = range(start, start + batch.num_rows)
            kept.append(batch.filter(pa.array([place in wanted for place in places], pa.bool_())))
            start += batch.num_rows
        return Table(self.schema, kept)

    def digest(self) -> str:
        """Return the canonical digest of names, types and values, in their order.

        Formula: ``digest_json({"rows": n, "columns": [{"name", "type", "valid", "lengths",
        "values"}, …]})``.  For each column three SHA-256 are taken over all its rows: one byte per
        row (1 valid, 0 null); for text and bytes the little-endian 64-bit length of each valid
        value; the valid values themselves, little-endian and unpadded (booleans one byte each).
        So it does not depend on how rows were cut into batches.  Nested values are
        digested as their canonical JSON text.
        """
        hashes = [_ColumnDigest() for _ in self.schema]
        for batch in self._batches:
            for hashed, column in zip(hashes, batch.columns, strict=True):
                hashed.add(column)
        columns = [
            {"name": known.name, "type": str(known.type), **hashed.result()}
            for known, hashed in zip(self.schema, hashes, strict=True)
        ]
        return digest_json({"rows": self.rows, "columns": columns})

    def stream(self, facts: dict[str, Any]) -> Iterator[bytes]:
        """Yield an Arrow IPC stream, letting go of every batch once it is sent.

        Args:
            facts: Put into the schema's metadata as JSON, under ``toolkit``.

        Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
        """
        schema = self.schema.with_metadata({b"toolkit": canonical_bytes(facts)})
        yield schema.serialize().to_pybytes()
        while self._batches:
            yield self._batches.popleft().serialize().to_pybytes()
        yield _END_OF_STREAM


class _ColumnDigest:
    """The running hashes of one column."""

    def __init__(self) -> None:
        self._valid = hashlib.sha256()
        self._lengths = hashlib.sha256()
        self._values = hashlib.sha256()

    def add(self, column: pa.Array) -> None:
        self._valid.update(_fixed_bytes(column.is_valid()))
        plain = _plain(column).drop_null()
        kind = plain.type
        if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
            self._lengths.update(_fixed_bytes(pc.binary_length(plain)))
            self._values.update(_variable_bytes(plain))
        elif not pa.types.is_null(kind):
            self._values.update(_fixed_bytes(plain))

    def result(self) -> dict[str, str]:
        return {
            "valid": self._valid.hexdigest(),
            "lengths": self._lengths.hexdigest(),
            "values": self._values.hexdigest(),
        }


def _plain(column: pa.Array) -> pa.Array:
    """Return a column in one of the layouts that are digested."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    if pa.types.is_nested(kind):
        texts = [None if value is None else _json_text(value) for value in column.to_pylist()]
        return pa.array(texts, pa.large_string())
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    return column


def _fixed_bytes(column: pa.Array) -> bytes:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    data = column.buffers()[1]
    if data is None or not len(column):
        return b""
    width = column.type.bit_width // 8
    start = column.offset * width
    return bytes(data.slice(start, len(column) * width))


def _variable_bytes(column: pa.Array) -> bytes:
    if not len(column):
        return b""
    _, offsets, data = column.buffers()
    edges = memoryview(offsets).cast("q")
    start, end = edges[column.offset], edges[column.offset + len(column)]
    return b"" if data is None else bytes(data.slice(start, end - start))


# -- rows of Python values -------------------------------------------------------------------------


def table_of(
    names: Sequence[str],
    rows: Iterable[Sequence[Sequence[Any]]],
    hints: Sequence[pa.DataType | None],
) -> Table:
    """Build a table from batches of rows of Python values.

    Args:
        names: Of the columns.
        rows: Batches; a batch is counted by whoever makes it.
        hints: The type of each column where no value tells it.
    """
    columns: list[list[pa.Array]] = [[] for _ in names]
    for batch in rows:
        for place, column in enumerate(columns):
            column.append(column_of([row[place] for row in batch]))
    types = [_common(column, hint) for column, hint in zip(columns, hints, strict=True)]
    fields = [pa.field(name, kind) for name, kind in zip(names, types, strict=True)]
    schema = pa.schema(fields)
    batches = []
    while columns and columns[0]:
        parts = [_as_type(column.pop(0), kind) for column, kind in zip(columns, types, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(parts, schema=schema))
    return Table(schema, batches)


def column_of(values: list[Any]) -> pa.Array:
    """Return values of one column as Arrow; what fits no type of its own becomes text.

    Raises:
        ConfigurationError: The column mixes bytes with other values.
    """
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds <= {bool, int, float, str, bytes} or len(kinds) == 1:
        try:
            return _typed(values, kinds)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            pass
    if bytes in kinds or memoryview in kinds:
        raise ConfigurationError(
            "a column mixes bytes with other values",
            next_step="cast it in the query, for example to text",
        )
    return pa.array([None if v is None else _text(v) for v in values], pa.string())


def _typed(values: list[Any], kinds: set[type]) -> pa.Array:
    if kinds == {Decimal}:
        return _decimals(values)
    if kinds <= {int, float} and kinds != {int}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if kinds <= {dict, list}:
        return pa.array([None if v is None else _json_text(v) for v in values], pa.string())
    if len(kinds) > 1:
        raise pa.ArrowInvalid("mixed")
    made = pa.array(values)
    if isinstance(made.type, pa.BaseExtensionType):
        raise pa.ArrowInvalid("extension")
    if pa.types.is_timestamp(made.type) and made.type.tz is not None:
        return made.cast(pa.timestamp("us", "UTC"))
    if pa.types.is_duration(made.type) or not pa.types.is_nested(made.type):
        return made
    raise pa.ArrowInvalid("nested")


def _decimals(values: list[Any]) -> pa.Array:
    scale = 0
    for value in values:
        if value is not None and not value.is_finite():
            raise pa.ArrowInvalid("not finite")
        if value is not None:
            scale = max(scale, -int(value.as_tuple().exponent))
    return pa.array(values, pa.decimal128(_DIGITS, scale))


def _common(parts: list[pa.Array], hint: pa.DataType | None) -> pa.DataType:
    """Return one type for all parts of a column."""
    kinds = {part.type for part in parts} - {pa.null()}
    if not kinds:
        return hint or pa.null()
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds == {pa.int64(), pa.float64()}:
        return pa.float64()
    if all(pa.types.is_decimal(kind) for kind in kinds):
        return pa.decimal128(_DIGITS, max(kind.scale for kind in kinds))
    return pa.string()


def _as_type(part: pa.Array, kind: pa.DataType) -> pa.Array:
    if part.type == kind:
        return part
    if pa.types.is_string(kind):
        if pa.types.is_binary(part.type):
            raise ConfigurationError(
                "a column mixes bytes with other values",
                next_step="cast it in the query, for example to text",
            )
        return pa.array([None if v is None else _text(v) for v in part.to_pylist()], kind)
    return part.cast(kind)


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return _json_text(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    return str(value)


def _json_text(value: Any) -> str:
    try:
        return canonical_bytes(value).decode()
    except (ValueError, TypeError):
        return canonical_bytes(_jsonable(value)).decode()


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _jsonable(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(member) for member in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
