"""Short texts that are found again inside of longer ones: a name, a diagnosis, a sentence.

An index of phrases of at most six words.  Each is kept under its longest word, so that a text is
looked at closely only where such a word stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from toolkit.gateway.words import COMMON, SMALL_WORDS, words_of

__all__ = ["Phrases"]

_MOST_WORDS = 6
_PIECE_WORDS = 3
_PIECE_CHARS = 96
_SHORTEST_NAME = 3
_SHORTEST_ID = 4
_TELLING = 2
_NOTHING = SMALL_WORDS | COMMON
_PIECES = re.compile(r"[.!?;:]\s+|[\n\r\t]+")


class Phrases:
    """Phrases of texts that have the same labels.

    Kept are, of each text:

    * the whole, if it has two to six words;
    * every six words in a row, of a text that is ``short``;
    * sentences and lines of three to five words;
    * a single word, if ``single``: one with a capital letter, or an id of letters and digits.

    A phrase needs two words that tell something: neither small ones, nor numbers.  With one of them
    it counts like a single word.

    Args:
        single: Whether one word is enough: for texts that are about persons or confidential.
    """

    __slots__ = ("_anchors", "_found", "_single")

    def __init__(self, *, single: bool) -> None:
        self._single = single
        self._anchors: dict[bytes, set[tuple[int, int]]] = {}
        self._found: set[int] = set()

    def add(self, text: str, words: Sequence[bytes], *, short: bool) -> None:
        """Take in one text, with its words."""
        if len(words) <= _MOST_WORDS:
            telling = _telling(words)
            if len(telling) >= _TELLING or (self._single and _names(text, telling)):
                self._keep(words)
        elif short:
            for start in range(len(words) - _MOST_WORDS + 1):
                self._keep(words[start : start + _MOST_WORDS])
        if len(words) > _PIECE_WORDS:
            self._add_pieces(text)

    def _add_pieces(self, text: str) -> None:
        pieces = _PIECES.split(text)
        for piece in pieces if len(pieces) > 1 else ():
            if len(piece) <= _PIECE_CHARS:
                inner = words_of(piece)
                short = _PIECE_WORDS <= len(inner) < _MOST_WORDS
                if short and len(_telling(inner)) >= _TELLING:
                    self._keep(inner)

    def _keep(self, words: Sequence[bytes]) -> None:
        anchor = max(words, key=len)
        place = (words.index(anchor), len(words))
        self._anchors.setdefault(anchor, set()).add(place)
        self._found.add(hash(b" ".join(words)))

    def within(
        self, words: Sequence[bytes], capitals: Callable[[], frozenset[bytes]]
    ) -> Iterator[bytes]:
        """Yield the phrases that stand in a text, from word to word.

        Args:
            words: Of the text.
            capitals: Returns those of its words that are not written in lower case: others are
                never found as a single word.
        """
        anchors = self._anchors
        if anchors.keys().isdisjoint(words):
            return
        for at, word in enumerate(words):
            for offset, count in anchors.get(word, ()):
                start = at - offset
                if start < 0:
                    continue
                phrase = b" ".join(words[start : start + count])
                if hash(phrase) not in self._found:
                    continue
                if count > 1 or _has_digits(word) or word in capitals():
                    yield phrase


def _telling(words: Sequence[bytes]) -> list[bytes]:
    """Return the words that say more than what everybody says."""
    telling = {*words} - _NOTHING
    return [word for word in telling if len(word) > 1 and not word.isdigit()]


def _names(text: str, telling: Sequence[bytes]) -> bool:
    """Whether a text with one telling word is a name or an id, and no word of everybody's."""
    word = b"".join(telling).decode("utf-8", "replace")
    if word.isalpha():
        return not text.islower() and len(word) >= _SHORTEST_NAME
    return len(word) >= _SHORTEST_ID


def _has_digits(word: bytes) -> bool:
    return not word.decode("utf-8", "replace").isalpha()
