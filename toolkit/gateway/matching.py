"""Whether a value is in a text, however either of them is written.

Texts are compared as words, see :mod:`.words`.  Words put together without what stood between them
are the *compact* form: ``GB29 NWBK 6016`` and ``gb29-nwbk-6016`` have the same one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from toolkit.gateway.phrases import Phrases
from toolkit.gateway.words import COMMON, SMALL_WORDS, folded, words_of
from toolkit.values import DataClass, Labels, Source

__all__ = ["Bucket", "Leaf", "leaves_of"]

_LOWER = bytes(range(256)).lower()
_JOINTS = b"@._/:+-"
_SHAPE = bytes(
    97 if chr(byte).isalnum() and byte < 128 else 45 if byte in _JOINTS else 32
    for byte in range(256)
)
# Numbers written in groups.
_GROUPED = re.compile(r"\d(?:[ .()/-]{0,2}\d){5,40}")
_NUMBER = re.compile(r"\d(?:\d|[ .,'\u00a0](?=\d))*")
_IN_GROUPS = re.compile(r"\d{1,3}(?:[ '\u00a0]\d{3})+(?:[.,]\d+)?")
_SCHEME = re.compile(r"^(?:https?://|mailto:)", re.IGNORECASE)
_NAMES = re.compile(r"\w[@./:\\_]+\w")
_BLANK = re.compile("[ '\u00a0]")
_ONE_NUMBER = re.compile(r"[-+]?[$€£¥]?\s?(\d[\d.,' \u00a0]*)\s?[$€£¥%]?")
_PLAIN = re.compile(r"[a-z]+(?:_[a-z]+)*")

GRAM = 8
_SHINGLE = 4
_LONG = 96  # characters; shorter texts are not cut into shingles, but into phrases
_PROSE_WORDS = 4
_DISTINCT = 5
_COMPOUND_LENGTH = 6
_LONGEST_NUMBER = 64
_CLOSED = frozenset({DataClass.PII, DataClass.CONFIDENTIAL})
_OPEN = frozenset({DataClass.PUBLIC})


@lru_cache(maxsize=8192)
def _readings(text: str) -> tuple[bytes, ...]:
    """Return what a number in a text can mean, as ``#1234.5``; both ways where it is not clear."""
    if _BLANK.search(text):
        if not _IN_GROUPS.fullmatch(text):
            return tuple(each for part in _BLANK.split(text) for each in _readings(part))
        text = _BLANK.sub("", text)
    points = [place for place, char in enumerate(text) if char in ".,"]
    if not points:
        return _canonical(text, "")
    whole, fraction = re.sub("[.,]", "", text[: points[-1]]), text[points[-1] + 1 :]
    grouped = len({text[place] for place in points}) == 1 and len(fraction) == 3
    readings = _canonical(whole, fraction) if len(points) == 1 or not grouped else ()
    return readings + _canonical(whole + fraction, "") if grouped else readings


def _canonical(whole: str, fraction: str) -> tuple[bytes, ...]:
    whole, fraction = whole.lstrip("0"), fraction.rstrip("0")
    if len((whole + fraction).lstrip("0")) <= 2 and len(whole) <= 2:
        return ()  # one or two digits are everywhere
    return (f"#{whole or '0'}{'.' if fraction else ''}{fraction}".encode(),)


