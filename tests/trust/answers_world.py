"""A signed registry whose policy asks about payments, and a hostile owner of the ledger's database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import approvals_world
from trust_world import World

from toolkit.app.answers import SignedAnswers
from toolkit.gateway.desk import Answer, Choice, Desk
from toolkit.ledger import Approval
from toolkit.trust import Envelope, KeySigner, sign

PEOPLE = """
people:
  ana: {roles: [approver]}
  ben: {roles: [approver]}
  cho: {roles: [approver, director]}
  dan: {roles: [director]}
  eve: {roles: []}
"""


@dataclass
class House(approvals_world.World):
    """Ana's runs are asked about; ben and cho approve, cho and dan direct, eve has a key and no role.

    Attributes:
        trust: Its signed registry, and the keys of people.
    """

    trust: World = None  # type: ignore[assignment]

    @classmethod
    def over(cls, trust: World, *, approvals: str = "") -> House:
        """Write the policies into a signed registry, and open a ledger beside it."""
        approvals_world.write_registry(trust.path, approvals=approvals)
        (trust.path / "people.yaml").write_text(PEOPLE)
        url = f"sqlite:///{trust.folder / 'ledger.db'}"
        return cls(trust.folder, url, trust.clock, trust)

    def proofs(self, key: str | None = None) -> SignedAnswers:
        """What a gateway verifies with; with a key, what that person's desk signs with."""
        pen = None if key is None else lambda _quietly: self.trust.keys[key]
        return SignedAnswers(lambda: self.trust.registry, pen, self.clock)

    def desk(self, key: str | None = None) -> Desk:
        made = super().desk()
        made.proofs = self.proofs(key)
        return made

    def say(self, choice: Choice, by: str = "ana", *, key: str | None = "ben", **facts: Any) -> Approval:  # fmt: skip
        """Answer the one request: under a name that is believed nowhere, with somebody's key."""
        asked = facts.pop("request", None) or self.only()
        digest = facts.pop("digest", asked.digest)
        return self.desk(key).answer(asked.id, Answer(choice, digest, **facts), by=by)

    # -- the hostile owner of the database ----------------------------------------------------

    def edit(self, statement: str, **values: Any) -> int:
        """Change the database behind the ledger's back."""
        path = self.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            count = connection.execute(statement, values).rowcount
            connection.commit()
        return count

    def answers(self) -> list[tuple[int, dict[str, Any]]]:
        """Number and body of every answer in the chain."""
        path = self.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            rows = connection.execute(
                "SELECT n, body FROM entries WHERE type = 'call.answered' ORDER BY n"
            ).fetchall()
        return [(n, json.loads(body)) for n, body in rows]

    def rewrite(self, change: Callable[[dict[str, Any]], None], place: int = -1) -> None:
        """Change the body of an answer in the chain."""
        n, body = self.answers()[place]
        change(body)
        statement = "UPDATE entries SET body = :body WHERE n = :n AND type = 'call.answered'"
        assert self.edit(statement, body=json.dumps(body), n=n) == 1

    def envelope(self, place: int = -1) -> Envelope:
        """The envelope of an answer in the chain."""
        return Envelope.stored(self.answers()[place][1]["signed"].encode())

    def put(self, envelope: Envelope | bytes, place: int = -1) -> None:
        """Put another envelope in its place."""
        data = envelope if isinstance(envelope, bytes) else envelope.to_bytes()
        self.rewrite(lambda body: body.update(signed=data.decode()), place)


def changed(envelope: Envelope, change: Callable[[bytes], bytes]) -> Envelope:
    """Other bytes under the same signature."""
    return Envelope(change(envelope.payload), envelope.signatures)


def signed_again(payload: bytes, *keys: KeySigner) -> Envelope:
    """The same kind of envelope, signed by whoever has these keys."""
    envelope = Envelope(payload)
    for key in keys:
        envelope = sign(envelope, key)
    return envelope
