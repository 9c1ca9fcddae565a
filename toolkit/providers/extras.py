"""Members of OpenAI-shaped requests that are passed on where a provider knows them.

Everything else is refused by name: what changes the price or the number of answers (``n``,
``best_of``, ``service_tier``, ``prediction``, ``audio``, ``web_search_options``) would escape the
bound that budgets reserve, and ``store`` would leave the data with the provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from toolkit.errors import UsageError

__all__ = ["anthropic_extra", "extra_problems", "openai_extra"]


def _number(low: float, high: float) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and low <= value <= high

    return fits


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return fits


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_KNOWN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "frequency_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "logit_bias": (_is(dict), "an object"),
    "logprobs": (_is(bool), "true or false"),
    "min_p": (_number(0, 1), "a number from 0 to 1"),
    "n": (lambda value: value == 1 and not isinstance(value, bool), "1: one call has one answer"),
    "parallel_tool_calls": (_is(bool), "true or false"),
    "presence_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "reasoning_effort": (_is(str), "text"),
    "response_format": (
        lambda value: value in ({"type": "text"}, {"type": "json_object"}),
        "{type: text} or {type: json_object}; a schema belongs in the argument schema",
    ),
    "store": (lambda value: value is False, "false: answers are not left with the provider"),
    "thinking": (_is(dict), "an object"),
    "top_k": (_whole(0, 1_000_000), "a whole number"),
    "top_logprobs": (_whole(0, 20), "a whole number from 0 to 20"),
    "top_p": (_number(0, 1), "a number from 0 to 1"),
    "user": (_is(str), "text"),
    "verbosity": (_is(str), "text"),
}
# What means the same as not being there; a provider without a counterpart takes it too.
_NEUTRAL: dict[str, Any] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "n": 1,
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "store": False,
    "top_logprobs": 0,
}
_OPENAI = frozenset(_KNOWN) - {"thinking"}
_ANTHROPIC = frozenset({"parallel_tool_calls", "thinking", "top_k", "top_p", "user"})


def extra_problems(extra: Any) -> Iterator[str]:
    """What is wrong with the ``extra`` of a request."""
    if not isinstance(extra, dict):
        yield "extra has to be an object"
        return
    for name, value in extra.items():
        if name not in _KNOWN:
            yield f"{str(name)[:60]!a} is not supported"
        elif value is not None and not _KNOWN[name][0](value):
            yield f"{name} has to be {_KNOWN[name][1]}"


def openai_extra(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the members for an OpenAI-compatible request.

    Raises:
        UsageError: One has no counterpart there.
    """
    return _known(extra, _OPENAI, "an OpenAI-compatible server")


def anthropic_extra(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the members for Anthropic by OpenAI's names, neutral ones left out.

    Raises:
        UsageError: One has no counterpart there.
    """
    return _known(extra, _ANTHROPIC, "Anthropic")


def _known(extra: dict[str, Any], names: frozenset[str], who: str) -> dict[str, Any]:
    given = {
        name: value
        for name, value in extra.items()
        if value is not None and not (name in _NEUTRAL and value == _NEUTRAL[name])
    }
    if unknown := sorted(set(given) - names):
        raise UsageError(
            f"the call cannot be put to {who}: it does not know {', '.join(unknown)}",
            where="the arguments of the model call",
            next_step="leave them out, or use a route to a model that knows them",
        )
    return given
