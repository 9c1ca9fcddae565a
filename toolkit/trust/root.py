"""The signed root: who people are, which keys are theirs, what they may do, how many it takes.

``registry/trust/root.json`` holds the newest one and ``registry/trust/<version>.root.json`` each
of them.  Version N+1 is signed by enough people of N and by enough of its own (the way of TUF,
https://theupdateframework.github.io/specification/latest/#update-root).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field

from toolkit.errors import Fault, IntegrityError, InvalidFile, UsageError
from toolkit.trust.dsse import Envelope
from toolkit.trust.keys import PublicKey
from toolkit.trust.shapes import Frozen, Name, Text, Utc
from toolkit.trust.statements import Predicate, read_statement
from toolkit.values import check_name

__all__ = [
    "RETIRED",
    "REVOKED",
    "ROLES",
    "KeyEntry",
    "PersonEntry",
    "Root",
    "RootFacts",
    "ends",
    "read_root",
    "refused",
    "signed_by",
]

ROLES = ("approver", "operator", "policy-approver", "promoter", "root")
_MAX_DAYS = 3650
REVOKED = "revoked."
"""Aliases that begin so end a version instead of letting it in."""
RETIRED = "retired"
"""The alias that ends a job."""
_BESIDE = re.compile(r"(.+)\.(?:shadow|canary-[0-9]+)", re.ASCII)
_RESTORE = "restore trust/ from a copy, or let the root's people sign another one"


def ends(alias: str) -> bool:
    """Whether an alias ends a version or a job, and so lets nothing in."""
    return alias == RETIRED or alias.startswith(REVOKED)


class KeyEntry(Frozen):
    """A key: ``type`` and its DER SubjectPublicKeyInfo in base64."""

    type: str
    public: str


class PersonEntry(Frozen):
    """A person: how they are called, reached, what they hold and what they may do."""

    name: Text
    email: Text
    keys: list[KeyEntry]
    roles: list[str]


class RootFacts(Predicate):
    """The root as it is signed.

    Attributes:
        version: Counts up by one.
        epoch: A new one makes every alias index signed before it worthless: the way back after
            a stolen operator key counted one up beyond reach.
        expires: After that nothing is accepted until a newer root is signed.
        fresh_days: How long an alias index is good.
        people: By name.
        roles: How many different people each role takes.
        protected: Aliases that move with approvals only, and the environment these are for.  Where
            there is one, an alias that is not named needs what they need.
        separate: Whether nobody who approves versions may approve policies or roots.
        policies: Environments for which nothing runs without a signed policy.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:root:1"
    added: ClassVar[frozenset[str]] = frozenset({"separate", "policies"})

    version: Annotated[int, Field(ge=1)]
    epoch: Annotated[int, Field(ge=1)]
    expires: Utc
    fresh_days: int
    people: dict[str, PersonEntry]
    roles: dict[str, int]
    protected: dict[Name, Name]
    separate: bool | None = None
    policies: list[Name] | None = None

    @property
    def subject(self) -> str:
        return f"root@{self.version}"

    @property
    def strictest(self) -> str | None:
        """Environment whose approvals an alias needs that is not named; ``None``: it needs none."""
        named = self.protected.get("production")
        return named or min(self.protected.values(), default=None)

    def environment_of(self, alias: str) -> str | None:
        """Return what an alias's approvals are for; ``None`` if it needs none.

        What runs beside an alias (``production.canary-10``) is let in like what it points at, and
        whatever alias a version runs by, it runs in production: none is a way around.
        """
        if ends(alias):
            return None
        beside = _BESIDE.fullmatch(alias)
        own = self.protected.get(alias)
        return own or (self.protected.get(beside[1]) if beside else None) or self.strictest

    @property
    def both(self) -> list[str]:
        """People who approve versions, and policies or roots too."""
        apart = {"policy-approver", "root"}
        return [
            person
            for person, entry in sorted(self.people.items())
            if "approver" in entry.roles and apart & set(entry.roles)
        ]


