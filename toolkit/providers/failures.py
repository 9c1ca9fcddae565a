"""The one place where a provider's failure becomes a :class:`ProviderError`.

``details["kind"]`` is one of

=================  ==================================================================
connection         the provider cannot be reached; nothing was sent
cut                the connection broke after the request was sent, before the answer was whole
timeout            no answer within ``timeout_s``, or no first byte within ``first_byte_s``
rate_limited       429; ``details["retry_after_s"]`` when the provider says so
auth               401, 402, 403, or no key
bad_request        the provider refuses the request as it is
server             5xx and other statuses that are not our fault
invalid_body       the answer is not what the protocol says
missing_model      the model, its file or its engine is not there
breaker_open       every target failed lately and is left alone; ``details["retry_after_s"]``
unexpected         a fault of ours
=================  ==================================================================

``details["billed"]`` says whether the provider may have computed an answer that it bills: budgets
are then charged the worst case of the attempt.  An error status is not billed; a request that was
sent and not answered may be.

No key can leave: bodies are never repeated, except for the short message of a refused request,
and that only when nothing in it resembles the key.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from email.utils import parsedate_to_datetime
from typing import Any

from toolkit.errors import ProviderError
from toolkit.providers.routes import Route

if "httpx" not in sys.modules:
    # httpx imports its command line (rich, click: 0.15 s) unless the module is marked as absent,
    # which it takes for "extra not installed".
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    import httpx

    del sys.modules["httpx._main"]
else:
    import httpx

if "sniffio" not in sys.modules and importlib.util.find_spec("sniffio") is None:
    # httpcore tries to import it at every step of every request, and a failing import looks through
    # every folder of the path: half a millisecond per call.  Marked as absent, it fails at once.
    sys.modules["sniffio"] = None  # type: ignore[assignment]

__all__ = [
    "KINDS",
    "failure",
    "from_event",
    "from_httpx",
    "from_status",
    "httpx",
    "missing_key",
]

KINDS = frozenset(
    {
        "connection",
        "cut",
        "timeout",
        "rate_limited",
        "auth",
        "bad_request",
        "server",
        "invalid_body",
        "missing_model",
        "breaker_open",
        "unexpected",
    }
)
_BILLED = frozenset({"cut", "timeout", "invalid_body", "unexpected"})
_MAX_MESSAGE = 300
_SECRET_LIKE = re.compile(
    r"(?i)(bearer\s+\S+|\b(?:sk|pk|rk|key|api|xai|gsk|hf)[-_][A-Za-z0-9_*.-]{6,}|[A-Za-z0-9_*-]{32,})"
)
_NEXT_STEPS = {
    "connection": "check base_url in registry/models.yaml and the network, then try again",
    "cut": "try again; the answer that was begun may have been billed",
    "timeout": "try again, or raise timeout_s of the route in registry/models.yaml",
    "rate_limited": "wait and try again, or spread the calls over more routes",
    "auth": "check the key in the variable that api_key_env names, and the account behind it",
    "bad_request": "check the messages and the route's settings in registry/models.yaml",
    "server": "try again later; the fault is the provider's",
    "invalid_body": "check that base_url in registry/models.yaml points at the right kind of server",
    "missing_model": "check the model's name in registry/models.yaml",
    "breaker_open": "wait, or add another target to the route in registry/models.yaml",
    "unexpected": "try again; if it happens again, report it",
}


def failure(
    kind: str,
    cause: str,
    route: Route,
    *,
    next_step: str | None = None,
    billed: bool | None = None,
    **details: Any,
) -> ProviderError:
    """Build the error of a failed attempt.

    Args:
        kind: One of :data:`KINDS`.
        cause: What happened, to end the sentence "provider … failed: …".
        route: The route that was tried.
        next_step: Default: the usual one of the kind.
        billed: Whether the provider may bill the attempt; default: the usual case of the kind.
        details: More facts; those that are ``None`` are left out.
    """
    facts: dict[str, Any] = {
        "kind": kind,
        "route": route.name,
        "provider": route.provider,
        "model": route.model,
        "billed": kind in _BILLED if billed is None else billed,
    }
    facts.update({name: value for name, value in details.items() if value is not None})
    return ProviderError(
        f"{route.target} failed: {cause}",
        where=f"registry/models.yaml: routes.{route.name}",
        next_step=next_step or _NEXT_STEPS[kind],
        details=facts,
    )


def missing_key(variable: str, route: Route, *, malformed: bool = False) -> ProviderError:
    """The error for a key that is not in the environment or cannot be sent."""
    state = "does not hold a key that can be sent" if malformed else "is not set"
    return failure(
        "auth",
        f"the environment variable {variable} {state}",
        route,
        next_step=f"set {variable} where the gateway starts, then restart the gateway",
    )


# The first class that matches wins, so subclasses stand before their parents.
_HTTPX: tuple[tuple[type[Exception], str, str], ...] = (
    (httpx.ConnectTimeout, "connection", "no connection in time"),
    (httpx.PoolTimeout, "connection", "all connections are in use"),
    (httpx.TimeoutException, "timeout", "no answer in time"),
    (httpx.UnsupportedProtocol, "bad_request", "the address is not http or https"),
    (httpx.LocalProtocolError, "bad_request", "the request breaks the HTTP protocol"),
    (httpx.RemoteProtocolError, "cut", "the connection was cut or is not HTTP"),
    (httpx.ProxyError, "connection", "the proxy refused the connection"),
    (httpx.ConnectError, "connection", "the connection was refused or the name is not known"),
    (httpx.TransportError, "cut", "the connection broke"),
    (httpx.DecodingError, "invalid_body", "the answer cannot be decompressed"),
    (httpx.TooManyRedirects, "server", "the provider redirects in a circle"),
    (httpx.HTTPStatusError, "server", "the provider answered with an error status"),
    (httpx.HTTPError, "cut", "the request failed"),
    (httpx.InvalidURL, "bad_request", "the address is not valid"),
    (httpx.CookieConflict, "server", "the provider sent contradicting cookies"),
    (httpx.StreamError, "server", "the answer could not be read"),
)


def from_httpx(error: Exception, route: Route) -> ProviderError:
    """Map whatever httpx raises; its own text is not repeated, it may hold an address."""
    for kind_of, kind, cause in _HTTPX:
        if isinstance(error, kind_of):
            return failure(kind, f"{cause} ({type(error).__name__})", route)
    return failure("cut", f"the request failed ({type(error).__name__})", route)


def from_status(
    status: int, headers: Any, body: bytes, route: Route, *, key: str | None = None
) -> ProviderError:
    """Map an HTTP status that is not 200."""
    code, message = _facts(body, key)
    kind = _kind_of(status, code, message)
    cause = f"status {status}"
    if kind in ("bad_request", "missing_model") and message:
        cause = f"{cause}: {message}"
    elif code:
        cause = f"{cause} ({code})"
    return failure(
        kind,
        cause,
        route,
        billed=False,
        status=status,
        code=code,
        retry_after_s=_retry_after(headers),
    )


_EVENT_KINDS = {
    "rate_limit_error": "rate_limited",
    "rate_limit_exceeded": "rate_limited",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "auth",
    "invalid_request_error": "bad_request",
    "not_found_error": "missing_model",
    "timeout_error": "timeout",
}


def from_event(error: Any, route: Route, *, key: str | None = None) -> ProviderError:
    """Map an error that comes as an event of a stream, after the status 200."""
    code, _ = _facts(json.dumps({"error": error}).encode(), key)
    kind = _EVENT_KINDS.get(code or "", "server")
    cause = "the stream ended with an error" + (f" ({code})" if code else "")
    return failure(kind, cause, route, billed=True, code=code)


def _kind_of(status: int, code: str | None, message: str | None) -> str:
    if status in (401, 402, 403):
        return "auth"
    if status == 404:
        about_model = "model" in f"{code or ''} {message or ''}".lower()
        return "missing_model" if about_model else "bad_request"
    if status in (408, 504):
        return "timeout"
    if status == 429:
        return "rate_limited"
    return "bad_request" if 400 <= status < 500 else "server"


def _facts(body: bytes, key: str | None) -> tuple[str | None, str | None]:
    """The error's code and message, as far as they are safe to show."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None, None
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return None, None
    code = next((error[n] for n in ("code", "type") if isinstance(error.get(n), str)), None)
    if code is not None and (not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", code) or _leaks(code, key)):
        code = None
    message = error.get("message")
    if not isinstance(message, str) or _leaks(message, key):
        return code, None
    line = " ".join(message.split())[:_MAX_MESSAGE]
    return code, _SECRET_LIKE.sub("[hidden]", "".join(c for c in line if c.isprintable()))


def _leaks(text: str, key: str | None) -> bool:
    """Whether any eight neighbouring characters of the key are in the text."""
    if not key:
        return False
    width = min(8, len(key))
    return any(key[i : i + width] in text for i in range(len(key) - width + 1))


def _retry_after(headers: Any) -> float | None:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3); a date counts from ``Date``."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            until = parsedate_to_datetime(text)
            seconds = (until - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
        except (ValueError, TypeError):  # no date, or only one of the two has a zone
            return None
    return seconds if 0 <= seconds <= 86_400 else None
