"""A lock in a bucket: an object that says who holds it, written only over what was read.

It orders writers and spares them work.  Nothing is correct only because of it: a writer that
was stopped for longer than the lease loses the lock, and its writes are refused by the ETags
that it read under the lock.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from toolkit.errors import InfrastructureError
from toolkit.registry.storage.bucket import Bucket, Changed

__all__ = ["lease"]

_LEASE_S = 60.0
_WAIT_S = 120.0
_LONGEST_S = 1_800.0
_FREE = b"free\n"


@contextmanager
def lease(
    bucket: Bucket, name: str, *, lease_s: float = _LEASE_S, wait_s: float = _WAIT_S
) -> Iterator[None]:
    """Hold the lock of a name.

    Args:
        bucket: Where.
        name: Which.
        lease_s: Seconds, by the server's clock, after which a holder is taken for dead.
        wait_s: Seconds to wait while one and the same other holds it.  Where it changes hands this
            waits on, half an hour at most: who comes late must not fail because many are at work.

    Raises:
        InfrastructureError: Others held it all the time.
    """
    key, token = f".locks/{name}", secrets.token_hex(16).encode() + b"\n"
    began = moved = time.monotonic()
    holder, pause = b"", 0.01
    while True:
        etag, held_by = _take(bucket, key, token, lease_s)
        if etag is not None:
            break
        now = time.monotonic()
        if held_by != holder:
            holder, moved = held_by, now
        if now > moved + wait_s or now > began + _LONGEST_S:
            raise InfrastructureError(
                f"others have held the lock {name} for {now - began:.0f} s",
                where=f"{bucket.address}/{key}",
                next_step="run the command again",
            )
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads writers, no secret
        pause = min(pause * 1.5, 1.0)  # many who wait must not be all that the server hears
    try:
        yield
    finally:
        with suppress(OSError):  # it was taken over, or it will be when the lease ends
            bucket.put(key, _FREE, match=etag)


def _take(
    bucket: Bucket, key: str, token: bytes, lease_s: float
) -> tuple[str, bytes] | tuple[None, bytes]:
    """Take the lock if it is free or its holder is dead; return its ETag, and what stood in it."""
    try:
        found = bucket.get(key)
    except FileNotFoundError:
        found = None
    stood = b"" if found is None else found.data
    if found and stood == token:
        return found.etag, stood  # the client repeated a write whose answer was lost
    if found and stood != _FREE and found.age_s < lease_s:
        return None, stood
    try:
        if found is None:
            return bucket.create(key, token), stood
        return bucket.put(key, token, match=found.etag), stood
    except Changed:
        return None, stood
