"""What the ledger takes and gives, beside the shared values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.values import CallRecord, Money

__all__ = [
    "Begun",
    "Budget",
    "CaseAnswer",
    "ChainFault",
    "ChainHead",
    "FaultKind",
    "Limit",
    "Reservation",
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
    """

    scope: str
    usd: Money | None = None
    tokens: int | None = None
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The worst case of one call, held in every scope until the call is finished.

    Attributes:
        limits: The scopes that pay, each once.
        cost: Worst case.  ``None`` (price unknown) is refused where a scope limits money.
        tokens: Worst case, input and output together.
        calls: Usually 1.
    """

    limits: tuple[Limit, ...]
    cost: Money | None = None
    tokens: int = 0
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Budget:
    """Where one scope stands.

    Attributes:
        limit: The limits as last given to ``begin``.
        reserved, reserved_tokens, reserved_calls: Held by calls that are not finished.
        spent, spent_tokens, spent_calls: Settled.
    """

    limit: Limit
    reserved: Money
    reserved_tokens: int
    reserved_calls: int
    spent: Money
    spent_tokens: int
    spent_calls: int


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
