"""Which version a run gets: the stable one or a canary; whether it may run; what runs beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.registry import Version
from toolkit.values import JobRef, RunRecord

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench

__all__ = ["ROLLOUT_TAG", "SHADOW_TAG", "choose_version", "shadow_request"]

ROLLOUT_TAG = "rollout"
"""Of a run whose alias has a canary or a shadow beside it: ``stable``, ``canary`` or ``shadow``."""
SHADOW_TAG = "shadow_of"
"""Of a shadow run: the run that it stands beside.  The gateway does nothing that such a run writes."""


def choose_version(
    bench: Workbench, asked: JobRef, run_id: str, known: RunRecord | None
) -> tuple[Version, dict[str, str]]:
    """Return the version that a run gets, and tags that say why.

    An alias with a canary gives it a share of the runs, by the run's id: the same id always gets
    the same version.  A run that began before keeps its version.

    Args:
        bench: The workspace.
        asked: What a person or a schedule asked for; of a run that began before its own version.
        run_id: The run's id.
        known: The run, if it began before.

    Raises:
        ConfigurationError: The version is revoked, or the job retired.
        ApprovalPending: It was asked for by number, and nobody let it in.
        NotFound, IntegrityError: See :meth:`toolkit.registry.Registry.resolve`.
    """
    releases = bench.registry.releases
    if asked.version is not None:
        version = bench.registry.resolve(asked)
        releases.check_runs(version.name, version.number)
        if known is None:
            bench.promotions.check_number(version)
        return version, {}
    releases.check_runs(asked.name)
    version = bench.registry.resolve(asked)
    alias = asked.selector or "production"
    rollout = releases.rollout(asked.name, alias)
    number, kind = rollout.choose(run_id)
    if kind == "canary":
        version = bench.registry.resolve(JobRef(asked.name, f"{alias}.canary-{rollout.share}"))
    elif number is not None and number != version.number:  # it moved between two looks
        version = bench.registry.resolve(JobRef(asked.name, str(number)))
        bench.promotions.check_number(version)
    releases.check_runs(version.name, version.number)
    return version, {} if rollout.candidate is None else {ROLLOUT_TAG: kind}


def shadow_request(
    bench: Workbench, run: RunRecord, alias: str
) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Return parameters and tags of the shadow of a run that has ended; ``None``: it has none.

    Only runs of the stable version have one.  It gets those of the run's parameters that its own
    version knows.
    """
    rollout = bench.registry.releases.rollout(str(run.job), alias)
    if rollout.shadow is None or run.version != rollout.stable:
        return None
    version = bench.registry.resolve(JobRef(str(run.job), str(rollout.shadow)))
    known = version.manifest.parameters.get("properties", {})
    values = {name: value for name, value in run.parameters.items() if name in known}
    return values, {ROLLOUT_TAG: "shadow", SHADOW_TAG: run.run_id}
