"""The most that one read may give, and how far it has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from toolkit.errors import CallDenied

__all__ = ["Caps", "Gauge"]

_SMALL_BATCH = 64
_BATCH_BYTES = 1 << 20
_MOST_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that one read may give.

    Attributes:
        source: Name of the source, for messages.
        max_rows, max_bytes: Rows, and bytes as Arrow holds them.
        timeout_s: Seconds from start to last row.
    """

    source: str
    max_rows: int
    max_bytes: int
    timeout_s: float

    def too_many(self, what: str, limit: str) -> CallDenied:
        """Return the refusal of a read that is over ``limit`` (a key of ``data.yaml``)."""
        return CallDenied(
            f"the read was stopped: {what}, the most that {self.source!r} gives at a time "
            f"({limit} in registry/data.yaml); nothing was given",
            next_step="ask for fewer rows or columns, or aggregate in the query",
            details={"policies": [f"data.{limit}"], "source": self.source},
        )


@dataclass
class Gauge:
    """Counts one read against its caps while it goes on.

    Raises:
        CallDenied: From every method, once a cap is passed.
    """

    caps: Caps
    rows: int = 0
    size_bytes: int = 0
    _until_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._until_s = time.monotonic() + self.caps.timeout_s

    @property
    def left_s(self) -> float:
        """Seconds until the time cap."""
        return self._until_s - time.monotonic()

    def late(self) -> CallDenied:
        """Return the refusal of a read that took too long."""
        return self.caps.too_many(f"it took longer than {self.caps.timeout_s:g} s", "timeout_s")

    def tick(self) -> None:
        """Look at the clock."""
        if self.left_s <= 0:
            raise self.late()

    def add(self, rows: int, size_bytes: int) -> None:
        """Count what was read."""
        self.rows += rows
        self.size_bytes += size_bytes
        if self.rows > self.caps.max_rows:
            raise self.caps.too_many(f"it has more than {self.caps.max_rows:,} rows", "max_rows")
        if self.size_bytes > self.caps.max_bytes:
            raise self.caps.too_many(f"it has more than {self.caps.max_bytes:,} bytes", "max_bytes")
        self.tick()

    def next_batch(self) -> int:
        """Return how many rows to fetch next: about a mebibyte, and one more than is allowed."""
        left = self.caps.max_rows - self.rows + 1
        if not self.rows:
            return min(_SMALL_BATCH, left)
        per_row = max(1, self.size_bytes // self.rows)
        return max(1, min(_BATCH_BYTES // per_row, _MOST_ROWS, left))
