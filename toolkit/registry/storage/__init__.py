"""Where a registry's files are: a folder, or a bucket.

Two storages keep the same promises (:class:`Place`): a version is published on a number that is
not taken or not at all, a file is replaced in one step, lines are added to the end of a log.

* :class:`DiskPlace` (``registry = "registry"``): plain files; a folder of this machine, of a network
  file system, of a Git working copy.
"""

from __future__ import annotations

from toolkit.registry.storage.bucket import Bucket, is_address
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
    "is_address",
]
