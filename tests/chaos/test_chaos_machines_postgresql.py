"""Real runs on two machines, everything of which dies: none is lost, no write is made twice (PostgreSQL)."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_machines import Bank, Site, weather


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(4, marks=[pytest.mark.chaos, pytest.mark.timeout(300)]),
        pytest.param(200, marks=[pytest.mark.scale, pytest.mark.timeout(3_000)]),
    ],
)
def test_a_storm_over_two_machines(
    folder: Path, bank: Bank, postgres: dict[str, str], tell, runs: int
) -> None:
    """Both work, and the database dies too."""
    site = Site(folder, bank, **postgres)
    weather(site, bank, tell, runs)
