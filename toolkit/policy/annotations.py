"""What a policy's annotations say beyond Cedar: ``@ask``, ``@expires``, ``@shadow``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolkit.errors import Fault
from toolkit.policy.limits import parse_duration
from toolkit.policy.people import is_word

__all__ = ["Notes", "annotation_faults", "parse_annotations"]

_KNOWN = {"id", "reason", "ask", "expires", "shadow"}


@dataclass(frozen=True, slots=True)
class Notes:
    """The annotations of one policy.

    Attributes:
        ask: The role that may allow what the policy forbids.
        expires_s: Seconds until a request to that role expires.
        shadow: Why the policy is only tried out (``true`` where no reason was given).
    """

    ask: str | None = None
    expires_s: float | None = None
    shadow: str | None = None


def parse_annotations(annotations: Mapping[str, str]) -> Notes:
    """Read what can be read; :func:`annotation_faults` names the rest."""
    try:
        expires = parse_duration(annotations["expires"]) if "expires" in annotations else None
    except ValueError:
        expires = None
    shadow = None
    if "shadow" in annotations:
        shadow = annotations["shadow"] or "true"
    return Notes(annotations.get("ask") or None, expires, shadow)


def annotation_faults(annotations: Mapping[str, str], effect: str, place: str) -> Iterator[Fault]:
    """Yield what is wrong with the annotations of a policy."""
    if not annotations.get("id"):
        yield Fault(place, "has no @id", 'put @id("what-it-does") before the policy')
    for name in sorted(set(annotations) - _KNOWN):
        known = ", ".join(f"@{each}" for each in sorted(_KNOWN))
        yield Fault(place, f"has the unknown annotation @{name}", f"use {known}")
    if "ask" in annotations:
        if effect != "forbid":
            step = "write a permit for the call, and a forbid with @ask for what a person decides"
            yield Fault(place, "has @ask on a permit", step)
        if not is_word(annotations["ask"]):
            yield Fault(place, "has an @ask that names no role", 'write @ask("approver")')
    if "expires" in annotations:
        if "ask" not in annotations:
            yield Fault(place, "has @expires without @ask", "add @ask, or remove @expires")
        try:
            parse_duration(annotations["expires"])
        except ValueError as error:
            yield Fault(place, f"has an @expires that is no time: {error}", 'write @expires("24h")')
    if annotations.get("shadow", "").lower() in ("false", "no", "off", "0"):
        yield Fault(
            place, "has a @shadow that says no", "remove @shadow to put the policy in force"
        )
