"""Publishes one version: all of it or nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from toolkit.errors import InfrastructureError
from toolkit.registry.audit import AuditLog
from toolkit.registry.folder import Folder, disk_errors
from toolkit.registry.manifest import MANIFEST, Manifest
from toolkit.registry.place import Place
from toolkit.registry.reading import JOBS, SEALING, version_numbers
from toolkit.trust import ATTESTATION
from toolkit.values import Clock, digest_bytes

__all__ = ["seal_version"]

_LEFTOVER_AGE_S = 86_400.0
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
    """Write, sync, re-read, number, record and rename; return the manifest with its number.

    Steps: (1) every file goes into a folder that readers ignore; (2) the manifest with the next
    free number follows, and in a signed registry its attestation; (3) all is synced and read back; (4) ``version.sealing`` is recorded;
    (5) the folder is renamed to the number, or to the next one if that is taken; (6)
    ``version.sealed`` is recorded.  A crash before 5 leaves a folder that the sweep deletes, a
    crash after 5 leaves a complete version that the record of step 4 vouches for.

    Raises:
        InfrastructureError: The disk refused; nothing was published.
        ConfigurationError: The registry may not be written.
        IntegrityError: The audit log is damaged; nothing was published.
    """
    scratch = f"{SEALING}{secrets.token_hex(8)}"
    with (
        disk_errors(f"sealing {draft.name}"),
        place.make() as root,
        root.child(JOBS, create=True) as jobs,
        jobs.child(draft.name, create=True) as job,
    ):
        _sweep(job, clock)
        try:
            with job.child(scratch, create=True) as folder:
                for path, data in files.items():  # 1
                    folder.write_new(path, data)
                with place.lock(f"job-{draft.name}"):
                    return _publish(job, folder, scratch, draft, audit, attest)
        finally:
            job.discard(scratch)


def _publish(  # noqa: PLR0917 - the parts of one step
    job: Folder,
    folder: Folder,
    scratch: str,
    draft: Manifest,
    audit: AuditLog,
    attest: Attest | None,
) -> Manifest:
    """Steps 2 to 6; the caller holds the job's lock.

    The lock makes the numbers dense and the records orderly; that no number is given twice
    rests on the rename alone.
    """
    number = max(version_numbers(job), default=0) + 1
    while True:
        final = draft.numbered(number)
        folder.write_new(MANIFEST, final.to_bytes())  # 2
        if attest:
            folder.write_new(ATTESTATION, attest(final.to_bytes()))
        folder.sync()
        _confirm(folder, final)  # 3
        facts = {"name": final.name, "version": number, "bundle_digest": final.bundle_digest}
        audit.append("version.sealing", facts, final.by)  # 4
        if job.claim(scratch, str(number)):  # 5
            break
        folder.remove(MANIFEST)
        if attest:
            folder.remove(ATTESTATION)
        number += 1
    job.sync()
    audit.append("version.sealed", facts, final.by)  # 6
    return final


def _confirm(folder: Folder, manifest: Manifest) -> None:
    """Read back what was written: a disk may store less than it was given and say nothing."""
    for path, fact in manifest.files.items():
        data = folder.read(path, fact.size)
        if len(data) != fact.size or digest_bytes(data) != fact.digest:
            raise _not_kept(folder, path, f"{len(data)} of {fact.size} bytes are there")
    expected = manifest.to_bytes()
    if folder.read(MANIFEST, len(expected)) != expected:
        raise _not_kept(folder, MANIFEST, "it reads back differently")


def _not_kept(folder: Folder, path: str, how: str) -> InfrastructureError:
    return InfrastructureError(
        f"the disk did not keep {path}: {how}",
        where=folder.path(path),
        next_step="check the disk, then run the command again; nothing was published",
    )


def _sweep(job: Folder, clock: Clock) -> None:
    """Delete what writers that crashed left a day ago or earlier."""
    now_s = clock.now_us() / 1e6
    for name in job.names():
        if not name.startswith((SEALING, ".replacing-")):
            continue
        try:
            old = now_s - job.modified_s(name) > _LEFTOVER_AGE_S
        except FileNotFoundError:
            continue  # its owner finished meanwhile
        if old:
            job.discard(name)
