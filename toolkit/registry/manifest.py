r"""``job.yaml``: what a version is, in one byte form.

Schema ``job/1``.  The file is YAML of a fixed layout: one ``key: value`` per line in a fixed
order, every value in its JSON form, every character printable ASCII (others as ``\uXXXX`` or
``\UXXXXXXXX``, which YAML reads; member names above 1,024 characters are beyond YAML 1.1).  A
reader parses it with the strict grammar below, writes it again, and refuses bytes that differ:
no comment, no spare blank, no twin key can hide in it.

``bundle_digest`` is the digest of the canonical JSON of everything else in the file, the digests
of the files included; it names the version wherever a person or a signature refers to it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.errors import Fault, InvalidFile, UsageError
from toolkit.trust import ATTESTATION
from toolkit.values import canonical_bytes, check_name, digest_bytes, digest_json

__all__ = ["MANIFEST", "MAX_MANIFEST_BYTES", "SCHEMA", "FileFact", "Manifest", "loads_strict"]

SCHEMA = "job/1"
MANIFEST = "job.yaml"
MAX_MANIFEST_BYTES = 1 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_FACTS = (
    "parameters",
    "results",
    "policy_digest",
    "evaluation_digest",
    "notebook_digest",
    "git_commit",
    "environment",
    "timeouts",
    "extra",
)
_HEAD = ("schema", "name", "version", "created", "by")
_KEYS = (*_HEAD, "files", "bundle_digest", *_FACTS)
_FILE_LINE = re.compile(r'  ("[^"\\]*"): (.*)')
_NOT_ASCII = re.compile(r"[^ -~]")
# A float without a point is a string to YAML 1.1 readers: 1e-05 becomes 1.0e-05.
_POINTLESS = re.compile(r"-?[0-9]+e[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class FileFact:
    """What the manifest says of one file.

    Attributes:
        digest: ``sha256:`` and 64 hex digits of its bytes.
        size: Its length in bytes.
    """

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version's facts.

    Attributes:
        name, version: The job and its number, 1 and up.
        created: ``2026-11-21T05:16:01.000000Z``.
        by: Who sealed it.
        files: Name to :class:`FileFact`, ``job.yaml`` itself not among them.
        parameters: JSON Schema of the parameters.
        results: Names that a run must publish.
        policy_digest, evaluation_digest, notebook_digest: What it was promoted with.
        git_commit: Commit of the working copy, if there was one.
        environment: The locked environment, as JSON.
        timeouts: Seconds by name (``run_s``, ``cell_s``).
        extra: Any further JSON facts.
    """

    name: str
    version: int
    created: str
    by: str
    files: dict[str, FileFact]
    parameters: dict[str, Any] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    policy_digest: str | None = None
    evaluation_digest: str | None = None
    notebook_digest: str | None = None
    git_commit: str | None = None
    environment: Any = None
    timeouts: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def draft(
        cls, name: str, files: Mapping[str, bytes], facts: Mapping[str, Any], created: str
    ) -> Manifest:
        """Build the manifest of a version that has no number yet (0).

        Raises:
            InvalidFile: Every fault of the file names and the facts.
        """
        faults = [fault for path in files for fault in _file_name_faults(path)]
        if not files:
            faults.append(Fault("files", "a version holds at least one file"))
        faults += _fact_faults(facts)
        if faults:
            raise InvalidFile.of(f"{MANIFEST} of {name}", faults)
        known = {key: facts[key] for key in ("by", *_FACTS) if facts.get(key) is not None}
        # A copy through JSON: what the caller does to its objects later changes nothing here.
        plain: dict[str, Any] = json.loads(canonical_bytes(known))
        plain["results"] = tuple(plain.get("results", ()))
        digests = {p: FileFact(digest_bytes(files[p]), len(files[p])) for p in sorted(files)}
        made = cls(name=name, version=0, created=created, files=digests, **plain)
        # What cannot be read back is refused now, not when somebody needs the version.
        cls.from_bytes(made.numbered(1).to_bytes(), f"{MANIFEST} of {name}")
        return made

    def numbered(self, version: int) -> Manifest:
        """Return the manifest with its number."""
        return replace(self, version=version)

    def to_json(self) -> dict[str, Any]:
        """Every fact but ``bundle_digest``, as JSON values."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "by": self.by,
            "files": {
                path: {"digest": fact.digest, "size": fact.size}
                for path, fact in sorted(self.files.items())
            },
            "parameters": self.parameters,
            "results": list(self.results),
            "policy_digest": self.policy_digest,
            "evaluation_digest": self.evaluation_digest,
            "notebook_digest": self.notebook_digest,
            "git_commit": self.git_commit,
            "environment": self.environment,
            "timeouts": self.timeouts,
            "extra": self.extra,
        }

    @property
    def bundle_digest(self) -> str:
        """Digest of the canonical form of :meth:`to_json`."""
        return digest_json(self.to_json())

    def to_bytes(self) -> bytes:
        """Return the file's one byte form."""
        facts = {**self.to_json(), "bundle_digest": self.bundle_digest}
        lines: list[str] = []
        for key in _KEYS:
            if key == "files":
                lines.append("files:")
                lines += [f"  {_scalar(path)}: {_scalar(facts[key][path])}" for path in facts[key]]
            else:
                lines.append(f"{key}: {_scalar(facts[key])}")
        return ("\n".join(lines) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read the file.

        Raises:
            InvalidFile: It is not ``job/1``, was not written by :meth:`to_bytes`, or its
                ``bundle_digest`` is not that of its facts.
        """
        try:
            facts = _parse(data)
            manifest = cls._of(facts)
            _check_form(manifest, data, facts["bundle_digest"])
        except (ValueError, TypeError, KeyError, UsageError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidFile.of(where, [Fault("file", reason or type(error).__name__)]) from error
        return manifest

    @classmethod
    def _of(cls, facts: dict[str, Any]) -> Manifest:
        if facts["schema"] != SCHEMA:
            raise ValueError(f"schema is {facts['schema']!r}, this toolkit reads {SCHEMA!r}")
        if type(facts["version"]) is not int or facts["version"] < 1:
            raise ValueError("version is not a number from 1")
        if not isinstance(facts["created"], str):
            raise ValueError("created is not text")  # noqa: TRY004 - one kind of error per file
        faults = _fact_faults({key: facts[key] for key in ("by", *_FACTS)})
        faults += [fault for path in facts["files"] for fault in _file_name_faults(path)]
        if faults:
            raise ValueError(f"{faults[0].where}: {faults[0].message}")
        files = {path: FileFact(**fact) for path, fact in facts["files"].items()}
        for path, fact in files.items():
            if not _is_digest(fact.digest) or type(fact.size) is not int or fact.size < 0:
                raise ValueError(f"files.{path}: needs a digest and a size")
        rest = {key: facts[key] for key in ("name", "version", "created", "by", *_FACTS)}
        check_name(rest["name"], "job name")
        return cls(files=files, **{**rest, "results": tuple(rest["results"])})


def _check_form(manifest: Manifest, data: bytes, told: Any) -> None:
    if told != manifest.bundle_digest:
        raise ValueError(f"bundle_digest is {told!r}, its facts have {manifest.bundle_digest}")
    if manifest.to_bytes() != data:
        raise ValueError(f"its bytes are not the one form that {SCHEMA} has")


def loads_strict(text: str | bytes) -> Any:
    """Parse JSON; twin keys, ``NaN`` and infinities are errors.

    Raises:
        ValueError: It is not such JSON.
    """

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the member {twin!r} appears twice")
        return found

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, object_pairs_hook=members, parse_constant=constant)


def _scalar(value: Any) -> str:
    return _NOT_ASCII.sub(_escape, _text(value))


def _text(value: Any) -> str:
    """JSON text with sorted members, in the one form that job/1 has for every value."""
    if isinstance(value, dict):
        members = (f"{_text(name)}: {_text(value[name])}" for name in sorted(value))
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 2**53:  # as canonical_bytes has it
            return str(int(value))
        text = repr(value)
        return text.replace("e", ".0e") if _POINTLESS.fullmatch(text) else text
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _unescape(text: str) -> str:
    """Turn YAML's eight-digit escapes into JSON's surrogate pairs."""

    def pair(match: re.Match[str]) -> str:
        point = int(match[2], 16) - 0x10000
        if not 0 <= point < 0x100000:
            raise ValueError(f"\\U{match[2]} is not a character beyond U+FFFF")
        return f"{match[1]}\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"

    return re.sub(r"((?<!\\)(?:\\\\)*)\\U([0-9a-f]{8})", pair, text)


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f"it is longer than {MAX_MANIFEST_BYTES} bytes")
    lines = data.decode("ascii").split("\n")
    facts: dict[str, Any] = {}
    for line in lines[:-1]:
        if (entry := _FILE_LINE.fullmatch(line)) and next(reversed(facts), None) == "files":
            path = loads_strict(entry[1])
            if path in facts["files"]:
                raise ValueError(f"the file {path!r} appears twice")
            facts["files"][path] = loads_strict(entry[2])
            continue
        key, _, value = line.partition(":")
        if key not in _KEYS or key in facts:
            raise ValueError(f"line {len(facts) + 1} is not a {SCHEMA} fact: {line[:60]!a}")
        facts[key] = {} if key == "files" else loads_strict(_unescape(value))
    return facts


def _file_name_faults(path: Any) -> list[Fault]:
    try:
        check_name(path, "file name")
    except (UsageError, TypeError):
        return [
            Fault(
                f"files.{path!a}",
                "is not a safe file name: lower-case letters, digits, '.', '-', '_', no folders",
            )
        ]
    own = path in (MANIFEST, ATTESTATION)
    return [Fault(f"files.{path}", "is written by the registry")] if own else []


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_seconds(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0


def _fact_faults(facts: Mapping[str, Any]) -> list[Fault]:
    known = ", ".join(("by", *_FACTS))
    faults = [
        Fault(ascii(key), "is not a fact of a version", f"use {known}")
        for key in facts
        if key not in ("by", *_FACTS)
    ]
    by = facts.get("by")
    if not isinstance(by, str) or not by.strip():
        faults.append(Fault("by", "must name the person who seals"))
    faults += [
        Fault(key, "must be 'sha256:' and 64 hex digits")
        for key in ("policy_digest", "evaluation_digest", "notebook_digest")
        if facts.get(key) is not None and not _is_digest(facts[key])
    ]
    if not isinstance(facts.get("git_commit"), str | None):
        faults.append(Fault("git_commit", "must be text"))
    results = facts.get("results") or ()
    if not isinstance(results, list | tuple) or not all(isinstance(r, str) for r in results):
        faults.append(Fault("results", "must be a list of names"))
    for key in ("parameters", "timeouts", "extra"):
        value = facts.get(key)
        if value is not None and not isinstance(value, dict):
            faults.append(Fault(key, "must be an object"))
        elif key == "timeouts" and not all(map(_is_seconds, (value or {}).values())):
            faults.append(Fault(key, "must be seconds above 0"))
    for key in (key for key in ("by", *_FACTS) if key in facts):
        try:
            canonical_bytes(facts[key])
        except (ValueError, RecursionError) as error:
            faults.append(Fault(key, str(error)))
    return faults
