"""What the ledger takes and gives, beside the shared values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.values import CallRecord, Money

__all__ = [
    "Approval",
    "ApprovalState",
    "Begun",
    "Budget",
    "CaseAnswer",
    "ChainFault",
    "ChainHead",
    "FaultKind",
    "Limit",
    "Rate",
    "Reservation",
    "Said",
    "Stop",
    "StopChange",
    "Totals",
]


@dataclass(frozen=True, slots=True)
class Begun:
    """Answer of ``begin``.

    Attributes:
        call: The recorded call.
        fresh: ``True`` if this request recorded it and the call must now be made.  ``False`` with
            an outcome is a replay; ``False`` without one is *in doubt*: an earlier attempt began
            and nobody recorded how it ended.
    """

    call: CallRecord
    fresh: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """What one scope may use; ``None`` means no limit.

    Attributes:
        scope: Whose budget: ``run:run-1``, ``team:legal:2026-11`` …
        usd: Money.
        tokens: Input and output tokens together.
        calls: Number of calls.
        seconds: Seconds of work, kept in whole microseconds.
        concurrent: Most calls under way at once, those that wait for a person included.
    """

    scope: str
    usd: Money | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many calls of one scope in any stretch of so many seconds.

    Attributes:
        scope: Who is limited; a name space of its own beside those of budgets.
        calls: From 1 to 100,000; beyond that, give a period's budget of calls instead.
        per_s: Seconds, above 0.
    """

    scope: str
    calls: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """The worst case of one call, held in every scope until the call is finished.

    Attributes:
        limits: The scopes that pay, each once.
        cost: Worst case.  ``None`` (price unknown) is refused where a scope limits money.
        tokens: Worst case, input and output together.
        calls: Usually 1; 0 for what is recorded but counts neither as a call nor against rates.
        seconds: Worst case of work, in seconds.
        rates: Rate limits that count this call, each scope once.
    """

    limits: tuple[Limit, ...]
    cost: Money | None = None
    tokens: int = 0
    calls: int = 1
    seconds: float = 0.0
    rates: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """Where one scope stands.

    Attributes:
        limit: The limits as last given to ``begin``.
        reserved, reserved_tokens, reserved_seconds: Held by calls that are not finished.
        reserved_calls: Calls under way, against ``limit.concurrent``.
        spent, spent_tokens, spent_calls, spent_seconds: Settled.
    """

    limit: Limit
    reserved: Money
    reserved_tokens: int
    reserved_calls: int
    spent: Money
    spent_tokens: int
    spent_calls: int
    reserved_seconds: float = 0.0
    spent_seconds: float = 0.0


class ApprovalState(StrEnum):
    """Where a request stands; ``PENDING`` and ``ESCALATED`` wait for a person."""

    PENDING = "pending"
    APPROVED = "approved"
    CHANGED = "changed"  # approved with other arguments
    REJECTED = "rejected"
    ESCALATED = "escalated"
    STOPPED = "stopped"  # the whole run is to be stopped
    EXPIRED = "expired"

    @property
    def waiting(self) -> bool:
        """Whether a person may still decide."""
        return self in (ApprovalState.PENDING, ApprovalState.ESCALATED)


@dataclass(frozen=True, slots=True)
class Approval:
    """A person is asked about one call.

    Attributes:
        id: ``ask-`` and 16 hex digits, which follow from the call.
        run_id, call_key, generation: The call.
        digest: ``digest_json`` of [user, kind, name, arguments digest, policy digest, expires_us]:
            what a decision is bound to.
        role: Who may decide, until it is escalated.
        requested_by: The user of the run.
        view: The call for a reader's eyes, a JSON value.
        state: See :class:`ApprovalState`.
        requested_us, expires_us: Microseconds since the epoch.
        decided_by, decided_us, reason: The last decision (or escalation), if there is one.
        arguments: The arguments to use instead, where the state is ``CHANGED``.
        escalated_to: The role that decides instead, once it was escalated.
    """

    id: str
    run_id: str
    call_key: str
    generation: int
    digest: str
    role: str
    requested_by: str
    view: Any
    state: ApprovalState
    requested_us: int
    expires_us: int
    decided_by: str | None = None
    decided_us: int | None = None
    reason: str | None = None
    arguments: Any = None
    escalated_to: str | None = None

    @property
    def decider(self) -> str:
        """The role that may decide now."""
        return self.escalated_to or self.role

    @property
    def lets_in(self) -> bool:
        """Whether a person said that the call may go on."""
        return self.state in (ApprovalState.APPROVED, ApprovalState.CHANGED)

    @property
    def due_us(self) -> int:
        """When time changes the request while it waits: it is escalated, or expires."""
        escalates = self.view.get("escalates") if isinstance(self.view, dict) else None
        if self.state is ApprovalState.PENDING and escalates:
            return min(int(escalates["at_us"]), self.expires_us)
        return self.expires_us


