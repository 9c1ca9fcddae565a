"""What a sealed version says of its own promotion."""

from __future__ import annotations

import json
from typing import Any

from toolkit.registry import Registry, Version

__all__ = ["evidence_of"]


def evidence_of(registry: Registry, version: Version) -> dict[str, Any]:
    """Return the evidence of a version; nothing where it has none, or one that is no JSON object.

    Raises:
        IntegrityError: The version is damaged.
    """
    try:
        facts = json.loads(registry.load(version).get("evidence.json") or b"{}")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