@dataclass(frozen=True)
class Root:
    """A root whose content is sound; :func:`read_root` says so of its signatures too.

    Attributes:
        facts: What it says.
        digest: Digest of the bytes that were signed: what a person pins.
    """

    facts: RootFacts
    digest: str

    def __post_init__(self) -> None:
        faults = _faults(self.facts)
        if faults:
            raise InvalidFile.of(f"root {self.facts.version}", faults)

    @property
    def version(self) -> int:
        """Its number."""
        return self.facts.version

    @cached_property
    def keys(self) -> dict[str, tuple[PublicKey, str]]:
        """Key and person, by key id."""
        found = {}
        for person, entry in self.facts.people.items():
            for one in entry.keys:
                key = PublicKey.from_json(one.type, one.public)
                found[key.id] = (key, person)
        return found

    def holders(self, role: str) -> set[str]:
        """People who have a role."""
        return _holders(self.facts, role)

    def person_of(self, key: PublicKey) -> str | None:
        """Whose key it is."""
        known = self.keys.get(key.id)
        return known[1] if known else None

    def signers(self, envelope: Envelope, where: str) -> frozenset[str]:
        """Return the people whose keys signed; one signature that is not theirs refuses all.

        Raises:
            IntegrityError: A key is unknown or a signature is not the key's.
        """
        return signed_by(envelope, self.keys, where)

    def require(self, role: str, people: Iterable[str], where: str) -> frozenset[str]:
        """Return those of ``people`` who have the role, if they are enough.

        Raises:
            IntegrityError: They are not.
        """
        found = frozenset(people) & self.holders(role)
        needed = self.facts.roles[role]
        if needed < 1 or len(found) < needed:
            raise refused(
                where,
                f"is signed by {len(found)} of {needed} people with the role {role}"
                + (f" ({', '.join(sorted(found))})" if found else ""),
                f"let another {role} sign it, or restore the file from a copy",
            )
        return found


def refused(where: str, why: str, next_step: str | None = None) -> IntegrityError:
    """Build the error for a file that is not accepted; ``details["faults"]`` names it."""
    fault = Fault(where, why, next_step)
    return IntegrityError(
        f"{where} {why}",
        where=where,
        next_step=next_step or "restore the file from a copy, or ask an operator what happened",
        details=InvalidFile.of(where, [fault]).details,
    )


def read_root(envelope: Envelope, before: Root | None, where: str) -> Root:
    """Verify a root and return it.

    Steps: (1) enough people of the root before signed these bytes; (2) the bytes are a sound
    root; (3) it is numbered one higher; (4) every signature is by a key of one of the two; (5)
    enough of its own people signed.

    Args:
        envelope: The root.
        before: The root before it; ``None`` for the first.
        where: Its path, for messages.

    Raises:
        IntegrityError: It is not signed by enough people, or not numbered as it must be.
        InvalidFile: Every fault of its content.
    """
    known = dict(before.keys) if before else {}
    if before:  # 1
        by_them = signed_by(_only(envelope, before.keys), before.keys, where)
        before.require("root", by_them, where)
    try:
        facts, _ = read_statement(envelope.payload, RootFacts)
        root = Root(facts, envelope.digest)  # 2
    except ValueError as error:
        faults = [Fault("root", part, _RESTORE) for part in str(error).split("; ")]
        raise InvalidFile.of(where, faults) from error
    except InvalidFile as error:
        told = [{**fault, "next_step": _RESTORE} for fault in error.details["faults"]]
        raise InvalidFile.of(where, [Fault(**fault) for fault in told]) from None
    expected = before.version + 1 if before else 1
    if root.version != expected:  # 3
        raise refused(where, f"is root {root.version}, expected root {expected}")
    if before and root.facts.epoch < before.facts.epoch:
        raise refused(where, f"has the epoch {root.facts.epoch} after {before.facts.epoch}")
    known.update(root.keys)
    signed_by(envelope, known, where)  # 4
    own = _only(envelope, root.keys)
    root.require("root", signed_by(own, root.keys, where) if own.signatures else (), where)  # 5
    return root


