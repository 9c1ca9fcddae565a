"""Canonical bytes and digests of JSON values.

The form follows RFC 8785 (JSON Canonicalization Scheme): UTF-8, no white space, members sorted
by UTF-16 code units, numbers as ECMAScript writes them.  Two restrictions keep it total and exact:
``NaN`` and infinities are refused, and integers are written as integers whatever their size.
"""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

__all__ = ["Digest", "canonical_bytes", "digest_bytes", "digest_json"]

_ALGORITHM = "sha256"

Digest = str
"""``sha256:`` and 64 lower-case hex digits."""

_MAX_DEPTH = 64
_WORDS = {None: "null", True: "true", False: "false"}
_EXACT_UNTIL = 2.0**53
# ECMAScript's Number::toString writes an exponent from 1e21 and below 1e-6 on.
_TEXT_UNTIL = 1e21
_TEXT_PLACES = 6


def canonical_bytes(value: Any) -> bytes:
    """Return the one byte form of a JSON value.

    Raises:
        ValueError: The value is not JSON, is not finite, or is nested deeper than 64 levels.
    """
    try:
        return _text(value, 0).encode("utf-8", "surrogatepass")
    except _NotJson as error:
        msg = f"{error.path.removeprefix('.') or 'value'} {error.reason}"
        raise ValueError(msg) from None


class _NotJson(Exception):
    """What is wrong, and where; the place is put together on the way up, so that it costs nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""


def _text(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise _NotJson(f"is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int):
        return int.__repr__(value)  # of an enum's member: its number
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return "{" + ",".join([_member(value, n, depth) for n in _names(value)]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_item(item, i, depth) for i, item in enumerate(value)]) + "]"
    raise _NotJson(f"is a {type(value).__name__}, which JSON cannot hold")


def _member(value: dict[str, Any], name: str, depth: int) -> str:
    item = value[name]
    if type(item) is str and depth < _MAX_DEPTH:  # most are: no need to ask what else they could be
        return f"{encode_basestring(name)}:{encode_basestring(item)}"
    try:
        return f"{encode_basestring(name)}:{_text(item, depth + 1)}"
    except _NotJson as error:
        error.path = f".{name}{error.path}"
        raise


def _item(item: Any, index: int, depth: int) -> str:
    if type(item) is str and depth < _MAX_DEPTH:
        return encode_basestring(item)
    try:
        return _text(item, depth + 1)
    except _NotJson as error:
        error.path = f"[{index}]{error.path}"
        raise


def _names(value: dict[Any, Any]) -> list[str]:
    """Return member names in the order of RFC 8785, section 3.2.3: by UTF-16 code units."""
    try:
        if all(map(str.isascii, value)):
            return sorted(value)
    except TypeError:
        pass  # a name is no text
    odd = [name for name in value if not isinstance(name, str)]
    if odd:
        raise _NotJson(f"has the member name {odd[0]!r}, which is not a string")
    return sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))


def _number(value: float) -> str:
    """Write a number as ECMAScript does (RFC 8785, section 3.2.2.3): ``1``, ``1e-7``, ``1e+21``.

    Python finds the same shortest digits; only the places where an exponent begins differ.
    """
    if not math.isfinite(value):
        raise _NotJson(f"is {value!r}, which JSON cannot hold")
    size = abs(value)
    text = float.__repr__(value)
    if size < _TEXT_UNTIL and value.is_integer():
        # Equal numbers have equal bytes: 1.0 is 1.  Behind 17 digits follow zeros.
        return int.__repr__(int(value) if size < _EXACT_UNTIL else int(Decimal(text)))
    if "e-" not in text:
        return text
    digits, _, exponent = text.partition("e-")
    places = int(exponent)
    if places > _TEXT_PLACES:
        return f"{digits}e-{places}"
    sign = "-" if value < 0 else ""
    return f"{sign}0.{'0' * (places - 1)}{digits.lstrip('-').replace('.', '')}"


def digest_bytes(data: bytes) -> Digest:
    """Return ``sha256:<hex>`` of the bytes."""
    return f"{_ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


def digest_json(value: Any) -> Digest:
    """Return the digest of a JSON value's canonical bytes.

    Raises:
        ValueError: See :func:`canonical_bytes`.
    """
    return digest_bytes(canonical_bytes(value))
