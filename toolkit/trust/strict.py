"""JSON that has one meaning: what a signature covers must not be read in two ways."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

__all__ = ["from_base64", "parse_json", "to_base64"]

_MAX_DEPTH = 32


def parse_json(data: bytes) -> Any:
    """Parse UTF-8 JSON; twin members, ``NaN``, infinities and deep nesting are errors.

    Raises:
        ValueError: It is not such JSON.
    """

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the member {twin!a} appears twice")
        return found

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=members, parse_constant=constant)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if _depth(value) > _MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def from_base64(text: Any) -> bytes:
    """Decode the one base64 form of some bytes: standard alphabet, padded, spare bits zero.

    Raises:
        ValueError: It is not text, or not in that form.
    """
    if not isinstance(text, str):
        raise ValueError("is not base64 text")  # noqa: TRY004 - one kind of error per file
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("is not base64 text") from error
    if to_base64(data) != text:
        raise ValueError("is not in the one form that base64 has for these bytes")
    return data


def to_base64(data: bytes) -> str:
    """Encode with the standard alphabet and padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")
