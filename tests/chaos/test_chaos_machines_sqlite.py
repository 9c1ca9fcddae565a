"""Real runs on two machines, everything of which dies: none is lost, no write is made twice (SQLite)."""

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
def test_a_storm_over_one_machine_and_its_reserve(
    folder: Path, bank: Bank, tell, runs: int
) -> None:
    """One machine works, the other one stands by and takes over."""
    ledger, engine = (f"sqlite:///{folder / name}.db" for name in ("ledger", "engine"))
    site = Site(folder, bank, ledger, engine)
    weather(site, bank, tell, runs)
