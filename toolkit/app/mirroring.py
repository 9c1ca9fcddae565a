"""Shows in MLflow what the registry says about a job: aliases, revocations, the log's checkpoint."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from toolkit.errors import NotFound, TrackingError

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench

__all__ = ["mirror_job"]

_log = logging.getLogger(__name__)


def mirror_job(bench: Workbench, job: str) -> None:
    """Make MLflow's aliases and tags of a job the registry's; MLflow being down is a warning.

    ``production.canary-10`` is MLflow's alias ``production-canary-10``; a revoked version has the
    tag ``toolkit.revoked``.  In a signed registry the version that an alias points at has the tag
    ``toolkit.checkpoint``: the audit log's length and head, kept where the registry's disk is not.
    """
    known = bench.registry.aliases(job)
    aliases, tags = {}, dict[int, dict[str, str]]()
    for alias, number in known.items():
        if alias.startswith("revoked."):
            tags.setdefault(number, {})["toolkit.revoked"] = "yes"
        else:
            aliases[alias.replace(".", "-")] = number
    marks = bench.registry.checkpoints()
    for number in set(aliases.values()) if marks else ():
        mark = marks[-1].log
        tags.setdefault(number, {})["toolkit.checkpoint"] = f"{mark.records} {mark.head}"
    try:
        bench.tracking.sync_aliases(job, aliases, tags)
    except (TrackingError, NotFound) as error:
        _log.warning("MLflow still shows the old aliases of %s: %s", job, error)