def _only(envelope: Envelope, keys: Mapping[str, object]) -> Envelope:
    kept = tuple(one for one in envelope.signatures if one.keyid in keys)
    return Envelope(envelope.payload, kept, envelope.payload_type)


def signed_by(
    envelope: Envelope, keys: Mapping[str, tuple[PublicKey, str]], where: str
) -> frozenset[str]:
    """Return the people whose keys signed; one signature that is not theirs refuses all.

    Raises:
        IntegrityError: A key is unknown or a signature is not the key's.
    """
    people = set()
    for one in envelope.signatures:
        if one.keyid not in keys:
            raise refused(
                where, f"is signed by the key {one.keyid[:23]!a}, which the root does not list"
            )
        key, person = keys[one.keyid]
        if not key.verify(envelope.signed_bytes, one.sig):
            raise refused(where, f"has a signature that is not {person}'s: its bytes were changed")
        people.add(person)
    return frozenset(people)


def _holders(facts: RootFacts, role: str) -> set[str]:
    return {person for person, entry in facts.people.items() if role in entry.roles}


def _faults(facts: RootFacts) -> list[Fault]:
    faults = [
        fault for name, entry in facts.people.items() for fault in _person_faults(name, entry)
    ]
    faults += _twin_faults(facts)
    for role in sorted({*facts.roles, *ROLES}):
        where = f"roles.{role}"
        if role not in ROLES:
            faults.append(Fault(where, f"is not a role: there are {', '.join(ROLES)}"))
            continue
        if role not in facts.roles:
            faults.append(Fault(where, "is missing"))
            continue
        needed, holders = facts.roles[role], len(_holders(facts, role))
        if needed < 1:
            faults.append(Fault(where, f"takes {needed} people; it must take at least 1"))
        elif needed > holders:
            faults.append(Fault(where, f"takes {needed} people, and {holders} have the role"))
        elif role == "operator" and needed > 1:
            faults.append(Fault(where, "must take 1: whoever moves an alias signs alone"))
    if facts.separate:
        why = "has approver and policy-approver or root: this root keeps them apart"
        faults += [Fault(f"people.{person}.roles", why) for person in facts.both]
    if not 1 <= facts.fresh_days <= _MAX_DAYS:
        faults.append(Fault("fresh_days", f"must be from 1 to {_MAX_DAYS}"))
    return faults


def _person_faults(name: str, entry: PersonEntry) -> list[Fault]:
    faults = []
    try:
        check_name(name)
    except UsageError:
        faults.append(Fault(f"people.{name!a}", "is not a name: use a-z, 0-9, '.', '-' and '_'"))
    if not entry.keys:
        faults.append(Fault(f"people.{name}.keys", "is empty"))
    for place, one in enumerate(entry.keys):
        try:
            PublicKey.from_json(one.type, one.public)
        except ValueError as error:
            faults.append(Fault(f"people.{name}.keys.{place}", str(error)))
    faults += [
        Fault(f"people.{name}.roles", f"{role!a} is not a role: there are {', '.join(ROLES)}")
        for role in entry.roles
        if role not in ROLES
    ]
    if len(set(entry.roles)) != len(entry.roles):
        faults.append(Fault(f"people.{name}.roles", "names a role twice"))
    return faults


def _twin_faults(facts: RootFacts) -> list[Fault]:
    """One key for two people, and one person under two names, would count twice."""
    faults, keys, mails = [], dict[str, str](), dict[str, str]()
    for person, entry in facts.people.items():
        for place, one in enumerate(entry.keys):
            where = f"people.{person}.keys.{place}"
            if one.public in keys:
                faults.append(Fault(where, f"is the key {keys[one.public]} too"))
            keys.setdefault(one.public, where)
        mail = entry.email.strip().casefold()
        if mail in mails:
            faults.append(Fault(f"people.{person}.email", f"is the address of {mails[mail]} too"))
        mails.setdefault(mail, person)
    return faults
