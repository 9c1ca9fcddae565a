"""A labelled set for detectors, made from a seed: no real key, number or address is in it.

Positives are one value of one kind in one context; negatives are what is often mistaken for them.
Keys are put together at run time, so that no scanner takes this file for a leak.  The two splits have
different seeds *and* different contexts; rules may be tuned on ``dev`` and are reported on
``held-out``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Case", "cases"]

SEEDS = {"dev": 20_250_101, "held-out": 77_003_941}
LETTERS, DIGITS = string.ascii_letters, string.digits
ALNUM, HEX = LETTERS + DIGITS, "0123456789abcdef"
URLSAFE, BASE64 = ALNUM + "_-", ALNUM + "+/"


@dataclass(frozen=True)
class Case:
    """One text.

    Attributes:
        text: What is searched.
        kind: What was planted, or what kind of look-alike it is.
        category: ``secret``, ``pii`` or ``none``.
        planted: The value that must be found; empty for ``none``.
    """

    text: str
    kind: str
    category: str
    planted: str = ""


Make = Callable[[random.Random], str]


def draw(r: random.Random, alphabet: str, n: int) -> str:
    return "".join(r.choice(alphabet) for _ in range(n))


def b62crc(body: str) -> str:
    n, out = zlib.crc32(body.encode()), ""
    alphabet = DIGITS + string.ascii_uppercase + string.ascii_lowercase
    while n:
        n, rest = divmod(n, 62)
        out = alphabet[rest] + out
    return out.rjust(6, "0")


def checked(r: random.Random, prefix: str) -> str:
    body = draw(r, ALNUM, 30)
    return prefix + body + b62crc(body)


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(r: random.Random) -> str:
    head = json.dumps({"alg": r.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"}).encode()
    body = json.dumps({"sub": draw(r, DIGITS, 8), "iat": r.randint(10**9, 2 * 10**9)}).encode()
    return f"{b64url(head)}.{b64url(body)}.{b64url(r.randbytes(32))}"


def pem(r: random.Random) -> str:
    kind = r.choice(["RSA ", "EC ", "", "OPENSSH "])
    body = base64.b64encode(r.randbytes(240)).decode()
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return "-----BEGIN " + f"{kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def human_password(r: random.Random) -> str:
    words = ["Sommer", "dragon", "River", "blue", "Winter", "falcon", "piano", "Rocket", "maple"]
    return (
        r.choice(words)
        + r.choice(["!", "#", "-", "_", "%", ""])
        + draw(r, DIGITS, 4)
        + r.choice("!?*xQ")
    )


# -- secrets whose form tells them -----------------------------------------------------------------

FORMED: dict[str, Make] = {
    "openai": lambda r: "sk-" + "proj-" + draw(r, URLSAFE, 60),
    "openai-old": lambda r: "sk-" + draw(r, ALNUM, 48),
    "anthropic": lambda r: "sk-" + "ant-api03-" + draw(r, URLSAFE, 93) + "AA",
    "aws-id": lambda r: r.choice(["AKIA", "ASIA"]) + draw(r, string.ascii_uppercase + "234567", 16),
    "github": lambda r: checked(r, r.choice(["ghp", "gho", "ghs"]) + "_"),
    "github-fine": lambda r: "github" + "_pat_" + draw(r, ALNUM, 22) + "_" + draw(r, ALNUM, 59),
    "gitlab": lambda r: "glpat" + "-" + draw(r, URLSAFE, 20),
    "slack": lambda r: "xox" + f"b-{draw(r, DIGITS, 12)}-{draw(r, DIGITS, 12)}-{draw(r, ALNUM, 24)}",
    "slack-webhook": lambda r: "hooks.slack" + f".com/services/T{draw(r, ALNUM, 9)}/B{draw(r, ALNUM, 9)}/{draw(r, ALNUM, 24)}",
    "google": lambda r: "AI" + "za" + draw(r, URLSAFE, 34) + draw(r, ALNUM, 1),
    "stripe": lambda r: "sk_" + "live_" + draw(r, ALNUM, 24),
    "huggingface": lambda r: "hf" + "_" + draw(r, LETTERS, 26) + draw(r, ALNUM, 8),
    "sendgrid": lambda r: "SG" + f".{draw(r, URLSAFE, 22)}.{draw(r, URLSAFE, 43)}",
    "npm": lambda r: checked(r, "npm" + "_"),
    "pypi": lambda r: "pypi" + "-AgEIcHlwaS5vcmc" + draw(r, URLSAFE, 120),
    "databricks": lambda r: "dapi" + draw(r, HEX, 32),
    "twilio": lambda r: "SK" + draw(r, HEX, 32),
    "telegram": lambda r: draw(r, "123456789", 10) + ":AA" + draw(r, URLSAFE, 32) + draw(r, ALNUM, 1),
    "vault": lambda r: "hvs" + "." + draw(r, URLSAFE, 90),
    "groq": lambda r: "gsk" + "_" + draw(r, ALNUM, 52),
    "mailchimp": lambda r: draw(r, HEX, 32) + "-us" + draw(r, "123456789", 2),
    "jwt": jwt,
    "private-key": pem,
}  # fmt: skip

# Secrets that only their place tells: name, operator, value.
NAMED: dict[str, Make] = {
    "password": human_password,
    "aws-secret": lambda r: draw(r, BASE64, 40),
    "hex-secret": lambda r: draw(r, HEX, 40),
    "opaque-token": lambda r: draw(r, ALNUM, 32),
    "url-password": lambda r: draw(r, ALNUM, 14),
    "bearer": lambda r: draw(r, URLSAFE, 40),
    "basic": lambda r: base64.b64encode(f"svc:{draw(r, ALNUM, 12)}".encode()).decode(),
}
NAMES = {
    "password": ("password", "DB_PASSWORD", "smtp_password", "adminPassword", "pwd", "passphrase"),
    "aws-secret": ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "secretAccessKey"),
    "hex-secret": (
        "client_secret",
        "webhook_secret",
        "SIGNING_KEY",
        "session_secret",
        "secret_key",
    ),
    "opaque-token": (
        "api_key",
        "ACCESS_TOKEN",
        "authToken",
        "X-Api-Key",
        "refresh_token",
        "apiKey",
    ),
}

CONTEXTS = {
    "dev": (
        'client = Client("{}")',
        "2025-03-01 12:00:03 ERROR upstream said 401 for {} (attempt 2)",
        '{{"event": "login", "data": "{}", "ok": true}}',
        "export THE_VALUE={}",
        "please use {} until friday, thanks",
        "curl https://api.service.io/v1/items?x=1 -d '{}'",
        "| name | value |\n|---|---|\n| live | {} |",
    ),
    "held-out": (
        "Traceback (most recent call last):\n  File 'a.py', line 3\nValueError: bad value '{}'",
        "settings:\n  remote:\n    value: {}\n    retries: 3\n",
        "// rotate soon\nconst c = new Thing(`{}`, 5);",
        "<config><entry>{}</entry></config>",
        "> forwarded message\n> here you go: {}\n> best, Kim",
        "GET /callback?code={}&state=1 HTTP/1.1",
        "print(f'loaded {{n}} rows')  # {}",
        '["a", "{}", 3]',
    ),
}
NAMED_CONTEXTS = {
    "dev": (
        '{name} = "{value}"',
        "{name}={value}",
        '{{"{name}": "{value}", "port": 5432}}',
        "{name}: {value}",
        "os.environ['{name}'] = '{value}'",
    ),
    "held-out": (
        'connect(host="db1", {name}="{value}")',
        "  {name}: '{value}'\n  timeout: 30",
        "export {name}={value}\n./start.sh",
        'config.set("{name}", "{value}")',
        "the {name} is {value}, do not share",
        '{{\\"{name}\\": \\"{value}\\"}}',
        "--{name} {value} --verbose",
        "INFO starting with {name}={value} region=eu",
    ),
}
SPECIAL_CONTEXTS = {
    "url-password": {
        "dev": ("postgresql://app:{}@db.corp.net:5432/main", "DATABASE_URL=mysql://root:{}@10.0.0.3/x"),
        "held-out": ("redis://default:{}@cache.corp.net:6379", "clone https://bot:{}@git.corp.net/r.git"),
    },
    "bearer": {
        "dev": ("Authorization: Bearer {}", "headers={{'Authorization': 'Bearer {}'}}"),
        "held-out": ("curl -H 'authorization: bearer {}' https://x.io", '"Authorization":"Bearer {}"'),
    },
    "basic": {
        "dev": ("Authorization: Basic {}", "headers={{'Authorization': 'Basic {}'}}"),
        "held-out": ("curl -H 'Authorization: Basic {}' https://x.io", '"authorization": "Basic {}"'),
    },
}  # fmt: skip

# -- personal data ---------------------------------------------------------------------------------


def luhn_digit(digits: str) -> str:
    total = 0
    for i, c in enumerate(reversed(digits)):
        d = int(c) * (2 if i % 2 == 0 else 1)
        total += d - 9 if d > 9 else d
    return str(-total % 10)


def card(r: random.Random) -> str:
    body = r.choice(["4", "51", "55", "2223"])
    body += draw(r, DIGITS, 15 - len(body))
    number = body + luhn_digit(body)
    return r.choice([number, " ".join(number[i : i + 4] for i in range(0, 16, 4))])


def iban(r: random.Random) -> str:
    country, bban = r.choice(
        [
            ("DE", draw(r, DIGITS, 18)),
            ("GB", draw(r, string.ascii_uppercase, 4) + draw(r, DIGITS, 14)),
            ("NL", draw(r, string.ascii_uppercase, 4) + draw(r, DIGITS, 10)),
            ("FR", draw(r, DIGITS, 23)),
        ]
    )
    check = 98 - int("".join(str(int(c, 36)) for c in bban + country + "00")) % 97
    number = f"{country}{check:02d}{bban}"
    spaced = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    return r.choice([number, spaced])


def cpf(r: random.Random) -> str:
    d = draw(r, DIGITS, 9)
    for n in (10, 11):
        d += str(sum(int(c) * w for c, w in zip(d, range(n, 1, -1), strict=True)) * 10 % 11 % 10)
    return f"{d[:3]}.{d[3:6]}.{d[6:9]}-{d[9:]}"


def email(r: random.Random) -> str:
    name = r.choice(["maria", "jon", "li.wei", "o_brien", "anna-lena"]) + draw(r, DIGITS, 2)
    return f"{name}@{r.choice(['gmail.com', 'firma.de', 'uni.ac.uk', 'mail.corp.io'])}"


def phone(r: random.Random) -> str:
    return r.choice(
        [
            "+49 30 " + draw(r, DIGITS, 8),
            "+44 20 " + draw(r, DIGITS, 4) + " " + draw(r, DIGITS, 4),
            "+1" + draw(r, "23456789", 1) + draw(r, DIGITS, 2) + draw(r, "23456789", 1) + draw(r, DIGITS, 6),
            f"({draw(r, '23456789', 1)}{draw(r, DIGITS, 2)}) {draw(r, '23456789', 1)}{draw(r, DIGITS, 2)}-{draw(r, DIGITS, 4)}",
        ]
    )  # fmt: skip


def swedish(r: random.Random) -> str:
    d = f"{r.randint(50, 99)}{r.randint(1, 12):02d}{r.randint(1, 28):02d}{draw(r, DIGITS, 3)}"
    return f"{d[:6]}-{d[6:]}{luhn_digit(d)}"


def dni(r: random.Random) -> str:
    n = r.randint(10_000_000, 99_999_999)
    return f"{n}{'TRWAGMYFPDXBNJZSQVHLCKE'[n % 23]}"


def nir(r: random.Random) -> str:
    d = f"{r.choice('12')}{r.randint(40, 99)}{r.randint(1, 12):02d}{r.randint(1, 95):02d}{draw(r, DIGITS, 6)}"
    return f"{d}{97 - int(d) % 97:02d}"


def ssn(r: random.Random) -> str:
    return f"{r.randint(100, 665)}-{r.randint(10, 99)}-{r.randint(1000, 9999)}"


PERSONAL: dict[str, Make] = {
    "email": email,
    "phone": phone,
    "card": card,
    "iban": iban,
    "us-ssn": ssn,
    "br-cpf": cpf,
    "se-personnummer": swedish,
    "es-dni": dni,
    "fr-nir": nir,
    "uk-nino": lambda r: f"AB{draw(r, DIGITS, 6)}{r.choice('ABCD')}",
}
PERSONAL_CONTEXTS = {
    "dev": (
        '{{"customer": "{}", "city": "Oslo"}}',
        "Please update the record of {} before Monday.",
        "name,contact\nKim,{}\n",
    ),
    "held-out": (
        "2025-03-01 INFO sent reminder to {}",
        "<td>{}</td><td>open</td>",
        "Hi, I moved. You have {} on file, is that right?",
        "row = ('Kim', '{}', 3)",
    ),
}

# -- what is often mistaken for one ----------------------------------------------------------------


def lorem(r: random.Random) -> str:
    words = [
        "the",
        "quarterly",
        "report",
        "was",
        "sent",
        "to",
        "our",
        "partners",
        "and",
        "they",
        "asked",
        "about",
        "tokens",
        "keys",
        "passwords",
        "in",
        "general",
        "terms",
        "of",
        "secret",
        "recipes",
    ]
    return " ".join(r.choice(words) for _ in range(40))


def uid(r: random.Random) -> str:
    return str(uuid.UUID(int=r.getrandbits(128), version=4))


def names(r: random.Random) -> str:
    parts = ["get", "user", "token", "handler", "config", "parser", "auth", "service", "for", "key"]
    return "_".join(r.choice(parts) for _ in range(r.randint(5, 9)))


NONE: dict[str, tuple[Make, ...]] = {
    "git-hash": (
        lambda r: f"commit {draw(r, HEX, 40)}\nAuthor: nobody",
        lambda r: f"fixed in {draw(r, HEX, 7)}..{draw(r, HEX, 40)}",
    ),
    "uuid": (lambda r: f'{{"id": "{uid(r)}", "parent": "{uid(r)}"}}', lambda r: f"request {uid(r)} took 3 ms"),
    "digest": (
        lambda r: f"sha256:{draw(r, HEX, 64)}",
        lambda r: f"{draw(r, HEX, 64)}  archive.tar.gz",
        lambda r: f'ETag: "{draw(r, HEX, 32)}"',
    ),
    "package-hash": (
        lambda r: f"    --hash=sha256:{draw(r, HEX, 64)}",
        lambda r: '"integrity": "sha512-' + base64.b64encode(r.randbytes(64)).decode() + '"',
        lambda r: f"h1:{base64.b64encode(r.randbytes(32)).decode()} go.sum",
    ),
    "image": (lambda r: "data:image/png;base64,iVBORw0KGgo" + base64.b64encode(r.randbytes(300)).decode(),),
    "public-key": (
        lambda r: "ssh-rsa AAAAB3NzaC1yc2E" + base64.b64encode(r.randbytes(200)).decode() + " kim@",
        lambda r: "-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(r.randbytes(90)).decode() + "\n-----END PUBLIC KEY-----",
        lambda r: "-----BEGIN CERTIFICATE-----\n" + base64.b64encode(r.randbytes(300)).decode() + "\n-----END CERTIFICATE-----",
    ),
    "placeholder": (
        lambda r: 'api_key = "YOUR_API_KEY_HERE_0123456789"',
        lambda r: "OPENAI_API_KEY=sk-" + "x" * 40,
        lambda r: 'password: "<your password>"',
        lambda r: "token: ${SERVICE_TOKEN_V2}",
        lambda r: 'client_secret = os.environ["CLIENT_SECRET_2"]',
        lambda r: "password = '********'",
        lambda r: "Authorization: Bearer <token>",
        lambda r: "export DB_PASSWORD=changeme123",
    ),
    "prose": (lorem, lorem),
    "code": (
        lambda r: f"token = {names(r)}(request.headers, retries=3)",
        lambda r: f"def {names(r)}(password: str, token: str | None = None) -> bool:",
        lambda r: f"self.password = user.{names(r)}",
        lambda r: f"secret = load_secret_v2(name='{names(r)}')",
        lambda r: f"assert tokens == {r.randint(1000, 9999)} and max_tokens == {r.randint(1000, 9999)}",
        lambda r: f"for key in sorted(keys): total_{r.randint(1, 9)} += weights[key]",
    ),
    "css": (
        lambda r: f".sk-estimator-doc-link-{r.randint(1, 99)} {{ color: #{draw(r, HEX, 6)}; margin: 0 12px }}",
        lambda r: f"#sk-container-id-{r.randint(1, 99)} div.sk-toggleable__content{{max-height:0;background:#{draw(r, HEX, 6)}}}",
    ),
    "minified": (
        lambda r: f"!function(e,t){{var n=e.key||t.token;return n?r({r.randint(100, 999)}):null}}(this,{r.randint(100, 999)});a.b.c=function(d){{return d&&d.e}}",
    ),
    "cursor": (
        lambda r: f'{{"nextPageToken": "{draw(r, ALNUM, 40)}", "items": []}}',
        lambda r: f"cache_key = '{draw(r, HEX, 32)}'",
        lambda r: f'"idempotency_key": "{uid(r)}"',
    ),
    "version": (lambda r: f"numpy=={r.randint(1, 9)}.{r.randint(10, 99)}.{r.randint(1000, 9999)}.post{r.randint(10000, 99999)}",),
    "time": (
        lambda r: f"started 2025-0{r.randint(1, 9)}-{r.randint(10, 28)} {r.randint(10, 23)}:{r.randint(10, 59)}:{r.randint(10, 59)}.{draw(r, DIGITS, 6)}",
        lambda r: f'{{"ts": {r.randint(1_600_000_000_000, 1_800_000_000_000)}, "us": {r.randint(1_600_000_000_000_000, 1_800_000_000_000_000)}}}',
    ),
    "number": (
        lambda r: f"order {draw(r, '123456789', 8)} weighs {r.random():.12f} kg, total {r.randint(1, 9)},{draw(r, DIGITS, 3)},{draw(r, DIGITS, 3)}.00",
        lambda r: f"loss {r.random():.16f} lr {r.random() / 1e4:.3e} step {r.randint(10**6, 10**8)}",
        lambda r: f"trace_id={draw(r, HEX, 32)} span_id={draw(r, HEX, 16)}",
    ),
    "network": (
        lambda r: f"10.{r.randint(0, 255)}.{r.randint(0, 255)}.7:8443 -> 192.168.{r.randint(0, 255)}.{r.randint(0, 255)}",
        lambda r: f"git@code.corp.net:team/repo-{r.randint(1, 99)}.git",
        lambda r: f"https://cdn.corp.net/a/{draw(r, HEX, 20)}/img@2x.png?v={r.randint(1, 99999999)}",
        lambda r: f"mac {':'.join(draw(r, HEX, 2) for _ in range(6))}",
    ),
    "not-a-card": (lambda r: f"tracking {r.choice('13789')}{draw(r, DIGITS, 15)} shipped", lambda r: f"ISBN 978-3-{draw(r, DIGITS, 2)}-{draw(r, DIGITS, 6)}-1"),
    "not-a-phone": (lambda r: f"range {r.randint(1000, 4999)}-{r.randint(5000, 9999)}, rev {r.randint(100, 999)}.{r.randint(100, 999)}", lambda r: f"invoice INV-{r.randint(2019, 2025)}-{draw(r, DIGITS, 5)}"),
    "ui-text": (lambda r: 'labels = {"password": "Password", "token": "Token", "forgot": "Forgot password?"}', lambda r: "Password must be at least 12 characters long"),
    "base64-text": (lambda r: "payload: " + base64.b64encode(lorem(r).encode()).decode(),),
}  # fmt: skip


def cases(split: str, per_kind: int = 20) -> Iterator[Case]:
    """Yield the cases of a split, always the same: ``per_kind`` of each kind."""
    seed = SEEDS[split]
    for kind, make in FORMED.items():
        yield from _fill(seed, kind, "secret", make, CONTEXTS[split], per_kind)
    for kind, make in NAMED.items():
        if kind in SPECIAL_CONTEXTS:
            yield from _fill(seed, kind, "secret", make, SPECIAL_CONTEXTS[kind][split], per_kind)
            continue
        for n in range(per_kind):
            r = _random(seed, kind, n)
            value, name = make(r), r.choice(NAMES[kind])
            context = NAMED_CONTEXTS[split][n % len(NAMED_CONTEXTS[split])]
            yield Case(context.format(name=name, value=value), kind, "secret", value)
    for kind, make in PERSONAL.items():
        yield from _fill(seed, kind, "pii", make, PERSONAL_CONTEXTS[split], per_kind)
    for kind, makers in NONE.items():
        for n in range(per_kind):
            r = _random(seed, kind, n)
            text = makers[n % len(makers)](r)
            yield Case(text, kind, "none")


def _fill(  # noqa: PLR0917
    seed: int, kind: str, category: str, make: Make, contexts: tuple[str, ...], n: int
) -> Iterator[Case]:
    for i in range(n):
        value = make(_random(seed, kind, i))
        yield Case(contexts[i % len(contexts)].format(value), kind, category, value)


def _random(seed: int, kind: str, n: int) -> random.Random:
    return random.Random(int(hashlib.sha256(f"{seed}/{kind}/{n}".encode()).hexdigest(), 16))
