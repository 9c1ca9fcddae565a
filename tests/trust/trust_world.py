"""A signed registry with people in it, and a hostile owner of its disk: attacks are short."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from toolkit.registry import Registry, Sealed
from toolkit.trust import (
    Envelope,
    KeyEntry,
    KeySigner,
    PersonEntry,
    PolicyAsks,
    PublicKey,
    Root,
    RootFacts,
    RootOffice,
    Signature,
    StateFile,
    VerifiedAlias,
    Verifier,
    sign,
    statement_bytes,
)
from toolkit.values import ManualClock, canonical_bytes, iso_utc

JOB = "review"
FILES = {"notebook.ipynb": b'{"cells": []}\n', "evidence.json": b'{"score": 0.9}\n'}
POLICY, EVALUATION = "sha256:" + "a" * 64, "sha256:" + "b" * 64
STRICTER = "sha256:" + "d" * 64
DAY_S = 86_400


def make_key(kind: str = "ed25519") -> KeySigner:
    """A key in memory."""
    key: Any = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else ec.generate_private_key(ec.SECP256R1())
    )
    return KeySigner(key, PublicKey.of(key.public_key()))


def person(name: str, *keys: KeySigner, roles: list[str]) -> PersonEntry:
    """An entry of the root."""
    entries = [KeyEntry(**key.public.to_json()) for key in keys]
    return PersonEntry(name=name.title(), email=f"{name}@example.com", keys=entries, roles=roles)


class World:
    """ana promotes and operates, ben and cho approve, dan signs policies, eve has no role.

    Attributes:
        keys: Their keys; ben's is an ECDSA P-256 key.
    """

    def __init__(self, folder: Path, *, approvers_needed: int = 1, roots_needed: int = 1) -> None:
        self.folder, self.clock = folder, ManualClock()
        self.path, self.state_path = folder / "registry", folder / "state" / "state.json"
        names = ("ana", "ben", "cho", "dan", "eve")
        self.keys = {n: make_key("ecdsa-p256" if n == "ben" else "ed25519") for n in names}
        self.acting = "ana"
        self.office().begin("ana", "Ana", "ana@example.com", protected={"production": "production"})
        self.change_root(self._everybody(approvers_needed, roots_needed))

    def copy(self, folder: Path) -> World:
        """The same registry, memory, people and time in another folder."""
        made = World.__new__(World)
        made.__dict__.update(self.__dict__)
        made.clock, made.keys = ManualClock(self.clock.us), dict(self.keys)
        made.folder, made.path = folder, folder / "registry"
        made.state_path = folder / "state" / "state.json"
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, symlinks=True)
        return made

    def _everybody(self, approvers: int, roots: int) -> Callable[[RootFacts], RootFacts]:
        roles = {
            "ana": ["promoter", "operator", "root", "policy-approver"],
            "ben": ["approver", "root"],
            "cho": ["approver"],
            "dan": ["policy-approver"],
            "eve": [],
        }
        people = {n: person(n, self.keys[n], roles=roles[n]) for n in self.keys}
        needed = {"promoter": 1, "approver": approvers, "operator": 1, "policy-approver": 1}
        return lambda facts: facts.model_copy(
            update={"people": people, "roles": {**needed, "root": roots}}
        )

    @property
    def registry(self) -> Registry:
        """The registry as whoever is acting opens it."""
        return Registry(
            self.path,
            clock=self.clock,
            trust_state=self.state_path,
            signer=lambda: self.keys[self.acting],
        )

    @property
    def verifier(self) -> Verifier:
        trust = self.registry.trust
        assert trust is not None
        return trust.verifier

    def reader(self, state: Path | None = None) -> Verifier:
        """Another machine: by default one that never saw this registry."""
        found = Registry(
            self.path, clock=self.clock, trust_state=state or self.folder / "new" / "s"
        )
        assert found.trust is not None
        return found.trust.verifier

    def office(self, who: str = "ana") -> RootOffice:
        return RootOffice(self.verifier, self.keys[who])

    def change_root(self, change: Callable[[RootFacts], RootFacts], *who: str) -> Root | None:
        """Propose as the first person and let the others sign."""
        first, *others = who or ("ana",)
        made = self.office(first).propose(change)
        for name in others:
            made = self.office(name).sign()
        return made

    def seal(self, score: float = 0.9, by: str = "ana") -> Sealed:
        self.clock.advance(seconds=60)
        files = {**FILES, "evidence.json": json.dumps({"score": score}).encode()}
        facts = {"by": by, "policy_digest": POLICY, "evaluation_digest": EVALUATION}
        return self.registry.seal(JOB, files, facts)

    def approve(self, number: int, who: str = "ben", environment: str = "production") -> Path:
        self.clock.advance(seconds=60)
        trust = self.registry.trust
        assert trust is not None
        self.acting, before = who, self.acting
        try:
            notary = trust.notary()
            return self.path / notary.approve(JOB, number, environment, days=7)
        finally:
            self.acting = before

    def release(self, number: int) -> None:
        """Approve a version and point production at it."""
        self.approve(number)
        self.move(number)

    def move(self, number: int, alias: str = "production") -> None:
        self.clock.advance(seconds=60)
        self.registry.set_alias(JOB, alias, number, by="ana")

    def promote_policy(
        self, digest: str = POLICY, environment: str = "production", *, asks: int = 0
    ) -> Path:
        """Let dan sign a policy, and return where it is."""
        self.clock.advance(seconds=60)
        trust = self.registry.trust
        assert trust is not None
        self.acting, before = "dan", self.acting
        try:
            number = PolicyAsks(jobs={}, others=asks)
            change = trust.notary().policy(environment, digest, number)
        finally:
            self.acting = before
        self.registry.record("policy.promoted", {"policy_digest": change.policy_digest}, by="dan")
        return self.path / "trust" / f"policy-{environment}.dsse.json"

    def production(self) -> VerifiedAlias:
        return self.verifier.alias(JOB, "production")

    # -- the hostile owner of the disk -------------------------------------------------------

    def snapshot(self, name: str) -> Path:
        """Keep the registry as it is."""
        kept = self.folder / f"kept-{name}"
        shutil.copytree(self.path, kept)
        return kept

    def put_back(self, kept: Path, *parts: str) -> None:
        """Restore the registry, or some files of it, from a copy."""
        for part in parts or (".",):
            source, target = kept / part, self.path / part
            if source.is_dir():
                shutil.rmtree(target)
                shutil.copytree(source, target)
            else:
                write(target, source.read_bytes())


def write(path: Path, data: bytes) -> None:
    """Change a file whatever its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.chmod(0o644)
    path.write_bytes(data)


def resigned(
    path: Path, signers: list[KeySigner], change: Callable[[dict[str, Any]], None]
) -> bytes:
    """Read a signed file, change its statement and sign it again, as somebody with a key can."""
    statement = json.loads(Envelope.from_bytes(path.read_bytes()).payload)
    change(statement)
    return signed(canonical_bytes(statement), signers)


def signed(payload: bytes, signers: list[KeySigner]) -> bytes:
    envelope = Envelope(payload)
    for signer in signers:
        envelope = sign(envelope, signer)
    return envelope.to_bytes()


def later(clock: ManualClock, days: float) -> str:
    return iso_utc(clock.us + round(days * DAY_S * 1_000_000))


__all__ = [
    "DAY_S", "EVALUATION", "FILES", "JOB", "POLICY", "STRICTER", "Signature", "StateFile", "World",
    "later", "make_key", "person", "resigned", "signed", "statement_bytes", "write",
]  # fmt: skip
