"""The environment variables through which unmodified SDKs find the gateway instead of a vendor.

``openai`` (and with it ``langchain-openai``, ``langgraph`` and ``pydantic-ai``) and ``anthropic``
read their address and key from the environment when a client is made.  In every kernel of the
toolkit these name the gateway and the run's token, so a client that is made without an address of
its own is governed.  A client that was made before, or that gets ``base_url=…`` from the code,
keeps what it has: the static check refuses such code, and a production kernel has no key for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from toolkit.client.frames import CURRENT
from toolkit.client.purposes import PURPOSE

__all__ = [
    "gateway_address",
    "outer_environment",
    "point_sdks",
    "release_sdks",
    "sdk_environment",
    "sdk_headers",
]

_ELSEWHERE = (
    "OPENAI_API_BASE",  # langchain-openai asks it first
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_PROFILE",
)
"""Variables that would lead an SDK past ours; they are taken out."""
_MARK = "TOOLKIT_SDKS"
"""Says that the variables are ours, to processes that inherit them."""
_PROXY_EXCEPTIONS = ("NO_PROXY", "no_proxy")

# What a person's environment held before; never written anywhere, only given to the processes that
# are the person's own (the gateway, which reads provider keys from it).
_before: dict[str, str | None] = {}


def gateway_address(socket: str) -> str | None:
    """Return the HTTP address of the gateway that serves a unix socket, or that is one itself.

    Args:
        socket: Path of the unix socket, or ``http(s)://host:port``.
    """
    if "://" in socket:
        return socket.rstrip("/")
    try:
        port = int(Path(socket).with_suffix(".port").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return f"http://127.0.0.1:{port}"


def sdk_environment(address: str, token: str) -> dict[str, str]:
    """Return the variables that point SDKs at a gateway.

    Args:
        address: ``http(s)://host:port``.
        token: The run's token.
    """
    return {
        "OPENAI_BASE_URL": f"{address}/v1",
        "OPENAI_API_KEY": token,
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_API_KEY": token,
        _MARK: "1",
    }


def point_sdks(
    address: str, token: str, environ: MutableMapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Point this process's SDKs at a gateway; return the names that had values of the person's own.

    Asked again with another address or token, it replaces ours and names nothing.
    """
    wanted: dict[str, str | None] = {**sdk_environment(address, token)}
    wanted |= dict.fromkeys(_ELSEWHERE)
    if address.startswith("http://127.0.0.1"):
        # A proxy of the machine's would not find its way back here.
        for name in _PROXY_EXCEPTIONS:
            wanted[name] = _with_loopback(environ.get(name))
    replaced = []
    for name, value in wanted.items():
        old = environ.get(name)
        if name not in _before:
            _before[name] = old
            if old and old != value and name not in _PROXY_EXCEPTIONS:
                replaced.append(name)
        _set(environ, name, value)
    return tuple(replaced)


def release_sdks(environ: MutableMapping[str, str] = os.environ) -> None:
    """Give the variables back the values that they had."""
    while _before:
        _set(environ, *_before.popitem())


def outer_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment as it was before SDKs were pointed at the gateway.

    For the gateway itself, which reads provider keys from the environment that starts it: a run
    token must never be sent to a vendor as a key.  A process that only inherited our variables
    does not know the person's own values; there they are left out.
    """
    ours = frozenset(sdk_environment("", "")) if environ.get(_MARK) else frozenset()
    outer = {n: value for n, value in environ.items() if n not in _before and n not in ours}
    return outer | {name: value for name, value in _before.items() if value is not None}


def sdk_headers() -> dict[str, str]:
    """Return headers that tell the gateway in which ``@agent`` or ``@tool`` call an SDK is used.

    Pass them on as ``extra_headers=toolkit.client.sdk_headers()``; without them the call is
    recorded as made at the top of the notebook.
    """
    frame, purpose = CURRENT.get(), PURPOSE.get()
    found = {"x-toolkit-parent": frame.key} if frame is not None else {}
    if frame is not None and frame.case_id:
        found["x-toolkit-case"] = frame.case_id
    if purpose and purpose.isascii() and purpose.isprintable():
        found["x-toolkit-purpose"] = purpose
    return found


def _with_loopback(value: str | None) -> str:
    hosts = [host.strip() for host in (value or "").split(",") if host.strip()]
    return ",".join(dict.fromkeys((*hosts, "127.0.0.1", "localhost")))


def _set(environ: MutableMapping[str, str], name: str, value: str | None) -> None:
    if value is None:
        environ.pop(name, None)
    else:
        environ[name] = value
