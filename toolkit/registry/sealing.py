"""Publishes one version: all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from toolkit.errors import InfrastructureError
from toolkit.registry.audit import AuditLog
from toolkit.registry.manifest import MANIFEST, Manifest
from toolkit.registry.reading import JOBS
from toolkit.registry.storage import Draft, Place, disk_errors
from toolkit.trust import ATTESTATION
from toolkit.values import Clock, digest_bytes

__all__ = ["seal_version"]

Attest = Callable[[bytes], bytes]
"""Returns the attestation of a version, given the bytes of its ``job.yaml``."""


def seal_version(
    place: Place,
    audit: AuditLog,
    clock: Clock,
    draft: Manifest,
    files: Mapping[str, bytes],
    *,
    attest: Attest | None = None,
) -> Manifest:
    """Write, sync, re-read, number, record and claim; return the manifest with its number.

    Steps: (1) every file goes where readers do not look; (2) the manifest with the next free
    number follows, and in a signed registry its attestation; (3) all is synced and read back;
    (4) ``version.sealing`` is recorded; (5) the number is claimed, or the next one if that is
    taken; (6) ``version.sealed`` is recorded.  A crash before 5 leaves nothing that a reader
    sees, a crash after 5 a complete version that the record of step 4 vouches for.

    Raises:
        InfrastructureError: The storage refused; nothing was published.
        ConfigurationError: The registry may not be written.
        IntegrityError: The audit log is damaged; nothing was published.
    """
    with disk_errors(f"sealing {draft.name}"), place.draft(draft.name, clock) as version:
        for path, data in files.items():  # 1
            version.write(path, data)
        with place.lock(f"job-{draft.name}"):
            return _publish(version, draft, audit, attest)


def _publish(version: Draft, draft: Manifest, audit: AuditLog, attest: Attest | None) -> Manifest:
    """Steps 2 to 6; the caller holds the job's lock.

    The lock makes the numbers dense and the records orderly; that no number is given twice
    rests on the claim alone.
    """
    number = version.taken() + 1
    while True:
        final = draft.numbered(number)
        version.write(MANIFEST, final.to_bytes())  # 2
        if attest:
            version.write(ATTESTATION, attest(final.to_bytes()))
        version.sync()
        _confirm(version, final)  # 3
        facts = {"name": final.name, "version": number, "bundle_digest": final.bundle_digest}
        audit.append("version.sealing", facts, final.by)  # 4
        if version.claim(number):  # 5
            break
        version.remove(MANIFEST)
        if attest:
            version.remove(ATTESTATION)
        number += 1
    audit.append("version.sealed", facts, final.by)  # 6
    return final


def _confirm(version: Draft, manifest: Manifest) -> None:
    """Read back what was written: a disk may store less than it was given and say nothing."""
    where = f"{JOBS}/{manifest.name}"
    for path, fact in manifest.files.items():
        data = version.read(path, fact.size)
        if len(data) != fact.size or digest_bytes(data) != fact.digest:
            raise _not_kept(f"{where}/{path}", f"{len(data)} of {fact.size} bytes are there")
    expected = manifest.to_bytes()
    if version.read(MANIFEST, len(expected)) != expected:
        raise _not_kept(f"{where}/{MANIFEST}", "it reads back differently")


def _not_kept(where: str, how: str) -> InfrastructureError:
    return InfrastructureError(
        f"the disk did not keep {where.rpartition('/')[2]}: {how}",
        where=where,
        next_step="check the disk, then run the command again; nothing was published",
    )
