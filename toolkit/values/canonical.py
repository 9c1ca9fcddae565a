"""Canonical bytes and digests of JSON values.

The form follows RFC 8785 (JSON Canonicalization Scheme): UTF-8, no white space, members sorted
by UTF-16 code units, numbers in their shortest form.  Two restrictions keep it total and exact:
``NaN`` and infinities are refused, and integers are written as integers whatever their size.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

__all__ = ["Digest", "canonical_bytes", "digest_bytes", "digest_json"]

_ALGORITHM = "sha256"

Digest = str
"""``sha256:`` and 64 lower-case hex digits."""

_MAX_DEPTH = 64


def _check(value: Any, depth: int, path: str) -> Any:
    if depth > _MAX_DEPTH:
        msg = f"{path or 'value'} is nested deeper than {_MAX_DEPTH} levels"
        raise ValueError(msg)
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            msg = f"{path or 'value'} is {value!r}, which JSON cannot hold"
            raise ValueError(msg)
        # RFC 8785 writes 1.0 as 1: equal numbers have equal bytes.
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, list | tuple):
        return [_check(item, depth + 1, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                msg = f"{path or 'value'} has the member name {key!r}, which is not a string"
                raise ValueError(msg)
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _check(value[name], depth + 1, f"{path}.{name}") for name in names}
    msg = f"{path or 'value'} is a {type(value).__name__}, which JSON cannot hold"
    raise ValueError(msg)


def canonical_bytes(value: Any) -> bytes:
    """Return the one byte form of a JSON value.

    Raises:
        ValueError: The value is not JSON, is not finite, or is nested deeper than 64 levels.
    """
    return json.dumps(
        _check(value, 0, ""), ensure_ascii=False, separators=(",", ":"), allow_nan=False
    ).encode("utf-8", "surrogatepass")


def digest_bytes(data: bytes) -> Digest:
    """Return ``sha256:<hex>`` of the bytes."""
    return f"{_ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


def digest_json(value: Any) -> Digest:
    """Return the digest of a JSON value's canonical bytes.

    Raises:
        ValueError: See :func:`canonical_bytes`.
    """
    return digest_bytes(canonical_bytes(value))
