"""What the gateway keeps in memory about one run, to find again where values came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.gateway.entries import Entries
from toolkit.gateway.matching import Bucket
from toolkit.values import NO_LABELS, Labels, Source

__all__ = ["DERIVED", "INTERNAL", "USER", "State"]

USER = Labels(frozenset({Source.USER}))
INTERNAL = Labels(frozenset({Source.INTERNAL}))
DERIVED = Labels(frozenset({Source.DERIVED}))


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
