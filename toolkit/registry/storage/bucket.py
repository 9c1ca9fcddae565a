"""Objects of an S3-compatible bucket below one prefix: the only calls that the registry makes.

The client is :mod:`s3fs` (the extra ``s3``), for its session, endpoint and retries.  Endpoint, region
and credentials come from where every AWS client takes them: ``AWS_ENDPOINT_URL``,
``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, a profile, or the machine's role.
Conditional writes are those of the S3 API: ``If-None-Match: *`` and ``If-Match``.
"""

from __future__ import annotations

import email.utils
import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from toolkit.errors import ConfigurationError, UsageError
from toolkit.registry.storage.interface import TooLargeError

__all__ = ["Bucket", "Changed", "Found"]

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._-]+)*)/?", re.ASCII)
_FORBIDDEN = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_MISSING = {"404", "NoSuchKey"}
_BUSY = {"409", "ConditionalRequestConflict", "OperationAborted"}
_BUSY_TRIES = 8


class Changed(OSError):
    """The object is not what the writer said it must be: somebody else wrote first."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object.

    Attributes:
        data: Its bytes.
        etag: What it is now; another write gives another one.
        age_s: Seconds since it was written, by the server's clock.
    """

    data: bytes
    etag: str
    age_s: float


class Bucket:
    """A bucket's objects by key.

    Args:
        address: ``s3://bucket`` or ``s3://bucket/prefix``.

    Raises:
        UsageError: It is no such address.
        ConfigurationError: The extra ``s3`` is not installed.
    """

    def __init__(self, address: str) -> None:
        parts = _ADDRESS.fullmatch(address)
        if parts is None or ".." in address:
            raise UsageError(
                f"{address!r} is not the address of a registry",
                next_step="write `s3://bucket/prefix`, or the path of a folder",
            )
        self.address = address.rstrip("/")
        self._bucket = parts[1]
        self._prefix = parts[2].strip("/") + "/" if parts[2].strip("/") else ""
        try:
            from s3fs import S3FileSystem
        except ImportError as error:
            raise ConfigurationError(
                "a registry in S3 needs the package s3fs",
                where=address,
                next_step="install it: `pip install agent-toolkit[s3]`",
            ) from error
        # Its own cache gives a process one client per endpoint: making one takes a second.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._files: Any = S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)

    def get(self, key: str, limit: int | None = None) -> Found:
        """Return an object.

        Raises:
            FileNotFoundError: There is none.
            TooLargeError: It is longer than ``limit`` bytes.
        """
        wanted = {} if limit is None else {"Range": f"bytes=0-{limit}"}
        try:
            answer, data = self._read(key, wanted)
        except OSError as error:
            if limit is None or error.errno != errno.ERANGE:
                raise
            answer, data = self._read(key, {})  # an empty object has no range
        if limit is not None and len(data) > limit:
            raise TooLargeError(errno.EFBIG, f"longer than {limit} bytes")
        return Found(data, answer["ETag"], _age_s(answer))

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Return bytes ``start`` to before ``end``; fewer where the object ends."""
        try:
            return self._read(key, {"Range": f"bytes={start}-{end - 1}"})[1]
        except OSError as error:
            if error.errno == errno.ERANGE:
                return b""
            raise

    def _read(self, key: str, wanted: dict[str, str]) -> tuple[dict[str, Any], bytes]:
        from fsspec.asyn import sync

        async def read() -> tuple[dict[str, Any], bytes]:
            full = self._prefix + key
            answer = await self._files._call_s3(  # noqa: SLF001 - its own name for one call
                "get_object", Bucket=self._bucket, Key=full, **wanted
            )
            async with answer["Body"] as body:
                return answer, await body.read()

        with self._errors(key):
            found: tuple[dict[str, Any], bytes] = sync(self._files.loop, read)
            return found

    def size(self, key: str) -> int:
        """Return an object's length.

        Raises:
            FileNotFoundError: There is none.
        """
        return int(self._call(key, "head_object", Key=self._prefix + key)["ContentLength"])

    def put(self, key: str, data: bytes, *, match: str | None = None) -> str:
        """Write an object whatever was there, or if it still has the ETag ``match``.

        Returns:
            Its ETag.

        Raises:
            Changed: It has another one, or is gone.
        """
        return self._put(key, data, {} if match is None else {"IfMatch": match})

    def create(self, key: str, data: bytes) -> str:
        """Write an object that must not exist; return its ETag.

        Raises:
            Changed: There is one.
        """
        return self._put(key, data, {"IfNoneMatch": "*"})

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        for turn in range(_BUSY_TRIES):
            try:
                answer = self._call(
                    key, "put_object", Key=self._prefix + key, Body=data, **condition
                )
            except FileNotFoundError as error:
                if "IfMatch" in condition:
                    raise Changed(errno.ESTALE, "somebody else deleted it") from error
                raise
            except OSError as error:
                if error.errno != errno.EBUSY or turn == _BUSY_TRIES - 1:
                    raise
                time.sleep(0.02 * 2**turn)
            else:
                return str(answer["ETag"])
        raise AssertionError("unreachable")

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        self._call(key, "delete_object", Key=self._prefix + key)

    def list(self, prefix: str, *, at_most: int | None = None) -> list[tuple[str, int | None]]:
        """Return the names directly below a prefix, sorted, each with its size.

        Args:
            prefix: Ends in ``/``, or is empty.
            at_most: Return no more than so many.

        Returns:
            Name and length in bytes; ``None`` is what more names lie below.
        """
        full, found = self._prefix + prefix, list[tuple[str, int | None]]()
        more: dict[str, Any] = {} if at_most is None else {"MaxKeys": at_most}
        while True:
            answer = self._call(prefix, "list_objects_v2", Prefix=full, Delimiter="/", **more)
            found += [(one["Key"][len(full) :], one["Size"]) for one in answer.get("Contents", ())]
            found += [(p["Prefix"][len(full) : -1], None) for p in answer.get("CommonPrefixes", ())]
            if at_most is not None or not answer.get("IsTruncated"):
                return sorted((n, s) for n, s in found if n)
            more["ContinuationToken"] = answer["NextContinuationToken"]

    def _call(self, key: str, method: str, **arguments: Any) -> dict[str, Any]:
        with self._errors(key):
            answer: dict[str, Any] = self._files.call_s3(method, Bucket=self._bucket, **arguments)
            return answer

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn the client's errors into few: what the server said is told, never a credential."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except NoCredentialsError as error:
            raise ConfigurationError(
                f"no credentials for {self.address} were found",
                where=self.address,
                next_step="export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            ) from error
        except (BotoCoreError, ClientError, OSError) as error:
            raise self._told(key, error) from error

    def _told(self, key: str, error: Exception) -> Exception:
        cause = error if hasattr(error, "response") else error.__cause__
        said = getattr(cause, "response", None)
        if not said:
            return OSError(errno.EIO, f"{self.address} cannot be reached: {type(error).__name__}")
        code = str(said.get("Error", {}).get("Code", ""))
        if code == "NoSuchBucket":
            return ConfigurationError(
                f"there is no bucket {self._bucket}",
                where=self.address,
                next_step="make it, or correct `registry` in toolkit.toml",
            )
        if code in _MISSING:
            return FileNotFoundError(errno.ENOENT, "is missing", key)
        if code in {"412", "PreconditionFailed"}:
            return Changed(errno.ESTALE, "somebody else wrote it at the same time")
        if code in {"416", "InvalidRange"}:
            return OSError(errno.ERANGE, "ends before that")
        if code in _BUSY:
            return OSError(errno.EBUSY, "somebody else writes it at the same time")
        if code in _FORBIDDEN:
            return PermissionError(errno.EACCES, f"{self.address} refused with {code}")
        return OSError(errno.EIO, f"{self.address} answered {code or 'with an error'}")


def _age_s(answer: dict[str, Any]) -> float:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    now = email.utils.parsedate_to_datetime(headers["date"])
    return float((now - answer["LastModified"]).total_seconds())
