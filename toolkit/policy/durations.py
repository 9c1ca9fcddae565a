"""Lengths of time as people write them in policies."""

from __future__ import annotations

import re

__all__ = ["parse_duration"]

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_MAX_DURATION_S = 365 * 86_400


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``30m``, ``24h`` or ``7d``.

    Raises:
        ValueError: The text is none of these, or longer than a year.
    """
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _MAX_DURATION_S:
        msg = f"{text[:40]!a} is not a time like 90s, 30m, 24h or 7d (at most a year)"
        raise ValueError(msg)
    return float(seconds)
