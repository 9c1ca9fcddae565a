"""What a call costs, and the most that it could cost.

Prices come from the route when ``models.yaml`` states them, else from the table inside the
genai-prices wheel.  That table is data in the package: nothing here starts the package's updater,
so no price is ever fetched.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from toolkit.providers.routes import Route, RoutePrice
from toolkit.providers.types import ModelRequest
from toolkit.values import Money, Usage, canonical_bytes, write_json

__all__ = ["attempt_bound", "price", "text_bound", "usage_bound"]

_MOST_NANOS = 10**18
# Templates add markers around each message, and some add a system message of their own.
_PER_MESSAGE_TOKENS = 16
_PER_REQUEST_TOKENS = 128
# Providers describe tools to the model in a text of their own (Anthropic: up to 530 tokens).
_TOOLS_TOKENS = 1_024


def price(provider: str, model: str, usage: Usage, *, route: Route | None = None) -> Money | None:
    """Return what the tokens cost.

    Args:
        provider: Name in the price table (``openai``, ``anthropic``, …), or ``local``.  With a
            route, the route's own ``price_provider`` is used instead.
        model: The model that answered.
        usage: Tokens; cached ones are part of the input.
        route: The route of the call; its stated prices win.

    Returns:
        ``Money(0)`` for local models; ``None`` when the price is not known.
    """
    if route is not None:
        if route.price is not None:
            return _stated(route.price, usage)
        if route.price_provider is None:
            return None
        provider = route.price_provider
    if provider == "local":
        return Money(0)
    found = _listed(provider, model, usage)
    if found is None and route is not None and route.model != model:
        found = _listed(provider, route.model, usage)  # the answer may name a dated snapshot
    return found


def _stated(stated: RoutePrice, usage: Usage) -> Money:
    one_in, one_out, unit = _per_token(stated)
    whole, rest = divmod(one_in * usage.input_tokens + one_out * usage.output_tokens, unit)
    if whole > _MOST_NANOS:
        return Money.of_usd(Decimal(whole) / Money.of_usd(1).nanos)  # says that it is too much
    half_to_even = 2 * rest > unit or (2 * rest == unit and whole % 2 == 1)
    return Money(whole + half_to_even)


@lru_cache(maxsize=1024)
def _per_token(stated: RoutePrice) -> tuple[int, int, int]:
    """Return the nano-dollars of a token in and a token out, as whole numbers over the third."""
    one_in = Fraction(stated.input_per_million_usd) * 1000
    one_out = Fraction(stated.output_per_million_usd) * 1000
    unit = one_in.denominator * one_out.denominator
    return int(one_in * unit), int(one_out * unit), unit


def _listed(provider: str, model: str, usage: Usage) -> Money | None:
    from genai_prices import Usage as Tokens  # 0.4 s with its table: only when it is needed
    from genai_prices import calc_price

    tokens: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.cached_tokens:
        tokens["cache_read_tokens"] = usage.cached_tokens
    try:
        total: Decimal = calc_price(Tokens(**tokens), model, provider_id=provider).total_price
    except (LookupError, ValueError, TypeError):
        return None
    return Money.of_usd(total)


def usage_bound(route: Route, request: ModelRequest) -> Usage:
    """Return the most tokens that a call can use.

    A token of a byte-level tokenizer stands for at least one byte of UTF-8, so the input has at
    most as many tokens as the messages, tools and schema have bytes as compact JSON, plus what
    templates add (16 per message, 128 per request, 1,024 with tools or a schema).  The output is
    bounded by ``max_tokens``.
    """
    payload: list[Any] = [request.messages]
    tools = 0
    if request.tools or request.schema:
        payload += [request.tools, request.schema]
        tools = _TOOLS_TOKENS
    try:
        size = len(write_json(payload))
    except (TypeError, ValueError):
        size = len(canonical_bytes(payload))  # with half a surrogate pair; or it says what is wrong
    added = _PER_REQUEST_TOKENS + tools + _PER_MESSAGE_TOKENS * len(request.messages)
    return Usage(size + added, request.answer_tokens(route))


def attempt_bound(route: Route, request: ModelRequest) -> tuple[Money | None, Usage]:
    """Return the most that one attempt at one target can cost, and the most tokens of it.

    The money is ``None`` when the price is not known, or when a message holds parts that are not
    text (pictures cost tokens that their size does not bound).

    Raises:
        ValueError: The messages are not JSON values.
    """
    usage = usage_bound(route, request)
    if any(not _only_text(message.get("content")) for message in request.messages):
        free = route.price is None and route.price_provider == "local"
        return (Money(0) if free else None), usage
    return price(route.provider, route.model, usage, route=route), usage


def text_bound(texts: list[str]) -> int:
    """Return the most tokens that texts to embed can have: their bytes, and 16 for each."""
    return sum(len(text.encode("utf-8", "replace")) + _PER_MESSAGE_TOKENS for text in texts)


def _only_text(content: object) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content is None or isinstance(content, str)
