"""The detector: a cheap look first, patterns only where something can be."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator

from toolkit.privacy.findings import Category, Finding
from toolkit.privacy.names import assigned, headers
from toolkit.privacy.personal import emails, fiscal_codes, numbers
from toolkit.privacy.shapes import (
    BEFORE,
    WORD,
    command_passwords,
    key_blocks,
    shaped,
    url_passwords,
)

__all__ = ["Detector"]

_WORD_BYTES = (string.ascii_letters + string.digits + "_-").encode()
_LETTERS = bytes(97 if byte in _WORD_BYTES else 32 for byte in range(256))
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_BETWEEN_DIGITS = b" .-()/"
_RUN, _DIGIT_RUN = b"a" * WORD, b"0" * 6


class Detector:
    """Finds secrets and personal data by their form.

    Work grows linearly with the text.  Ordinary text costs two passes over its bytes: no word of 15
    letters and digits, no six digits in a row, no ``@`` and no telling name means no pattern runs.

    Args:
        minimum: Findings below this score are left out.
    """

    def __init__(self, minimum: float = 0.5) -> None:
        self.minimum = minimum

    def find(self, text: str) -> list[Finding]:
        """Return what was found, in order and without overlaps."""
        raw = text.encode("ascii", "replace")  # one byte for each code point
        found = list(self._secrets(text, raw))
        found += self._personal(text, raw)
        return separate(f for f in found if f.score >= self.minimum) if found else found

    def personal(self, text: str) -> bool:
        """Whether a text holds personal data."""
        raw = text.encode("ascii", "replace")
        return any(f.score >= self.minimum for f in self._personal(text, raw))

    @staticmethod
    def _secrets(text: str, raw: bytes) -> Iterator[Finding]:
        words = raw.translate(_LETTERS)
        if _RUN in words:
            for start, end in _windows(words):
                yield from shaped(text, start, end)
        lower = raw.lower().decode("ascii")
        yield from assigned(text, lower)
        if "bearer " in lower or "basic " in lower:
            yield from headers(text, lower)
        if "PRIVATE KEY" in text:
            yield from key_blocks(text)
        if "curl" in lower:
            yield from command_passwords(text)
        if "@" in text and "://" in text:
            yield from url_passwords(text)

    @staticmethod
    def _personal(text: str, raw: bytes) -> Iterator[Finding]:
        if "@" in text:
            yield from emails(text)
        if _DIGIT_RUN in raw.translate(_DIGITS, _BETWEEN_DIGITS):
            yield from numbers(text)
        if _RUN in raw.translate(_LETTERS):
            yield from fiscal_codes(text)


def _windows(words: bytes) -> Iterator[tuple[int, int]]:
    """Yield the stretches around long words, merged where they touch."""
    run = words.find(_RUN)
    while run >= 0:
        start = max(0, run - BEFORE)
        while run >= 0:
            end = words.find(b" ", run)
            end = len(words) if end < 0 else end
            run = words.find(_RUN, end)
            if run - BEFORE > end + BEFORE:
                break
        yield start, min(len(words), end + BEFORE)


def separate(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings and merge those that overlap; the surer one names them, secrets first."""
    merged: list[Finding] = []
    for each in sorted(findings):
        last = merged[-1] if merged else None
        if last is None or each.start >= last.end:
            merged.append(each)
            continue
        first = max(
            (last, each), key=lambda f: (f.value >= 0, f.category is Category.SECRET, f.score)
        )
        merged[-1] = Finding(
            last.start,
            max(last.end, each.end),
            first.kind,
            first.category,
            first.score,
            first.value,
        )
    return merged
