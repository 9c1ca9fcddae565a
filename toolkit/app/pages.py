"""Links to MLflow's pages, from what the UI server and the shipper left in ``.toolkit/``.

Nothing here talks to MLflow or imports it, so the gateway can make links too.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import tracing
from toolkit.settings import Workspace
from toolkit.tracing import MlflowServer, experiment_of, mlflow_trace_id
from toolkit.values import RunRecord

__all__ = ["Pages"]

# Every reply of the gateway holds a link; the files behind it change a few times a day.
_LOOK_AGAIN_S = 1.0


@dataclass
class Pages:
    """Addresses of pages; ``None`` while no UI runs or MLflow has not seen the thing yet.

    Attributes:
        workspace: Whose pages.
    """

    workspace: Workspace
    _cache: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    _seen: tuple[float, str | None] = (-1.0, None)
    _looked: dict[str, float] = field(default_factory=dict)

    def ui(self) -> str | None:
        """Return the base address of MLflow's UI, as of the last second."""
        now = time.monotonic()
        if not 0 <= now - self._seen[0] < _LOOK_AGAIN_S:
            self._seen = (now, MlflowServer(self.workspace).url())
        return self._seen[1]

    def trace(self, run: RunRecord, run_id: str, trace_key: str) -> str | None:
        """Return the address of one trace (it appears when the shipper has sent it)."""
        base, experiment = self.ui(), self._experiment(run)
        if base is None or experiment is None:
            return None
        return tracing.trace_url(base, experiment, mlflow_trace_id(run_id, trace_key))

    def run(self, run: RunRecord) -> str | None:
        """Return the address of a run."""
        base = self.ui()
        if base is None or run.mlflow_run_id is None:
            return None
        return tracing.run_url(base, run.mlflow_run_id, self._experiment(run))

    def compare(self, runs: list[RunRecord]) -> str | None:
        """Return the address of the page that compares runs side by side."""
        base = self.ui()
        known = [run for run in runs if run.mlflow_run_id]
        experiments = sorted({e for run in known if (e := self._experiment(run))})
        if base is None or len(known) < 2 or not experiments:
            return None
        return tracing.compare_runs_url(
            base, experiments, [run.mlflow_run_id for run in known if run.mlflow_run_id]
        )

    def evaluation(self, run: RunRecord, other_mlflow_run_id: str | None = None) -> str | None:
        """Return the address of an evaluation, beside another one where given."""
        base, experiment = self.ui(), self._experiment(run)
        if base is None or experiment is None or run.mlflow_run_id is None:
            return None
        if other_mlflow_run_id is None:
            return tracing.run_url(base, run.mlflow_run_id, experiment)
        return tracing.compare_evaluations_url(
            base, experiment, run.mlflow_run_id, other_mlflow_run_id
        )

    def model_version(self, job: str, number: int) -> str | None:
        """Return the address of a mirrored version; the number is MLflow's."""
        base = self.ui()
        return None if base is None else tracing.model_version_url(base, job, number)

    def artifact(self, experiment_id: str, mlflow_run_id: str, path: str) -> str | None:
        """Return the address of a file of a run; all by MLflow's ids."""
        base = self.ui()
        return (
            None if base is None else tracing.artifact_url(base, experiment_id, mlflow_run_id, path)
        )

    def _experiment(self, run: RunRecord) -> str | None:
        name = experiment_of(run, self.workspace.settings.experiment)
        found = self._read("experiments.json").get(name)
        return str(found) if found else None

    def _read(self, name: str) -> dict[str, Any]:
        known, now = self._cache.get(name), time.monotonic()
        if known is not None and 0 <= now - self._looked.get(name, -1.0) < _LOOK_AGAIN_S:
            return known[1]
        self._looked[name] = now
        path: Path = self.workspace.state / name
        try:
            stamp = path.stat().st_mtime_ns
            if known is None or known[0] != stamp:
                known = self._cache[name] = (stamp, json.loads(path.read_text("utf-8")))
        except (OSError, ValueError):
            known = self._cache[name] = (0, {})
        return known[1]
