"""One call's attempts: each is made once, recorded, and counted for what it used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from toolkit.errors import InvalidAnswer, ToolkitError
from toolkit.providers.breaker import Breakers
from toolkit.providers.failures import failure
from toolkit.providers.prices import price
from toolkit.providers.routes import Route
from toolkit.providers.types import Charge, Delta, EmbeddingAnswer, ModelAnswer, OnDelta
from toolkit.values import Attempt, Clock, Money, Usage

__all__ = ["Attempts", "Listener", "Work", "attempts_of", "charge_of", "kind_of", "unasked"]

A = TypeVar("A", ModelAnswer, EmbeddingAnswer)


@dataclass(frozen=True, slots=True)
class Work(Generic[A]):
    """What is asked of a target, and what it may use.

    Attributes:
        ask: Makes one attempt, and checks the answer.
        bound: The most that one attempt at a target can cost and use.
        most: The most that all attempts may cost and use together.
        otherwise: What takes the place of answers that are not good enough; ``None``: the error.
    """

    ask: Callable[[Route, OnDelta | None], Awaitable[A]]
    bound: Callable[[Route], tuple[Money | None, Usage]]
    most: Callable[[], tuple[Money | None, int]]
    otherwise: Callable[[InvalidAnswer], A | InvalidAnswer | None]


class Listener:
    """Passes pieces of an answer on, and remembers whether there was one.

    One who fails (a client that went away) is not told any more; the answer, which is paid for
    either way, is still read to its end.
    """

    def __init__(self, on_delta: OnDelta) -> None:
        self._on_delta = on_delta
        self._gone = False
        self.told = False

    async def __call__(self, delta: Delta) -> None:
        self.told = True
        if self._gone:
            return
        try:
            await self._on_delta(delta)
        except Exception:  # noqa: BLE001 - whatever the listener's trouble is, it is not ours
            self._gone = True


@dataclass
class Attempts(Generic[A]):
    """Makes the attempts of one call.

    Attributes:
        work: What is asked.
        clock: For the times of attempts.
        breakers: Told how each attempt ended.
        made: Every attempt that has ended, and every target that was passed over.
    """

    work: Work[A]
    clock: Clock
    breakers: Breakers
    made: list[Attempt] = field(default_factory=list)
    _used: list[tuple[Money | None, Usage]] = field(default_factory=list)
    _flying: dict[int, Route] = field(default_factory=dict)
    _number: int = 0
    _most: tuple[Money | None, int] | None = None

    async def once(
        self, leg: Route, reason: str | None, on_delta: OnDelta | None
    ) -> A | ToolkitError:
        """Ask a target once; a failure is returned and not raised."""
        trial = self.breakers.begin(leg)
        self._number += 1
        number, started = self._number, self.clock.now_us()
        self._flying[number] = leg
        problem: ToolkitError
        try:
            answer = await self.work.ask(leg, on_delta)
        except ToolkitError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - a provider's surprise is an outcome too
            problem = failure("unexpected", f"a fault of ours ({type(error).__name__})", leg)
        except BaseException:  # cancelled: another answer came first, or nobody waits any more
            self._used.append(self.work.bound(leg))
            self.breakers.given_up(leg, trial=trial)
            self._record(leg, started, "cancelled: it was not needed any more", reason)
            raise
        else:
            self._used.append((self._price(leg, answer.model, answer.usage), answer.usage))
            self.breakers.answered(leg)
            self._record(leg, started, None, reason)
            return answer
        finally:
            del self._flying[number]
        self._failed(leg, problem, trial=trial)
        self._record(leg, started, problem.message, reason)
        return problem

    def _failed(self, leg: Route, problem: ToolkitError, *, trial: bool) -> None:
        kind, spent = kind_of(problem), problem.details.get("usage")
        if isinstance(spent, dict):
            usage = Usage(**spent)
            model = str(problem.details.get("model") or leg.model)
            self._used.append((self._price(leg, model, usage), usage))
        elif problem.details.get("billed"):
            self._used.append(self.work.bound(leg))
        if isinstance(problem, InvalidAnswer) or kind == "bad_request":
            self.breakers.answered(leg)
        else:
            self.breakers.failed(leg, kind, trial=trial)

    def _price(self, leg: Route, model: str, usage: Usage) -> Money | None:
        return price(leg.provider, model, usage, route=leg)

    @property
    def begun(self) -> bool:
        """Whether any target was asked."""
        return self._number > 0

    def passed_over(self, leg: Route, reason: str, cause: str) -> None:
        """Record a target that was not asked."""
        self._record(leg, self.clock.now_us(), cause, reason)

    def _record(self, leg: Route, started: int, error: str | None, reason: str | None) -> None:
        self.made.append(Attempt(leg.target, started, self.clock.now_us(), error, reason))

    def fits(self, leg: Route) -> bool:
        """Whether one more attempt at a target stays within the most that the call may use."""
        if not self._used and not self._flying:
            return True
        if self._most is None:
            self._most = self.work.most()
        most, most_tokens = self._most
        bounds = [*self._used, *(self.work.bound(one) for one in [*self._flying.values(), leg])]
        if sum(usage.total_tokens for _, usage in bounds) > most_tokens:
            return False
        if most is None:
            return True
        costs = [cost for cost, _ in bounds]
        return None not in costs and sum(cost.nanos for cost in costs if cost) <= most.nanos

    def charged(self) -> Charge:
        """Return what all attempts that have ended used."""
        if len(self._used) == 1:  # nearly always
            cost, usage = self._used[0]
            return Charge(usage, cost)
        usages = [usage for _, usage in self._used]
        total = Usage(
            sum(usage.input_tokens for usage in usages),
            sum(usage.output_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
        )
        costs = [cost for cost, _ in self._used]
        if None in costs:
            return Charge(total, None)
        return Charge(total, Money(sum(cost.nanos for cost in costs if cost)))

    def told_of(self, error: ToolkitError) -> ToolkitError:
        """Return an error with the attempts and the charge in its details."""
        message = error.message
        if self._number > 1:
            message = f"{message} (the last of {self._number} attempts)"
        charged = self.charged()
        facts = {
            "attempts": [asdict(attempt) for attempt in self.made],
            "usage": asdict(charged.usage),
            "cost_nanos": None if charged.cost is None else charged.cost.nanos,
        }
        return type(error)(
            message,
            where=error.where,
            next_step=error.next_step,
            details={**error.details, **facts},
        )


def unasked(error: ToolkitError) -> ToolkitError:
    """Return an error with the news that nothing was sent, so nothing was used."""
    nothing = {"attempts": [], "usage": asdict(Usage()), "cost_nanos": 0}
    return type(error)(
        error.message,
        where=error.where,
        next_step=error.next_step,
        details={**error.details, **nothing},
    )


def kind_of(error: ToolkitError) -> str:
    """Return how an attempt failed, in the words of ``fallback``."""
    return str(error.details.get("kind") or error.code)


def attempts_of(error: ToolkitError) -> tuple[Attempt, ...]:
    """Return the attempts of a call that failed."""
    found: list[dict[str, Any]] = error.details.get("attempts") or []
    return tuple(Attempt(**attempt) for attempt in found)


def charge_of(error: ToolkitError) -> Charge | None:
    """Return what a call that failed used; ``None`` if the error does not say."""
    usage = error.details.get("usage")
    if not isinstance(usage, dict) or "cost_nanos" not in error.details:
        return None
    nanos = error.details["cost_nanos"]
    return Charge(Usage(**usage), None if nanos is None else Money(nanos))
