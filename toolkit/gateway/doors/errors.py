"""An error of ours as OpenAI's and Anthropic's clients expect it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import (
    BudgetExceeded,
    CallDenied,
    CallInDoubt,
    ConfigurationError,
    Conflict,
    InfrastructureError,
    InvalidAnswer,
    NotFound,
    ProviderError,
    ToolkitError,
    UsageError,
)

__all__ = ["Told", "anthropic_error", "openai_error", "told"]

_STATUS: tuple[tuple[type[ToolkitError], int], ...] = (
    (BudgetExceeded, 429),
    (CallInDoubt, 409),
    (CallDenied, 403),
    (InvalidAnswer, 422),
    (NotFound, 404),
    (Conflict, 409),
    (UsageError, 400),
    (ConfigurationError, 424),
    (InfrastructureError, 503),
)
# How a provider failed, as a status that does not blame the caller's own token or address.
_PROVIDER = {"rate_limited": 429, "timeout": 504, "bad_request": 400, "missing_model": 424}
_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    422: "invalid_answer_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# OpenAI's and Anthropic's clients give up where they would have to wait longer.
_LONGEST_RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """How an error is told over HTTP.

    Attributes:
        error: The error.
        status: HTTP status.
        headers: ``x-should-retry``, and ``retry-after`` (whole seconds) where it is known.
    """

    error: ToolkitError
    status: int
    headers: Mapping[str, str]


def told(error: ToolkitError, *, unidentified: bool = False) -> Told:
    """Return how an error is told.

    Only what may succeed when the same request comes again is marked so: a rate limit that says
    when, and a gateway or ledger that cannot answer now.  A provider's failure is not: the route's
    own retries and fall-backs are behind it.

    Args:
        error: The error.
        unidentified: Whether it says that the caller showed no valid token.
    """
    status = 401 if unidentified else _status(error)
    wait = error.details.get("retry_after_s")
    headers: dict[str, str] = {}
    if isinstance(wait, int | float) and wait >= 0:
        headers["retry-after"] = str(math.ceil(wait))
    limited = isinstance(error, BudgetExceeded) and "retry-after" in headers
    again = limited and float(headers["retry-after"]) <= _LONGEST_RETRY_S
    ours = isinstance(error, InfrastructureError) and not isinstance(error, ProviderError)
    headers["x-should-retry"] = "true" if again or ours else "false"
    return Told(error, status, headers)


def _status(error: ToolkitError) -> int:
    if isinstance(error, ProviderError):
        return _PROVIDER.get(str(error.details.get("kind")), 502)
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def openai_error(told: Told) -> dict[str, Any]:
    """Return the body of an error response of OpenAI's API, with our fields beside theirs."""
    error = told.error
    return {
        "error": {
            "message": error.message,
            "type": _OPENAI_TYPES.get(told.status, "server_error"),
            "param": error.where,
            "code": _code(error),
            "next_step": error.next_step,
            "details": _details(error),
        }
    }


def anthropic_error(told: Told) -> dict[str, Any]:
    """Return the body of an error response of Anthropic's API, with our fields beside theirs."""
    error = told.error
    return {
        "type": "error",
        "error": {
            "type": _ANTHROPIC_TYPES.get(told.status, "api_error"),
            "message": error.message,
            "code": _code(error),
            "next_step": error.next_step,
            "details": _details(error),
        },
    }


def _code(error: ToolkitError) -> str:
    return "model_not_found" if isinstance(error, NotFound) else error.code


def _details(error: ToolkitError) -> dict[str, Any]:
    """What a client may branch on; attempts and texts stay in the ledger."""
    kept = ("kind", "policies", "reasons", "retry_after_s", "scope", "unit", "key", "approval")
    return {name: error.details[name] for name in kept if name in error.details}
