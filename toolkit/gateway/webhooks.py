"""Tells another system that a person is asked: one signed POST per request.

The form is Standard Webhooks 1.0 (https://www.standardwebhooks.com, symmetric scheme): the headers
``webhook-id``, ``webhook-timestamp`` (seconds) and ``webhook-signature``, which is ``v1,`` and the
base64 of HMAC-SHA256 over ``id.timestamp.body``.  A secret is ``whsec_`` and base64, or any text.

A notification fails open, loudly: the request stays in the inbox whatever happens here.  It may
come more than once, always with the same id.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import orjson

from toolkit.values import Clock, SystemClock, iso_utc

__all__ = ["Hook", "Webhooks", "sign"]

_PREFIX = "whsec_"
_TIMEOUT_S = 10.0
_PAUSES_S = (1.0, 5.0, 30.0, 120.0, 600.0)
_GONE = 410


class Hook(Protocol):
    """Where to send, as ``policy.yaml`` says."""

    @property
    def url(self) -> str:
        """``https://…``; ``http`` only to this machine."""
        ...

    @property
    def secret_env(self) -> str:
        """Name of the gateway's environment variable that holds the secret."""
        ...


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``.

    Raises:
        ValueError: The secret starts like ``whsec_`` and is not base64, or is empty.
    """
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("the secret is not base64 after whsec_") from None
    else:
        key = secret.encode()
    if not key:
        raise ValueError("the secret is empty")
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class _Refused(Exception):
    """The receiver does not want it; asking again is of no use."""


@dataclass
class Webhooks:
    """Sends notifications beside the calls, with retries.

    Attributes:
        environ: Where secrets are.
        clock: Where timestamps come from.
        pauses_s: Seconds before each further attempt; so many and one attempts are made.
        sleep: How to wait; tests pass one that does not.
        warn: Told one sentence for each notification that was given up.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)
    pauses_s: Sequence[float] = _PAUSES_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    warn: Callable[[str], None] = lambda text: print(f"warning: {text}", file=sys.stderr)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def send(
        self,
        hook: Hook,
        message_id: str,
        event: str,
        data: dict[str, Any],
        *,
        lost: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Start to deliver a message; returns at once and never raises.

        Args:
            hook: Where to.
            message_id: The same for every attempt, so that a receiver can drop repetitions.
            event: ``approval.requested`` …
            data: JSON values; no secrets.
            lost: Awaited with the reason when the message was given up.
        """
        task = asyncio.get_running_loop().create_task(
            self._deliver(hook, message_id, event, data, lost)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self, timeout_s: float) -> None:
        """Wait for deliveries under way; what is left after ``timeout_s`` is cut off."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _deliver(
        self,
        hook: Hook,
        message_id: str,
        event: str,
        data: dict[str, Any],
        lost: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        host = urlsplit(hook.url).hostname or hook.url
        try:
            await self._try(hook, message_id, event, data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call must not care
            known = isinstance(error, (_Refused, ValueError))
            why = str(error) if known else type(error).__name__
            self.warn(f"the webhook at {host} was not told about {message_id}: {why}")
            if lost is not None:
                with contextlib.suppress(Exception):
                    await lost(why)

    async def _try(self, hook: Hook, message_id: str, event: str, data: dict[str, Any]) -> None:
        _check_address(hook.url)
        secret = self.environ.get(hook.secret_env, "")
        if not secret:
            raise _Refused(f"{hook.secret_env} is not set where the gateway runs")
        body = orjson.dumps(
            {"type": event, "timestamp": iso_utc(self.clock.now_us()), "data": data}
        )
        # No proxy and no .netrc of the machine: the address is the one that policy names.
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            for pause in (*self.pauses_s, None):
                failure = await self._post(client, hook.url, secret, message_id, body)
                if failure is None:
                    return
                if pause is None:
                    raise _Refused(f"{failure}, {len(self.pauses_s) + 1} attempts")
                await self.sleep(pause)

    async def _post(
        self, client: httpx.AsyncClient, url: str, secret: str, message_id: str, body: bytes
    ) -> str | None:
        """Make one attempt; return why it failed and may be repeated, ``None`` if it is done."""
        now_s = self.clock.now_us() // 1_000_000
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": sign(secret, message_id, now_s, body),
        }
        try:
            answer = await client.post(url, content=body, headers=headers)
        except httpx.TransportError as error:
            return f"no answer ({type(error).__name__})"
        if answer.is_success:
            return None
        status = answer.status_code
        if status == _GONE:
            raise _Refused("it answers 410: it wants no more")
        return f"it answers {status}"


def _check_address(url: str) -> None:
    """Raise :class:`_Refused` where the message could be read on its way."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname)):
        return
    raise _Refused("its address is neither https nor on this machine")


def _is_this_machine(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False
