"""Time as a parameter: the real clock, and one that tests move by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "iso_utc", "sleepless_s"]


def sleepless_s() -> float:
    """Return seconds of a clock that never jumps and goes on while the machine is suspended.

    ``time.monotonic`` stops then on Linux: see CLOCK_BOOTTIME in clock_gettime(2).
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock(Protocol):
    """Where every room gets its time from."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never jumps; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()


@dataclass
class ManualClock:
    """A clock that stands still until a test moves it.

    Attributes:
        us: Microseconds since the Unix epoch.
    """

    us: int = 1_790_000_000_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1e6

    def advance(self, *, seconds: float) -> None:
        """Move forward (or, with a negative number, make the clock jump back)."""
        self.us += round(seconds * 1_000_000)


def iso_utc(at_us: int) -> str:
    """Return ``2026-11-21T05:16:01.000000Z`` for microseconds since the epoch."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
