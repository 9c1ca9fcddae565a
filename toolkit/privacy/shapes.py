"""What the keys of well-known vendors look like.

Forms follow the vendors' published formats.  The patterns run only over words of 15 or more letters
and digits and what stands right before and after them, so that ordinary text costs nothing; none of
them can look further back than :data:`BEFORE` characters from such a word.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from itertools import pairwise

from toolkit.privacy.checks import crc_token, drawn
from toolkit.privacy.findings import Category, Finding
from toolkit.privacy.names import DOCUMENTED, PLACEHOLDER

__all__ = ["BEFORE", "WORD", "command_passwords", "key_blocks", "shaped", "url_passwords"]

WORD = 15
BEFORE = 90

_C = "[A-Za-z0-9]"
_D = "[A-Za-z0-9_-]"
_H = "[a-f0-9]"

# kind, pattern, whether it may stand inside of a longer word
_SHAPES: tuple[tuple[str, str], ...] = (
    ("Anthropic key", rf"sk-ant-{_D}{{20,}}"),
    ("OpenAI-style key", rf"sk-(?!ant-){_D}{{20,}}"),
    ("AWS access key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("GitHub token", rf"gh[pousr]_{_C}{{36,}}"),
    ("GitHub token", r"github_pat_[A-Za-z0-9_]{22,}"),
    ("GitLab token", rf"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat)-{_D}{{20,}}"),
    ("Slack token", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("Slack app token", r"xapp-\d-[A-Za-z0-9-]{20,}"),
    ("Slack webhook", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/+]{20,}"),
    ("Discord webhook", rf"discord(?:app)?\.com/api/webhooks/\d{{17,20}}/{_D}{{60,}}"),
    ("Discord token", rf"[MNO]{_D}{{23,27}}\.{_D}{{6}}\.{_D}{{27,40}}"),
    ("Google key", rf"AIza{_D}{{35}}(?![A-Za-z0-9])"),
    ("Google OAuth secret", rf"GOCSPX-{_D}{{28}}"),
    ("Google OAuth token", rf"ya29\.{_D}{{30,}}"),
    ("Stripe key", rf"(?:[sr]k|whsec)_(?:live_|test_)?{_C}{{16,}}"),
    ("Hugging Face token", rf"(?:hf|api_org)_{_C}{{30,}}"),
    ("Groq key", rf"gsk_{_C}{{40,}}"),
    ("Replicate token", rf"r8_{_C}{{37,}}"),
    ("xAI key", rf"xai-{_C}{{40,}}"),
    ("Perplexity key", rf"pplx-{_C}{{40,}}"),
    ("Tavily key", rf"tvly-{_D}{{20,}}"),
    ("Pinecone key", r"pcsk_[A-Za-z0-9_]{40,}"),
    ("LangSmith key", rf"lsv2_(?:pt|sk)_{_H}{{32}}_{_H}{{10}}"),
    ("SendGrid key", rf"SG\.{_D}{{16,}}\.{_D}{{16,}}"),
    ("Mailgun key", rf"key-{_H}{{32}}(?![A-Za-z0-9])"),
    ("Mailchimp key", rf"{_H}{{32}}-us\d{{1,2}}(?![A-Za-z0-9])"),
    ("npm token", rf"npm_{_C}{{36}}(?![A-Za-z0-9])"),
    ("PyPI token", rf"pypi-AgE{_D}{{50,}}"),
    ("RubyGems key", rf"rubygems_{_H}{{48}}"),
    ("Docker token", rf"dckr_pat_{_D}{{27,}}"),
    ("Databricks token", rf"dapi{_H}{{32}}(?:-\d)?(?![A-Za-z0-9])"),
    ("DigitalOcean token", rf"do[opr]_v1_{_H}{{64}}"),
    ("Shopify token", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    ("Twilio key", rf"SK{_H}{{32}}(?![A-Za-z0-9])"),
    ("Square token", rf"(?:sq0(?:atp|csp|idp)-{_D}{{22,}}|EAAA{_D}{{60}})"),
    ("Telegram bot token", rf"\d{{8,10}}:AA{_D}{{33}}(?![A-Za-z0-9])"),
    ("HashiCorp Vault token", rf"hv[sbr]\.{_D}{{24,}}"),
    ("Terraform token", rf"{_C}{{14}}\.atlasv1\.{_D}{{60,}}"),
    ("Grafana token", r"gl(?:sa|c)_[A-Za-z0-9+/=_]{32,}"),
    ("New Relic key", r"NR(?:AK|JS|II|RA)-[A-Za-z0-9]{19,}"),
    ("Sentry token", r"sntry[su]_[A-Za-z0-9+/=_]{40,}"),
    ("Sourcegraph token", rf"sgp_(?:{_C}{{16}}_|local_)?[a-fA-F0-9]{{40}}"),
    ("Facebook token", r"EAA[MC][A-Za-z0-9]{80,}"),
    ("Facebook app secret", rf"\d{{15,16}}\|{_D}{{27,40}}"),
    ("42 secret", rf"s-s4t2(?:ud|af)-{_H}{{64}}"),
    ("Linear key", rf"lin_(?:api|oauth)_{_C}{{32,}}"),
    ("Notion token", rf"(?:ntn_|secret_){_C}{{40,}}"),
    ("Figma token", rf"fig[dor]_{_D}{{36,}}"),
    ("Airtable token", rf"pat{_C}{{14}}\.{_H}{{64}}"),
    ("Postman key", rf"PMAK-{_H}{{24}}-{_H}{{34}}"),
    ("Atlassian token", r"AT(?:ATT3|CTT3|BB)[A-Za-z0-9_=-]{28,}"),
    ("Doppler token", rf"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:{_D}{{1,20}}\.)?{_C}{{40,}}"),
    ("Supabase token", rf"sb(?:p_{_H}{{40}}|_secret_{_D}{{20,}})"),
    ("PlanetScale token", rf"pscale_(?:tkn|pw|oauth)_{_D}{{32,}}"),
    ("Fly token", r"fm[12]_[A-Za-z0-9+/=_-]{60,}"),
    ("Netlify token", rf"nfp_{_C}{{36,}}"),
    ("Heroku key", rf"HRKU-{_D}{{36,}}"),
    ("age key", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    ("Azure client secret", r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}"),
    ("Azure account key", r"(?:Account|SharedAccess)Key=[A-Za-z0-9+/]{40,}={0,2}"),
    ("Azure SAS signature", r"[?&]sig=[A-Za-z0-9%+/]{40,}={0,2}"),
    ("AWS signature", r"[?&]X-Amz-Signature=[a-f0-9]{64}"),
    ("JSON web token", rf"eyJ{_D}{{10,}}\.eyJ{_D}{{10,}}\.{_D}{{10,}}"),
)
_KINDS = {f"k{index}": kind for index, (kind, _) in enumerate(_SHAPES)}
_ANY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    + "|".join(f"(?P<k{index}>{pattern})" for index, (_, pattern) in enumerate(_SHAPES))
    + ")"
)
_CHECKED = {"GitHub token", "npm token"}

_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_BODY = re.compile(
    r"[A-Za-z0-9+/=\s\\:,\x00\"'-]{0,20000}?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
)
_LINES = re.compile(r"(?:[\s\\\x00\"']{1,12}[A-Za-z0-9+/=]{16,200}n?){1,400}")
_CURL = re.compile(
    r"(?<!\S)(?:-u|--user)[ \t]{1,4}[\"']?[^\s:\"'\x00]{0,64}[\"']?:[\"']?(?P<secret>[^\s\"'\x00]{4,100})"
)
_USER = re.compile(r"[^\s:/@\"'<>{}$\x00]{0,64}:(?P<secret>[^\s:/@\"'<>{}$\x00]{3,128})@")


def shaped(text: str, start: int, end: int) -> Iterator[Finding]:
    """Yield the vendors' keys between two offsets."""
    for match in _ANY.finditer(text, start, end):
        kind, secret = _KINDS[str(match.lastgroup)], match[0]
        if secret in DOCUMENTED or PLACEHOLDER.search(secret) or not _is_random(secret):
            continue
        if kind == "JSON web token":
            score = 1.0 if _is_jwt(secret) else 0.6
        else:
            score = 1.0 if kind in _CHECKED and crc_token(secret) else 0.9
        yield Finding(*match.span(), kind, Category.SECRET, score)