class Leaf:
    """One value of a call's arguments, ready to be looked for.

    Attributes:
        words: Its words.
        compact: Its words without anything between them.
        numbers: What it means as a number.
        trivial: It says nothing about where it came from: empty, one or two digits, a common word.
        plain: One lower-case word, as code and enumerations use them.
    """

    __slots__ = (
        *(
            "_capitals",
            "_parts",
            "_shingles",
            "compact",
            "numbers",
            "plain",
            "text",
            "trivial",
            "words",
        ),
    )

    def __init__(self, value: str | float) -> None:
        self.numbers: tuple[bytes, ...] = ()
        if isinstance(value, str):
            text = _SCHEME.sub("", value) if ":" in value[:8] else value
            one = _ONE_NUMBER.fullmatch(text) if len(text) < 40 else None
            if one:
                self.numbers = _readings(one[1].strip(" .,'"))
        else:
            text = (
                format(value, "f").rstrip("0").rstrip(".")
                if isinstance(value, float)
                else str(value)
            )
            self.numbers = _readings(text.lstrip("-"))
        self.text = text
        self.words = words_of(text)
        self.compact = b"".join(self.words)
        self.trivial = (
            len(self.compact) < 2
            or (self.compact.isdigit() and len(self.compact) <= 2)
            or self.compact in COMMON
            or (not isinstance(value, str) and not self.numbers)
        )
        self.plain = len(self.words) <= 3 and _PLAIN.fullmatch(text) is not None
        self._parts: frozenset[bytes] | None = None
        self._shingles: set[int] | None = None
        self._capitals: frozenset[bytes] | None = None

    @property
    def prose(self) -> bool:
        """Whether it is several words, as people write."""
        return len(self.words) >= _PROSE_WORDS and " " in self.text

    @property
    def names(self) -> list[str]:
        """Addresses, hosts, paths and the like in it: what is another one with another sign."""
        return [name for chunk in folded(self.text).split() if (name := _name(chunk))]

    @property
    def parts(self) -> frozenset[bytes]:
        """What in it can be recognised alone: words with digits, addresses, numbers in groups."""
        if self._parts is None:
            distinct = {w for w in self.words if len(w) >= _DISTINCT and not w.isalpha()}
            numbers = {each for found in _NUMBER.findall(self.text) for each in _readings(found)}
            long = {n for n in numbers if len(n.translate(None, b"#.")) >= _DISTINCT}
            self._parts = frozenset(distinct | long | set(_joined_words(self.text)))
        return self._parts

    @property
    def shingles(self) -> set[int]:
        """Every four words in a row."""
        if self._shingles is None:
            self._shingles = set(_shingles(self.words)) if len(self.words) >= _SHINGLE else set()
        return self._shingles

    def capitals(self) -> frozenset[bytes]:
        """Return its words that are not written in lower case."""
        if self._capitals is None:
            chunks = (chunk for chunk in self.text.split() if not chunk.islower())
            self._capitals = frozenset(word for chunk in chunks for word in words_of(chunk))
        return self._capitals

    @property
    def significant(self) -> set[bytes]:
        """Its words without the small ones."""
        return set(self.words) - SMALL_WORDS


def _name(chunk: str) -> str:
    """Return an address without its scheme and what quotes it, ``""`` if it is none."""
    name = _SCHEME.sub("", chunk.strip("\"'`<>()[]{},;:!?.")).rstrip("/")
    return name if _NAMES.search(name) and any(map(str.isalpha, name)) else ""


def _shingles(words: list[bytes]) -> Iterator[int]:
    return map(hash, zip(words, words[1:], words[2:], words[3:], strict=False))


def _joined_words(text: str) -> Iterator[bytes]:
    """Yield compact forms of what is written in one piece, and of grouped numbers."""
    raw = text.encode("ascii", "replace")
    shape = raw.translate(_SHAPE)
    joint = shape.find(b"a-a")
    while joint >= 0:
        start, end = shape.rfind(b" ", max(0, joint - 256), joint) + 1, shape.find(b" ", joint)
        end = len(raw) if end < 0 else end
        word = raw[start or max(0, joint - 256) : end].translate(_LOWER, _JOINTS)
        if len(word) >= _COMPOUND_LENGTH:
            yield word
        joint = shape.find(b"a-a", end)
    for match in _GROUPED.findall(text):
        yield match.encode("ascii", "replace").translate(None, b" .()/-?")


def _grams(compact: bytes) -> Iterable[int]:
    usable = len(compact) // GRAM * GRAM
    return memoryview(compact)[:usable].cast("Q")


