"""Names that say that their value is a secret, and values that are none."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from functools import lru_cache

from toolkit.privacy.checks import drawn, entropy
from toolkit.privacy.findings import Category, Finding

__all__ = [
    "DOCUMENTED",
    "PLACEHOLDER",
    "assigned",
    "headers",
    "is_secret_name",
    "is_secret_value",
    "named",
]

_WORDS_PASSWORD = r"pass(?:word|wd|phrase|code)?|pwd"  # noqa: S105 - a pattern
_KEY = (
    r"secrets?|tokens?|api[_-]?keys?|access[_-]?keys?|secret[_-]?keys?|private[_-]?keys?"
    r"|account[_-]?keys?|auth[_-]?keys?|encryption[_-]?keys?|signing[_-]?keys?|master[_-]?keys?"
    r"|client[_-]?secrets?|credentials?|bearer|authorization|connection[_-]?string|sas[_-]?token"
    r"|apikeys?|x-api-key|session[_-]?key"
)
_SPLIT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME = re.compile(rf"(?:^|[_.-]|\b)(?:(?P<password>{_WORDS_PASSWORD})|(?P<key>{_KEY}))[_-]?\d*$")
# Names in which "token" is a unit of text or a place in a list, not a credential.
_TEXT_TOKEN = re.compile(
    r"(?:pad|eos|bos|sep|mask|unk|cls|stop|special|next|end|start|image|first|last|sub|word|system"
    r"|user|max|min|num|n|total|input|output|prompt|completion|cached|page|sync|continuation"
    r"|cursor|resume|design|idempotency)[_-]?(?:page[_-]?)?tokens?[_-]?\d*$|^tokens$"
)
PLACEHOLDER = re.compile(
    r"x{4,}|\*{3,}|\.{3,}|…|<|>|\$\{|\{\{?|%\(|\byour|your[-_ ]|placeholder|change[-_ ]?me"
    r"|redacted|insert[-_ ]|replace[-_ ]|dummy|todo|[-_ ]here\b|^\[secret ",
    re.IGNORECASE,
)
_PLAIN_WORDS = {
    *("none", "null", "true", "false", "secret", "password", "token", "key", "test", "example"),
    *("default", "string", "str", "text", "bearer", "basic", "auto", "required", "optional"),
    *("missing", "invalid", "expired", "hidden", "unknown", "empty", "unset", "reset", "changed"),
}
# AWS prints these in its documentation.
DOCUMENTED = {
    "AKIAIOSFODNN7EXAMPLE",
    "AKIAI44QH8DHBEXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}
# A reference to a value: an identifier, a call, a member, a path, a variable.
_REFERENCE = re.compile(r"[A-Za-z_][\w]*(?:(?:\.|::|->|\[)[\w\]\"']*)*|[./~$%@].*|[a-z]+://.*")
_HINTS = ("pass", "pwd", "secret", "token", "key", "cred", "authoriz", "connection")
_TAIL = re.compile(r"[\w-]{0,24}")
_HEAD = re.compile(r"[\w.-]{0,60}")
_QUOTED = re.compile(
    r"\\?[\"']?\s{0,3}\]?(?:\s{0,3}:\s{0,3}[A-Za-z_][\w\[\]| .]{0,40})?"
    r"\s{0,8}(?:=(?!=)|:|<-|,|\+=|=>)\s{0,8}[rbuRBU]{0,2}(?P<quote>\"{3}|'{3}|\\?[\"']|`)"
    r"(?P<value>[^\"'`\n\x00]{3,400}?)(?P=quote)"
)
_BARE = re.compile(
    r"\\?[\"']?[ \t]{0,3}(?:=(?!=)|:|=>|\s(?:is|was|to)\s)[ \t]{0,4}(?:(?:Bearer|Basic|Token)\s)?"
    r"(?P<value>(?=[^\s\"'`,;&<>{}()\[\]\\\x00]{6})[^\s\"'`,;&<>{}()\[\]\\\x00=]{1,400}"
    r"(?:={1,2}[^\s\"'`,;&<>{}()\[\]\\\x00=]{0,40}){0,2})"
)
_SPACED = re.compile(r"\s{1,3}[\"']?(?P<value>[^\s\"'`,;&<>{}()\[\]\\\x00=]{8,400})")
_SCHEME = re.compile(
    r"[\"':\s=]{0,6}\b(?P<scheme>bearer|basic)\s{1,3}(?P<value>[A-Za-z0-9._~+/=-]{12,2000})",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> str | None:
    """Return ``password`` or ``key`` if a name says that its value is a secret."""
    if len(name) > 90:
        return None
    words = _SPLIT.sub("_", name.strip()).lower()
    if _TEXT_TOKEN.search(words):
        return None
    match = _NAME.search(words)
    return match.lastgroup if match else None


def is_secret_value(kind: str, value: str) -> bool:
    """Whether a value of a secret name is a secret, not a placeholder, a name or a path."""
    text = value.strip().removeprefix("Bearer ").removeprefix("Basic ")
    if len(text) < 4 or text.lower() in _PLAIN_WORDS or PLACEHOLDER.search(text[:400]):
        return False
    if text in DOCUMENTED:
        return False
    if kind == "password":
        return (
            " " not in text
            and len(text) <= 200
            and len(set(text)) > 2
            and not re.fullmatch(r"[A-Z][A-Z0-9_]+|[A-Z]?[a-z]+[?!.:]|[A-Z][a-z]+", text)
        )
    if len(text) < 12 or re.search(r"\s", text) or re.match(r"[a-z]+://|[./~]", text):
        return False
    return any(c.isdigit() for c in text) and entropy(text[:400]) >= 3.0


def _is_bare_secret(kind: str, value: str) -> bool:
    """The same for a value without quotes, where code and prose have to be told from secrets."""
    text = value.rstrip(".,:!?")
    if not is_secret_value(kind, text):
        return False
    letters, digits = any(c.isalpha() for c in text), any(c.isdigit() for c in text)
    if kind == "password":
        special = any(not c.isalnum() and c not in "_.-/:" for c in text)
        plain = _REFERENCE.fullmatch(text) and not digits
        return letters and (digits or special) and not plain and not _is_expression(text)
    return letters and drawn(text) and not _is_expression(text)


def _is_expression(text: str) -> bool:
    """Whether it reads as code: several lower-case words joined by dots or underscores."""
    words = re.split(r"[._]|::|->", text)
    return len(words) > 1 and all(
        re.fullmatch(r"[a-z]+\d?|[A-Z][a-z]+|[A-Z]+", w) for w in words if w
    )


def named(name: str, value: str) -> str | None:
    """Return the kind of a member's value that its name says is secret, else ``None``."""
    kind = is_secret_name(name)
    if kind is None or not is_secret_value(kind, value):
        return None
    return "password" if kind == "password" else "secret value"