def command_passwords(text: str) -> Iterator[Finding]:
    """Yield the passwords of ``curl -u user:password`` and ``--user``."""
    for match in _CURL.finditer(text):
        if not PLACEHOLDER.search(match["secret"]) and not match["secret"].startswith("$"):
            yield Finding(*match.span("secret"), "password", Category.SECRET, 0.8)


def _is_random(text: str) -> bool:
    """Whether what follows a vendor's prefix was drawn at random.

    By chance a key can have no digit; then its case changes often, or it has no lower case at all.
    """
    if drawn(text):
        return True
    changes = sum(a.isupper() != b.isupper() for a, b in pairwise(text))
    return len(set(text)) >= 10 and (changes >= len(text) / 3 or text.isupper())


def _is_jwt(text: str) -> bool:
    """Whether the first part is a JOSE header (RFC 7519, section 5)."""
    head = text.partition(".")[0]
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, TypeError):
        return False


def key_blocks(text: str) -> Iterator[Finding]:
    """Yield private keys in PEM or armour, from their first line to their last."""
    position, open_end = 0, False
    while match := _BEGIN.search(text, position):
        end = match.end()
        # Once no END follows, none follows later either: a text full of BEGIN stays linear.
        closing = -1 if open_end else text.find("-----END", end)
        open_end = closing < 0
        follows = text.find("-----BEGIN", end, closing) if closing >= 0 else 0
        body = _BODY.match(text, end, closing + 80) if closing >= 0 and follows < 0 else None
        body = body or _LINES.match(text, end)
        position = body.end() if body else end
        yield Finding(match.start(), position, "private key", Category.SECRET, 1.0)


def url_passwords(text: str) -> Iterator[Finding]:
    """Yield the passwords of ``scheme://user:password@host``."""
    position = text.find("://")
    while position >= 0:
        match = _USER.match(text, position + 3)
        if (
            match
            and text[position - 1 : position].isalnum()
            and not PLACEHOLDER.search(match["secret"])
        ):
            yield Finding(*match.span("secret"), "password in a URL", Category.SECRET, 0.9)
        position = text.find("://", position + 3)
