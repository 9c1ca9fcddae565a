"""One event loop per module: sessions and connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """Runs coroutines; everything started in one test may be used in the next."""
    with asyncio.Runner() as runner:
        yield runner
