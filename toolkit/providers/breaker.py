"""Which targets are left alone for a while because they failed.

Closed: calls go through.  Open: none does.  When the time is over, one call may try (half open):
its answer closes the breaker, its failure opens it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.providers.routes import BreakerRule, Route
from toolkit.values import Clock

__all__ = ["COUNTED", "Breakers"]

COUNTED = frozenset({"connection", "cut", "timeout", "rate_limited", "server", "invalid_body"})
"""The kinds of failure that say something about the target, not about the request or the key."""


@dataclass
class _State:
    failures: list[float] = field(default_factory=list)
    open_until: float | None = None
    probing: bool = False


class Breakers:
    """One breaker for each target, whatever the route; used from one event loop.

    Args:
        clock: Its monotonic seconds count.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[str, _State] = {}

    def wait_s(self, route: Route) -> float | None:
        """Return ``None`` if the target may be asked now, else the seconds until it may be.

        While the one trial call is under way, nobody knows how long: 1 second.
        """
        state = self._states.get(route.target)
        if route.rules.breaker is None or state is None or state.open_until is None:
            return None
        if state.probing:
            return 1.0
        left = state.open_until - self._clock.monotonic_s()
        return left if left > 0 else None

    def begin(self, route: Route) -> bool:
        """Tell of an attempt that :meth:`wait_s` allowed; returns whether it is the trial call."""
        state = self._states.get(route.target)
        if route.rules.breaker is None or state is None or state.open_until is None:
            return False
        state.probing = True
        return True

    def answered(self, route: Route) -> None:
        """Close the breaker of a target."""
        self._states.pop(route.target, None)

    def failed(self, route: Route, kind: str, *, trial: bool) -> None:
        """Count a failure, and open the breaker if it is one too many."""
        rule = route.rules.breaker
        if rule is None:
            return
        state = self._states.setdefault(route.target, _State())
        if trial:
            state.probing = False
        if kind not in COUNTED:
            return
        now = self._clock.monotonic_s()
        state.failures = [at for at in state.failures if at > now - rule.window_s] + [now]
        if trial or (state.open_until is None and _too_many(state, rule)):
            state.open_until = now + rule.open_s

    def given_up(self, route: Route, *, trial: bool) -> None:
        """Tell of an attempt that was cancelled: it says nothing about the target."""
        if trial and (state := self._states.get(route.target)) is not None:
            state.probing = False


def _too_many(state: _State, rule: BreakerRule) -> bool:
    return len(state.failures) >= rule.failures
