"""What the gateway keeps in memory about one run, to find again where values came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolkit.gateway.entries import Entries
from toolkit.gateway.matching import Bucket, Leaf, leaves_of
from toolkit.values import NO_LABELS, Intent, Labels, Source

__all__ = [
    "DERIVED",
    "INTERNAL",
    "REMEMBER_FROM",
    "USER",
    "FlowLimits",
    "Late",
    "State",
    "union",
]

REMEMBER_FROM = 64
"""Characters; labels of shorter texts are worked out each time."""

USER = Labels(frozenset({Source.USER}))
INTERNAL = Labels(frozenset({Source.INTERNAL}))
DERIVED = Labels(frozenset({Source.DERIVED}))


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """How much of a run is kept in memory; beyond it, what is not matched counts as derived.

    Attributes:
        run_bytes: Text of one run; its index takes about ten times as much memory.
        answer_bytes: Text of one answer.
        leaves: Texts and numbers of one answer, and of one call's arguments.
        runs: Runs at a time; the one unused for longest is dropped, and read again when needed.
    """

    run_bytes: int = 4_000_000
    answer_bytes: int = 256_000
    leaves: int = 20_000
    runs: int = 256


class Late(NamedTuple):
    """An answer that is to be taken in before the run is asked about again."""

    intent: Intent
    answer: Any
    labels: Labels
    entries: tuple[str, ...]


@dataclass
class State:
    """What is known about one run."""

    user: Bucket = field(default_factory=lambda: Bucket(USER, strict=True))
    buckets: dict[tuple[Labels, bool], Bucket] = field(default_factory=dict)
    entries: Entries = field(default_factory=Entries)
    session: Labels = NO_LABELS
    saturated: bool = False
    with_parameters: bool = False
    # Labels of long texts that were seen before.  A text that was sent once cannot come from a
    # result that came later, so what was found then holds.
    seen: dict[int, Labels] = field(default_factory=dict)
    open: dict[str, tuple[str | None, Labels]] = field(default_factory=dict)
    late: list[Late] = field(default_factory=list)
    # Arguments of calls that could only be the user's, and are not taken in yet: older than ``late``.
    named: list[tuple[Intent, list[Any]]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.user.size + sum(bucket.size for bucket in self.buckets.values())

    def reads_outside(self, parent: str | None) -> bool:
        """Whether somebody outside may have had a part in what the run's code now knows."""
        if self.saturated or self.session.tainted:
            return True
        steps = 0
        while parent in self.open and steps < 64:
            parent, labels = self.open[parent]
            steps += 1
            if labels.tainted:
                return True
        return False

    def has_read_nothing(self, parent: str | None) -> bool:
        """Whether nothing has come in yet that could be found in what the run sends."""
        return not self.buckets and not self.entries and not self.reads_outside(parent)

    def add(self, bucket: Bucket, limits: FlowLimits, value: Any) -> None:
        """Take in the texts and numbers of a value, as far as there is room."""
        leaves, complete = leaves_of(value, limits.leaves)
        room = min(limits.answer_bytes, limits.run_bytes - self.size)
        for leaf in leaves:
            if not isinstance(leaf, str):
                bucket.add_number(leaf)
                continue
            room -= len(leaf)
            if room < 0:
                complete = False
                break
            bucket.add(leaf)
            if len(leaf) >= REMEMBER_FROM:
                known = self.seen.get(hash(leaf), NO_LABELS)
                self.note(hash(leaf), _also(known, bucket.labels), limits)
        if not complete:
            self.saturated = True

    def note(self, text: int, labels: Labels, limits: FlowLimits) -> None:
        """Keep the labels of a long text, by its hash."""
        if len(self.seen) >= limits.leaves:
            self.seen.clear()
        self.seen[text] = labels

    def whole(self, leaf: Leaf, *, echo: bool = False) -> Labels:
        """Labels of the texts that hold a whole value; of answers of models only if ``echo``."""
        return union(
            each.labels for each in self.buckets.values() if each.echo is echo and each.holds(leaf)
        )

    def inside(self, leaf: Leaf, *, echoes: bool = True) -> Labels:
        """Labels of what stands in a value beside other text.

        A phrase that the user named gives its classes only; one that a directory of ours lists is
        ``internal``.
        """
        labels = NO_LABELS
        for bucket in self.buckets.values():
            if bucket.echo and not echoes:
                continue
            if bucket.touches(leaf):
                labels |= bucket.labels
                continue
            for phrase in bucket.quoted(leaf):
                labels |= self._of_phrase(bucket, phrase.decode("utf-8", "replace"))
                if bucket.labels.sources <= labels.sources:
                    break
        return labels

    def _of_phrase(self, bucket: Bucket, phrase: str) -> Labels:
        if self.user.holds(Leaf(phrase)):
            return Labels(classes=bucket.labels.classes)
        if self.entries.hold(phrase):
            return Labels(INTERNAL.sources, bucket.labels.classes)
        return bucket.labels


def _also(known: Labels, labels: Labels) -> Labels:
    """Labels of a text that comes again: what the user named stays the user's."""
    if known.sources == USER.sources:
        return Labels(known.sources, known.classes | labels.classes)
    return known | labels


def union(labels: Iterable[Labels]) -> Labels:
    """Return the labels of a whole."""
    union = NO_LABELS
    for each in labels:
        union |= each
    return union
