"""Where a registry's files are: a folder, or a bucket.

Two storages keep the same promises (:class:`Place`): a version is published on a number that is
not taken or not at all, a file is replaced in one step, lines are added to the end of a log.

* :class:`DiskPlace` (``registry = "registry"``): plain files; a folder of this machine, of a network
  file system, of a Git working copy.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.registry.storage.bucket import Bucket
from toolkit.registry.storage.disk import DiskPlace
from toolkit.registry.storage.interface import (
    Draft,
    Extend,
    Folder,
    NotAFileError,
    Place,
    TooLargeError,
    Torn,
    disk_errors,
)
from toolkit.registry.storage.s3 import S3Place

__all__ = [
    "Bucket",
    "DiskPlace",
    "Draft",
    "Extend",
    "Folder",
    "NotAFileError",
    "Place",
    "S3Place",
    "TooLargeError",
    "Torn",
    "disk_errors",
    "place_at",
]


def place_at(address: str, cache: Path | None = None) -> Place:
    """Return the storage that an address or a path means.

    Args:
        address: ``s3://bucket/prefix``, or the path of a folder.
        cache: Where copies of a bucket's blobs are kept on this machine.

    Raises:
        UsageError: It is an address of another kind.
        ConfigurationError: It is a bucket, and s3fs is not installed.
    """
    return S3Place(Bucket(address), cache) if "://" in address else DiskPlace(Path(address))
