"""A bench with a few wheels."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments_world import Bench, make_bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(tmp_path, monkeypatch)
