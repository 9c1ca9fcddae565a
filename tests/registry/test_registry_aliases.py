"""Aliases: moves, history, compare-and-set, rollback."""

from __future__ import annotations

import pytest
from registry_world import FACTS, FILES, overwrite

from toolkit.errors import Conflict, IntegrityError, InvalidFile, NotFound, ToolkitError, UsageError
from toolkit.registry import Registry


@pytest.fixture
def three(registry: Registry) -> Registry:
    """A job with versions 1, 2 and 3."""
    for _ in range(3):
        registry.seal("a", FILES, FACTS)
    return registry


def test_an_alias_moves_and_remembers(three: Registry) -> None:
    """The current number is what was set last; the history has every move."""
    three.set_alias("a", "production", 1, by="ana")
    three.set_alias("a", "staging", 3, by="ben")
    three.set_alias("a", "production", 2, by="ben")
    assert three.aliases("a") == {"production": 2, "staging": 3}
    moves = [(m.alias, m.before, m.after, m.by) for m in three.alias_history("a")]
    assert moves == [
        ("production", None, 1, "ana"),
        ("staging", None, 3, "ben"),
        ("production", 1, 2, "ben"),
    ]
    assert three.resolve("a@staging").number == 3
    assert three.verify() == []


def test_setting_it_to_where_it_is_changes_nothing(three: Registry) -> None:
    """No move, no record."""
    three.set_alias("a", "production", 1, by="ana")
    before = three.audit_head()
    assert three.set_alias("a", "production", 1, by="ana") is None
    assert three.audit_head() == before


def test_compare_and_set(three: Registry) -> None:
    """A move that expects another value is a Conflict with both values."""
    three.set_alias("a", "production", 1, by="ana", expected=None)
    with pytest.raises(Conflict) as caught:
        three.set_alias("a", "production", 3, by="ana", expected=2)
    assert caught.value.details == {"expected": 2, "actual": 1}
    with pytest.raises(Conflict):
        three.set_alias("a", "production", 3, by="ana", expected=None)
    three.set_alias("a", "production", 3, by="ana", expected=1)
    assert three.aliases("a") == {"production": 3}


def test_rollback_goes_back_and_further_back(three: Registry) -> None:
    """Repeated rollbacks walk through the history instead of going to and fro."""
    for number in (1, 2, 3):
        three.set_alias("a", "production", number, by="ana")
    assert three.rollback("a", by="ben").after == 2
    assert three.rollback("a", by="ben").after == 1
    with pytest.raises(NotFound):
        three.rollback("a", by="ben")
    three.set_alias("a", "production", 3, by="ana")
    assert three.rollback("a", by="ben").after == 1
    assert three.verify() == []


def test_rollback_without_history_is_not_found(three: Registry) -> None:
    """There is nothing to go back to."""
    with pytest.raises(NotFound):
        three.rollback("a", by="ana")


@pytest.mark.parametrize("alias", ["3", "007", "", "Prod", "../x", "a/b"])
def test_an_alias_is_a_safe_word(three: Registry, alias: str) -> None:
    """A number would hide a version."""
    with pytest.raises(UsageError):
        three.set_alias("a", alias, 1, by="ana")


def test_an_alias_never_points_at_nothing_or_at_damage(three: Registry) -> None:
    """The version is verified before the alias moves."""
    with pytest.raises(NotFound):
        three.set_alias("a", "production", 9, by="ana")
    overwrite(three.root / "jobs/a/2/notebook.ipynb", b"{}")
    with pytest.raises(IntegrityError):
        three.set_alias("a", "production", 2, by="ana")
    assert three.aliases("a") == {}


def test_somebody_must_move_it(three: Registry) -> None:
    """A move without a person is refused."""
    with pytest.raises(UsageError):
        three.set_alias("a", "production", 1, by=" ")


@pytest.mark.parametrize(
    "change",
    [
        (b'"after": 1', b'"after": 2'),
        (b'"production": 1', b'"production": 2'),
        (b'"job": "a"', b'"job": "b"'),
        (b'"by": "ana"', b'"by": "eve" '),
        (b"{", b"[", 1),
        (b'"schema": "aliases/1"', b'"schema": "aliases/2"'),
    ],
)
def test_an_edited_alias_file_is_refused(three: Registry, change: tuple[bytes, ...]) -> None:
    """History and aliases must agree in the one byte form."""
    three.set_alias("a", "production", 1, by="ana")
    path = three.root / "jobs/a/aliases.json"
    overwrite(path, path.read_bytes().replace(*change))  # type: ignore[arg-type]
    with pytest.raises(InvalidFile):
        three.resolve("a")
    assert [f.where for f in three.verify()] == ["jobs/a/aliases.json"]


def test_an_older_alias_file_is_found(three: Registry) -> None:
    """A valid file from the past (a rollback of the storage) differs from the audit log."""
    path = three.root / "jobs/a/aliases.json"
    three.set_alias("a", "production", 1, by="ana")
    old = path.read_bytes()
    three.set_alias("a", "production", 2, by="ana")
    overwrite(path, old)
    assert three.resolve("a").number == 1
    (fault,) = three.verify()
    assert fault.where == "jobs/a/aliases.json"
    assert "points at 1, the audit log at 2" in fault.message
    path.unlink()
    (fault,) = three.verify()
    assert "points at None, the audit log at 2" in fault.message


def test_an_alias_of_a_missing_version_is_found(three: Registry) -> None:
    """verify checks that aliases lead somewhere."""
    three.set_alias("a", "production", 3, by="ana")
    (three.root / "jobs/a/3").rename(three.root / "gone")
    assert {f.where for f in three.verify()} == {"jobs/a/aliases.json", "jobs/a/3"}
    with pytest.raises(ToolkitError):
        three.resolve("a")
