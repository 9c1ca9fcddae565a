r"""``requirements.lock``: every package of an environment with its version and hashes.

Format ``lock/1``: lines that pip and uv read as requirements with hashes, in one form.  Four
comments head it (format, Python, platform, what was declared); then one ``name==version`` per
package, sorted, each followed by its ``--hash=sha256:…`` lines.  No address, no option, no path.
"""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from toolkit.errors import ConfigurationError, Fault, InvalidFile
from toolkit.values import Digest, digest_bytes

__all__ = ["FORMAT", "LOCK_FILE", "Lock", "LockedPackage", "this_platform", "this_python"]

FORMAT = "lock/1"
LOCK_FILE = "requirements.lock"
MAX_BYTES = 4 << 20
_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.+!_-]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_HEAD = ("python", "platform", "declared")


def this_python() -> str:
    """Return the Python that environments are made of: ``3.11``."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def this_platform() -> str:
    """Return the platform that wheels are chosen for: ``linux-x86_64``."""
    return sysconfig.get_platform()


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One package.

    Attributes:
        name: Its normal name.
        version: The one version.
        hashes: SHA-256 in hex of each file of that version, sorted; one of them is installed.
    """

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """What an environment consists of, beside Python and the kernel's half of the toolkit.

    Attributes:
        python, platform: What it was made for.
        declared: The requirements that the notebook declares.
        packages: Sorted by name.
    """

    python: str
    platform: str
    declared: tuple[str, ...]
    packages: tuple[LockedPackage, ...]

    @cached_property
    def digest(self) -> Digest:
        """Digest of the file's bytes."""
        return digest_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's one form."""
        declared = json.dumps(list(self.declared))
        lines = [
            f"# {FORMAT}",
            f"# python: {self.python}",
            f"# platform: {self.platform}",
            f"# declared: {declared}",
        ]
        for package in self.packages:
            hashes = [f"    --hash=sha256:{digest}" for digest in package.hashes]
            pin = f"{package.name}=={package.version}"
            lines += [" \\\n".join([pin, *hashes])]
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes, where: str = LOCK_FILE) -> Lock:
        """Read the file.

        Raises:
            InvalidFile: It is not ``lock/1`` in its one form; every fault with its line.
        """
        text = data.decode("utf-8", "replace")
        lines = text.splitlines()
        if len(data) > MAX_BYTES or not lines or lines[0] != f"# {FORMAT}":
            raise InvalidFile.of(where, [Fault("line 1", f"it is not {FORMAT}")])
        head = {}
        for line in lines[1:4]:
            name, _, value = line.removeprefix("# ").partition(": ")
            head[name] = value
        packages, faults = read_pins(lines)
        try:
            declared = tuple(map(str, json.loads(head["declared"])))
            made = cls(head["python"], head["platform"], declared, packages)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise InvalidFile.of(where, [Fault("line 2", "its head cannot be read")]) from error
        if not faults and made.to_bytes() != data:
            faults = [Fault("file", f"its bytes are not the one form that {FORMAT} has")]
        if faults:
            raise InvalidFile.of(where, faults)
        return made

    def check_machine(self) -> None:
        """Refuse a lock for another Python or platform.

        Raises:
            ConfigurationError: It was made for another one.
        """
        for what, wanted, here in (
            ("Python", self.python, this_python()),
            ("the platform", self.platform, this_platform()),
        ):
            if wanted != here:
                raise ConfigurationError(
                    f"the version is locked for {what} {wanted}, this machine has {here}",
                    where=LOCK_FILE,
                    next_step="run it where it was promoted for, or promote the notebook here",
                )


def read_pins(lines: Iterable[str]) -> tuple[tuple[LockedPackage, ...], list[Fault]]:
    """Read pins with hashes; comments and blank lines pass, all else is a fault."""
    found: dict[str, LockedPackage] = {}
    faults: list[Fault] = []
    for number, text in _joined(lines):
        pin, *hashes = text.split() or [""]  # nothing but continuations
        match = _PIN.fullmatch(pin)
        digests = [m[1] for item in hashes if (m := _HASH.fullmatch(item))]
        name = canonicalize_name(match[1]) if match else ""
        if match is None or not _is_version(match[2]) or len(digests) != len(hashes):
            # What stands there may be an address with a password.
            faults.append(Fault(f"line {number}", "it is not a pin with hashes"))
        elif not digests:
            faults.append(Fault(f"line {number}", f"{name} has no hash"))
        elif name in found:
            faults.append(Fault(f"line {number}", f"{name} appears twice"))
        else:
            found[name] = LockedPackage(name, match[2], tuple(sorted(set(digests))))
    return tuple(found[name] for name in sorted(found)), faults


def _joined(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    """Yield (line number, text) with continued lines joined."""
    start, text = 0, ""
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not text and (not stripped or stripped.startswith("#")):
            continue
        start = start or number
        text += " " + stripped.removesuffix("\\")
        if not stripped.endswith("\\"):
            yield start, text
            start, text = 0, ""
    if text.strip():
        yield start, text


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
