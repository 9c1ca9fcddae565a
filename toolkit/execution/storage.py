"""Writes the executed notebook: whole or not at all, and without the run's token."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from toolkit.execution.vendors import nbformat

__all__ = ["NotebookFile"]

_HIDDEN = "[run token]"


class NotebookFile:
    """The file that holds an executed notebook.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, *, token: str) -> None:
        self.path = path
        self._token = json.dumps(token)[1:-1]
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def write(self, node: Any, *, durable: bool = False) -> None:
        """Replace the file by this notebook in one step.

        Args:
            node: The nbformat node.
            durable: Whether the bytes must survive a power cut (fsync of file and folder).

        Raises:
            OSError: The disk is full or gone; the file is as it was before.
        """
        # The version's own writer: nbformat.writes() validates each time, which costs more
        # than the writing, and this runs after every cell.
        text = nbformat.v4.writes(node)
        if self._token:
            text = text.replace(self._token, _HIDDEN)
        try:
            with self._draft.open("wb") as file:
                file.write(text.encode("utf-8", "replace"))
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            self._draft.replace(self.path)
        except OSError:
            self._draft.unlink(missing_ok=True)
            raise
        if durable:
            _sync_folder(self.path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
