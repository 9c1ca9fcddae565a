"""The same orders in SQLite and in PostgreSQL, with views, generated columns and partitions."""

from __future__ import annotations

import shutil
import sqlite3

import psycopg
import pytest
from postgres_world import postgres_server
from sources_world import FILL, POSTGRES_MORE, SQLITE_MORE, TABLES, write_catalog

from toolkit.sources import Sources


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server with the orders in it."""
    with postgres_server() as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE orders")
        with psycopg.connect(server.get_uri("orders"), autocommit=True) as connection:
            for statement in (*TABLES, *POSTGRES_MORE, *FILL, "REFRESH MATERIALIZED VIEW kept"):
                connection.execute(statement)
        yield server


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "orders.db"
    with sqlite3.connect(path) as connection:
        for statement in (*TABLES, *SQLITE_MORE, *FILL):
            connection.execute(statement)
    connection.close()
    return path


@pytest.fixture
def sqlite_sources(filled, tmp_path):
    """The orders in a SQLite file of the test's own."""
    shutil.copy(filled, tmp_path / "orders.db")
    opened = write_catalog(tmp_path, "sqlite:///orders.db")
    yield opened
    opened.close()


@pytest.fixture
def postgres_sources(postgres, tmp_path):
    """The orders in PostgreSQL; tests that change them put them back."""
    opened = write_catalog(tmp_path, postgres.get_uri("orders"))
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def sources(request) -> Sources:
    """Both databases, one behaviour."""
    name = "sqlite_sources" if request.param == "sqlite" else "postgres_sources"
    return request.getfixturevalue(name)


@pytest.fixture
def orders(sources):
    return sources.source("orders")