class Bucket:
    """All texts of a run that have the same labels.

    Args:
        labels: Theirs.
        echo: They were made from other texts (answers of models): asked last.
        strict: A value counts as found only where it begins and ends with a word, so that
            ``evil.com`` is not found in ``notevil.com``.  For texts that make a value trusted.

    Attributes:
        size: Bytes of text in it.
    """

    def __init__(self, labels: Labels, *, echo: bool = False, strict: bool = False) -> None:
        self.labels = labels
        self.echo = echo
        self.strict = strict
        self.size = 0
        self.words: set[bytes] = set()
        self._texts: list[str] = []
        self._shingles: set[int] = set()
        self._grams: set[int] = set()
        self._spaced: list[bytes] = []
        self._compact: list[bytes] = []
        known = labels.sources != {Source.USER} or labels.classes - _OPEN
        single = bool(labels.classes & _CLOSED)
        self._phrases = Phrases(single=single) if known and not strict else None

    def add(self, text: str) -> None:
        """Take in one text."""
        words = words_of(text)
        compact = b"".join(words)
        self.size += len(text)
        self.words.update(words)
        joined = [compact] if len(compact) <= 256 else []
        if len(text) >= _DISTINCT:
            joined += _joined_words(text)
            for number in _NUMBER.findall(text):
                self.words.update(_readings(number))
        self.words.update(filter(_is_number, joined) if self.strict else joined)
        if self.strict:
            self._texts.append(folded(text))
        if len(words) > 1:
            self._spaced.append(b" %b " % b" ".join(words))
            self._compact.append(compact)
        if len(compact) >= GRAM:
            self._grams.update(_grams(compact))
        if len(text) >= _LONG:
            # Every third: a passage of six words in a row always holds one.
            self._shingles.update(list(_shingles(words))[::3])
        if self._phrases is not None:
            self._phrases.add(text, words, short=len(text) < _LONG)

    def add_number(self, value: float) -> None:
        """Take in a number."""
        self.words.update(Leaf(value).numbers)

    def holds(self, leaf: Leaf) -> bool:
        """Whether the whole value is in one of the texts."""
        found = (
            leaf.compact in self.words
            or not self.words.isdisjoint(leaf.numbers)
            or self._holds_phrase(leaf)
            or self._holds_compact(leaf.compact)
        )
        return found and (not self.strict or self.names(leaf))

    def names(self, leaf: Leaf) -> bool:
        """Whether every address in the value is, sign by sign, in one of the texts.

        Without its signs ``jo@smith.org`` is ``jo.smith@org``, which is somebody else.
        """
        return all(any(_stands_in(name, text) for text in self._texts) for name in leaf.names)

    def _holds_phrase(self, leaf: Leaf) -> bool:
        if len(leaf.words) < 2 or not self.words.issuperset(leaf.words):
            return False
        phrase = b" %b " % b" ".join(leaf.words)
        return any(phrase in text for text in self._spaced)

    def _holds_compact(self, compact: bytes) -> bool:
        if len(compact) < 2 * GRAM - 1 or (self.strict and not _is_number(compact)):
            return False
        # A text is cut into grams from its start; an occurrence of 15 bytes holds a whole one.
        firsts = (int.from_bytes(compact[at : at + GRAM], _ORDER) for at in range(GRAM))
        if self._grams.isdisjoint(firsts):
            return False
        if not self.strict:
            return any(compact in text for text in self._compact)
        if len(compact) > _LONGEST_NUMBER:
            return False
        pattern = re.compile(rb" %b " % b" ?".join(bytes([byte]) for byte in compact))
        return any(
            compact in short and pattern.search(text)
            for short, text in zip(self._compact, self._spaced, strict=True)
        )

    def touches(self, leaf: Leaf) -> bool:
        """Whether a part of the value is from one of the texts: an id, an address, a passage."""
        if not self.words.isdisjoint(leaf.parts):
            return True
        return bool(self._shingles) and not self._shingles.isdisjoint(leaf.shingles)

    def quoted(self, leaf: Leaf) -> Iterator[bytes]:
        """Yield what of the texts stands in the value as it is, as words with blanks between."""
        return (
            iter(()) if self._phrases is None else self._phrases.within(leaf.words, leaf.capitals)
        )

    def covers(self, words: set[bytes]) -> bool:
        """Whether every word is somewhere in the texts."""
        return self.words.issuperset(words)


def _is_number(compact: bytes) -> bool:
    """Whether letters and digits are a number of an account, an order or a telephone."""
    head = compact[:64]
    return len(head) - len(head.translate(None, b"0123456789")) >= 6 and compact.isalnum()


def _stands_in(name: str, text: str) -> bool:
    """Whether an address is in a text, and not a part of a longer one."""
    if name not in text:
        return False
    after = r"(?![\w@]|[.:+-]\w)" if "/" not in name else r"(?![\w@]|[./:+-]\w)"
    return bool(re.search(rf"(?:(?<![\w@./:+-])|(?<=//)){re.escape(name)}{after}", text))


_ORDER: Any = "little" if memoryview(b"\1\0\0\0\0\0\0\0").cast("Q")[0] == 1 else "big"


def leaves_of(value: Any, most: int) -> tuple[list[str | float], bool]:
    """Return the texts and numbers in a JSON value, and whether these are all (at most ``most``).

    Names of members count where they are no identifiers: a record keyed by addresses holds data.
    """
    found: list[str | float] = []
    stack = [value]
    while stack:
        if len(found) >= most:
            return found, False
        node = stack.pop()
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, dict):
            stack.extend(node.values())
            found.extend(name for name in node if not name.isidentifier())
        elif isinstance(node, list | tuple):
            stack.extend(node)
        elif isinstance(node, int | float) and not isinstance(node, bool):
            found.append(node)
    return found, True
