"""What is about a person: addresses, numbers and ids that carry their own proof.

Precision comes first: a number counts where a check digit, a fixed form or a word before it says what
it is.  Names of people, postal addresses and IP addresses are not looked for: without a model they
cannot be told from other words and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolkit.privacy.checks import iban, iban_length, luhn
from toolkit.privacy.findings import Category, Finding
from toolkit.privacy.identities import BY_DIGITS, BY_WORD, FISCAL_CODE, IdForm

__all__ = ["emails", "fiscal_codes", "numbers"]

_LOCAL = re.compile(r"[A-Za-z0-9._%+-]{1,64}")
_DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,5}(?P<tld>[A-Za-z]{2,24})(?![A-Za-z0-9-])")
# Files, and mailboxes behind which no person is.
_NO_TLD = {
    *("png", "jpg", "jpeg", "gif", "svg", "webp", "js", "mjs", "ts", "css", "py", "json", "html"),
    *("yaml", "yml", "toml", "txt", "md", "internal", "local", "service", "git", "ico", "tgz"),
}
_NOBODY = {
    *("git", "noreply", "no-reply", "donotreply", "do-not-reply", "postmaster", "mailer-daemon"),
}

_CLUSTER = re.compile(r"\d(?:[ .()/-]{0,2}\d){5,33}")
_REACH_BACK, _REACH_ON = 40, 24
_ALONE, _CARD_DIGITS = 9, 13
_PHONE = re.compile(r"(?<![\w+])\+[1-9][\d .()/-]{7,18}\d(?![\w-])")
_US_PHONE = re.compile(
    r"(?<![\w.+-])(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}(?![\w-]|\.\d)"
)
# How words end that may stand before a number of a person (see BY_WORD).
_TELLING = (
    *("tel", "telefon", "phone", "mobile", "mobil", "cell", "handy", "fax", "whatsapp", "call"),
    *("call me", "call on", "call at", "call me on", "call me at", "tel no", "tel nr"),
    *("phone no", "phone nr", "phone number", "phone_number", "mobile number", "mobile no"),
    *("mobile_number", "cell number", "telefonnummer", "handynummer", "fax number", "fax no"),
    *("bsn", "burgerservicenummer", "sofinummer", "pesel", "steuer-id", "steuerid", "idnr"),
    *("identifikationsnummer", "tax id", "sin", "social insurance", "insurance number"),
    *("passport", "reisepass", "passport no", "passport number", "passport_number", "passport nr"),
    *("of birth", "birthday", "birthdate", "birth date", "birth_date", "dob", "born", "born on"),
    *("geboren", "geboren am"),
)
_CAPITALS, _JOINTS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "\"'.:=_ ("
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}")
_CARD = re.compile(r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|\.\d)")
_BRAND = re.compile(r"4|5[1-5]|2[2-7]|3[0-689]|6[0245]")


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def emails(text: str) -> Iterator[Finding]:
    """Yield e-mail addresses that may be a person's."""
    position = text.find("@")
    while position >= 0:
        domain = _DOMAIN.match(text, position)
        if domain and domain["tld"].lower() not in _NO_TLD:
            local = _LOCAL.match(text[max(0, position - 64) : position][::-1])
            if local and not _is_nobody(text, position - local.end(), position):
                yield Finding(
                    position - local.end(), domain.end(), "e-mail address", Category.PII, 0.9
                )
        position = text.find("@", position + 1)


def _is_nobody(text: str, start: int, at: int) -> bool:
    """Whether it is a mailbox of a machine, or the user part of a URL."""
    before = text[max(0, start - 70) : start]
    return (
        text[start:at].lower() in _NOBODY
        or before.endswith("://")
        or (before.endswith(":") and "://" in before)
    )


def numbers(text: str) -> Iterator[Finding]:
    """Yield numbers that stand for a person or an account of one."""
    for cluster in _CLUSTER.finditer(text):
        begin, stop = cluster.span()
        start, end = max(0, begin - _REACH_BACK), stop + _REACH_ON
        count = sum(map(str.isdigit, cluster[0]))
        if count >= _ALONE:
            yield from _ibans(text, start, end)
            yield from _phones(text, start, end)
        if count >= _CARD_DIGITS:
            yield from _cards(text, start, end)
        # Forms with fewer digits all end with a capital: dates and times cost nothing.
        if count >= _ALONE or any(map(str.isupper, text[stop : stop + 2])):
            for form in BY_DIGITS.get(count, ()):
                yield from _ids(form, text, start, end)
        before = text[start:begin].rstrip(_CAPITALS).rstrip(_JOINTS).lower()
        if before.endswith(_TELLING):
            for form in BY_WORD:
                yield from _ids(form, text, start, end)


def _ids(form: IdForm, text: str, start: int, end: int) -> Iterator[Finding]:
    for match in form.pattern.finditer(text, start, end):
        if form.check(match["value"]):
            yield Finding(*match.span("value"), form.kind, Category.PII, form.score)


def _phones(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _PHONE.finditer(text, start, end):
        if 9 <= len(_digits(match[0])) <= 15:
            yield Finding(*match.span(), "telephone number", Category.PII, 0.8)
    for match in _US_PHONE.finditer(text, start, end):
        yield Finding(*match.span(), "telephone number", Category.PII, 0.7)


def _ibans(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _IBAN.finditer(text, start, end):
        wanted, seen = iban_length(match[0][:2]), 0
        for offset, char in enumerate(match[0], 1):
            seen += char.isalnum()
            if seen == wanted:
                stop = match.start() + offset
                compact = "".join(c for c in match[0][:offset] if c.isalnum())
                if iban(compact) and not text[stop : stop + 1].isalnum():
                    yield Finding(match.start(), stop, "IBAN", Category.PII, 1.0)
                break


def _cards(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _CARD.finditer(text, start, end):
        digits, groups = _digits(match[0]), re.split("[ -]", match[0])
        even = len(groups) == 1 or (
            len(groups) in (3, 4, 5) and all(len(group) >= 4 for group in groups[:-1])
        )
        usual = digits[0] == "4" or len(digits) not in (13, 17, 18)
        if _BRAND.match(digits) and even and usual and luhn(digits) and len(set(digits)) > 1:
            yield Finding(*match.span(), "payment card number", Category.PII, 1.0)


def fiscal_codes(text: str) -> Iterator[Finding]:
    """Yield Italian fiscal codes, whose last letter is a check character."""
    yield from _ids(FISCAL_CODE, text, 0, len(text))
