"""A thousand runs are queued at once on two cores: each of them runs, ends, and pays once."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_machines import Bank, Site, storm


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(12, marks=[pytest.mark.chaos, pytest.mark.timeout(300)]),
        pytest.param(1_000, marks=[pytest.mark.scale, pytest.mark.timeout(3_000)]),
    ],
)
def test_a_long_queue_loses_nobody(
    folder: Path, bank: Bank, postgres: dict[str, str], tell, runs: int
) -> None:
    """Real runs of two machines over PostgreSQL, and nothing that kills them."""
    site = Site(folder, bank, **postgres)
    try:
        storm(site, bank, runs, 0, tell)
    finally:
        site.close()
