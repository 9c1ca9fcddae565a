"""Who belongs to which team, and who may do what by role.

``registry/people.yaml``::

    people:
      anna: {team: legal, roles: [approver, analyst]}
      ben: {roles: [analyst]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from toolkit.settings import read_model
from toolkit.values import Digest, digest_json

__all__ = ["People", "Person", "is_word"]

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_WORD_RULE = "letters, digits, '_', '-' and '.', starting with a letter, at most 64 characters"


def is_word(text: str) -> bool:
    """Whether a text can name a role, a team or a group of tools."""
    return _WORD.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Person:
    """One person.

    Attributes:
        user: The name under which runs are started.
        team: The team, if any.
        roles: What the person may decide and do, in the order of the file.
    """

    user: str
    team: str | None = None
    roles: tuple[str, ...] = ()


class _Person(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    team: str | None = None
    roles: list[str] = []

    @field_validator("team")
    @classmethod
    def _team(cls, team: str | None) -> str | None:
        if team is not None and not is_word(team):
            msg = f"{team!a} cannot name a team: use {_WORD_RULE}"
            raise ValueError(msg)
        return team

    @field_validator("roles")
    @classmethod
    def _roles(cls, roles: list[str]) -> list[str]:
        bad = [ascii(role) for role in roles if not is_word(role)]
        if bad:
            msg = f"{', '.join(bad)} cannot name a role: use {_WORD_RULE}"
            raise ValueError(msg)
        if len(set(roles)) != len(roles):
            msg = "names a role twice"
            raise ValueError(msg)
        return roles


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    people: dict[Annotated[str, Field(min_length=1, max_length=128)], _Person]


class People(Mapping[str, Person]):
    """The people by user name; immutable.  Whoever is not listed has no team and no role.

    Attributes:
        digest: Digest over every person.
    """

    def __init__(self, people: Mapping[str, Person]) -> None:
        self._people = MappingProxyType(dict(sorted(people.items())))
        self.digest: Digest = digest_json(
            [[p.user, p.team, sorted(p.roles)] for p in self._people.values()]
        )

    @classmethod
    def load(cls, path: Path) -> People:
        """Read ``people.yaml``; without the file nobody has a role.

        Raises:
            NotFound: The file is there and cannot be read.
            InvalidFile: The file has faults (all are named).
        """
        if not path.exists():
            return cls({})
        parsed = read_model(path, _File, "list of people", missing=f"make {path} readable").value
        return cls(
            {
                user: Person(user, person.team, tuple(person.roles))
                for user, person in parsed.people.items()
            }
        )

    def roles(self, user: str) -> tuple[str, ...]:
        """Return the roles of a user; nobody unknown has any."""
        person = self._people.get(user)
        return () if person is None else person.roles

    def team(self, user: str) -> str | None:
        """Return the team of a user."""
        person = self._people.get(user)
        return None if person is None else person.team

    def with_role(self, role: str) -> tuple[str, ...]:
        """Return the users who have a role, sorted."""
        return tuple(user for user, person in self._people.items() if role in person.roles)

    def __getitem__(self, user: str) -> Person:
        return self._people[user]

    def __iter__(self) -> Iterator[str]:
        return iter(self._people)

    def __len__(self) -> int:
        return len(self._people)
