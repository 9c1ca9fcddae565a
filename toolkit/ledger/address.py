"""Addresses of ledgers: read, shown without what is secret, and told from one another."""

from __future__ import annotations

import os

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from toolkit.errors import ConfigurationError
from toolkit.values import digest_json

__all__ = ["identity_of", "parse_address", "safe_address"]

_SERVER_PORT = 5432
_IDENTITY_DIGITS = 16


def parse_address(url: str) -> URL:
    """Return a ledger's address with the driver that this toolkit uses.

    Raises:
        ConfigurationError: It is not ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, SQLAlchemyError, ValueError):
        # The text may hold a password, so it is not repeated.
        raise ConfigurationError(
            "the database URL of the ledger cannot be read",
            where="database_url",
            next_step="use sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        ) from None
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(
            f"the ledger cannot live in {backend}"
            + ("'s memory: it must survive the process" if backend == "sqlite" else ""),
            where="database_url",
            next_step="use sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        )
    return parsed.set(drivername="sqlite+pysqlite")


def safe_address(url: URL) -> str:
    """Return the address of a server without user, password and query (which may hold a password, too)."""
    host = url.host or "local socket"
    return f"postgresql://{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def identity_of(address: str) -> str:
    """Return 16 hex digits that name a ledger on this machine, whoever opened it from which folder.

    Login and password do not count: two people may open one ledger.

    Raises:
        ConfigurationError: The address is not one of a ledger.
    """
    url = parse_address(address)
    if url.get_backend_name() == "sqlite":
        facts = ["sqlite", os.path.realpath(url.database or "")]
    else:
        host, port = url.query.get("host", url.host), url.query.get("port", url.port)
        # `options` may name a schema, `service` a whole server.
        others = [str(url.query.get(name, "")) for name in ("hostaddr", "service", "options")]
        address_of_it = [str(host or ""), str(port or _SERVER_PORT), url.database or ""]
        facts = ["postgresql", *address_of_it, *others]
    return digest_json(facts).removeprefix("sha256:")[:_IDENTITY_DIGITS]
