"""Where a registry is: its folder, and the locks that its writers hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from toolkit.errors import InfrastructureError
from toolkit.registry.folder import Folder

__all__ = ["Place"]

_LOCKS = ".locks"
_LOCK_TIMEOUT_S = 60.0


class Place:
    """A registry's folder.

    Args:
        path: The folder; made by the first writer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Folder:
        """Open the folder to read.

        Raises:
            FileNotFoundError: Nothing was ever written.
        """
        return Folder.open(self.path)

    def make(self) -> Folder:
        """Open the folder to write, and make it if need be."""
        self.path.mkdir(parents=True, exist_ok=True)
        return Folder.open(self.path)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Exclude every other process and thread that takes the lock of this name.

        Raises:
            InfrastructureError: Somebody held it for a minute.
        """
        folder = self.path / _LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", "ascii")
        path = folder / f"{name}.lock"
        try:
            with FileLock(path, timeout=_LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise InfrastructureError(
                f"another process has held {path.name} for {_LOCK_TIMEOUT_S:.0f} s",
                where=str(path),
                next_step=f"find the process with `fuser {path}`, then try again",
            ) from error
