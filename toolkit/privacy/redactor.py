"""Secrets out of JSON values, before anything is written or sent."""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_right
from collections.abc import Iterable
from enum import StrEnum
from itertools import accumulate
from typing import Any, NamedTuple

from toolkit.privacy.detector import Detector, separate
from toolkit.privacy.findings import Category, Finding, Spotted
from toolkit.privacy.known import KnownSecrets
from toolkit.privacy.leaves import Leaves
from toolkit.privacy.names import named

__all__ = ["PiiMode", "Redacted", "Redactor"]

_BETWEEN = "\x00"  # stands in no pattern, so nothing is found across two texts


class PiiMode(StrEnum):
    """What happens to personal data."""

    LABEL = "label"  # it is told and stays
    REDACT = "redact"  # it is replaced like a secret


class Redacted(NamedTuple):
    """A value without its secrets, and what was in it."""

    value: Any
    findings: tuple[Spotted, ...]


class Redactor:
    """Replaces secrets in JSON values by ``[secret KIND #abc]``.

    ``abc`` is the beginning (12 bits) of HMAC-SHA256 of the secret with the salt as the key.  Two
    different secrets of one run share it once in 4,096 pairs; a reader can tell that two places held
    the same secret, and cannot test a guess to more than 12 bits.  The salt is the run's id: within
    a run the same value always gives the same text, so a run that starts again finds its recorded
    calls, and values of different runs cannot be compared.

    Args:
        detector: Finds by form; ``None`` looks for known secrets only.
        known: Values that are never let through.
        salt: The run's id.
        pii: What happens to personal data.
    """

    def __init__(
        self,
        detector: Detector | None,
        known: KnownSecrets | None = None,
        *,
        salt: str,
        pii: PiiMode = PiiMode.LABEL,
    ) -> None:
        self._detector = detector
        self._known = known or KnownSecrets()
        self._key = salt.encode("utf-8", "surrogatepass")
        self._pii = pii

    def redact(self, value: Any) -> Redacted:
        """Return the value without secrets, and what was found; the value itself is not changed.

        A value without secrets comes back as the same object.

        Raises:
            UsageError: The value is nested deeper than 64 levels.
        """
        leaves = Leaves(value)
        found = self._named(leaves)
        joined = _Joined(leaves.texts, range(len(leaves.texts)), _BETWEEN)
        if self._detector is not None:
            found += joined.parts(self._detector.find(joined.text))
        if len(self._known):
            found += joined.parts(self._known.find(joined.text))
            found += self._grouped(leaves)
        return self._apply(leaves, found) if found else Redacted(value, ())

    def text(self, text: str) -> str:
        """Return one text without secrets: for messages of errors and lines of logs."""
        return str(self.redact(text).value)

    @staticmethod
    def _named(leaves: Leaves) -> list[tuple[int, Finding]]:
        found = []
        for index, name in leaves.named.items():
            text = leaves.texts[index]
            if kind := named(name, text):
                found.append((index, Finding(0, len(text), kind, Category.SECRET, 0.8)))
        return found

    def _grouped(self, leaves: Leaves) -> list[tuple[int, Finding]]:
        """Known secrets that were split over members of one name: parts of messages, chunks."""
        order = [i for group in leaves.groups.values() if len(group) > 1 for i in group]
        if not order:
            return []
        joined = _Joined(leaves.texts, order, _BETWEEN)
        return joined.parts(self._known.find(joined.text))

    def _apply(self, leaves: Leaves, found: list[tuple[int, Finding]]) -> Redacted:
        by_text: dict[int, list[Finding]] = {}
        for index, finding in found:
            by_text.setdefault(index, []).append(finding)
        separated = {index: separate(each) for index, each in sorted(by_text.items())}
        changes = {}
        for index, each in separated.items():
            goes = [f for f in each if self._goes(f)]
            if goes:
                changes[index] = self._without(leaves.texts[index], goes)
        places = leaves.places(changes)
        spotted = [
            Spotted(
                f.kind,
                f.category,
                ".".join(places[index]),
                places[index][0] if places[index] else "",
                f.score,
            )
            for index, each in separated.items()
            for f in each
        ]
        value = leaves.replaced(changes) if changes else leaves.value
        return Redacted(value, tuple(dict.fromkeys(spotted)))

    def _goes(self, finding: Finding) -> bool:
        return finding.category is Category.SECRET or self._pii is PiiMode.REDACT

    def _without(self, text: str, findings: Iterable[Finding]) -> str:
        parts, done = [], 0
        for f in findings:
            parts += [text[done : f.start], self._placeholder(f, text[f.start : f.end])]
            done = f.end
        return "".join([*parts, text[done:]])

    def _placeholder(self, finding: Finding, text: str) -> str:
        # A known value gets the same mark however it was written down.
        secret = (
            self._known.value(finding.value)
            if finding.value >= 0
            else text.encode("utf-8", "surrogatepass")
        )
        mark = hmac.new(self._key, secret, hashlib.sha256).hexdigest()[:3]
        return f"[{finding.category} {finding.kind} #{mark}]"


class _Joined:
    """Several texts as one, with the way back."""

    def __init__(self, texts: list[str], order: Iterable[int], between: str) -> None:
        self._order = list(order)
        self._texts = texts
        self._gap = len(between)
        self.text = between.join([texts[index] for index in self._order])

    def parts(self, findings: list[Finding]) -> list[tuple[int, Finding]]:
        """Return the findings by the index of their text; one over several texts is cut in pieces."""
        if not findings:
            return []
        lengths = (len(self._texts[index]) + self._gap for index in self._order)
        starts = [0, *accumulate(lengths)]
        found = []
        for f in findings:
            at = bisect_right(starts, f.start) - 1
            while at < len(self._order) and starts[at] < f.end:
                index, base = self._order[at], starts[at]
                start = max(0, f.start - base)
                end = min(len(self._texts[index]), f.end - base)
                if end > start:
                    piece = Finding(start, end, f.kind, f.category, f.score, f.value)
                    found.append((index, piece))
                at += 1
        return found
