"""National numbers of people: their forms and check digits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from toolkit.privacy.checks import luhn, mod11_2, verhoeff, weighted

__all__ = ["BY_DIGITS", "BY_WORD", "FISCAL_CODE", "IdForm"]


@dataclass(frozen=True, slots=True)
class IdForm:
    """One kind of number.

    Attributes:
        kind: What it is called.
        pattern: Its form; the group ``value`` is the number.
        check: Whether a number of this form can be one.
        digits: How many digits stand together in it; empty: a word before it tells.
        score: See :class:`~toolkit.privacy.findings.Finding`.
    """

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    digits: tuple[int, ...] = ()
    score: float = 0.9


def _any(_: str) -> bool:
    return True


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _cpf(text: str) -> bool:
    d = _digits(text)
    first = weighted(d[:9], tuple(range(10, 1, -1))) * 10 % 11 % 10
    second = weighted(d[:10], tuple(range(11, 1, -1))) * 10 % 11 % 10
    return d[9:] == f"{first}{second}" and len(set(d)) > 1


def _tax_id(text: str) -> bool:
    """German tax id: ISO 7064 MOD 11,10."""
    d, product = _digits(text), 10
    for char in d[:10]:
        product = ((int(char) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(d[10])


def _dni(text: str) -> bool:
    number = int(_digits(text.translate(str.maketrans("XYZ", "012"))[:-1]))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == text[-1]


def _nir(text: str) -> bool:
    d = _digits(text)
    return 97 - int(d[:13]) % 97 == int(d[13:])


def _personnummer(text: str) -> bool:
    d = _digits(text)[-10:]
    return luhn(d) and 1 <= int(d[2:4]) <= 12 and 1 <= int(d[4:6]) <= 31


def _bsn(text: str) -> bool:
    return (weighted(text[:8], "98765432") - int(text[8])) % 11 == 0


# Values of the characters in odd places (Italian decree of 23 December 1976).
_ODD_VALUES = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)  # fmt: skip


def _fiscal(text: str) -> bool:
    places = [int(c) if c.isdigit() else ord(c) - 65 for c in text[:15]]
    total = sum(_ODD_VALUES[n] for n in places[::2]) + sum(places[1::2])
    return chr(65 + total % 26) == text[15]


_A = r"(?<![\w.+-])"
_Z = r"(?![\w-]|\.\d)"
_DATE = r"(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/. ]{1,2}\d{1,2}[-/. ]{1,2}(?:19|20)\d\d"


def _form(
    kind: str,
    pattern: str,
    check: Callable[[str], bool],
    digits: tuple[int, ...],
    score: float = 0.9,
) -> IdForm:
    return IdForm(kind, re.compile(f"(?P<value>{pattern})"), check, digits, score)


def _told(
    kind: str, words: str, value: str, check: Callable[[str], bool], score: float = 0.7
) -> IdForm:
    """A number that only a word before it makes a person's."""
    pattern = rf"\b(?:{words})\b[\"'.:=_ ]{{1,5}}(?P<value>{value})(?![\w-])"
    return IdForm(kind, re.compile(pattern, re.IGNORECASE), check, (), score)


_FORMS = (
    _form(
        "US social security number",
        rf"{_A}(?!000|666|9)\d{{3}}-(?!00)\d{{2}}-(?!0000)\d{{4}}{_Z}",
        _any,
        (9,),
    ),
    _form(
        "UK national insurance number",
        r"(?<![A-Za-z0-9])(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
        r"(?: ?\d\d){3} ?[A-D](?![A-Za-z0-9])",
        _any,
        (6,),
        0.7,
    ),
    _form(
        "Spanish identity number",
        r"(?<![A-Za-z0-9.-])[XYZ0-9]\d{7}-?[A-HJ-NP-TV-Z](?![A-Za-z0-9])",
        _dni,
        (7, 8),
    ),
    _form(
        "French social security number",
        rf"{_A}[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?\d\d ?\d{{3}} ?\d{{3}} ?\d\d{_Z}",
        _nir,
        (15,),
    ),
    _form(
        "Chinese identity number",
        rf"{_A}[1-8]\d{{5}}(?:19|20)\d\d(?:0[1-9]|1[0-2])[0-3]\d\d{{3}}[\dXx]{_Z}",
        mod11_2,
        (17, 18),
    ),
    _form("Brazilian tax number", rf"{_A}\d{{3}}\.\d{{3}}\.\d{{3}}-\d\d{_Z}", _cpf, (11,)),
    _form(
        "Indian Aadhaar number",
        rf"(?<![\w.+-])(?<!\d )[2-9]\d{{3}} \d{{4}} \d{{4}}{_Z}(?! \d)",
        lambda text: verhoeff(_digits(text)),
        (12,),
    ),
    _form(
        "Swedish identity number",
        rf"{_A}(?:19|20)?\d{{6}}[-+]\d{{4}}{_Z}",
        _personnummer,
        (10, 12),
    ),
    _form(
        "Swiss insurance number",
        rf"{_A}756\.\d{{4}}\.\d{{4}}\.\d\d{_Z}",
        lambda text: weighted(_digits(text), "1313131313131") % 10 == 0,
        (13,),
    ),
)

BY_DIGITS = {
    count: tuple(form for form in _FORMS if count in form.digits)
    for count in {count for form in _FORMS for count in form.digits}
}

BY_WORD = (
    _told(
        "date of birth",
        r"date of birth|birth[ _]?date|birthday|dob|born(?: on)?|geboren(?: am)?",
        _DATE,
        _any,
    ),
    _told(
        "telephone number",
        r"(?:tel|telefon|telephone|phone|mobile|mobil|cell|handy|fax|whatsapp|call(?: me)?(?: on| at)?)"
        r"(?:[ _-]?(?:no|nr|number|nummer))?",
        r"\(?0\d[\d ./()-]{6,16}\d",
        _any,
    ),
    _told("Dutch citizen number", "bsn|burgerservicenummer|sofinummer", r"\d{9}", _bsn, 0.9),
    _told(
        "Polish identity number",
        "pesel",
        r"\d{11}",
        lambda text: weighted(text, "13791379131") % 10 == 0,
        0.9,
    ),
    _told(
        "German tax number",
        "steuer-?id(?:entifikationsnummer|nr)?|tax id|idnr",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        _tax_id,
        0.9,
    ),
    _told(
        "Canadian social insurance number",
        r"sin|social insurance(?: number)?",
        r"\d{3}[ -]?\d{3}[ -]?\d{3}",
        lambda text: luhn(_digits(text)),
        0.9,
    ),
    _told(
        "passport number",
        r"(?:passport|reisepass)(?:[ _]?(?:no|number|nr)\.?)?",
        r"[A-Z0-9]{0,2}\d{6,8}",
        _any,
    ),
)

FISCAL_CODE = _form(
    "Italian fiscal code",
    r"(?<![A-Za-z0-9])[A-Z]{6}\d{2}[ABCDEHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?![A-Za-z0-9])",
    _fiscal,
    (),
    1.0,
)
