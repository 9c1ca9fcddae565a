"""What the verifier needs of a registry's files, and the paths of what is signed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from toolkit.values import Digest

__all__ = [
    "ATTESTATION",
    "AUDIT",
    "CHECKPOINTS",
    "MANIFEST",
    "ROOT",
    "ManifestFacts",
    "Store",
    "approvals_folder",
    "index_path",
    "policy_environment",
    "policy_path",
    "root_path",
    "version_folder",
]

ATTESTATION = "attestation.dsse.json"
MANIFEST = "job.yaml"
ROOT = "trust/root.json"
AUDIT = "log/audit.jsonl"
CHECKPOINTS = "log/checkpoints.jsonl"
_POLICY = re.compile(r"policy-(.+)\.dsse\.json", re.ASCII)


def root_path(version: int) -> str:
    """Where one root is kept for good."""
    return f"trust/{version}.root.json"


def policy_path(environment: str) -> str:
    """Where the policy change in force is kept."""
    return f"trust/policy-{environment}.dsse.json"


def policy_environment(name: str) -> str | None:
    """Return whose policy change a file name in ``trust/`` is of; ``None``: it is none."""
    found = _POLICY.fullmatch(name)
    return found[1] if found else None


def version_folder(job: str, number: int) -> str:
    """A version's folder."""
    return f"jobs/{job}/{number}"


def index_path(job: str) -> str:
    """A job's signed aliases."""
    return f"jobs/{job}/index.dsse.json"


def approvals_folder(job: str) -> str:
    """Approvals of all versions of a job."""
    return f"jobs/{job}/approvals"


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What ``job.yaml`` says, for comparison with what was signed.

    Attributes:
        name, version, by: The version and who sealed it.
        bundle_digest: As recomputed from the facts.
        policy_digest, evaluation_digest: What it was promoted with.
        files: Digest by file name.
    """

    name: str
    version: int
    by: str
    bundle_digest: Digest
    policy_digest: Digest | None
    evaluation_digest: Digest | None
    files: Mapping[str, Digest]


class Store(Protocol):
    """A registry's files by path.  No link is followed; a file is opened once per call."""

    def read(self, path: str, limit: int) -> bytes:
        """Return a plain file's bytes.

        Raises:
            FileNotFoundError: It is missing.
            OSError: It is not a plain file, is longer than ``limit`` bytes, or cannot be read.
        """
        ...

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer where the file ends."""
        ...

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; none if there is no such folder."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Put a file in place in one durable step; its folder is made if need be."""
        ...

    def append(self, path: str, line: bytes) -> None:
        """Add a line to a file, and make it durable."""
        ...

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        ...

    def facts(self, manifest: bytes, where: str) -> ManifestFacts:
        """Read ``job.yaml``.

        Raises:
            InvalidFile: It is damaged.
        """
        ...
