"""Links to MLflow's pages, from what the UI server and the shipper left in ``.toolkit/``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["RecordedLinks"]


@dataclass
class RecordedLinks:
    """Where people look; everything is ``None`` while no UI runs.

    Attributes:
        state: The workspace's ``.toolkit`` folder.
    """

    state: Path
    _cache: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def ui(self) -> str | None:
        """Return the base address of MLflow's UI."""
        url = self._read("mlflow.json").get("url")
        return str(url) if url else None

    def trace(self, run_id: str, trace_key: str) -> str | None:
        """Return the address of one trace (it appears when the shipper has sent it)."""
        from toolkit.tracing import trace_id

        base = self.ui()
        if base is None:
            return None
        experiment = self._read("experiments.json").get(run_id.partition("-")[0])
        if experiment is None:
            return None
        return f"{base}/#/experiments/{experiment}/traces/{trace_id(run_id, trace_key)}"

    def _read(self, name: str) -> dict[str, Any]:
        path = self.state / name
        try:
            stamp = path.stat().st_mtime_ns
            known = self._cache.get(name)
            if known is None or known[0] != stamp:
                known = self._cache[name] = (stamp, json.loads(path.read_text("utf-8")))
        except (OSError, ValueError):
            return {}
        return known[1]
