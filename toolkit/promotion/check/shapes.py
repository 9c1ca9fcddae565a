"""What credentials look like.

Shapes follow the providers' published key formats.  A needle that plain text search finds fast
comes before each pattern, so a notebook without keys costs next to nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["assigned_secrets", "is_secret_name", "is_secret_value", "known_shapes"]


@dataclass(frozen=True, slots=True)
class _Shape:
    kind: str
    needle: str
    pattern: re.Pattern[str]
    random: bool = True  # the match must look like it was drawn at random


def _shape(kind: str, needle: str, pattern: str, *, random: bool = True) -> _Shape:
    return _Shape(kind, needle, re.compile(pattern), random)


_B = r"(?<![A-Za-z0-9_-])"  # not in the middle of a longer word
_E = r"(?![A-Za-z0-9])"

_SHAPES = (
    _shape("Anthropic key", "sk-ant-", _B + r"sk-ant-[A-Za-z0-9_-]{20,}"),
    _shape("OpenAI-style key", "sk-", _B + r"sk-(?!ant-)[A-Za-z0-9_-]{20,}"),
    _shape("AWS access key", "A", _B + r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}" + _E),
    _shape("GitHub token", "gh", _B + r"gh[pousr]_[A-Za-z0-9]{36,}"),
    _shape("GitHub token", "github_pat_", _B + r"github_pat_[A-Za-z0-9_]{22,}"),
    _shape("GitLab token", "glpat-", _B + r"glpat-[A-Za-z0-9_-]{20,}"),
    _shape("Slack token", "xox", _B + r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    _shape("Slack app token", "xapp-", _B + r"xapp-\d-[A-Za-z0-9-]{20,}"),
    _shape("Slack webhook", "hooks.slack.com", r"hooks\.slack\.com/services/[A-Za-z0-9/+]{20,}"),
    _shape("Google key", "AIza", _B + r"AIza[A-Za-z0-9_-]{35}" + _E),
    _shape("Google OAuth secret", "GOCSPX-", _B + r"GOCSPX-[A-Za-z0-9_-]{28}"),
    _shape("Stripe key", "_live_", _B + r"[sr]k_live_[A-Za-z0-9]{10,}"),
    _shape("Stripe key", "_test_", _B + r"[sr]k_test_[A-Za-z0-9]{10,}"),
    _shape("Hugging Face token", "hf_", _B + r"hf_[A-Za-z0-9]{30,}"),
    _shape("Groq key", "gsk_", _B + r"gsk_[A-Za-z0-9]{40,}"),
    _shape("Replicate token", "r8_", _B + r"r8_[A-Za-z0-9]{37,}"),
    _shape("xAI key", "xai-", _B + r"xai-[A-Za-z0-9]{40,}"),
    _shape("Perplexity key", "pplx-", _B + r"pplx-[A-Za-z0-9]{40,}"),
    _shape("LangSmith key", "lsv2_", _B + r"lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
    _shape("SendGrid key", "SG.", _B + r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    _shape("npm token", "npm_", _B + r"npm_[A-Za-z0-9]{36}" + _E),
    _shape("PyPI token", "pypi-AgE", _B + r"pypi-AgE[A-Za-z0-9_-]{50,}"),
    _shape("Databricks token", "dapi", _B + r"dapi[a-f0-9]{32}(?:-\d)?" + _E),
    _shape("DigitalOcean token", "do", _B + r"do[opr]_v1_[a-f0-9]{64}"),
    _shape("Shopify token", "shp", _B + r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    _shape("Twilio key", "SK", _B + r"SK[a-f0-9]{32}" + _E),
    _shape("Azure account key", "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{40,}={0,2}"),
    _shape("Telegram bot token", ":AA", _B + r"\d{8,10}:AA[A-Za-z0-9_-]{33}" + _E),
    _shape(
        "JSON web token",
        "eyJ",
        _B + r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    ),
    _shape(
        "private key",
        "PRIVATE KEY",
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
        random=False,
    ),
    _shape(
        "password in a URL",
        "://",
        r"[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"'<>{}$]{1,64}:(?P<secret>[^\s:/@\"'<>{}$]{3,128})@",
        random=False,
    ),
)

_WORDS_PASSWORD = r"pass(?:word|wd|phrase|code)?|pwd"  # noqa: S105 - a pattern
_KEY = (
    r"secrets?|tokens?|api[_-]?keys?|access[_-]?keys?|secret[_-]?keys?|private[_-]?keys?"
    r"|account[_-]?keys?|auth[_-]?keys?|encryption[_-]?keys?|signing[_-]?keys?|master[_-]?keys?"
    r"|client[_-]?secrets?|credentials?|bearer|authorization|connection[_-]?string|sas[_-]?token"
)
_SPLIT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME = re.compile(rf"(?:^|[_.-]|\b)(?:(?P<password>{_WORDS_PASSWORD})|(?P<key>{_KEY}))[_-]?\d*$")
# Names in which "token" is a unit of text, not a credential.
_TEXT_TOKEN = re.compile(
    r"(?:pad|eos|bos|sep|mask|unk|cls|stop|special|next|end|start|image|first|last|sub|word|system"
    r"|user|max|min|num|n|total|input|output|prompt|completion|cached)_?tokens?_?\d*$|^tokens$"
)
_ASSIGNED = re.compile(
    r"(?<![\w.])(?P<name>[A-Za-z_][\w.-]{0,80})[\"']?\s*\]?"
    r"(?:\s*:\s*[A-Za-z_][\w\[\]| .]{0,40})?"
    r"\s*(?:=(?!=)|:|<-|,|\+=)\s*[rbuRBU]{0,2}(?P<quote>[\"']{3}|[\"'])"
    r"(?P<value>[^\"'\n]{3,400})(?P=quote)"
)
_EXPORTED = re.compile(
    r"^\s*(?:!|%|)\s*(?:env|set_env|export)\s+(?P<name>[A-Za-z_]\w{0,60})(?:=|\s+)[\"']?"
    r"(?P<value>[^\s\"']{3,400})",
    re.MULTILINE,
)
_HINT = re.compile(r"pass|pwd|secret|token|key|cred|bearer|authoriz|connection", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"x{4,}|\*{3,}|\.{3,}|…|<|>|\$\{|\{\{?|%\(|\byour|your[-_ ]|placeholder|change[-_ ]?me"
    r"|redacted|insert[-_ ]|replace[-_ ]|dummy|todo|[-_ ]here\b",
    re.IGNORECASE,
)
_PLAIN_WORDS = {
    *("none", "null", "true", "false", "secret", "password", "token", "key", "test", "example"),
    *("default", "string", "str", "text", "bearer", "basic", "auto", "required", "optional"),
}
# AWS prints these two in its documentation.
_DOCUMENTED = {"AKIAIOSFODNN7EXAMPLE", "AKIAI44QH8DHBEXAMPLE"}


def known_shapes(text: str) -> Iterator[tuple[str, int]]:
    """Yield (kind, offset) for every credential of a known shape."""
    for shape in _SHAPES:
        if shape.needle not in text:
            continue
        for match in shape.pattern.finditer(text):
            secret = match.groupdict().get("secret") or match[0]
            if secret in _DOCUMENTED or _PLACEHOLDER.search(secret):
                continue
            if not shape.random or _drawn(secret):
                yield shape.kind, match.start()


def _drawn(text: str) -> bool:
    """Whether a key looks drawn at random: digits, capitals, many different characters.

    Class names of HTML outputs (``sk-estimator-doc-link-12``) and placeholders do not.
    """
    digits = sum(char.isdigit() for char in text)
    mixed = digits >= 6 or (digits >= 2 and text.lower() != text)
    return mixed and len(set(text)) >= 10


def is_secret_name(name: str) -> str | None:
    """Return ``password`` or ``key`` if a name says that its value is a secret."""
    words = _SPLIT.sub("_", name.strip()).lower()
    if _TEXT_TOKEN.search(words):
        return None
    match = _NAME.search(words)
    return match.lastgroup if match else None


def is_secret_value(kind: str, value: str) -> bool:
    """Whether a value of a secret name is a secret, not a placeholder, a name or a path."""
    text = value.strip().removeprefix("Bearer ").removeprefix("Basic ")
    if len(text) < 4 or text.lower() in _PLAIN_WORDS or _PLACEHOLDER.search(text):
        return False
    if kind == "password":
        return " " not in text and len(set(text)) > 2 and not re.fullmatch(r"[A-Z][A-Z0-9_]+", text)
    if len(text) < 12 or re.search(r"\s", text) or re.match(r"[a-z]+://|[./~]", text):
        return False
    return any(c.isdigit() for c in text) and _entropy(text) >= 3.0


def _entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def assigned_secrets(source: str) -> Iterator[tuple[str, int]]:
    """Yield (kind, offset) for literals given to names that say they are secret."""
    if not _HINT.search(source):
        return
    for pattern in (_ASSIGNED, _EXPORTED):
        for match in pattern.finditer(source):
            kind = is_secret_name(match["name"])
            if kind and is_secret_value(kind, match["value"]):
                yield ("password" if kind == "password" else "secret value"), match.start()
