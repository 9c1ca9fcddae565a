"""The one verifier: what is in the registry is believed because of what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.errors import ConfigurationError, NotFound
from toolkit.trust.approving import Approvals, VerifiedVersion, count_approvals, people_needed
from toolkit.trust.log import check_mark
from toolkit.trust.looking import Look, look, not_older, remember
from toolkit.trust.policing import check_named_policies, policy_in_force
from toolkit.trust.reader import Reader, statement
from toolkit.trust.root import Root, refused
from toolkit.trust.shapes import time_us
from toolkit.trust.state import IndexMark, StateFile
from toolkit.trust.statements import AliasEntry, AliasIndex, PolicyChange, Promotion
from toolkit.trust.store import (
    ATTESTATION,
    MANIFEST,
    ROOT,
    Store,
    index_path,
    policy_environment,
    policy_path,
    version_folder,
)
from toolkit.values import Clock, Digest, check_name, digest_bytes

__all__ = ["VerifiedAlias", "Verifier"]

_MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class VerifiedAlias:
    """Where an alias points, verified.

    Attributes:
        alias: Its name.
        entry: As it was signed.
        version: The version it points at.
        approvals: What it was moved with; ``None`` if the alias needs none.
    """

    alias: str
    entry: AliasEntry
    version: VerifiedVersion
    approvals: Approvals | None


class Verifier:
    """Verifies roots, versions, aliases, approvals and policies of one registry.

    Every public method does the steps that concern it, in this order, and raises at the first
    that fails (:class:`IntegrityError` or :class:`InvalidFile`, naming file and reason):

    1. *Clock.*  It has not gone back by more than five minutes since something was accepted.
    2. *Roots.*  1, 2, … N: each signed by enough people of the one before and of its own; N is
       ``root.json``; the pinned digest is among them; none is older than the last seen, or
       another one of its number.
    3. *Expiry* of the newest root.
    4. *Index* of the job: one byte form, an operator's signature, this job, this epoch, not older
       than the last seen nor another one of its number, not expired.
    5. *Policies*: each policy change that the index names is there, signed by enough policy
       approvers, of its environment, and neither older than the index says nor than the last seen;
       that of the environment the alias is for has not expired.
    6. *Log*: the place that the index and this machine remember is in the audit log, unchanged.
    7. *Attestation* of the version: one byte form, every signature valid, enough promoters, this
       job and number, and the digest that the index names.
    8. *Files*: exactly those that were signed, each read once, each with its signed digest.
    9. *Manifest*: ``job.yaml`` says the same as what was signed.
    10. *Approvals*, where the alias takes any (:func:`people_needed`): those that the index names,
       each bound to this version, environment, policy and evaluation, in time when the alias
       moved, by enough different people with the role, none of them an author.
    11. *Memory*: what was newer is kept; nothing is kept before all other steps passed.

    Args:
        store: The registry's files; not trusted.
        state: What was seen last; trusted.
        clock: For expiry.
    """

    def __init__(self, store: Store, state: StateFile, clock: Clock) -> None:
        self.reader = Reader(store)
        self.state = state
        self.clock = clock

    @property
    def active(self) -> bool:
        """Whether this registry is signed: it has a root, or had one when last seen."""
        return self.state.load() is not None or self.reader.exists(ROOT)

    def require_signing(self) -> None:
        """Refuse what needs a root where signing was never switched on.

        Raises:
            ConfigurationError: It was not.
        """
        if not self.active:
            raise ConfigurationError(
                "this registry is not signed: signing was never switched on here",
                where=ROOT,
                next_step="switch it on: toolkit trust init PERSON --name … --email …",
            )

    def root(self) -> Root:
        """Steps 1 to 3 and 11: the root in force.

        Raises:
            IntegrityError, InvalidFile: See the class.
        """
        seen = self.look()
        remember(seen, self.state, self.clock)
        return seen.root

    def version(self, job: str, number: int) -> VerifiedVersion:
        """Steps 1 to 3, 7 to 9 and 11: one version, by its number.

        Raises:
            NotFound: There is no such version.
            IntegrityError, InvalidFile: See the class.
        """
        seen = self.look()
        found = self._version(seen.root, job, number)
        remember(seen, self.state, self.clock)
        return found

    def alias(self, job: str, alias: str, *, stale: bool = False) -> VerifiedAlias:
        """All steps: where an alias points.

        Args:
            job: The job.
            alias: The alias.
            stale: Let an expired index pass: only to sign it again.

        Raises:
            NotFound: There is no such alias.
            IntegrityError, InvalidFile: See the class.
        """
        seen = self.look()
        index = self._index(seen, job, stale=stale)
        entry = index.aliases.get(alias) if index else None
        if entry is None:
            raise NotFound(
                f"{job} has no alias {alias!a} that an operator signed for",
                where=index_path(job),
                next_step=f"run `toolkit registry show {job}`",
            )
        version = self._version(seen.root, job, entry.version)
        if version.bundle_digest != entry.bundle_digest:
            where = f"{version_folder(job, entry.version)}/{ATTESTATION}"
            raise refused(
                where, f"is of {version.bundle_digest}, the index of {entry.bundle_digest}"
            )
        approvals = self._moved_with(seen, version, alias, entry, stale=stale)
        remember(seen, self.state, self.clock)
        return VerifiedAlias(alias, entry, version, approvals)

    def index(self, job: str, *, stale: bool = False, renew: bool = False) -> AliasIndex | None:
        """Steps 1 to 6 and 11: a job's aliases; ``None`` if none was ever signed for.

        The versions they name are not read: use :meth:`alias` to run one.

        Args:
            job: Which.
            stale: Let an expired one pass: only to sign it again.
            renew: Treat one of an older epoch as if it were not there: only to begin anew.

        Raises:
            IntegrityError, InvalidFile: See the class.
        """
        seen = self.look()
        if renew and self._outdated(seen, job):
            return None
        found = self._index(seen, job, stale=stale)
        remember(seen, self.state, self.clock)
        return found

    def approvals(self, job: str, number: int, environment: str) -> Approvals:
        """Steps 1 to 3 and 7 to 10 as of now: who approved a version for an environment.

        Raises:
            NotFound: There is no such version.
            IntegrityError, InvalidFile: See the class; an approval that does not count is not
                an error but in ``ignored``.
        """
        seen = self.look()
        version = self._version(seen.root, job, number)
        return count_approvals(
            self.reader, seen.root, version, environment, at_us=self.clock.now_us()
        )

    def policy(self, environment: str, *, stale: bool = False) -> PolicyChange | None:
        """Steps 1 to 3 and 11, and :func:`toolkit.trust.policing.policy_in_force`.

        Args:
            environment: Which.
            stale: Let an expired one pass: only to sign it again.

        Returns:
            The change in force; ``None`` if none was ever signed for.

        Raises:
            IntegrityError, InvalidFile: See the class.
        """
        seen, now = self.look(), self.clock.now_us()
        change = policy_in_force(self.reader, seen, environment, now, stale=stale)
        remember(seen, self.state, self.clock)
        return change

    def pending_policy(self, environment: str) -> PolicyChange | None:
        """Return the policy change that waits for signatures; they prove nothing yet."""
        where = f"{policy_path(check_name(environment, 'environment'))}.pending"
        if not self.reader.exists(where):
            return None
        return statement(self.reader.envelope(where), PolicyChange, where)[0]

    def environments(self) -> list[str]:
        """Return the environments that have a policy change, in order or not."""
        found = {name for name in map(policy_environment, self.reader.names("trust")) if name}
        return sorted(found)

    def look(self) -> Look:
        """Steps 1 to 3: what there is to go by."""
        return look(self.reader, self.state, self.clock)

    def _outdated(self, seen: Look, job: str) -> bool:
        """Whether the index is of an epoch before the root's, and none of this epoch was seen.

        Its signature is not looked at: the key that made it may be what the epoch ended.
        """
        where, mark = index_path(check_name(job, "job name")), seen.seen.indexes.get(job)
        epoch = seen.root.facts.epoch
        if epoch == 1 or (mark and mark.epoch >= epoch) or not self.reader.exists(where):
            return False
        return statement(self.reader.envelope(where), AliasIndex, where)[0].epoch < epoch

    def unpromoted(self, job: str, number: int) -> VerifiedVersion:
        """As :meth:`version`, however few promoters signed: only to sign it too."""
        return self._version(self.look().root, job, number, enough=False)

    # -- steps -----------------------------------------------------------------------------

    def _index(self, seen: Look, job: str, *, stale: bool = False) -> AliasIndex | None:
        check_name(job, "job name")
        where, mark = index_path(job), seen.seen.indexes.get(job)
        if mark is None and not self.reader.exists(where):
            return None
        envelope = self.reader.envelope(where)  # 4
        seen.root.require("operator", seen.root.signers(envelope, where), where)
        index, _ = statement(envelope, AliasIndex, where)
        if index.job != job:
            raise refused(where, f"is of the job {index.job}")
        if index.epoch != seen.root.facts.epoch:
            raise refused(
                where,
                f"is of the epoch {index.epoch}, the root's is {seen.root.facts.epoch}",
                f"an operator signs it again: `toolkit trust refresh {job}`",
            )
        new = IndexMark(epoch=index.epoch, number=index.index, digest=envelope.digest)
        not_older(mark, new, where)
        if self.clock.now_us() >= time_us(index.expires) and not stale:
            raise refused(
                where,
                f"is stale since {index.expires}: a newer one may have been withheld",
                f"an operator signs it again: `toolkit trust refresh {job}`",
            )
        check_named_policies(self.reader, seen, index, self.clock.now_us())  # 5
        for place in (index.log, seen.seen.log):  # 6
            if place:
                check_mark(self.reader.store, place)
        seen.indexes[job] = new
        if seen.log is None or index.log.records > seen.log.records:
            seen.log = index.log
        return index

    def _version(
        self, root: Root, job: str, number: int, *, enough: bool = True
    ) -> VerifiedVersion:
        check_name(job, "job name")
        folder = version_folder(job, number)
        where = f"{folder}/{ATTESTATION}"
        names = self.reader.names(folder)
        if not names:
            raise NotFound(f"there is no version {job}@{number}", where=folder)
        envelope = self.reader.envelope(where)  # 7
        people = root.signers(envelope, where)
        promoters = people & root.holders("promoter")
        if enough:
            promoters = root.require("promoter", people, where)
        promotion, subjects = statement(envelope, Promotion, where)
        if (promotion.name, promotion.version) != (job, number):
            raise refused(where, f"is of {promotion.subject}, expected {job}@{number}")
        files = self._files(folder, names, subjects)  # 8
        by = self._check_manifest(promotion, files, subjects, f"{folder}/{MANIFEST}")  # 9
        authors = _aliases_of(root, {*promotion.authors, by, *people})
        return VerifiedVersion(promotion, files, promoters, authors, root.version)

    def _files(
        self, folder: str, names: list[str], subjects: Mapping[str, Digest]
    ) -> dict[str, bytes]:
        present = {name for name in names if name != ATTESTATION}
        for name in sorted(present ^ set(subjects)):
            what = "was not signed for" if name in present else "is missing"
            raise refused(f"{folder}/{ascii(name)[1:-1]}", what)
        files = {}
        for name, digest in subjects.items():
            data = self.reader.read(f"{folder}/{name}", _MAX_FILE_BYTES)
            if digest_bytes(data) != digest:
                actual = digest_bytes(data)
                raise refused(
                    f"{folder}/{name}", f"was changed: expected {digest}, actual {actual}"
                )
            files[name] = data
        return files

    def _check_manifest(
        self,
        promotion: Promotion,
        files: Mapping[str, bytes],
        subjects: Mapping[str, Digest],
        where: str,
    ) -> str:
        if MANIFEST not in files:
            raise refused(where, "was not signed for")
        facts = self.reader.store.facts(files[MANIFEST], where)
        signed = {name: digest for name, digest in subjects.items() if name != MANIFEST}
        pairs = {
            "name": (facts.name, promotion.name),
            "version": (facts.version, promotion.version),
            "bundle_digest": (facts.bundle_digest, promotion.bundle_digest),
            "policy_digest": (facts.policy_digest, promotion.policy_digest),
            "evaluation_digest": (facts.evaluation_digest, promotion.evaluation_digest),
            "files": (dict(facts.files), signed),
        }
        for what, (told, expected) in pairs.items():
            if told != expected:
                raise refused(where, f"says another {what} than its attestation")
        return facts.by

    def _moved_with(
        self, seen: Look, version: VerifiedVersion, alias: str, entry: AliasEntry, *, stale: bool
    ) -> Approvals | None:
        own = seen.root.facts.environment_of(alias)
        environment = own or (entry.environment if entry.needed else None)
        if environment is None:
            return None
        where = index_path(version.promotion.name)
        if entry.environment != environment:
            raise refused(where, f"moved {alias} for {entry.environment}, expected {environment}")
        now = self.clock.now_us()
        change = policy_in_force(self.reader, seen, environment, now, stale=stale)  # 5
        wanted, at_us = set(entry.approvals), time_us(entry.at)
        found = count_approvals(  # 10
            self.reader,
            seen.root,
            version,
            environment,
            at_us=at_us,
            only=wanted,
            needed=people_needed(seen.root, alias, entry, version.promotion.name, change),
        )
        if not found or found.digests != wanted:
            why = "; ".join(f"{one.where} {one.message}" for one in found.ignored)
            raise refused(
                where,
                f"moved {alias} with the approvals of {len(found.people)} of {found.needed} people"
                + (f": {why}" if why else ""),
                f"let somebody approve it: `toolkit trust approve {version.ref}`",
            )
        return found


def _aliases_of(root: Root, names: Iterable[str]) -> frozenset[str]:
    """Every person of the root that one of the names or addresses may mean, and the names."""
    said = {name.strip().casefold() for name in names}
    people = {
        person
        for person, entry in root.facts.people.items()
        if said & {person, entry.name.strip().casefold(), entry.email.strip().casefold()}
    }
    return frozenset(said | people)
