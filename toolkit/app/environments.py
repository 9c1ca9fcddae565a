"""Which Python a version runs with: its locked environment, or the workspace's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit.app.workbench import Workbench
from toolkit.environments import Lock, WorkspaceEnvironment
from toolkit.errors import NotFound
from toolkit.registry import Manifest
from toolkit.values import iso_utc

__all__ = ["environment_rows", "environment_tags", "interpreter", "verify_environments"]

LOCK_FILE = "requirements.lock"
_log = logging.getLogger("toolkit.environments")


def interpreter(bench: Workbench, files: Mapping[str, bytes]) -> Callable[[], Path] | None:
    """Return what finds or builds the Python of a version; ``None``: the runner's own.

    Nothing is built until it is called, so that planning and queueing stay quick.

    Raises:
        InvalidFile: The version's lock is not one.
    """
    if LOCK_FILE not in files:
        return None
    lock = Lock.parse(files[LOCK_FILE])

    def find() -> Path:
        built = bench.environments.ensure(lock)
        for note in built.notes:
            _log.warning("%s", note)
        return built.python

    return find


def environment_tags(
    bench: Workbench, manifest: Manifest, files: Mapping[str, bytes]
) -> dict[str, str]:
    """Return what a run records about its environment.

    A version without a lock runs in the workspace's own environment, whatever that has become:
    ``environment_changed`` says that it is not the one of the promotion.
    """
    if LOCK_FILE in files:
        return {"environment_digest": bench.environments.digest_of(Lock.parse(files[LOCK_FILE]))}
    own = WorkspaceEnvironment.current()
    tags = {"environment_digest": str(own.digest)}
    told = manifest.environment
    if isinstance(told, dict) and told.get("digest") not in (None, own.digest):
        tags["environment_changed"] = "since the promotion"
    return tags


def environment_rows(bench: Workbench) -> list[dict[str, Any]]:
    """Return what `toolkit environments list` shows."""
    return [
        {
            "digest": one.digest,
            "python": one.facts.python if one.facts else None,
            "packages": one.facts.packages if one.facts else None,
            "size_bytes": one.facts.size_bytes if one.facts else None,
            "built": iso_utc(one.facts.built_us) if one.facts else None,
            "build_seconds": one.facts.seconds if one.facts else None,
            "used": iso_utc(int(one.used_s * 1e6)),
            "in_use": one.in_use,
        }
        for one in bench.environments.all()
    ]


def verify_environments(bench: Workbench, prefix: str | None = None) -> list[dict[str, Any]]:
    """Check environments in full; return digest and faults of each.

    Args:
        bench: The workspace.
        prefix: First digits of the digests to check; ``None``: all.

    Raises:
        NotFound: No environment begins so.
    """
    wanted = (prefix or "").removeprefix("sha256:")
    digests = [one.digest for one in bench.environments.all()]
    chosen = [each for each in digests if each.removeprefix("sha256:").startswith(wanted)]
    if wanted and not chosen:
        raise NotFound(
            "no environment has such a digest", next_step="see `toolkit environments list`"
        )
    return [
        {
            "digest": each,
            "faults": [
                {"where": fault.where, "message": fault.message}
                for fault in bench.environments.verify(each)
            ],
        }
        for each in chosen
    ]
