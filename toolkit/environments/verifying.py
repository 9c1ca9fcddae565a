"""Is an environment what was built: every file by digest, and by a cheap stamp.

A wheel's ``RECORD`` (the specification of installed projects) names each installed file with its
SHA-256.  What no ``RECORD`` names is bytecode of a named source, or one of the few files that uv
puts into every environment; anything else is a fault, and so is what Python would start by
itself: ``.pth`` files and ``sitecustomize``.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from toolkit.errors import Fault

__all__ = ["digest_files", "record_faults", "site_packages", "stamp", "startup_faults"]

# PEP 405 and uv's activation scripts; their content is fixed by the list made when it was built.
_OWN = re.compile(
    r"pyvenv\.cfg|\.gitignore|CACHEDIR\.TAG|\.lock|lib64"
    r"|bin/(?:python[\d.]*|activate(?:\.\w+|_this\.py)?|deactivate\.bat|pydoc\.bat)"
)
_STARTUP = re.compile(r"(?:site|user)customize(?:\.|$)")
# setuptools is known to need one; it is as locked as the rest of setuptools.
_KNOWN_PTH = {"distutils-precedence.pth": "setuptools"}
_BYTECODE = re.compile(r"(.*/)?__pycache__/([^/]+?)\.cpython-\d+(?:\.opt-\d)?\.pyc")
_UNHASHED = re.compile(r"\.dist-info/RECORD(?:\.jws|\.p7s)?$")
_CHUNK = 1 << 20


def site_packages(venv: Path) -> Path:
    """Return where an environment's packages are (POSIX layout)."""
    return next(iter(sorted(venv.glob("lib/python*/site-packages"))), venv / "lib")


def digest_files(venv: Path) -> dict[str, str]:
    """Return ``sha256 hex`` of every file, or ``link:target``, by path below ``venv``."""
    found = {}
    for path, entry in _walk(venv, ""):
        if entry.is_symlink():
            found[path] = f"link:{Path(entry.path).readlink()}"
        elif entry.is_file():
            found[path] = _digest(entry.path)
        else:
            found[path] = "special"
    return found


def stamp(venv: Path) -> str:
    """Return a digest of all names, sizes, times, modes and inodes: cheap, and blind to forgery."""
    hasher = hashlib.sha256()
    for path, entry in sorted(_walk(venv, ""), key=lambda item: item[0]):
        facts = entry.stat(follow_symlinks=False)
        line = (path, facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ino)
        hasher.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def record_faults(venv: Path, files: Mapping[str, str]) -> list[Fault]:
    """Hold the files against the ``RECORD`` of every installed distribution."""
    faults = []
    named: set[str] = set()
    base = site_packages(venv).relative_to(venv).as_posix()
    for info in sorted(path for path in files if path.endswith(".dist-info/RECORD")):
        for path, digest in _record(venv / info):
            place = posixpath.normpath(posixpath.join(base, path))
            named.add(place)
            if place.startswith("../") or posixpath.isabs(path):
                faults.append(Fault(_shown(path), "a wheel names it outside of the environment"))
            elif place not in files:
                faults.append(Fault(_shown(place), "it is missing"))
            elif not digest and not _UNHASHED.search(place) and not _is_bytecode(place, named):
                # uv adds files that the wheel's own RECORD leaves out, without a digest.
                faults.append(Fault(_shown(place), "its wheel's RECORD does not state its digest"))
            elif digest and files[place] != digest:
                faults.append(Fault(_shown(place), "it is not what its wheel recorded"))
    strays = (p for p in sorted(files.keys() - named) if not _OWN.fullmatch(p))
    faults += [
        Fault(_shown(path), "no wheel's RECORD names it")
        for path in strays
        if not _is_bytecode(path, named)
    ]
    return faults


def startup_faults(venv: Path, files: Mapping[str, str]) -> list[Fault]:
    """Find what Python would execute at every start, whatever is imported."""
    base = f"{site_packages(venv).relative_to(venv).as_posix()}/"
    faults = []
    for path in sorted(files):
        name = path.removeprefix(base)
        top = name.partition("/")[0]
        if not path.startswith(base):
            continue
        if name.endswith(".pth") and "/" not in name and not _known(venv, base, name):
            faults.append(
                Fault(_shown(path), "Python executes it at every start", "declare another package")
            )
        elif _STARTUP.match(top):
            faults.append(
                Fault(_shown(path), "Python imports it at every start", "declare another package")
            )
    return faults


def _known(venv: Path, base: str, name: str) -> bool:
    owner = _KNOWN_PTH.get(name)
    if owner is None:
        return False
    records = (venv / base).glob(f"{owner}-*.dist-info/RECORD")
    return any(path == name and digest for record in records for path, digest in _record(record))


def _is_bytecode(path: str, named: set[str]) -> bool:
    match = _BYTECODE.fullmatch(path)
    return match is not None and f"{match[1] or ''}{match[2]}.py" in named


def _record(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, SHA-256 in hex, or empty where RECORD states none)."""
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            if not row:
                continue
            kind, _, text = (row[1] if len(row) > 1 else "").partition("=")
            yield row[0], _hex(text) if kind == "sha256" else ("unknown" if kind else "")


def _hex(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
    except ValueError:
        return "unknown"


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything that is no folder, by its path; links are not followed."""
    with os.scandir(folder) as entries:
        inner = list(entries)
    for entry in inner:
        path = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{path}/")
        else:
            yield path, entry


def _digest(path: str) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb") as stream:  # noqa: PTH123 - one of ten thousand
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _shown(path: str) -> str:
    return ascii(path)[1:-1][:200]
