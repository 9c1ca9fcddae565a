"""What a source promises about its rows, checked while they pass.

A failure says which promise and how often it was broken; never which value, so that an error
can be recorded whatever the column holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from toolkit.errors import InvalidAnswer
from toolkit.sources.columnar import Table
from toolkit.sources.promises import ColumnPromise, Expect, Freshness

__all__ = ["check_promises"]

_KINDS: Mapping[str, Callable[[pa.DataType], bool]] = {
    "integer": pa.types.is_integer,
    "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t),
    "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
    "boolean": pa.types.is_boolean,
    "date": lambda t: pa.types.is_date(t) or pa.types.is_timestamp(t),
    "timestamp": pa.types.is_timestamp,
}


def check_promises(
    source: str,
    expect: Expect | None,
    table: Table,
    origins: Sequence[str | None],
    *,
    now_s: Callable[[], float] = time.time,
) -> tuple[str, ...]:
    """Check every promise and return warnings.

    Args:
        source: Its name, for messages.
        expect: The promises.
        table: The rows.
        origins: For each column the ``table.column`` that it is unchanged, else ``None``.
        now_s: Seconds since the epoch.

    Raises:
        InvalidAnswer: A promise is broken and ``on_failure`` is ``refuse``; all are named.
    """
    if expect is None:
        return ()
    failed = _failures(expect, table, origins, now_s)
    if not failed:
        return ()
    if expect.on_failure == "warn":
        return tuple(f"{source}: {text}" for text in failed)
    count = "1 expectation" if len(failed) == 1 else f"{len(failed)} expectations"
    raise InvalidAnswer(
        f"the data of {source!r} breaks {count}: {'; '.join(failed)}",
        where=f"registry/data.yaml: sources.{source}.expect",
        next_step="mend the source, or its expectations; on_failure: warn lets the rows pass",
        details={"failed": failed, "rows": table.rows},
    )


def _failures(
    expect: Expect, table: Table, origins: Sequence[str | None], now_s: Callable[[], float]
) -> list[str]:
    failed = []
    if table.rows < expect.min_rows:
        failed.append(f"{table.rows} rows, fewer than {expect.min_rows}")
    for name, promise in expect.columns.items():
        places = _places(name, table, origins)
        if not places and promise.required:
            failed.append(f"the column {name} is missing")
        for place in places:
            failed.extend(_column_failures(name, promise, table, place))
    if expect.freshness is not None:
        for place in _places(expect.freshness.column, table, origins):
            failed.extend(_staleness(expect.freshness, table, place, now_s()))
    return failed


def _places(name: str, table: Table, origins: Sequence[str | None]) -> list[int]:
    names = table.schema.names
    return [n for n, origin in enumerate(origins) if name in (origin, names[n])]


def _column_failures(name: str, promise: ColumnPromise, table: Table, place: int) -> list[str]:
    kind = table.schema.field(place).type
    if promise.type and not pa.types.is_null(kind) and not _KINDS[promise.type](kind):
        return [f"{name} is {kind}, not {promise.type}"]
    parts = [batch.column(place) for batch in table.batches]
    failed = []
    if not promise.nullable and (nulls := sum(part.null_count for part in parts)):
        failed.append(f"{name} is missing in {nulls} of {table.rows} rows")
    if _KINDS["number"](kind):
        failed.extend(_out_of_bounds(name, promise, parts, table.rows))
    elif (promise.min, promise.max) != (None, None) and not pa.types.is_null(kind):
        failed.append(f"{name} is {kind}, which has no bounds")
    if promise.one_of is not None and not pa.types.is_null(kind):
        known = pa.array(promise.one_of)
        # A missing value is the business of `nullable`.
        wrong = sum(_true(pc.invert(_known(part, known))) for part in parts)
        if wrong:
            failed.append(f"{name} has another value than one_of in {wrong} of {table.rows} rows")
    return failed


def _out_of_bounds(
    name: str, promise: ColumnPromise, parts: Sequence[pa.Array], rows: int
) -> list[str]:
    failed = []
    for bound, compare, word in (
        (promise.min, pc.less, "below"),
        (promise.max, pc.greater, "above"),
    ):
        if bound is None:
            continue
        wrong = sum(_true(compare(part.cast(pa.float64(), safe=False), bound)) for part in parts)
        if wrong:
            failed.append(f"{name} is {word} {bound:g} in {wrong} of {rows} rows")
    return failed


def _known(part: pa.Array, known: pa.Array) -> Any:
    return pc.is_in(part.cast(pa.string()).drop_null(), value_set=known)


def _true(flags: Any) -> int:
    """Return how many of some booleans are true; nulls are not."""
    return int(pc.sum(flags).as_py() or 0)


def _staleness(fresh: Freshness, table: Table, place: int, now_s: float) -> list[str]:
    newest: float | None = None
    for batch in table.batches:
        value = pc.max(_times(batch.column(place))).as_py()
        if value is not None:
            stamp = _stamp_s(value)
            newest = stamp if newest is None else max(newest, stamp)
    if newest is None:
        return [f"{fresh.column} has no value, so nothing shows that the rows are fresh"]
    if now_s - newest > fresh.max_age_s:
        hours = (now_s - newest) / 3600
        return [f"the newest {fresh.column} is {hours:,.1f} hours old, more than {fresh.max_age}"]
    return []


def _times(column: pa.Array) -> pa.Array:
    """Return a column as timestamps; text is read as ISO 8601 where it is that."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            return column.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            return pa.nulls(len(column), pa.timestamp("us"))
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return column
    return pa.nulls(len(column), pa.timestamp("us"))


def _stamp_s(value: Any) -> float:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return 0.0