@dataclass(frozen=True, slots=True)
class Said:
    """One decision about a request, as the run's chain has it.

    Attributes:
        state: What the request became by it.
        by: Who decided; ``None``: it expired.
        at_us: Microseconds since the epoch.
        reason, arguments, role: As they were given.
        signed: The envelope in which the person signed it, if one did; nothing here verifies it.
    """

    state: ApprovalState
    by: str | None
    at_us: int
    reason: str | None = None
    arguments: Any = None
    role: str | None = None
    signed: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop that is in force.

    Attributes:
        scope: ``all``, or ``agent:``, ``team:``, ``route:``, ``job:``, ``user:``, ``tool:``,
            ``run:`` and a name.
        by: Who stopped it.
        reason: Why, for those whose calls are refused.
        at_us: Microseconds since the epoch.
    """

    scope: str
    by: str
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True)
class StopChange:
    """One stop or start, as history keeps it.

    Attributes:
        n: Number in the chain, from 1.
        stopped: ``True`` for a stop, ``False`` for a start.
        scope, by, reason: As given; a start may have no reason.
        at_us: Microseconds since the epoch.
    """

    n: int
    stopped: bool
    scope: str
    by: str
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The last link of a run's chain; keep it elsewhere to detect a cut tail.

    Attributes:
        n: Number of the entry, from 1.
        hash: ``sha256:…`` of the entry.
    """

    run_id: str
    n: int
    hash: str


class FaultKind(StrEnum):
    """What is wrong in a chain or in a projection of it."""

    GAP = "gap"  # an entry is missing
    BROKEN_LINK = "broken_link"  # prev is not the hash of the entry before
    EDITED = "edited"  # the hash is not the hash of the entry
    NONSENSE = "nonsense"  # entries that no ledger writes in this order
    PROJECTION = "projection"  # a column differs from what the chain says
    MISSING_ROW = "missing_row"  # the chain knows a row that is gone
    EXTRA_ROW = "extra_row"  # a row that the chain does not know
    HEAD = "head"  # the anchored head is not in the chain
    BUDGET = "budget"  # a budget differs from the sum of its calls


@dataclass(frozen=True, slots=True)
class ChainFault:
    """One thing that ``verify`` found.

    Attributes:
        run_id: The run; for a budget, its scope.
        kind: See :class:`FaultKind`.
        message: One sentence.
        n: The entry, where one is to blame.
        key: The call, where one is to blame.
    """

    run_id: str
    kind: FaultKind
    message: str
    n: int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """What the notebook answered to one evaluation case.

    Attributes:
        output: JSON value, ``None`` after an error.
        error: ``ToolkitError.to_json()`` of what the agent raised.
        call_key: The last top-level call made for this case (an agent's, if there is one).
    """

    output: Any
    error: dict[str, Any] | None
    call_key: str | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the calls of one run.

    Attributes:
        calls, by_kind: All recorded calls, every generation.
        errors, denied: Calls that ended so.
        unfinished: Calls without an outcome.
        input_tokens, output_tokens: As providers counted them.
        cost: Sum of the known costs.
        unknown_cost_calls: Finished model calls without a known cost: ``cost`` is a lower bound.
        latency_p50_s, latency_p95_s: Nearest-rank percentiles over finished calls that were made.
        spent_seconds: Sum over top-level calls, so nested time counts once.
    """

    calls: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    denied: int = 0
    unfinished: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Money = Money(0)  # noqa: RUF009 -- frozen
    unknown_cost_calls: int = 0
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    spent_seconds: float = 0.0