def assigned(text: str, lower: str) -> Iterator[Finding]:
    """Yield values that are given to names that say *secret*; ``lower`` is the text in lower case."""
    for hint in _HINTS:
        position = lower.find(hint)
        while position >= 0:
            tail = _TAIL.match(text, position)
            end = tail.end() if tail else position
            yield from _at_name(text, position, end)
            position = lower.find(hint, end)


def _at_name(text: str, position: int, end: int) -> Iterator[Finding]:
    before = _HEAD.match(text[max(0, position - 60) : position][::-1])
    start = position - (before.end() if before else 0)
    kind = is_secret_name(text[start:end])
    if kind is None:
        return
    label = "password" if kind == "password" else "secret value"
    quoted = _QUOTED.match(text, end)
    if quoted:
        if is_secret_value(kind, quoted["value"]):
            yield Finding(*quoted.span("value"), label, Category.SECRET, 0.8)
        return
    bare = _BARE.match(text, end) or (_SPACED.match(text, end) if _is_flag(text, start) else None)
    if bare and _is_bare_secret(kind, bare["value"]):
        stop = bare.start("value") + len(bare["value"].rstrip(".,:!?"))
        yield Finding(bare.start("value"), stop, label, Category.SECRET, 0.6)


def _is_flag(text: str, start: int) -> bool:
    """Whether a name is an option of a command (``--password x``), or exported by ``%env``."""
    return text[start : start + 2] == "--" or text[max(0, start - 8) : start].endswith("env ")


def headers(text: str, lower: str) -> Iterator[Finding]:
    """Yield credentials behind ``Bearer`` and ``Basic`` (RFC 6750, RFC 7617)."""
    for scheme in ("bearer ", "basic "):
        position = lower.find(scheme)
        while position >= 0:
            match = _SCHEME.match(text, position)
            end = position + len(scheme)
            if match:
                end = match.end()
                if _is_credential(scheme, match["value"]):
                    yield Finding(
                        *match.span("value"), f"{scheme.strip()} credential", Category.SECRET, 0.9
                    )
            position = lower.find(scheme, end)


def _is_credential(scheme: str, value: str) -> bool:
    if PLACEHOLDER.search(value[:400]):
        return False
    if scheme == "basic ":
        try:
            decoded = base64.b64decode(value[: len(value) // 4 * 4], validate=True)
        except (binascii.Error, ValueError):
            return False
        return b":" in decoded and decoded.isascii()
    return sum(c.isdigit() for c in value) >= 2 and entropy(value[:400]) >= 3.0
