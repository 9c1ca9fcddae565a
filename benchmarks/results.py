"""What every benchmark ends with: a table for people and ``results/NAME.json`` for machines.

One figure is ``{metric: {ours, peer, ratio, unit, conditions}}``; ``ratio`` above 1 means that ours
is better, whichever way the unit counts, and ``None`` stands for a side that does not apply.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["figure", "machine", "publish", "quiet"]

_MOMENT_S = 0.4
_FOLDER = Path(__file__).parent / "results"


def machine() -> str:
    """Where it was measured; the load says how far wall times can be believed."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores at load {load:.1f}, Python {platform.python_version()}"


def quiet(*, busy: float = 0.1, most_s: float = 30.0) -> None:
    """Wait until the machine has had little to do for a moment: what one side left over is not the next one's.

    Args:
        busy: The share of all processors' time that still counts as little (proc_stat(5)).
        most_s: Seconds after which it is as it is.
    """
    deadline = time.monotonic() + most_s
    total, idle = _processors()
    while time.monotonic() < deadline:
        time.sleep(_MOMENT_S)
        now, idle_now = _processors()
        if now - total and 1 - (idle_now - idle) / (now - total) < busy:
            return
        total, idle = now, idle_now


def _processors() -> tuple[int, int]:
    """Return the ticks of all processors so far, and those in which they were idle."""
    fields = Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]
    ticks = [int(field) for field in fields]
    return sum(ticks), ticks[3] + ticks[4]


def figure(
    ours: float,
    peer: float | None,
    unit: str,
    conditions: str,
    *,
    lower_is_better: bool = False,
    digits: int = 3,
) -> dict[str, Any]:
    """Return one figure; without a peer there is no ratio."""
    ratio = None
    if peer and ours:
        ratio = round(peer / ours if lower_is_better else ours / peer, 2)
    return {
        "ours": _rounded(ours, digits),
        "peer": None if peer is None else _rounded(peer, digits),
        "ratio": ratio,
        "unit": unit,
        "conditions": conditions,
    }


def _rounded(value: float, digits: int) -> float | int:
    return round(value, digits) if digits else round(value)


def publish(name: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures as a table with their conditions, and write ``results/NAME.json``."""
    width = max(len(metric) for metric in figures) + 2
    print(f"{name:<{width}}{'ours':>12}{'peer':>12}{'better by':>11}  unit")
    for metric, row in figures.items():
        peer = "" if row["peer"] is None else row["peer"]
        ratio = "" if row["ratio"] is None else f"{row['ratio']}x"
        print(f"{metric:<{width}}{row['ours']:>12}{peer:>12}{ratio:>11}  {row['unit']}")
    for conditions in dict.fromkeys(row["conditions"] for row in figures.values()):
        print(f"  {conditions}")
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
