"""What lies in watched folders and buckets: listed in threads, because a store may hang for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["Files", "Listings", "list_files"]

Files = dict[str, tuple[str, dict[str, Any]]]
"""Path or URL of a file to its stamp and the facts of an event."""

LIMIT_S = 60.0
_PATIENCE_S = 1.0
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified")
_MAGIC = "*?["


def list_files(pattern: str) -> Files:
    """Return the files that fit a glob: path or URL to a stamp and the facts of an event.

    The stamp changes with the content: size and what the store tells, of time and ETag.

    Raises:
        OSError: The folder above the first wildcard is not there or cannot be read.
        Exception: Whatever else the store's own package raises.
    """
    import fsspec

    files, path = fsspec.core.url_to_fs(pattern)
    files.invalidate_cache()
    local = "file" in files.protocol
    if local:  # a glob of what cannot be read finds nothing and says nothing
        with os.scandir(_folder(path)):
            pass
    found: Files = {}
    for name, facts in sorted(files.glob(path, detail=True).items()):
        if facts.get("type") != "file":
            continue
        where = name if local else files.unstrip_protocol(name)
        stamp = " ".join(f"{key}={facts[key]}" for key in _STAMPS if facts.get(key))
        size = facts.get("size")
        when = facts.get("mtime", facts.get("LastModified", facts.get("last_modified")))
        modified_s = when.timestamp() if isinstance(when, datetime) else when
        event = {
            "path": where,
            "name": name.rpartition("/")[2],
            "size": size,
            "modified_s": modified_s if isinstance(modified_s, int | float) else None,
        }
        found[where] = f"{size} {stamp}", event
    return found


def _folder(path: str) -> Path:
    """Return the folder above the first wildcard, or above the file where there is none."""
    parts = Path(path).parts
    plain = next((n for n, part in enumerate(parts) if set(part) & set(_MAGIC)), len(parts) - 1)
    return Path(*parts[:plain]) if plain else Path()


@dataclass
class _Listing:
    pattern: str
    began_s: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    files: Files | None = None
    error: Exception | None = None


class Listings:
    """Lists one place per name at a time; one that hangs keeps nobody else waiting.

    Args:
        lister: Returns the files of a pattern.
        patience_s: Seconds to wait for a listing that was just begun.
        limit_s: Seconds after which one that has not ended is told, and not used when it does.
    """

    def __init__(
        self,
        lister: Callable[[str], Files] = list_files,
        *,
        patience_s: float = _PATIENCE_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._lister = lister
        self._patience_s = patience_s
        self._limit_s = limit_s
        self._under_way: dict[str, _Listing] = {}

    def pending(self, name: str) -> bool:
        """Whether a listing was begun that nobody has taken yet."""
        return name in self._under_way

    def files(self, name: str, pattern: str) -> Files | None:
        """Return what is there, ``None``: not known yet; begins to look if nobody does.

        Raises:
            TimeoutError: The listing has not ended for so long; told again at each call.
            Exception: Whatever the listing raised.
        """
        listing = self._under_way.get(name)
        if listing is None or listing.pattern != pattern:
            listing = self._under_way[name] = _Listing(pattern)
            run = threading.Thread(target=self._list, args=(listing,), name="watch", daemon=True)
            run.start()
            listing.done.wait(self._patience_s)
        late = time.monotonic() - listing.began_s > self._limit_s
        if not listing.done.is_set():
            if late:
                raise TimeoutError(f"{pattern} could not be listed within {self._limit_s:g} s")
            return None
        del self._under_way[name]
        if listing.error is not None:
            raise listing.error
        # What was seen long ago may be gone, and somebody else may have acted on later facts.
        return None if late else listing.files

    def _list(self, listing: _Listing) -> None:
        try:
            listing.files = self._lister(listing.pattern)
        except Exception as error:  # noqa: BLE001 - a store's package may raise anything
            listing.error = error
        finally:
            listing.done.set()
