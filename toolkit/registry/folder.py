"""The storage's folders, under the name they had before there was more than one storage."""

from __future__ import annotations

from toolkit.registry.storage import Folder, NotAFileError, TooLargeError, disk_errors

__all__ = ["Folder", "NotAFileError", "TooLargeError", "disk_errors"]
