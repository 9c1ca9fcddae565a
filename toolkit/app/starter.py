"""A new workspace, copied from the files in ``starter_files``."""

from __future__ import annotations

import shutil
from pathlib import Path

from toolkit.errors import UsageError

__all__ = ["STARTER", "make_workspace"]

STARTER = Path(__file__).with_name("starter_files")
_EMPTY = ("notebooks", "registry/evaluations")
_IGNORED = ".toolkit/\n.ipynb_checkpoints/\n*.pem\n"


def make_workspace(folder: Path) -> list[Path]:
    """Write a workspace into a new or empty folder and return its files, relative to it.

    Raises:
        UsageError: The folder holds something already; nothing was written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is not an empty folder", where=str(folder), next_step="name a new folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(STARTER, folder, dirs_exist_ok=True)
    for name in _EMPTY:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text(_IGNORED, "utf-8")
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
