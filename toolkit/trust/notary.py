"""Signs: versions, approvals, alias moves, policy changes, checkpoints.

Everything is verified before it is signed, and again as a reader would after it was written.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping

from toolkit.errors import ApprovalPending, ConfigurationError, UsageError
from toolkit.trust.approving import (
    Asked,
    VerifiedVersion,
    approval_name,
    count_approvals,
    people_needed,
)
from toolkit.trust.dsse import Envelope, Signature
from toolkit.trust.keys import Signer
from toolkit.trust.log import mark_at
from toolkit.trust.looking import Look
from toolkit.trust.policing import next_change, policies_in_force, same_change
from toolkit.trust.root import Root, ends
from toolkit.trust.shapes import time_us
from toolkit.trust.signers import check_own
from toolkit.trust.statements import (
    AliasEntry,
    AliasIndex,
    Approval,
    Checkpoint,
    LogMark,
    PolicyAsks,
    PolicyChange,
    Predicate,
    Promotion,
    statement_bytes,
)
from toolkit.trust.store import (
    ATTESTATION,
    CHECKPOINTS,
    MANIFEST,
    ManifestFacts,
    Store,
    approvals_folder,
    index_path,
    policy_path,
    version_folder,
)
from toolkit.trust.verifier import Verifier
from toolkit.values import Digest, check_name, digest_bytes, iso_utc

__all__ = ["Notary", "sign"]

_DAY_US = 86_400_000_000


def sign(envelope: Envelope, signer: Signer) -> Envelope:
    """Return the envelope with this signer's signature.

    Raises:
        IntegrityError: The signer's signature is not its key's.
    """
    made = check_own(signer, envelope.signed_bytes)
    return envelope.with_signature(Signature(signer.public.id, made))


class Notary:
    """One person's pen.

    Args:
        verifier: The registry as this machine sees it.
        signer: The person's key.
    """

    def __init__(self, verifier: Verifier, signer: Signer) -> None:
        self.verifier = verifier
        self.signer = signer

    @property
    def store(self) -> Store:
        """The registry's files."""
        return self.verifier.reader.store

    def person(self, role: str) -> str:
        """Return whose key this is, if that person has a role.

        Raises:
            ConfigurationError: The root does not list the key, or not with that role.
        """
        return self._person(self.verifier.root(), role)

    def attestation(
        self, manifest: bytes, facts: ManifestFacts, authors: Iterable[str] = ()
    ) -> bytes:
        """Return the signed attestation of a version that is about to be published.

        Args:
            manifest: The bytes of its ``job.yaml``.
            facts: What they say.
            authors: Names or addresses of those who wrote it, besides ``facts.by``.

        Raises:
            ConfigurationError: This person is no promoter.
        """
        look = self.verifier.look()
        self._person(look.root, "promoter")
        promotion = Promotion(
            name=facts.name,
            version=facts.version,
            bundle_digest=facts.bundle_digest,
            authors=sorted({*authors, facts.by}),
            policy_digest=facts.policy_digest,
            evaluation_digest=facts.evaluation_digest,
            root_version=look.root.version,
            issued=self._now(),
        )
        return self._signed(promotion, {**facts.files, MANIFEST: digest_bytes(manifest)})

    def cosign(self, job: str, number: int) -> None:
        """Add this promoter's signature to a version's attestation.

        Raises:
            IntegrityError: The version is not what was signed.
            ConfigurationError: This person is no promoter.
        """
        look = self.verifier.look()
        self._person(look.root, "promoter")
        where = f"{version_folder(job, number)}/{ATTESTATION}"
        self.verifier.unpromoted(job, number)
        envelope = sign(self.verifier.reader.envelope(where), self.signer)
        self.store.write(where, envelope.to_bytes())

    def approve(
        self,
        job: str,
        number: int,
        environment: str,
        *,
        days: float,
        before: Callable[[str], object] = lambda _: None,
    ) -> str:
        """Approve a version for an environment and return the approval's path.

        Args:
            job: The job.
            number: The version; every byte of it is verified first.
            environment: Where to.
            days: How long an alias may be moved on the strength of it.
            before: Told the path before anything is written there: for the audit log.

        Raises:
            ConfigurationError: This person is no approver, or an author.
            UsageError: ``days`` is not above 0.
        """
        if not 0 < days <= 3650:
            raise UsageError("an approval is good for more than 0 and at most 3650 days")
        version = self.verifier.version(job, number)
        person = self._person(self.verifier.look().root, "approver")
        if person in version.authors:
            raise ConfigurationError(
                f"{person} is an author of {version.ref}: authors never approve",
                where=version.ref,
                next_step="ask somebody else with the role approver",
            )
        now = self.verifier.clock.now_us()
        promotion = version.promotion
        approval = Approval(
            name=promotion.name,
            version=promotion.version,
            bundle_digest=promotion.bundle_digest,
            environment=check_name(environment, "environment"),
            policy_digest=promotion.policy_digest,
            evaluation_digest=promotion.evaluation_digest,
            person=person,
            issued=iso_utc(now),
            expires=iso_utc(now + round(days * _DAY_US)),
            nonce=secrets.token_hex(16),
        )
        envelope = sign(Envelope(statement_bytes(approval)), self.signer)
        path = f"{approvals_folder(job)}/{approval_name(number, envelope.digest)}"
        before(path)
        self.store.write(path, envelope.to_bytes())
        return path

    def entry(
        self,
        job: str,
        alias: str,
        number: int,
        *,
        by: str,
        since: str | None = None,
        asked: Asked | None = None,
    ) -> AliasEntry:
        """Return what an alias is to say, if it may say it; nothing is written.

        Args:
            job: The job.
            alias: The alias.
            number: The version it is to point at; every byte of it is verified.
            by: Who moves it, as the audit log says.
            since: When the version was let in; left out, now.  A version that goes back to where
                it was needs no new approvals.
            asked: How many people policy asks for; it takes the most of this, of what the signed
                policy and the root say, and of what the version has by another alias.

        Raises:
            ApprovalPending: Too few people approved the version.
            ConfigurationError: This person is no operator.
            IntegrityError: Something is not what was signed.
        """
        look = self.verifier.look()
        self._person(look.root, "operator")
        index = self.verifier.index(job, renew=True)
        version = self.verifier.version(job, number)
        held = [e.needed or 0 for e in (index.aliases if index else {}).values() if e.version == number]  # fmt: skip
        least = max([*held, asked.needed if asked else 0])
        own = look.root.facts.environment_of(alias)
        place = None if ends(alias) else own or (asked.environment if asked and least else None)
        draft = AliasEntry(
            version=number,
            bundle_digest=version.bundle_digest,
            environment=place,
            approvals=[],
            at=since or self._now(),
            by=by,
            needed=least or None if place else None,
        )
        if place is None:
            return draft
        change = self.verifier.policy(place, stale=True)
        needed = people_needed(look.root, alias, draft, job, change)
        approvals = self._enough(look, version, place, draft.at, needed)
        more = needed > (look.root.facts.roles["approver"] if own else 0)
        update = {"approvals": approvals, "needed": needed if more else None}
        return draft.model_copy(update=update)

    def moves(
        self, job: str, entries: Mapping[str, AliasEntry | None], *, log_bytes: int
    ) -> AliasIndex:
        """Sign and write the job's next index: several moves in one step.

        Args:
            job: The job.
            entries: What aliases say now, from :meth:`entry`; ``None`` takes an alias away.
            log_bytes: Length of the audit log now.

        Raises:
            ConfigurationError, IntegrityError: See :meth:`entry`.
        """
        look = self.verifier.look()
        self._person(look.root, "operator")
        before = self.verifier.index(job, renew=True)
        aliases: dict[str, AliasEntry] = dict(before.aliases) if before else {}
        for alias, entry in entries.items():
            aliases.pop(alias, None)
            if entry is not None:
                aliases[alias] = entry
        return self._write_index(look, job, aliases, before, log_bytes)

    def refresh(self, job: str, *, log_bytes: int) -> AliasIndex:
        """Sign a job's aliases again as they are: they go stale otherwise.

        Every version they name is verified.  An index that is stale may be refreshed; one of an
        older epoch may not be believed: move its aliases again.

        Raises:
            ConfigurationError: This person is no operator.
            IntegrityError: Something other than its age is wrong with it.
        """
        look = self.verifier.look()
        self._person(look.root, "operator")
        before = self.verifier.index(job, stale=True)
        if before is None:
            raise UsageError(f"{job} has no signed aliases", next_step="move one first")
        for alias in before.aliases:
            if not ends(alias):  # it lets nothing in, whatever became of its files
                self.verifier.alias(job, alias, stale=True)
        return self._write_index(look, job, before.aliases, before, log_bytes)

    def policy(
        self, environment: str, digest: Digest, asks: PolicyAsks | None = None
    ) -> PolicyChange:
        """Sign the bundle that an environment is to have; a second person signs the same bytes.

        Args:
            environment: Which.
            digest: The bundle's digest.
            asks: How many approvals the bundle asks for; left out, none.

        Raises:
            ConfigurationError: This person is no policy approver.
        """
        look, now_us = self.verifier.look(), self.verifier.clock.now_us()
        self._person(look.root, "policy-approver")
        where = policy_path(check_name(environment, "environment"))
        pending = f"{where}.pending"
        reader = self.verifier.reader
        before = self.verifier.policy(environment, stale=True)
        wanted = next_change(look.root, before, environment, digest, asks, now_us)
        change = self.verifier.pending_policy(environment)
        if change is not None and same_change(change, wanted):
            envelope = reader.envelope(pending)
        else:
            change, envelope = wanted, Envelope(statement_bytes(wanted))
        envelope = sign(envelope, self.signer)
        people = look.root.signers(envelope, pending)
        enough = len(people & look.root.holders("policy-approver"))
        done = enough >= look.root.facts.roles["policy-approver"]
        self.store.write(where if done else pending, envelope.to_bytes())
        if done:
            self.store.remove(pending)
        return change

    def checkpoint(self, log_bytes: int) -> LogMark:
        """Sign the audit log's length and head, and append that to the checkpoints.

        Raises:
            ConfigurationError: This person is neither operator nor promoter.
            IntegrityError: No record of the log ends there.
        """
        root = self.verifier.look().root
        self._person(root, "operator", "promoter")
        mark = mark_at(self.store, log_bytes)
        checkpoint = Checkpoint(log=mark, issued=self._now())
        self.store.append(CHECKPOINTS, self._signed(checkpoint))
        return mark

    # -- parts -----------------------------------------------------------------------------

    def _enough(
        self, look: Look, version: VerifiedVersion, environment: str, at: str, needed: int
    ) -> list[Digest]:
        reader, at_us = self.verifier.reader, time_us(at)
        found = count_approvals(reader, look.root, version, environment, at_us=at_us, needed=needed)
        if found:
            return sorted(found.digests)
        raise ApprovalPending(
            f"{version.ref} has the approvals of {len(found.people)} of {found.needed} people "
            f"for {environment}",
            where=version.ref,
            next_step=f"let somebody who is no author run `toolkit trust approve {version.ref}`",
            details={
                "needed": found.needed,
                "people": sorted(found.people),
                "ignored": [{"where": one.where, "message": one.message} for one in found.ignored],
            },
        )

    def _write_index(
        self,
        look: Look,
        job: str,
        aliases: Mapping[str, AliasEntry],
        before: AliasIndex | None,
        log_bytes: int,
    ) -> AliasIndex:
        now, facts = self.verifier.clock.now_us(), look.root.facts
        index = AliasIndex(
            job=job,
            epoch=facts.epoch,
            index=before.index + 1 if before else 1,
            aliases=dict(sorted(aliases.items())),
            log=mark_at(self.store, log_bytes),
            root_version=look.root.version,
            issued=iso_utc(now),
            expires=iso_utc(now + facts.fresh_days * _DAY_US),
            policies=policies_in_force(self.verifier.reader, look, before, now),
        )
        self.store.write(index_path(job), self._signed(index))
        return index

    def _signed(self, predicate: Predicate, files: Mapping[str, Digest] | None = None) -> bytes:
        return sign(Envelope(statement_bytes(predicate, files)), self.signer).to_bytes()

    def _person(self, root: Root, *roles: str) -> str:
        person = root.person_of(self.signer.public)
        if person is None:
            raise ConfigurationError(
                f"the root does not list the key {self.signer.public.id[:23]}…",
                where="trust/root.json",
                next_step="let the people of the root add it (toolkit trust add-person)",
            )
        if not any(person in root.holders(role) for role in roles):
            raise ConfigurationError(
                f"{person} does not have the role {' or '.join(roles)}",
                where="trust/root.json",
                next_step="ask somebody who has it, or let the root's people change the root",
            )
        return person

    def _now(self) -> str:
        return iso_utc(self.verifier.clock.now_us())
