"""Removes what runs that ended long ago left in folders; the ledger is never touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.values import check_name

__all__ = ["prune_folders"]


def prune_folders(
    runs: Path,
    logs: Path,
    is_over: Callable[[str], bool | None],
    *,
    before_s: float,
    dry_run: bool = False,
) -> list[Path]:
    """Remove the folders and logs of runs that are over.

    Args:
        runs: Holds one folder per run, named after it.
        logs: Holds one ``RUN.log`` per run.
        is_over: Whether a run ended long enough ago, by the ledger; ``None``: it has no record.
        before_s: What has no record goes if it was last changed before this moment.
        dry_run: Only return what would go.

    Returns:
        What was removed.  A link or anything that is not named like a run is left alone.
    """
    found = []
    for path in sorted([*_entries(runs), *_entries(logs)]):
        folder = path.parent == runs
        name = path.name if folder else path.name.removesuffix(".log")
        fits = path.is_dir() if folder else path.is_file() and path.suffix == ".log"
        if path.is_symlink() or not fits or not _is_name(name):
            continue
        over = is_over(name)
        if over is None:
            over = path.stat().st_mtime < before_s
        if over:
            found.append(path)
    for path in [] if dry_run else found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except UsageError:
        return False
    return True
