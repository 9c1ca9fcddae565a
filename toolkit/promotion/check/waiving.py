"""The rules about waivers themselves; the registry is not read here, so waivers.py finds them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["EXPIRED", "RULES", "UNUSED"]


def _nothing(subject: Subject) -> Iterator[Hit]:
    del subject
    yield from ()


EXPIRED = Rule(
    "expired-waiver",
    Severity.ERROR,
    "somebody answered for the finding until that day, and nobody does since",
    "mend what it excused; or let its owner decide again and move `expires` in"
    " registry/waivers.yaml",
    _nothing,
    waivable=False,
)
UNUSED = Rule(
    "unused-waiver",
    Severity.WARNING,
    "it would excuse the next finding of its kind, unseen",
    "delete it from registry/waivers.yaml",
    _nothing,
    waivable=False,
)
RULES = (EXPIRED, UNUSED)
