"""The kernel's half of this toolkit as a wheel, made from the running source.

A wheel rather than a path on ``PYTHONPATH``: it has a ``RECORD``, so it is verified like all else,
it is installed by hash like all else, its requirements are checked against the lock, and no
variable of the run decides which toolkit a kernel imports.  It is written here rather than by a
build backend because it must be the same bytes each time, need no network, and leave out the
rooms that a kernel has no use for (PEP 427, and PEP 440 for the local version).

It is not in the lock: kernel and gateway speak one protocol, so a version always runs with the
toolkit of the machine that runs it.  A toolkit that needs other packages than a lock has is found
when the environment is built.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from toolkit.values import Digest, digest_bytes

__all__ = ["KERNEL_MODULES", "KERNEL_REQUIREMENTS", "KernelSide"]

KERNEL_REQUIREMENTS = ("httpx>=0.28,<0.29", "ipykernel>=7,<8", "pydantic>=2.14,<3")
"""What each environment holds beside the declared dependencies."""

KERNEL_MODULES = frozenset({"IPython", "httpx", "ipykernel", "pydantic", "toolkit"})
"""Modules that a notebook may import without declaring them."""

_PACKAGE = Path(__file__).parents[1]
_ROOMS = ("client", "isolation", "kernels", "magics", "values")
_FILES = ("__init__.py", "errors.py", "py.typed")
_NAME = "agent_toolkit"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip file


@dataclass(frozen=True)
class KernelSide:
    """What an environment holds beside its lock.

    Attributes:
        requirements: Packages that must be locked with the declared ones.
        files: Source files by their path in the wheel.
        version: The toolkit's version.
    """

    requirements: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]
    version: str

    @classmethod
    def running(cls) -> KernelSide:
        """Return that of the running source, read once per process."""
        return _running()

    @cached_property
    def digest(self) -> Digest:
        """Digest of the wheel."""
        return digest_bytes(self.wheel)

    @property
    def file_name(self) -> str:
        """The wheel's name; its version tells the content, so that no cache can confuse two."""
        return f"{_NAME}-{self._version}-py3-none-any.whl"

    @cached_property
    def _version(self) -> str:
        content = hashlib.sha256(repr((self.requirements, self.files)).encode())
        return f"{self.version}+k{content.hexdigest()[:16]}"

    @cached_property
    def wheel(self) -> bytes:
        """The wheel, the same bytes for the same source."""
        info = f"{_NAME}-{self._version}.dist-info"
        files = dict(self.files)
        files[f"{info}/METADATA"] = "\n".join(
            [
                "Metadata-Version: 2.1",
                "Name: agent-toolkit",
                f"Version: {self._version}",
                *(f"Requires-Dist: {requirement}" for requirement in self.requirements),
                "",
            ]
        ).encode()
        files[f"{info}/WHEEL"] = (
            b"Wheel-Version: 1.0\nGenerator: toolkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        record = f"{info}/RECORD"
        lines = [f"{name},{_hash(data)},{len(data)}" for name, data in sorted(files.items())]
        files[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode()
        return _zip(files)


@cache
def _running() -> KernelSide:
    files = tuple(sorted(_sources()))
    init = dict(files)["toolkit/__init__.py"].decode()
    line = next(line for line in init.splitlines() if line.startswith("__version__"))
    return KernelSide(KERNEL_REQUIREMENTS, files, line.split('"')[1])


def _sources() -> Iterator[tuple[str, bytes]]:
    for name in _FILES:
        yield f"toolkit/{name}", (_PACKAGE / name).read_bytes()
    for room in _ROOMS:
        for path in (_PACKAGE / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"toolkit/{path.relative_to(_PACKAGE).as_posix()}", path.read_bytes()


def _hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


def _zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        # RECORD is last, as PEP 427 recommends.
        for name in sorted(files, key=lambda name: (name.endswith("/RECORD"), name)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return stream.getvalue()
