"""Which targets a call may go to, in which order, and the most that it can cost."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from toolkit.errors import UsageError
from toolkit.providers.prices import attempt_bound, price, text_bound
from toolkit.providers.routes import Route, Target
from toolkit.providers.types import CallContext, ModelRequest
from toolkit.values import Money, Usage, canonical_bytes

__all__ = [
    "BILLED_KINDS",
    "eligible",
    "embedding_legs",
    "embedding_worst_case",
    "in_order",
    "worst_case",
]

BILLED_KINDS = frozenset(
    {"cut", "timeout", "invalid_body", "invalid_answer", "refusal", "low_confidence"}
)
"""Failures after which the provider may bill the attempt."""

_BYTES_PER_TOKEN = 3
_ANY = CallContext()


def eligible(
    route: Route, request: ModelRequest, context: CallContext | None = None
) -> list[tuple[Target, Route]]:
    """Return the targets that take a call, in the order of the file.

    Raises:
        UsageError: There is none; the message says why, for each target.
    """

    def size() -> int:
        return len(canonical_bytes([request.messages, request.tools, request.schema]))

    return _fitting(
        route,
        route.legs(),
        context or _ANY,
        size,
        lambda leg: attempt_bound(leg, request)[0],
    )


def _fitting(
    route: Route,
    legs: Sequence[tuple[Target, Route]],
    context: CallContext,
    size: Callable[[], int],
    cost: Callable[[Route], Money | None],
) -> list[tuple[Target, Route]]:
    """Return the targets that take a call of some bytes and some cost in the worst case.

    Raises:
        UsageError: There is none; the message says why, for each target.
    """
    found, reasons = [], []
    for target, leg in legs:
        reason = _unfit(target, leg, context, size, cost)
        if reason is None:
            found.append((target, leg))
        else:
            reasons.append(f"{leg.target} {reason}")
    if not found:
        raise UsageError(
            f"no target of the route {route.name} takes this call: {'; '.join(reasons)}",
            where=f"registry/models.yaml: routes.{route.name}.targets",
            next_step="use another route, or add a target for such calls",
            details={"kind": "no_target", "reasons": reasons},
        )
    return found


def _unfit(
    target: Target,
    leg: Route,
    context: CallContext,
    size: Callable[[], int],
    cost: Callable[[Route], Money | None],
) -> str | None:
    when = target.when
    if context.targets is not None and leg.target not in context.targets:
        return "is not permitted by policy"
    if when.classes is not None and (more := context.classes - when.classes):
        return f"takes no {' or '.join(sorted(more))} data"
    if context.region is not None and when.region != context.region:
        return f"is not known to be in {context.region}"
    if when.task is not None and context.task not in when.task:
        return f"is for {' and '.join(sorted(when.task))} only"
    if when.max_input_tokens is not None:
        tokens = math.ceil(size() / _BYTES_PER_TOKEN)
        if tokens > when.max_input_tokens:
            return f"takes {when.max_input_tokens} tokens, and these are about {tokens}"
    limits = [limit for limit in (when.max_usd, context.max_usd) if limit is not None]
    if limits:
        most = cost(leg)
        if most is None or most > min(limits):
            return f"may cost more than {min(limits)}"
    return None


def in_order(
    found: Sequence[tuple[Target, Route]], chance: random.Random
) -> list[tuple[Target, Route]]:
    """Return targets in the order in which they are asked.

    Those with weights come first, drawn without replacement by their weights; then the others, in
    the order of the file.
    """
    drawn = [pair for pair in found if pair[0].weight]
    rest = [pair for pair in found if not pair[0].weight]
    order = []
    while drawn:
        weights = [target.weight or 0.0 for target, _ in drawn]
        place = chance.choices(range(len(drawn)), weights)[0] if len(drawn) > 1 else 0
        order.append(drawn.pop(place))
    return order + rest


def worst_case(
    route: Route, request: ModelRequest, context: CallContext | None = None
) -> tuple[Money | None, int]:
    """Return the most that a call can cost, and the most tokens it can use.

    An attempt that failed is charged only if the provider may have billed it: it was sent, and
    ended in a cut, a timeout, or an answer that is not good enough.  After such a failure the same
    target is not asked again, except ``retry.billed`` times per call; another target is, if
    ``fallback`` names the kind.  A hedge is one more attempt that may be billed.  So with targets
    of worst cases *w*, at most

        sum(w)                          if ``fallback`` names a kind that may be billed, else max(w)
        + (hedge.most + retry.billed) * max(w)

    can be charged.  The router holds every attempt against this sum before it is sent, whatever
    the order of events, so that the bound does not rest on this reasoning alone.

    The money is ``None`` when a price is not known, or when a message holds parts that are not
    text (pictures cost tokens that their size does not bound).  Rests on providers that bill no
    more tokens than asked for; what they report is charged as it is.

    Raises:
        ValueError: The messages are not JSON values.
        UsageError: No target takes the call.
    """
    rules = route.rules
    bounds = [attempt_bound(leg, request) for _, leg in eligible(route, request, context)]
    costs, tokens = [cost for cost, _ in bounds], [usage.total_tokens for _, usage in bounds]
    every = bool(rules.fallback & BILLED_KINDS)
    more = (rules.hedge.most if rules.hedge else 0) + rules.retry.billed
    most_tokens = (sum(tokens) if every else max(tokens)) + more * max(tokens)
    if any(cost is None for cost in costs):
        return None, most_tokens
    nanos = [cost.nanos for cost in costs if cost is not None]
    return Money((sum(nanos) if every else max(nanos)) + more * max(nanos)), most_tokens


def embedding_legs(
    route: Route, texts: list[str], context: CallContext | None = None
) -> list[tuple[Target, Route]]:
    """Return the targets that take the texts and have the model of the route's first one.

    What a target's ``when`` says holds as for other calls; there is no hedging.

    Raises:
        UsageError: There is none; the message says why, for each target with that model.
    """
    rules = replace(route.rules, hedge=None)
    legs = [(target, replace(leg, rules=rules)) for target, leg in route.legs()]
    same = [pair for pair in legs if pair[1].model == legs[0][1].model]
    return _fitting(
        route,
        same,
        context or _ANY,
        lambda: len(canonical_bytes(texts)),
        lambda leg: _embedding_price(leg, texts),
    )


def _embedding_price(leg: Route, texts: list[str]) -> Money | None:
    return price(leg.provider, leg.model, Usage(text_bound(texts)), route=leg)


def embedding_worst_case(
    route: Route, texts: list[str], context: CallContext | None = None
) -> tuple[Money | None, int]:
    """Return the most that embedding texts can cost, and the most tokens of it.

    Embeddings are not hedged and fall back to the same model only; see :func:`worst_case`.

    Raises:
        UsageError: No target takes the texts.
    """
    rules, tokens = route.rules, text_bound(texts)
    legs = [leg for _, leg in embedding_legs(route, texts, context)]
    times = (len(legs) if rules.fallback & BILLED_KINDS else 1) + rules.retry.billed
    costs = [_embedding_price(leg, texts) for leg in legs]
    if any(cost is None for cost in costs):
        return None, times * tokens
    return Money(times * max(cost.nanos for cost in costs if cost is not None)), times * tokens
