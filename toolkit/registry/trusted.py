"""The registry's files as :mod:`toolkit.trust` sees them, and who signs here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from toolkit.errors import ConfigurationError, Fault, ToolkitError
from toolkit.registry.manifest import MANIFEST, Manifest
from toolkit.registry.storage import Place
from toolkit.trust import (
    ROOT,
    Checkpoint,
    ManifestFacts,
    Notary,
    Signer,
    StateFile,
    Verifier,
    read_checkpoints,
    verify_everything,
)
from toolkit.values import Clock

__all__ = ["UNSIGNED", "PlaceStore", "SignerSource", "Trust", "UnsignedTrust", "attester"]

UNSIGNED = "unsigned: anybody who can write the files can promote"
SignerSource = Callable[[], Signer]


class PlaceStore:
    """A registry's files by path, as :class:`toolkit.trust.Store` has them.

    Args:
        place: The registry's folder and locks.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def read(self, path: str, limit: int) -> bytes:
        """Return a plain file's bytes; see :class:`toolkit.trust.Store`."""
        return self._place.read(path, limit)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes from the middle of a file."""
        return self._place.read_at(path, offset, length)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder; none if there is no such folder."""
        return self._place.names(path)

    def write(self, path: str, data: bytes) -> None:
        """Put a file in place in one durable step."""
        self._place.write(path, data)

    def append(self, path: str, line: bytes) -> None:
        """Add a line to a file; after an error or a crash the file is as before or mended next.

        A crash may leave half a line: it is cut off before the next one is added.
        """
        self._place.extend(path, lambda _last, _torn: line, keep=False)

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        self._place.remove(path)

    def facts(self, manifest: bytes, where: str) -> ManifestFacts:
        """Read ``job.yaml``."""
        found = Manifest.from_bytes(manifest, where)
        return ManifestFacts(
            name=found.name,
            version=found.version,
            by=found.by,
            bundle_digest=found.bundle_digest,
            policy_digest=found.policy_digest,
            evaluation_digest=found.evaluation_digest,
            files={name: fact.digest for name, fact in found.files.items()},
        )


class Trust:
    """What a registry's signatures are held against on this machine, and who signs.

    Args:
        place: The registry.
        state: ``.toolkit/trust/state.json``, outside the registry.
        clock: For expiry.
        signer: Opens this person's key; called only when something is to be signed.
    """

    def __init__(
        self, place: Place, state: Path, clock: Clock, signer: SignerSource | None = None
    ) -> None:
        self.verifier = Verifier(PlaceStore(place), StateFile(state), clock)
        self._open = signer

    @property
    def active(self) -> bool:
        """Whether the registry is signed."""
        return self.verifier.active

    @property
    def standing(self) -> str:
        """One sentence about the signatures; what is wrong with them, if something is."""
        try:
            if not self.active:
                return UNSIGNED
            facts = self.verifier.root().facts
        except ToolkitError as error:
            return f"signed, and not in order: {error.message}"
        aliases = ", ".join(facts.protected) or "no alias"
        return f"signed: root {facts.version}, good until {facts.expires}; {aliases} moves with approvals"

    def notary(self) -> Notary:
        """This person's pen.

        Raises:
            ConfigurationError: No key is named here, or it cannot be opened.
        """
        if self._open is None:
            raise ConfigurationError(
                "this registry is signed, and no key is named to sign with",
                where=ROOT,
                next_step="name yours: `toolkit key use URI`",
            )
        return Notary(self.verifier, self._open())

    def aliases(self, job: str) -> dict[str, int]:
        """Return version number by alias, as an operator signed it; none if none ever did.

        Raises:
            IntegrityError: The job's index is not what was signed.
        """
        index = self.verifier.index(job)
        return {alias: entry.version for alias, entry in index.aliases.items()} if index else {}

    def faults(self, versions: Mapping[str, Sequence[int]]) -> list[Fault]:
        """Return everything that is wrong with what is signed, given the versions there are."""
        return verify_everything(self.verifier, versions)

    def warnings(self) -> list[str]:
        """Return what the signatures allow and people may not want; nothing if all is kept apart.

        Raises:
            IntegrityError, InvalidFile: The root or a policy change is not in order.
        """
        facts = self.verifier.root().facts
        told = [
            f"{person} approves versions, and policies or roots too: one person can weaken a rule "
            "and approve by it; `toolkit trust rotate --separate` forbids that"
            for person in facts.both
        ]
        for environment in self.verifier.environments():
            change = self.verifier.policy(environment, stale=True)
            if change and change.expires is None:
                told.append(
                    f"the policy of {environment} was signed without an end: "
                    f"sign it again, `toolkit policy promote {environment}`"
                )
        return told

    def checkpoints(self) -> list[Checkpoint]:
        """Return every signed checkpoint of the audit log, oldest first.

        Raises:
            IntegrityError: One is damaged, or is not in the log.
        """
        return list(read_checkpoints(self.verifier.reader, self.verifier.look().chain))


def attester(notary: Notary | None) -> Callable[[bytes], bytes] | None:
    """Return what attests a version given its ``job.yaml``; nothing does in an unsigned registry."""
    if notary is None:
        return None
    facts = notary.store.facts
    return lambda manifest: notary.attestation(manifest, facts(manifest, MANIFEST))


class UnsignedTrust:
    """Stands where a registry was opened without :class:`Trust`: a signed one is refused.

    Args:
        place: The registry.
    """

    def __init__(self, place: Place) -> None:
        self._store = PlaceStore(place)

    @property
    def active(self) -> bool:
        """``False``.

        Raises:
            ConfigurationError: The registry is signed.
        """
        folder, _, name = ROOT.rpartition("/")
        if name in self._store.names(folder):
            raise ConfigurationError(
                "this registry is signed, and was opened without what was seen of it last",
                where=ROOT,
                next_step="open it through its workspace",
            )
        return False
