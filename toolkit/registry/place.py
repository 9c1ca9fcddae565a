"""Where a registry is, given as a path or as a storage."""

from __future__ import annotations

from pathlib import Path

from toolkit.registry.storage import DiskPlace, Place

__all__ = ["Place", "place_at"]


def place_at(root: Path | Place) -> Place:
    """Return the storage; a path means plain files in that folder."""
    return DiskPlace(root) if isinstance(root, Path) else root
