"""Both stores, one behaviour: a fresh SQLite file and an empty PostgreSQL database per test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest
from postgres_world import postgres_server

from toolkit.ledger import Ledger
from toolkit.ledger.schema import metadata
from toolkit.values import ManualClock

_names = (f"ledger_{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server with one migrated database."""
    with postgres_server() as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # No test here cuts the power, and flushing is most of the time that they take.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE ledger")
        Ledger.open(server.get_uri("ledger")).close()
        yield server


@pytest.fixture
def postgres_url(postgres):
    """The migrated database, emptied: a fifth of a second less than a new one."""
    with psycopg.connect(postgres.get_uri("ledger"), autocommit=True) as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")
    return postgres.get_uri("ledger")


@pytest.fixture
def empty_postgres_url(postgres):
    """A database that no ledger has ever been opened in."""
    name = next(_names)
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.get_uri(name)


@pytest.fixture
def empty_sqlite_url(tmp_path):
    """A file that is not there yet; in memory where possible, to spare the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with tempfile.TemporaryDirectory(prefix="ledger-", dir=memory) as folder:
        yield f"sqlite:///{folder}/ledger.db"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    path = tmp_path_factory.mktemp("migrated") / "ledger.db"
    Ledger.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(migrated, empty_sqlite_url):
    """A migrated file without a run: migrating takes longer than most tests."""
    shutil.copy(migrated, empty_sqlite_url.removeprefix("sqlite:///"))
    return empty_sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request):
    name = "empty_sqlite_url" if request.param == "sqlite" else "empty_postgres_url"
    return request.getfixturevalue(name)


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
