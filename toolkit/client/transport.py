"""What carries requests to a gateway, and how long it is tried."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from toolkit.errors import GatewayUnavailable, error_from_json

__all__ = ["Patience", "import_httpx", "over_socket", "over_tcp", "read_reply"]

_RESEND_FOR_S = 40.0
_MOST_DEATHS = 10


def import_httpx() -> Any:
    """Import httpx without its command line, which pulls rich and click (0.2 s)."""
    if "httpx" not in sys.modules:
        sys.modules["httpx._main"] = None  # type: ignore[assignment]  # httpx treats it as "extra not installed"
        import httpx

        del sys.modules["httpx._main"]
        return httpx
    return sys.modules["httpx"]


def over_socket(httpx: Any, path: str) -> Any:
    """Return a transport over a unix socket."""
    # No TLS on a unix socket: loading the machine's certificates takes 20 ms.
    return httpx.HTTPTransport(uds=path, verify=False, trust_env=False)  # noqa: S501


def over_tcp(httpx: Any) -> Any:
    """A transport that knows the machine's authorities, and those of ``SSL_CERT_FILE``."""
    import ssl

    context = ssl.create_default_context()
    if extra := os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(extra)
    return httpx.HTTPTransport(verify=context, trust_env=False)


class Patience:
    """When to stop sending a request again.

    The time counts from when the gateway was last at work on the request, which may take minutes;
    the deaths are counted too, or a request that kills the gateway would do so for ever.
    """

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._deaths = 0

    def ends(self, *, reached: bool) -> bool:
        """Tell of a failed attempt; ``reached`` says that a gateway had taken the request."""
        now = time.monotonic()
        if reached:
            self._deaths += 1
            self._since = now
        return self._deaths > _MOST_DEATHS or now - self._since > _RESEND_FOR_S


def read_reply(reply: Any) -> dict[str, Any]:
    """Return a reply's JSON object.

    Raises:
        ToolkitError: What the gateway answered, rebuilt as its own class.
        GatewayUnavailable: The gateway ended in the middle of it, and says so or says nothing.
    """
    reply.read()
    try:
        answer = reply.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise GatewayUnavailable("the gateway's answer was cut off")
    if reply.status_code >= 400:
        raise error_from_json(answer.get("error") or {})
    return answer
