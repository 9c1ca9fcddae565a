"""What the door needs to know of a call beside its intent: facts for policy, bounds, the deed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import ToolFailed
from toolkit.providers import Route
from toolkit.values import CallKind, CallRecord, Decision, Effect, Intent, Money, Outcome, Verdict

__all__ = ["FREE", "IN_KERNEL", "Facts", "Work", "Worst"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gateway itself knows about a call; policy sees it, the kernel cannot set it.

    Attributes:
        route: The model route, for model calls.
        targets: Those of its targets (``provider/model``) that the call may go to; ``None``: all.
        values: Further facts as JSON values: ``source``, ``tables``, ``columns``, ``host`` …
    """

    route: Route | None = None
    values: dict[str, Any] = field(default_factory=dict)
    targets: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Worst:
    """The most that a call can use; budgets hold it until the call has ended.

    Attributes:
        cost: ``None`` if the price is not known.
        tokens: Input and output together.
        seconds: Until it is given up; 0 where only a person or a kernel's code bounds it.
    """

    cost: Money | None = Money(0)  # noqa: RUF009 - frozen
    tokens: int = 0
    seconds: float = 0.0


FREE = Worst()


def _never(_: CallRecord) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Work:
    """A call that this process executes.

    Attributes:
        perform: Does it once, with the arguments that hold (an approval may have changed them).
            What it raises as :class:`~toolkit.errors.ToolkitError` becomes the outcome.
        facts, worst: See the classes.
        repeatable: Whether it may be done again when nobody knows how it ended.
        waits: Whether a call that has no outcome waits for a person, and is not in doubt.
    """

    perform: Callable[[CallRecord, Any], Awaitable[Outcome]]
    facts: Facts = Facts()  # noqa: RUF009 - frozen
    worst: Worst = FREE
    repeatable: bool = True
    waits: Callable[[CallRecord], bool] = _never

    def harmless(self, intent: Intent, decision: Decision) -> bool:
        """Whether the intent may reach the disk together with the outcome.

        Only where doing it again without a record would do no harm: that is what happens when the
        machine loses its power in between.  An agent does nothing but by calls of its own, and the
        first of them that has to be on disk takes its intent along.  See docs/decisions/0012.
        """
        reads = self.repeatable and intent.effect is Effect.READ
        again = reads or intent.kind is CallKind.AGENT
        return again and decision.verdict is Verdict.ALLOW


async def _in_kernel(_: CallRecord, __: object) -> Outcome:
    raise ToolFailed("the body of this call runs in the kernel")


IN_KERNEL = Work(_in_kernel, repeatable=False)
"""What the gateway does not execute itself, with the facts and bounds of nothing."""
