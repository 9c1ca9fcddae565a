"""Signatures of events: HMAC-SHA256 over ``delivery.timestamp.body``, as MLflow's webhooks have it.

The form follows the Standard Webhooks convention (standardwebhooks.com): the signature is ``v1,``
and the base64 of the digest; several may stand in one header, with blanks between, while a secret
is changed.  MLflow sends ``X-MLflow-Delivery-Id``, ``X-MLflow-Timestamp`` and
``X-MLflow-Signature``; other senders use the same three with ``X-Toolkit-``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping

__all__ = ["WINDOW_S", "sign", "verified_delivery"]

WINDOW_S = 300.0
_DELIVERY = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_MAX_SIGNATURES = 4


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body, ``v1,`` and base64."""
    content = f"{delivery}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def verified_delivery(
    secret: str, prefix: str, headers: Mapping[str, str], body: bytes, now_s: float
) -> str | None:
    """Return the delivery's id if the request is genuine and fresh, else ``None``.

    Args:
        secret: The shared secret; an empty one verifies nothing.
        prefix: ``x-toolkit`` or ``x-mlflow``.
        headers: By lower-case name.
        body: The bytes that came.
        now_s: Seconds since the epoch; the timestamp may differ by :data:`WINDOW_S`.
    """
    delivery = headers.get(f"{prefix}-delivery-id", "")
    timestamp = headers.get(f"{prefix}-timestamp", "")
    if not (secret and _DELIVERY.fullmatch(delivery) and _TIMESTAMP.fullmatch(timestamp)):
        return None
    if abs(now_s - int(timestamp)) > WINDOW_S:
        return None
    wanted = sign(secret, delivery, timestamp, body).encode()
    told = headers.get(f"{prefix}-signature", "").split(" ")[:_MAX_SIGNATURES]
    # Every one is compared, so that the time says nothing.
    same = [hmac.compare_digest(wanted, each.encode("utf-8", "replace")) for each in told]
    return delivery if any(same) else None
