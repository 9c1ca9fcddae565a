"""Is an answer good enough, and what takes its place when none is.

Refusal: the provider says so (``finish_reason`` is ``content_filter``, or there is a refusal), or a
text that is neither a call of a tool nor an answer to a schema *begins* with words such as "I can't
help", "I'm sorry, but I cannot", "I am unable to assist" or "As an AI, I cannot".  The rule reads
English only, and takes an answer that quotes such a beginning for a refusal.

Confidence: the mean of the log-probabilities of the answer's tokens.  A provider that gives none
leaves the answer without known confidence, which is too low.

Deterministic functions for ``otherwise: function:NAME``; what they answer fits the schema too:

``constant``     the route's ``validate.value``
``first_enum``   the schema's ``const``, ``default`` or first ``enum`` value; of an object, that of
                 every required property
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toolkit.errors import InvalidAnswer
from toolkit.providers.answers import check_answer, invalid
from toolkit.providers.routes import Route, Validation
from toolkit.providers.types import ModelAnswer, ModelRequest
from toolkit.values import Usage

__all__ = ["FUNCTIONS", "deterministic", "needs_person", "validated", "with_logprobs"]

_UNSURE = "is not known to be confident enough"
_REFUSES = re.compile(
    r"""(?ix) ^ \W*
    (?: (?:i['’]?\s?a?m \s+)? (?:(?:very|so|really) \s+)? sorry \W+ (?:but \s+)? )?
    (?: as \s+ an? \s+ (?:ai|artificial) [^.,]{0,40} , \s* )?
    (?: unfortunately \W+ )?
    i \s* (?: can\s?not | can['’]?t | won['’]?t | ['’]?m \s+ (?:unable|not\ able) \s+ to
        | am \s+ (?:unable|not\ able) \s+ to | will \s+ not )
    \s+ (?: help|assist|comply|answer|provide|do|continue|fulfil|fulfill|engage|create|discuss
        |support|share|generate|give ) \b
    """
)


def with_logprobs(route: Route, request: ModelRequest) -> ModelRequest:
    """Ask for log-probabilities where the route judges answers by them."""
    if route.rules.validation.min_logprob is None or request.extra.get("logprobs"):
        return request
    return replace(request, extra={**request.extra, "logprobs": True})


def validated(route: Route, request: ModelRequest, answer: ModelAnswer) -> ModelAnswer:
    """Return the answer, with its data if it has a schema, or raise.

    Raises:
        InvalidAnswer: ``details["kind"]`` is ``invalid_answer``, ``refusal`` or
            ``low_confidence``; the details hold the usage, which was spent all the same.
        UsageError: The schema refers to something that is not in it.
    """
    rule = route.rules.validation
    if rule.refusal and (said := _refusal(request, answer)):
        step = "ask in another way, or use another model"
        raise invalid(route, answer, "is a refusal", said, kind="refusal", step=step)
    answer = check_answer(route, request, answer)
    if rule.min_logprob is not None and not answer.tool_calls:
        _confident(route, answer, rule.min_logprob)
    return answer


def _refusal(request: ModelRequest, answer: ModelAnswer) -> str | None:
    if answer.refusal:
        return answer.refusal[:200]
    if answer.finish_reason == "content_filter":
        return "its content filter stopped it"
    if answer.tool_calls or request.schema is not None:
        return None
    found = _REFUSES.match(answer.text or "")
    return found.group(0)[:200] if found else None


def _confident(route: Route, answer: ModelAnswer, least: float) -> None:
    step = "ask in another way, or lower validate.min_logprob of the route"
    if not answer.logprobs:
        reason = "the provider gives no log-probabilities"
        raise invalid(route, answer, _UNSURE, reason, kind="low_confidence", step=step)
    mean = sum(answer.logprobs) / len(answer.logprobs)
    if mean < least:
        reason = f"the mean log-probability is {mean:.2f}, and {least:g} is wanted"
        raise invalid(route, answer, _UNSURE, reason, kind="low_confidence", step=step)


def needs_person(error: InvalidAnswer) -> InvalidAnswer:
    """Return the error that asks for a person in place of ``error``."""
    return InvalidAnswer(
        error.message,
        where=error.where,
        next_step="a person has to answer this call",
        details={**error.details, "kind": "needs_person", "failed_as": error.details.get("kind")},
    )


def deterministic(route: Route, request: ModelRequest) -> ModelAnswer | None:
    """Return what the route's function answers, or ``None`` if it has no answer that fits."""
    rule = route.rules.validation
    name = rule.otherwise.removeprefix("function:")
    try:
        value = FUNCTIONS[name](rule, request.schema)
    except LookupError:
        return None
    text = value if isinstance(value, str) and request.schema is None else json.dumps(value)
    answer = ModelAnswer(text, Usage(), "function", name)
    try:
        return check_answer(route, request, answer)
    except InvalidAnswer:
        return None


def _constant(rule: Validation, _: dict[str, Any] | None) -> Any:
    return rule.value


def _first_enum(_: Validation, schema: dict[str, Any] | None) -> Any:
    return _first(schema or {})


def _first(schema: dict[str, Any]) -> Any:
    if "const" in schema:
        return schema["const"]
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    names, parts = schema.get("required"), schema.get("properties")
    if isinstance(names, list) and isinstance(parts, dict):
        return {name: _first(parts[name]) for name in names}
    raise LookupError


FUNCTIONS: dict[str, Callable[[Validation, dict[str, Any] | None], Any]] = {
    "constant": _constant,
    "first_enum": _first_enum,
}
