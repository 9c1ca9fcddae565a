"""Verifies all that is signed, for `toolkit registry verify`: every fault, not the first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from toolkit.errors import Fault, IntegrityError, InvalidFile, NotFound
from toolkit.trust.approving import approval_name
from toolkit.trust.keys import PublicKey
from toolkit.trust.log import check_mark
from toolkit.trust.reader import Reader, statement, stored
from toolkit.trust.root import Root, refused, signed_by
from toolkit.trust.rooting import PENDING_ROOT
from toolkit.trust.statements import Approval, Checkpoint
from toolkit.trust.store import CHECKPOINTS, ROOT, approvals_folder, index_path, policy_environment
from toolkit.trust.verifier import Verifier

__all__ = ["read_checkpoints", "verify_everything"]

_MAX_CHECKPOINTS_BYTES = 1 << 28
_APPROVAL = re.compile(r"([1-9][0-9]{0,8})\.[0-9a-f]{32}\.dsse\.json", re.ASCII)
_ROOTS = re.compile(r"[1-9][0-9]{0,8}\.root\.json", re.ASCII)


def verify_everything(verifier: Verifier, jobs: Mapping[str, Sequence[int]]) -> list[Fault]:
    """Return everything that is wrong with what is signed.

    Args:
        verifier: The registry.
        jobs: Numbers of the versions that are there, by job.
    """
    faults: list[Fault] = []
    try:
        verifier.root()
        look = verifier.look()
    except (IntegrityError, InvalidFile) as error:
        return _faults_of(error)
    faults += _check(_trust_folder, verifier)
    for job, numbers in jobs.items():
        for number in numbers:
            faults += _check(verifier.version, job, number)
        faults += _check(_aliases, verifier, job)
        for where in _approval_files(verifier.reader, job):
            faults += _check(_approval, verifier.reader, look.chain, where)
    faults += _check(list, read_checkpoints(verifier.reader, look.chain))
    return faults


def read_checkpoints(reader: Reader, roots: Sequence[Root]) -> Iterator[Checkpoint]:
    """Yield each checkpoint of the audit log, verified against the log as it is now.

    Somebody who has left the root since may have signed one: it can only name a place that is in
    the log.

    Args:
        reader: The registry.
        roots: Every root so far.

    Raises:
        IntegrityError: One is damaged, is not in the log, or they do not follow each other.
    """
    folder, _, name = CHECKPOINTS.rpartition("/")
    if name not in reader.names(folder):
        return
    data = reader.read(CHECKPOINTS, _MAX_CHECKPOINTS_BYTES)
    before = -1
    for n, line in enumerate(data.splitlines(keepends=True), start=1):
        where = f"{CHECKPOINTS}:{n}"
        envelope = stored(line, where)
        checkpoint, _ = statement(envelope, Checkpoint, where)
        people = signed_by(envelope, _ever(roots), where)
        if not any(
            people & (root.holders("operator") | root.holders("promoter")) for root in roots
        ):
            raise refused(where, "is signed by nobody with the role operator or promoter")
        if checkpoint.log.records < before:
            raise refused(where, "says less than the checkpoint before it")
        before = checkpoint.log.records
        check_mark(reader.store, checkpoint.log)
        yield checkpoint


def _ever(roots: Sequence[Root]) -> dict[str, tuple[PublicKey, str]]:
    """Every key that any root ever listed, with its person."""
    return {key: entry for root in roots for key, entry in root.keys.items()}


def _check(step: Callable[..., object], *about: object) -> list[Fault]:
    try:
        step(*about)
    except (IntegrityError, InvalidFile, NotFound) as error:
        return _faults_of(error)
    return []


def _faults_of(error: IntegrityError | InvalidFile | NotFound) -> list[Fault]:
    told = error.details.get("faults")
    if not told:
        return [Fault(error.where or "trust", error.message)]
    inside = f"{error.where}: " if isinstance(error, InvalidFile) else ""
    return [Fault(inside + one["where"], one["message"], one["next_step"]) for one in told]


def _trust_folder(verifier: Verifier) -> None:
    """Every file there is one that belongs there, and every policy change is verified."""
    for name in verifier.reader.names("trust"):
        where = f"trust/{ascii(name)[1:-1]}"
        environment = policy_environment(name)
        if environment:
            verifier.policy(environment)
        elif f"trust/{name}" not in (ROOT, PENDING_ROOT) and not _ROOTS.fullmatch(name):
            if name.startswith(".") or name.endswith(".pending"):
                continue
            raise refused(where, "does not belong there")
    look = verifier.look()
    for environment in sorted({*look.seen.policies, *(look.root.facts.policies or ())}):
        verifier.policy(environment)


def _aliases(verifier: Verifier, job: str) -> None:
    index = verifier.index(job)
    for alias in index.aliases if index else ():
        try:
            verifier.alias(job, alias)
        except NotFound as error:
            raise refused(index_path(job), error.message) from error


def _approval_files(reader: Reader, job: str) -> list[str]:
    folder = approvals_folder(job)
    try:
        return [f"{folder}/{name}" for name in reader.names(folder) if not name.startswith(".")]
    except IntegrityError:
        return [folder]


def _approval(reader: Reader, roots: Sequence[Root], where: str) -> None:
    """An approval need not count to be in order; it must be what somebody wrote."""
    name = where.rpartition("/")[2]
    named = _APPROVAL.fullmatch(name)
    if not named:
        raise refused(where, "does not belong there")
    envelope = reader.envelope(where)
    if name != approval_name(int(named[1]), envelope.digest):
        raise refused(where, "is not named after what was signed: it was copied or changed")
    people = signed_by(envelope, _ever(roots), where)
    approval, _ = statement(envelope, Approval, where)
    if people != {approval.person}:
        raise refused(where, f"has another person: {approval.person}")
