"""Words of a text, however it is written, and words that say nothing about where they came from.

Texts are compared as *words*: runs of letters and digits, in Unicode's compatibility form (NFKC), case
folded, with invisible characters dropped.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["COMMON", "SMALL_WORDS", "folded", "words_of"]

_SPACED = bytes(
    ord(chr(byte).lower()) if chr(byte).isalnum() and byte < 128 else 32 for byte in range(256)
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_NOT_WORD = re.compile(r"[\W_]+")

# Values that say nothing about where they came from: switches, roles, methods, languages, orders.
_COMMON_TEXT = (
    "true false yes no on off ok none null nan all any and or not asc desc auto default en de fr es it"
    " nl pt ja zh get put post head user system assistant tool developer function text json object"
    " string number integer boolean array type name id low medium high read write open utf8"
)
COMMON = frozenset(_COMMON_TEXT.encode().split())
_SMALL_TEXT = (
    b"the a an and or of to in on at for from with by is are was were be been it its this that these"
    b" those as if not no you your we our he she they his her their i me my do does have has had will"
    b" can could would should may please"
)
SMALL_WORDS = frozenset(_SMALL_TEXT.split())


def words_of(text: str) -> list[bytes]:
    """Return the words of a text."""
    if text.isascii():
        return text.encode().translate(_SPACED).split()
    return _NOT_WORD.sub(" ", folded(text)).encode("utf-8", "surrogatepass").split()


def folded(text: str) -> str:
    """Return a text with its signs, in one case and one form."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
