"""Benchmarks are run by few: what they import of the toolkit must still be there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_benchmark_can_be_imported() -> None:
    """All modules, in one interpreter: nothing runs, and every name is found."""
    files = sorted((ROOT / "benchmarks").glob("*.py"))
    names = [f"benchmarks.{file.stem}" for file in files if file.stem != "__init__"]
    assert len(names) > 15
    program = f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
