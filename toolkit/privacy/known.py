"""Secrets whose value is known: found however they are written down."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal
from urllib.parse import quote

from toolkit.privacy.findings import Category, Finding

__all__ = ["KnownSecrets"]

_KEPT = (string.ascii_letters + string.digits).encode()
_LOWER = bytes(range(256)).lower()
_DROPPED = bytes(byte for byte in range(256) if byte not in _KEPT)
_ESCAPES = ((b"\\n", b"  "), (b"\\r", b"  "), (b"\\t", b"  "))
_SHORTEST_FOLDED = 8
_SHORTEST = 4


class KnownSecrets:
    r"""Values that must not be written anywhere.

    Texts and values are compared by their ASCII letters and digits alone, in lower case.  So a value
    is found as it is, with other case, split by line breaks, spaces, quotes, ``+`` or list commas, and
    in these encodings: base64 and base64url at all three alignments, hexadecimal, percent encoding,
    JSON escapes, ``\x..`` and ``\u....``.  It is *not* found compressed, encrypted, reversed, in base
    32 or 85, encoded twice, or in pieces with other text between them.

    The time that a text takes does not depend on how many values there are: whether any piece of a
    value is in it is asked of a set.  Values with fewer than 8 letters and digits are looked for as
    they are; values of fewer than 4 characters are not looked for at all (:attr:`too_short`), since
    they are everywhere.

    Args:
        values: Values by what they are (the name of an environment variable), pairs of such a name and
            a value when one name has several, or only values.

    Attributes:
        too_short: How many values were left out.
    """

    def __init__(
        self, values: Mapping[str, str] | Iterable[str] | Iterable[tuple[str, str]] = ()
    ) -> None:
        listed = values.items() if isinstance(values, Mapping) else values
        pairs = [("known secret", each) if isinstance(each, str) else each for each in listed]
        self._kinds: list[str] = []
        self._values: list[bytes] = []
        self._forms: dict[bytes, int] = {}
        self._exact: dict[str, int] = {}
        self.too_short = 0
        for kind, value in pairs:
            self._add(kind, value)
        longest = all(len(form) >= 15 for form in self._forms)
        # An aligned piece of 8 (or 4) bytes lies in every occurrence of 15 (or 7) and more.
        self._format: Literal["Q", "I"] = "Q" if longest else "I"
        self._piece = 8 if longest else 4
        self._pieces = frozenset(
            piece for form in self._forms for piece in _pieces(form, self._piece, self._format)
        )

    def _add(self, kind: str, value: str) -> None:
        if len(value) < _SHORTEST:
            self.too_short += bool(value)
            return
        index = len(self._kinds)
        self._kinds.append(kind)
        self._values.append(value.encode("utf-8", "surrogatepass"))
        if len(fold(value)) < _SHORTEST_FOLDED:
            self._exact.setdefault(value, index)
        else:
            for form in _forms(value):
                self._forms.setdefault(form, index)

    def __repr__(self) -> str:
        return f"KnownSecrets({len(self)} values)"

    def __len__(self) -> int:
        return len(self._kinds)

    def value(self, index: int) -> bytes:
        """Return the value that :attr:`Finding.value` stands for."""
        return self._values[index]

    def find(self, text: str) -> list[Finding]:
        """Return every occurrence in a text; they may overlap."""
        found: list[Finding] = []
        if self._pieces:
            raw = text.encode("ascii", "replace")
            found += self._folded(raw)
            if b"\\" in raw:
                for escape, blank in _ESCAPES:
                    raw = raw.replace(escape, blank)
                found += self._folded(raw)
        for value, index in self._exact.items():
            start = text.find(value)
            while start >= 0:
                found.append(self._finding(start, start + len(value), index))
                start = text.find(value, start + len(value))
        return found

    def _folded(self, raw: bytes) -> Iterator[Finding]:
        folded = raw.translate(_LOWER, _DROPPED)
        usable = len(folded) // self._piece * self._piece
        if usable == 0 or self._pieces.isdisjoint(memoryview(folded)[:usable].cast(self._format)):
            return
        places: list[int] | None = None
        for form, index in self._forms.items():
            start = folded.find(form)
            while start >= 0:
                if places is None:
                    places = [place for place, byte in enumerate(raw) if byte in _KEPT]
                end = start + len(form)
                yield self._finding(places[start], places[end - 1] + 1, index)
                start = folded.find(form, end)

    def _finding(self, start: int, end: int, index: int) -> Finding:
        return Finding(start, end, self._kinds[index], Category.SECRET, 1.0, index)


def fold(text: str) -> bytes:
    """Return the ASCII letters and digits of a text in lower case."""
    return text.encode("ascii", "replace").translate(_LOWER, _DROPPED)


def _pieces(form: bytes, size: int, kind: Literal["Q", "I"]) -> Iterator[int]:
    for offset in range(len(form) - size + 1):
        yield memoryview(form[offset : offset + size]).cast(kind)[0]


def _forms(value: str) -> set[bytes]:
    """Return every folded form of a value that is long enough to mean something."""
    data = value.encode("utf-8", "surrogatepass")
    forms = {
        fold(value),
        fold(data.hex()),
        fold("".join(f"x{byte:02x}" for byte in data)),
        fold("".join(f"u{ord(char):04x}" for char in value)),
        fold(quote(data, safe="")),
        fold(json.dumps(value)[1:-1]),
    }
    for shift in range(3):
        # The first characters hold bits of what stands before, the last ones of what follows.
        encoded = base64.b64encode(b"\0" * shift + data)
        forms.add(fold(encoded[(0, 2, 3)[shift] : (shift + len(data)) * 8 // 6].decode()))
    return {form for form in forms if len(form) >= _SHORTEST_FOLDED}
