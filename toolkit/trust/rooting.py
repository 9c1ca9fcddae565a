"""Makes roots: the first, and each next one until enough people signed it."""

from __future__ import annotations

from collections.abc import Callable

from toolkit.errors import Conflict, IntegrityError, UsageError
from toolkit.trust.dsse import Envelope
from toolkit.trust.keys import Signer
from toolkit.trust.looking import look
from toolkit.trust.notary import sign
from toolkit.trust.reader import statement
from toolkit.trust.root import ROLES, KeyEntry, PersonEntry, Root, RootFacts, read_root
from toolkit.trust.statements import statement_bytes
from toolkit.trust.store import ROOT, root_path
from toolkit.trust.verifier import Verifier
from toolkit.values import iso_utc

__all__ = ["PENDING_ROOT", "RootOffice"]

PENDING_ROOT = "trust/pending.root.json"
_DAY_US = 86_400_000_000


class RootOffice:
    """Where roots are made.

    Args:
        verifier: The registry as this machine sees it.
        signer: The key of the person who acts.
    """

    def __init__(self, verifier: Verifier, signer: Signer) -> None:
        self.verifier = verifier
        self.signer = signer
        self._reader = verifier.reader
        self._store = verifier.reader.store

    def begin(
        self,
        person: str,
        name: str,
        email: str,
        *,
        protected: dict[str, str],
        days: int = 365,
        fresh_days: int = 90,
    ) -> Root:
        """Write the first root: one person with every role; signing is on from now on.

        Args:
            person: Who, as a name such as ``ana``.
            name: The person's full name.
            email: The person's address.
            protected: Aliases that move with approvals only, and the environment these are for.
            days: How long the root is good.
            fresh_days: How long a job's aliases are good without being signed again.

        Raises:
            UsageError: There is a root already.
            InvalidFile: Every fault of what it would say.
        """
        if self.verifier.active:
            raise UsageError(
                "this registry is signed already",
                where=ROOT,
                next_step="see it with `toolkit trust show`",
            )
        entry = PersonEntry(name=name, email=email, keys=[self._key()], roles=list(ROLES))
        facts = RootFacts(
            version=1,
            epoch=1,
            expires=self._in(days),
            fresh_days=fresh_days,
            people={person: entry},
            roles=dict.fromkeys(ROLES, 1),
            protected=protected,
        )
        envelope = sign(Envelope(statement_bytes(facts)), self.signer)
        read_root(envelope, None, root_path(1))  # never write what cannot be read
        self._store.write(root_path(1), envelope.to_bytes())
        self._store.write(ROOT, envelope.to_bytes())
        return self.verifier.root()

    def propose(self, change: Callable[[RootFacts], RootFacts], *, days: int = 365) -> Root | None:
        """Change the root; return the new one, or ``None`` while it waits for signatures.

        Args:
            change: Returns what the next root is to say; version and expiry are set here.
            days: How long it is good.

        Raises:
            Conflict: Another change waits for signatures.
            IntegrityError: The present root is not sound, or this person may not sign roots.
            InvalidFile: Every fault of what it would say.
        """
        if self._reader.exists(PENDING_ROOT):
            raise Conflict(
                "another change of the root waits for signatures",
                where=PENDING_ROOT,
                next_step="run `toolkit trust sign`, or delete the file",
            )
        now = self._chain()[-1]
        facts = change(now.facts).model_copy(
            update={"version": now.version + 1, "expires": self._in(days)}
        )
        # A copy was not checked; what is signed must be what is read.
        checked = Root(RootFacts.model_validate(facts.model_dump()), now.digest)
        return self._settle(Envelope(statement_bytes(checked.facts)), now)

    def sign(self) -> Root | None:
        """Add this person's signature to the change that waits.

        Returns:
            The new root; ``None`` while it waits for more signatures.

        Raises:
            UsageError: None waits.
            IntegrityError: This person may not sign it.
        """
        pending = self.pending()
        if pending is None:
            raise UsageError("no change of the root waits for signatures", where=PENDING_ROOT)
        chain = self._chain()
        facts, envelope = pending
        before = chain[facts.version - 2] if 2 <= facts.version <= len(chain) + 1 else chain[-1]
        return self._settle(envelope, before)

    def pending(self) -> tuple[RootFacts, Envelope] | None:
        """Return the change that waits, for a person to look at; its signatures prove nothing yet.

        Raises:
            IntegrityError: The file is damaged.
        """
        if not self._reader.exists(PENDING_ROOT):
            return None
        envelope = self._reader.envelope(PENDING_ROOT)
        return statement(envelope, RootFacts, PENDING_ROOT)[0], envelope

    def _settle(self, envelope: Envelope, before: Root) -> Root | None:
        """Sign; publish if that is enough, keep it pending if more is needed.

        The numbered file comes first and the pending one goes last: after a crash in between,
        `toolkit trust sign` does the rest.
        """
        facts, _ = statement(envelope, RootFacts, PENDING_ROOT)
        after = Root(facts, envelope.digest)
        known = {**before.keys, **after.keys}
        if self.signer.public.id not in known:
            raise IntegrityError(
                "this key belongs to nobody in the present or in the next root",
                where=PENDING_ROOT,
                next_step="sign with the key of somebody who has the role root",
            )
        signed = sign(envelope, self.signer)
        where = root_path(facts.version)
        if not self._enough(signed, before, after):
            self._store.write(PENDING_ROOT, signed.to_bytes())
            return None
        read_root(signed, before, where)
        if self._reader.exists(where):
            signed = self._reader.envelope(where)  # a crash came between; it is published already
            read_root(signed, before, where)
        else:
            self._store.write(where, signed.to_bytes())
        self._store.write(ROOT, signed.to_bytes())
        self._store.remove(PENDING_ROOT)
        return self.verifier.root()

    def _enough(self, envelope: Envelope, before: Root, after: Root) -> bool:
        ids = {one.keyid for one in envelope.signatures}
        for root in (before, after):
            people = {person for key, (_, person) in root.keys.items() if key in ids}
            if len(people & root.holders("root")) < root.facts.roles["root"]:
                return False
        return True

    def _chain(self) -> list[Root]:
        self.verifier.require_signing()
        look_ = look(self._reader, self.verifier.state, self.verifier.clock, making=True)
        return list(look_.chain)

    def _key(self) -> KeyEntry:
        return KeyEntry(**self.signer.public.to_json())

    def _in(self, days: int) -> str:
        return iso_utc(self.verifier.clock.now_us() + days * _DAY_US)
