"""What the registry tests seal, and how they tamper with it."""

from __future__ import annotations

import json
from pathlib import Path

FACTS = {
    "by": "ana",
    "parameters": {"type": "object", "properties": {"limit": {"type": "integer", "default": 3}}},
    "results": ["verdict"],
    "policy_digest": "sha256:" + "a" * 64,
    "git_commit": "0123abc",
    "timeouts": {"run_s": 600},
}


def notebook(**cells: str) -> bytes:
    """A notebook with one code cell per keyword, the keyword being the cell's id."""
    body = {
        "cells": [
            {"cell_type": "code", "id": name, "source": text} for name, text in cells.items()
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(body).encode()


FILES = {"notebook.ipynb": notebook(a="x = 1", b="y = 2"), "evidence.json": b'{"score": 0.9}\n'}


def overwrite(path: Path, data: bytes) -> None:
    """Change a file whatever its mode, as somebody with access to the storage can."""
    path.chmod(0o644)
    path.write_bytes(data)
