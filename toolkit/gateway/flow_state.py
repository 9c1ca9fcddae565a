"""What the gateway keeps in memory about one run, to find again where values came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolkit.gateway.entries import Entries
from toolkit.gateway.matching import Bucket
from toolkit.values import NO_LABELS, Intent, Labels, Source

__all__ = ["DERIVED", "INTERNAL", "USER", "FlowLimits", "Late", "State"]

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
