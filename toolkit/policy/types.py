"""What policy is asked about, and the numbers of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.values import NO_LABELS, Effect, Environment, Labels, Money

__all__ = ["BudgetPolicy", "Gate", "Isolation", "PolicyRequest"]


class Isolation(StrEnum):
    """How well a kernel is locked up; each level holds everything of the one before."""

    NONE = "none"  # the runner's own rights
    LIMITS = "limits"  # clean environment, resource limits, timeouts, a control group
    SANDBOX = "sandbox"  # own namespaces, no network but the gateway's socket
    HARDENED = "hardened"  # also a filter of many system calls

    @property
    def level(self) -> int:
        """0 for ``none`` up to 3 for ``hardened``."""
        return list(Isolation).index(self)

    def covers(self, minimum: Isolation) -> bool:
        """Whether this level is at least ``minimum``."""
        return self.level >= minimum.level


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """The most that one run may use; ``None`` means no limit, and has to be written as ``null``.

    Attributes:
        usd: Money for model calls.
        tokens: Input and output tokens together.
        calls: Calls of every kind.
        seconds: Wall time of the run.
    """

    usd: Money | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """What one scorer over an evaluation set must reach; toolkit.evaluation decides it.

    Attributes:
        scorer: Name of the scorer, or ``usd`` or ``seconds``: what a case cost and took.
        minimum, maximum: Bounds, both inclusive, in the scorer's own unit.
        confidence: Between 0.5 and 1: the one-sided confidence with which the bounds must be kept.
            ``None``: the plain mean is compared, whatever the number of cases.
        method: ``clopper-pearson`` or ``wilson`` (yes or no), ``gaffke`` or ``t`` (numbers);
            ``None``: the first of its kind.  ``bca`` is an old word for ``gaffke``.
        statistic: ``mean`` or ``p95``, the 95th percentile of a number.
        slice: Only the cases of this slice; ``*`` is one gate for each slice.
        pass_hat_k: Instead of the mean: the chance that all of so many trials of a case are good.
        non_inferior_to, superior_to: ``production``: a paired test against the version there.
        margin: By how much it may be worse, in the scorer's unit; for ``non_inferior_to``.
        sequential: The evaluation may be ended as soon as the answers so far decide.
    """

    scorer: str
    minimum: float | None = None
    maximum: float | None = None
    confidence: float | None = None
    method: str | None = None
    statistic: str = "mean"
    slice: str | None = None
    pass_hat_k: int | None = None
    non_inferior_to: str | None = None
    superior_to: str | None = None
    margin: float = 0.0
    sequential: bool = False


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """One question to a policy bundle.

    Attributes:
        user: Who acts.
        action: ``call_model``, ``call_tool``, ``call_agent``, ``call_data``, ``call_job``,
            ``call_human``, or ``publish_result`` (``call_result`` means the same).
        resource: Name of the route, tool, agent … that is called.
        environment: Where the run is.  A bundle always answers for its *own* environment, so
            the production bundle can be asked what it would say about a sandbox call.
        team, roles: What the user belongs to.
        job, version: Set when a registered version acts.
        purpose: Why, in the caller's words.
        effect: As the caller declares it; the tool catalog can only make it stricter.
        arguments: JSON value; see :func:`toolkit.policy.arguments.to_record`.
        route, provider, model: For model calls.
        agent: The innermost agent that calls.
        labels: Labels of each argument by its name; ``""`` where the arguments have no names.
        session: Labels of everything that the run has read so far.
        facts: What the gateway itself knows, by the names of :data:`toolkit.policy.FACTS`;
            other names are not shown to policies.
    """

    user: str
    action: str
    resource: str
    environment: Environment
    team: str | None = None
    roles: tuple[str, ...] = ()
    job: str | None = None
    version: int | None = None
    purpose: str | None = None
    effect: Effect = Effect.READ
    arguments: Any = None
    route: str | None = None
    provider: str | None = None
    model: str | None = None
    agent: str | None = None
    labels: Mapping[str, Labels] = field(default_factory=dict)
    session: Labels = NO_LABELS
    facts: Mapping[str, Any] = field(default_factory=dict)
