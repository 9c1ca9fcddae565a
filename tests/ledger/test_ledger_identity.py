"""What names a ledger on one machine: its address, not who opens it or from which folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import ConfigurationError
from toolkit.ledger import Ledger
from toolkit.ledger.address import identity_of


def test_a_database_file_has_one_identity_by_every_path(tmp_path: Path) -> None:
    """A link to it is the same ledger; a file of the same name elsewhere is another."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (tmp_path / "link").symlink_to(here)
    with (
        Ledger.open(f"sqlite:///{here}/ledger.db") as one,
        Ledger.open(f"sqlite:///{tmp_path}/link/../link/ledger.db") as same,
        Ledger.open(f"sqlite:///{there}/ledger.db") as other,
    ):
        assert one.identity == same.identity != other.identity
        assert len(one.identity) == 16
        assert "here" not in one.identity


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ledger:5432/team",
        "postgresql://ana:pass-word@ledger/team",
        "postgresql+psycopg://ben@ledger/team?password=another&sslmode=require",
        "postgresql:///team?host=ledger",
    ],
)
def test_login_and_spelling_do_not_change_the_identity_of_a_server(address: str) -> None:
    """Two people, or two folders, that open one database share its runs."""
    assert identity_of(address) == identity_of("postgresql://ledger/team")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ledger:5433/team",
        "postgresql://other/team",
        "postgresql://ledger/other",
        "postgresql:///team?host=/run/one",
        "postgresql://ledger/team?options=-csearch_path%3Dother",
    ],
)
def test_another_database_has_another_identity(address: str) -> None:
    """Another server, database or schema records runs of its own."""
    assert identity_of(address) != identity_of("postgresql://ledger/team")


def test_what_is_no_address_is_refused_without_repeating_it() -> None:
    """The text may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        identity_of("no address, but pass-word")
    assert "pass-word" not in str(caught.value)
