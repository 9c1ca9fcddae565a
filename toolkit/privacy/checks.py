"""Check digits and measures of randomness."""

from __future__ import annotations

import math
import zlib
from collections import Counter

__all__ = [
    "crc_token",
    "drawn",
    "entropy",
    "iban",
    "iban_length",
    "luhn",
    "mod11_2",
    "verhoeff",
    "weighted",
]

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# Lengths by country: ISO 13616, SWIFT's IBAN registry.
_IBAN_COUNTRIES: dict[int, str] = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS = {
    code: length for length, codes in _IBAN_COUNTRIES.items() for code in codes.split()
}

# Verhoeff's dihedral group D5 and its permutation (J. Verhoeff, 1969).
_D5 = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_P8 = (
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        digit = ord(char) - 48
        total += _DOUBLED[digit] if place % 2 else digit
    return total % 10 == 0


def iban(text: str) -> bool:
    """Whether capitals and digits are an IBAN: its country's length, and 1 modulo 97."""
    if _IBAN_LENGTHS.get(text[:2]) != len(text) or not text[2:4].isdigit():
        return False
    turned = text[4:] + text[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def iban_length(country: str) -> int:
    """Return how long a country's IBANs are, 0 if it has none."""
    return _IBAN_LENGTHS.get(country, 0)


def weighted(digits: str, weights: str | tuple[int, ...]) -> int:
    """Return the sum of digits times weights."""
    return sum(int(d) * w for d, w in zip(digits, map(int, weights), strict=False))


def mod11_2(text: str) -> bool:
    """Whether the last character is the ISO 7064 MOD 11-2 check character."""
    total = 0
    for char in text[:-1]:
        total = (total + int(char)) * 2 % 11
    return "0123456789X"[(12 - total) % 11] == text[-1].upper()


def verhoeff(digits: str) -> bool:
    """Whether the last digit is the Verhoeff check digit."""
    check = 0
    for place, char in enumerate(reversed(digits)):
        check = int(_D5[check][int(_P8[place % 8][int(char)])])
    return check == 0


def entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def drawn(text: str) -> bool:
    """Whether a key looks drawn at random: digits, capitals, many different characters.

    Class names of HTML outputs (``sk-estimator-doc-link-12``) and placeholders do not.
    """
    digits = sum(char.isdigit() for char in text)
    mixed = digits >= 6 or (digits >= 2 and text.lower() != text)
    return mixed and len(set(text)) >= 10


def crc_token(text: str) -> bool:
    """Whether six base-62 digits at the end are the CRC-32 of the 30 characters before them.

    The format of GitHub's and npm's tokens, as GitHub described it ("Behind GitHub's new
    authentication token formats", 2021).
    """
    body = text.rpartition("_")[2]
    number, digits = zlib.crc32(body[:-6].encode()), ""
    while number:
        number, rest = divmod(number, 62)
        digits = _BASE62[rest] + digits
    return len(body) == 36 and digits.rjust(6, "0") == body[-6:]
