"""The rules of ``policy.yaml`` beyond Cedar: budgets, rates, concurrency, privacy, approvals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

from toolkit.values import Money

__all__ = [
    "ApprovalPolicy",
    "BudgetRule",
    "ConcurrencyRule",
    "Per",
    "Period",
    "PrivacyPolicy",
    "RateRule",
    "Scope",
    "Webhook",
]


class Scope(StrEnum):
    """What a limit counts together."""

    CALL = "call"
    RUN = "run"
    AGENT = "agent"
    USER = "user"
    TEAM = "team"
    JOB = "job"
    ENVIRONMENT = "environment"


class Period(StrEnum):
    """How long a budget lasts; in UTC, weeks begin on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"

    def label(self, at_us: int) -> str:
        """Return the name of the period around a moment: ``day:2026-11-21``, ``total``.

        Weeks are numbered as in ISO 8601 (``week:2026-W47``).
        """
        if self is Period.TOTAL:
            return "total"
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
        if self is Period.WEEK:
            year, week, _ = at.isocalendar()
            return f"week:{year}-W{week:02}"
        form = {Period.HOUR: "%Y-%m-%dT%H", Period.DAY: "%Y-%m-%d", Period.MONTH: "%Y-%m"}[self]
        return f"{self.value}:{at.strftime(form)}"


class Per(StrEnum):
    """The window of a rate."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return {Per.SECOND: 1.0, Per.MINUTE: 60.0, Per.HOUR: 3600.0}[self]


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """The most that may be used in one scope and period; ``None`` means no limit of that kind.

    Attributes:
        scope: What is counted together.
        name: One agent, user, team, job or environment; ``None``: each has a budget of its own.
        period: How long it lasts; always ``total`` for a call and a run.
        usd, tokens, calls, seconds: The limits; at least one is set.
    """

    scope: Scope
    name: str | None = None
    period: Period = Period.TOTAL
    usd: Money | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None

    def covers(self, value: str | None) -> bool:
        """Whether it holds for a call whose scope has this value (``None``: it has none)."""
        return value is not None and self.name in (None, value)


@dataclass(frozen=True, slots=True)
class RateRule:
    """The most calls per second, minute or hour."""

    scope: Scope
    calls: int
    per: Per
    name: str | None = None

    def covers(self, value: str | None) -> bool:
        """Whether it holds for a call whose scope has this value (``None``: it has none)."""
        return value is not None and self.name in (None, value)


@dataclass(frozen=True, slots=True)
class ConcurrencyRule:
    """The most calls that may be under way at once."""

    scope: Scope
    calls: int
    name: str | None = None

    def covers(self, value: str | None) -> bool:
        """Whether it holds for a call whose scope has this value (``None``: it has none)."""
        return value is not None and self.name in (None, value)


@dataclass(frozen=True, slots=True)
class PrivacyPolicy:
    """What happens to secrets and personal data before anything is written.

    Attributes:
        secrets: Always ``redact``: there is no reason to keep a secret.
        pii: ``label`` (found and labelled) or ``redact`` (also cut out).
    """

    secrets: Literal["redact"] = "redact"
    pii: Literal["label", "redact"] = "label"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where requests are announced.

    Attributes:
        url: ``https://…`` (``http`` only to this machine).
        secret_env: Name of the gateway's environment variable that holds the signing key.
    """

    url: str
    secret_env: str


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """How requests to people are handled.

    Attributes:
        expires_s: Seconds until a request expires, where its policy has no ``@expires``.
        escalate_to: The role that decides when a request is escalated.
        on_expiry: ``deny``, or ``escalate`` (once) to ``escalate_to``.
        webhook: Where requests are announced.
        answers: The role that answers model calls whose route ends at a person.
        in_doubt: The role that is asked what became of a write whose outcome nobody recorded.
        hold_s: Seconds that a job's kernel is kept when people are all that it waits for.
    """

    expires_s: float = 86_400.0
    escalate_to: str | None = None
    on_expiry: Literal["deny", "escalate"] = "deny"
    webhook: Webhook | None = None
    in_doubt: str = "approver"
    answers: str = "approver"
    hold_s: float = 10.0
