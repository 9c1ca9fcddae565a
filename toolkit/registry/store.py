"""The registry: seal, resolve, load, alias, record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.errors import Fault, NotFound, UsageError
from toolkit.registry.aliases import AliasBook, AliasMove
from toolkit.registry.audit import AuditLog, AuditRecord, LogEnds
from toolkit.registry.diff import VersionDiff, diff_versions
from toolkit.registry.manifest import MANIFEST, Manifest
from toolkit.registry.moving import ANY, Mover
from toolkit.registry.reading import (
    JOBS,
    is_job,
    open_job,
    read_aliases,
    read_version,
    refuse,
    version_numbers,
)
from toolkit.registry.releases import Releases
from toolkit.registry.requests import Requests
from toolkit.registry.sealing import seal_version
from toolkit.registry.storage import DiskPlace, Place, disk_errors
from toolkit.registry.trusted import UNSIGNED, SignerSource, Trust, UnsignedTrust, attester
from toolkit.registry.verifier import Progress, verify_registry
from toolkit.registry.version import Sealed, Version
from toolkit.trust import Asked, Checkpoint, Notary
from toolkit.values import Clock, JobRef, SystemClock, check_name, iso_utc

__all__ = ["Registry"]

_DEFAULT_ALIAS = "production"
_OWN_EVENTS = ("version.sealing", "version.sealed", "alias.moving", "alias.moved")


class Registry:
    """Versions, aliases and the audit log in one place.  Thread- and process-safe.

    Args:
        root: The registry's folder; made on the first write.
        place: Where versions, aliases and log are, if not in that folder: a bucket.
        clock: Where time stamps come from.
        trust_state: ``.toolkit/trust/state.json``: what this machine saw last.  Without it a
            signed registry is refused, and an unsigned one works.
        signer: Opens this person's key when something is to be signed.

    Attributes:
        releases: Rolls versions out and back, and ends them.
        requests: Versions that wait for people.
    """

    def __init__(
        self,
        root: Path,
        *,
        place: Place | None = None,
        clock: Clock | None = None,
        trust_state: Path | None = None,
        signer: SignerSource | None = None,
    ) -> None:
        self.root = root
        self._clock: Clock = clock or SystemClock()
        self._place: Place = place or DiskPlace(root)
        self._audit = AuditLog(self._place, self._clock)
        self.trust = Trust(self._place, trust_state, self._clock, signer) if trust_state else None
        self._unsigned = UnsignedTrust(self._place)
        self.requests = Requests(self._place)
        self.releases = Releases(
            Mover(self._place, self._audit, self._clock, self._signed),
            lambda name: (self.aliases(name), self._book(name)),
            lambda name, number: self.load(JobRef(name, str(number))),
            self.versions,
        )

    @property
    def where(self) -> str:
        """The folder, or the address of the bucket."""
        return self._place.where

    @property
    def signed(self) -> bool:
        """Whether people sign here; if not, anybody who can write the files can promote.

        Raises:
            ConfigurationError: It is signed, and was opened without ``trust_state``.
        """
        return self._signed() is not None

    @property
    def standing(self) -> str:
        """One sentence about the signatures."""
        return self.trust.standing if self.trust else UNSIGNED

    def _signed(self) -> Trust | None:
        active = self.trust.active if self.trust else self._unsigned.active
        return self.trust if active else None

    def _notary(self) -> Notary | None:
        trust = self._signed()
        return trust.notary() if trust else None

    # -- versions --------------------------------------------------------------------------

    def seal(self, name: str, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Sealed:
        """Publish the next version of a job.

        Args:
            name: The job.
            files: Bytes by file name (``notebook.ipynb``, ``evidence.json`` …).
            manifest: ``by`` and any of ``parameters``, ``results``, ``policy_digest``,
                ``evaluation_digest``, ``notebook_digest``, ``git_commit``, ``environment``,
                ``timeouts``, ``extra``.

        Raises:
            UsageError: ``name`` is not a job name.
            InvalidFile: Every fault of the file names and the manifest.
            InfrastructureError: The disk refused; nothing was published.
            IntegrityError: The audit log is damaged; nothing was published.
        """
        check_name(name, "job name")
        draft = Manifest.draft(name, files, manifest, iso_utc(self._clock.now_us()))
        notary = self._notary()
        final = seal_version(
            self._place, self._audit, self._clock, draft, files, attest=attester(notary)
        )
        if notary:
            notary.checkpoint(self._audit.end())
        folder = f"{JOBS}/{name}/{final.version}"
        path = self._place.show(folder, {**files, MANIFEST: final.to_bytes()})
        return Sealed(name, final.version, final.bundle_digest, path or self.root / folder)

    def resolve(self, ref: JobRef | str) -> Version:
        """Find the version that a reference means; no selector means ``production``.

        Raises:
            UsageError: The text is not a reference.
            NotFound: There is no such job, alias or version.
            InvalidFile: The manifest or ``aliases.json`` is damaged.
        """
        ref = JobRef.parse(ref) if isinstance(ref, str) else ref
        check_name(ref.name, "job name")
        number = ref.version
        if number is None:
            number = self._pointed(ref, ref.selector or _DEFAULT_ALIAS)
        with open_job(self._place, ref.name) as job:
            read = read_version(job, ref.name, number, files=False)
        if read.manifest is None:
            refuse(read.faults, f"{ref.name}@{number}", missing=read.missing)
        return Version(read.manifest, read.manifest.bundle_digest)

    def _pointed(self, ref: JobRef, alias: str) -> int:
        """Return where an alias points; if signed, its version and approvals are verified too."""
        trust = self._signed()
        if trust is None:
            known = self._book(ref.name).current
        else:
            try:
                return trust.verifier.alias(ref.name, alias).entry.version
            except NotFound:
                known = self.aliases(ref.name)
                if alias in known:
                    raise
        if alias not in known:
            raise self._book(ref.name).without(alias, known, str(ref))
        return known[alias]

    def show(self, version: Version) -> Path:
        """Return a folder with a version's files for people to look at; see :class:`Sealed`.

        Raises:
            IntegrityError, NotFound: As :meth:`load`.
        """
        folder = f"{JOBS}/{version.name}/{version.number}"
        files = {**self.load(version), MANIFEST: version.manifest.to_bytes()}
        return self._place.show(folder, files) or self.root / folder

    def load(self, version: Version | JobRef | str) -> dict[str, bytes]:
        """Return the verified bytes of every file of a version.

        Raises:
            IntegrityError: A file is missing, extra or changed; each is named in
                ``details["faults"]`` with the expected and the actual digest.
            NotFound: There is no such version.
        """
        found = version if isinstance(version, Version) else self.resolve(version)
        with open_job(self._place, found.name) as job:
            read = read_version(job, found.name, found.number, files=True)
        faults = list(read.faults)
        if read.manifest and read.manifest.bundle_digest != found.bundle_digest:
            faults.insert(
                0,
                Fault(
                    f"{JOBS}/{found.name}/{found.number}/{MANIFEST}",
                    f"expected {found.bundle_digest}, actual {read.manifest.bundle_digest}",
                ),
            )
        if faults:
            refuse(faults, found.ref, missing=read.missing)
        if (trust := self._signed()) is None:
            return read.files
        verified = trust.verifier.version(found.name, found.number)
        if verified.bundle_digest != found.bundle_digest:
            fault = Fault(f"{JOBS}/{found.name}/{found.number}", "was changed while it was read")
            refuse([fault], found.ref, missing=False)
        return {name: data for name, data in verified.files.items() if name != MANIFEST}

    def jobs(self) -> list[str]:
        """Names of all jobs that have a folder."""
        with disk_errors(f"reading {JOBS}"):
            try:
                with self._place.open() as root, root.child(JOBS) as jobs:
                    return [name for name in jobs.names() if is_job(jobs, name)]
            except FileNotFoundError:
                return []

    def versions(self, name: str) -> list[int]:
        """Numbers of a job's versions, ascending.

        Raises:
            NotFound: There is no such job.
        """
        with open_job(self._place, check_name(name, "job name")) as job:
            return version_numbers(job)

    def diff(self, a: Version | JobRef | str, b: Version | JobRef | str) -> VersionDiff:
        """Compare two versions, of one job or of two, after verifying both.

        Raises:
            NotFound, IntegrityError: See :meth:`load`.
        """
        before = a if isinstance(a, Version) else self.resolve(a)
        after = b if isinstance(b, Version) else self.resolve(b)
        return diff_versions(before.manifest, self.load(before), after.manifest, self.load(after))

    def diff_draft(
        self, a: Version | JobRef | str, files: Mapping[str, bytes], manifest: Mapping[str, Any]
    ) -> VersionDiff:
        """Compare a version with one of the same job that is not sealed; see :meth:`seal`.

        Raises:
            NotFound, IntegrityError: See :meth:`load`.
            InvalidFile: Every fault of the file names and the manifest.
        """
        before = a if isinstance(a, Version) else self.resolve(a)
        draft = Manifest.draft(before.name, files, manifest, iso_utc(self._clock.now_us()))
        found = diff_versions(before.manifest, self.load(before), draft, dict(files))
        return replace(found, after=f"{before.name}, not sealed")

    # -- aliases ---------------------------------------------------------------------------

    def aliases(self, name: str) -> dict[str, int]:
        """Version number by alias.

        Raises:
            NotFound: There is no such job.
            InvalidFile: ``aliases.json`` is damaged.
            IntegrityError: The registry is signed, and the job's index is not what was signed.
        """
        book, trust = self._book(check_name(name, "job name")), self._signed()
        return trust.aliases(name) if trust else book.current

    def _book(self, name: str) -> AliasBook:
        with open_job(self._place, name) as job:
            return read_aliases(job, name)

    def alias_history(self, name: str) -> tuple[AliasMove, ...]:
        """Every move of every alias of a job, oldest first."""
        return self._book(check_name(name, "job name")).moves

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        by: str,
        expected: int | None = ANY,
        asked: Asked | None = None,
    ) -> AliasMove | None:
        """Point an alias at a version; what ran beside it ends.

        Args:
            name: The job.
            alias: ``production``, say.
            version: The number that it is to point at.
            by: Who moves it.
            expected: Where it must point now, ``None`` for nowhere; left out, anywhere.
            asked: How many people policy asks for, in a signed registry.

        Returns:
            The move, or ``None`` if the alias points there already.

        Raises:
            NotFound: There is no such version.
            IntegrityError: The version is damaged: an alias never points at a broken one.
            ConfigurationError: The version is revoked.
            Conflict: The alias does not point at ``expected``.
            ApprovalPending: The registry is signed, the alias takes approvals, and too few approved.
        """
        return self.releases.set(name, alias, version, by=by, expected=expected, asked=asked)

    def rollback(
        self, name: str, alias: str = _DEFAULT_ALIAS, *, by: str, to: int | None = None
    ) -> AliasMove:
        """Point an alias where it pointed before; see :meth:`Releases.rollback`."""
        return self.releases.rollback(name, alias, by=by, to=to)

    # -- audit -----------------------------------------------------------------------------

    def record(self, event: str, body: dict[str, Any], *, by: str | None = None) -> AuditRecord:
        """Append a record to the audit log and sync it.

        Args:
            event: ``approval.given``, ``version.revoked`` …; the registry's own four are refused.
            body: JSON facts.
            by: Who; left out, ``body["by"]``, and ``unknown`` if that is missing too.

        Raises:
            UsageError: The event is not a name, is the registry's own, or ``body`` is not JSON.
            IntegrityError: The log's end is damaged; a broken chain is not continued.
            InfrastructureError: The disk refused; nothing was recorded.
        """
        check_name(event, "event")
        if event in _OWN_EVENTS or event.startswith("audit."):
            raise UsageError(f"{event} is written by the registry itself")
        try:
            return self._audit.append(event, body, by or str(body.get("by") or "unknown"))
        except ValueError as error:
            raise UsageError(f"the body of {event} cannot be recorded: {error}") from error

    def audit(self) -> Iterator[AuditRecord]:
        """Yield every record, oldest first.

        Raises:
            IntegrityError: At the first record that is damaged; a line that a crash cut off at
                the very end was never acknowledged and is left out.
        """
        return self._audit.records()

    def audit_end(self) -> int:
        """Return how long the log is, in bytes: where the next checkpoint goes."""
        return self._audit.end()

    def audit_ends(self, middle: int = 0) -> LogEnds | None:
        """Return the hashes of the log's ends, and of one record between; see there."""
        return self._audit.ends(middle)

    @property
    def audit_changed(self) -> bool:
        """Whether this object added to the audit log."""
        return self._audit.appended > 0

    def audit_head(self) -> AuditRecord | None:
        """The last record: keep its ``n`` and ``hash`` elsewhere to notice a cut tail.

        Raises:
            IntegrityError: See :meth:`audit`.
        """
        last = None
        for record in self.audit():
            last = record
        return last

    def verify(self, progress: Progress | None = None) -> list[Fault]:
        """Recompute every digest and hash; return what is wrong, file by file.

        Args:
            progress: Called with (done, total, what) before each step.
        """
        with disk_errors(f"verifying {self.where}"), self._place.fresh():
            faults = verify_registry(self._place, self._audit, progress)
            if trust := self._signed():
                faults += trust.faults({name: self.versions(name) for name in self.jobs()})
        return faults

    def warnings(self) -> list[str]:
        """Return what is in order, and people may not want; in an unsigned registry nothing.

        Raises:
            IntegrityError, InvalidFile: What is signed is not in order.
        """
        return trust.warnings() if (trust := self._signed()) else []

    def checkpoints(self) -> list[Checkpoint]:
        """Return every signed checkpoint of the audit log, oldest first; none if unsigned.

        Raises:
            IntegrityError: One is damaged, or is not in the log.
        """
        return trust.checkpoints() if (trust := self._signed()) else []
