"""``model(…)``: one governed model call, or a loop of model and tool calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.client import approvals, wire
from toolkit.client.codec import encode, json_schema, validate
from toolkit.client.connection import Connection, current, told_reasons
from toolkit.client.functions import call_with_json, governed_schema
from toolkit.errors import CallInDoubt, InvalidAnswer, ToolkitError, UsageError, error_from_json
from toolkit.values import CallKind

__all__ = ["ModelReply", "model"]


@dataclass(frozen=True)
class ModelReply:
    """What a model answered.

    Attributes:
        text: The answer's text.
        data: The answer as the ``schema`` that was asked for, else ``None``.
        tool_calls: Calls the model asks for (OpenAI shape), when no loop ran them.
        finish_reason: ``stop``, ``length``, ``tool_calls`` …
        model, provider, route: Who answered.
        input_tokens, output_tokens: Tokens as the provider counted them; of all rounds of a loop.
        cost_usd: Dollars as text; ``None`` means unknown, never free.
        latency_s: Seconds in the gateway, of all rounds.
        rounds: Model calls made.
        verdict, production_verdict: What policy says here, and would say in production.
        trace_url: Where MLflow shows the call, if the UI runs.
        replayed: The answer came from the ledger.
        notes: What is remarkable about the calls: pairs of a subject and a line.
    """

    text: str
    data: Any = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str = "stop"
    model: str | None = None
    provider: str | None = None
    route: str = "default"
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: str | None = None
    latency_s: float = 0.0
    rounds: int = 1
    verdict: str = "allow"
    production_verdict: str | None = None
    trace_url: str | None = None
    replayed: bool = False
    reasons: tuple[str, ...] = field(default=())
    notes: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.text


def model(
    prompt: str | Sequence[dict[str, Any]],
    *,
    route: str | None = None,
    system: str | None = None,
    schema: Any = None,
    tools: Sequence[Callable[..., Any]] = (),
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] | None = None,
    max_rounds: int = 8,
) -> ModelReply:
    """Ask a model through the gateway.

    Args:
        prompt: A user message, or messages in OpenAI's shape.
        route: A route of ``registry/models.yaml``; default: its ``default_route``.
        system: A system message to put first.
        schema: A pydantic model, a type or a JSON Schema; the answer is constrained to it and
            returned as ``data``.
        tools: Functions made by ``@tool``; the model may call them until it answers.
        max_tokens: Most answer tokens; default: the route's.
        temperature: Sampling temperature; default: the route's.
        seed: Sampling seed; default: the route's.
        stop: Strings that end the answer.
        max_rounds: Most model calls that one loop may make.

    Raises:
        CallDenied, BudgetExceeded: Policy or budget said no.
        InvalidAnswer: The answer does not fit ``schema``, or the loop did not end.
        ProviderError: The provider failed.
        UsageError: The arguments make no sense.
    """
    if schema is not None and tools:
        raise UsageError(
            "schema and tools cannot be combined in one call",
            next_step="let the tools answer first, then ask again with the schema",
        )
    connection = current()
    messages = _messages(prompt, system)
    given = _without_none(
        schema=None if schema is None else json_schema(schema),
        tools=[governed_schema(function) for function in tools] or None,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        stop=[stop] if isinstance(stop, str) else list(stop or ()) or None,
    )
    replies: list[ModelReply] = []
    for _ in range(max_rounds):
        reply = _ask(connection, route, {"messages": messages, **given})
        replies.append(reply)
        if not (tools and reply.tool_calls):
            return _finish(replies, schema)
        messages = [*messages, *_run_tools(reply, tools)]
    raise InvalidAnswer(
        f"the model still asked for tools after {max_rounds} rounds",
        next_step="raise max_rounds, or give the model fewer tools",
    )


def _without_none(**arguments: Any) -> dict[str, Any]:
    """Leave out what was not given: the key of a call holds what was asked, not our defaults."""
    return {name: value for name, value in arguments.items() if value is not None}


def _messages(prompt: str | Sequence[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system}] if system else []
    if isinstance(prompt, str):
        return [*first, {"role": "user", "content": prompt}]
    return [*first, *(encode(dict(message), "message") for message in prompt)]


def _ask(connection: Connection, route: str | None, arguments: dict[str, Any]) -> ModelReply:
    name = route or "default"
    request = connection.identify(CallKind.MODEL, name, arguments)
    reply = approvals.call(connection, wire.MODEL, request)
    connection.announce(reply, CallKind.MODEL, name)
    outcome, decision = reply["outcome"], reply["decision"]
    if outcome["state"] != "ok":
        raise error_from_json(outcome["error"] or {})
    answer, usage = outcome["answer"], outcome.get("usage") or {}
    return ModelReply(
        text=answer.get("text") or "",
        data=answer.get("data"),
        tool_calls=tuple(answer.get("tool_calls") or ()),
        finish_reason=answer.get("finish_reason") or "stop",
        model=outcome.get("model"),
        provider=outcome.get("provider"),
        route=name,
        input_tokens=usage.get("input_tokens", 0),
        output_tokens=usage.get("output_tokens", 0),
        cost_usd=outcome.get("cost_usd"),
        latency_s=reply.get("latency_s") or 0.0,
        verdict=decision["verdict"],
        production_verdict=decision.get("production_verdict"),
        reasons=told_reasons(decision),
        trace_url=reply.get("trace_url"),
        replayed=bool(reply.get("replayed")),
        notes=tuple((subject, text) for subject, text in reply.get("notes", ())),
    )


def _run_tools(reply: ModelReply, tools: Sequence[Callable[..., Any]]) -> list[dict[str, Any]]:
    """Run what the model asked for; a tool's failure is told to the model, not raised."""
    by_name = {function.__toolkit_name__: function for function in tools}  # type: ignore[attr-defined]  # set by @tool
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": reply.text or None, "tool_calls": list(reply.tool_calls)}
    ]
    for call in reply.tool_calls:
        wanted = call["function"]
        function = by_name.get(wanted["name"])
        if function is None:
            value: Any = {"error": f"there is no tool {wanted['name']!r}"}
        else:
            value = _run_tool(function, wanted["arguments"])
        content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        messages.append({"role": "tool", "tool_call_id": call.get("id"), "content": content})
    return messages


def _run_tool(function: Callable[..., Any], arguments: str | None) -> Any:
    try:
        return encode(call_with_json(function, json.loads(arguments or "{}")), "the answer")
    except CallInDoubt:
        raise  # a person decides, not the model
    except ToolkitError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a tool raises, the model may react to it
        return {"error": f"{type(error).__name__}: {error}"[:2000]}


def _finish(replies: list[ModelReply], schema: Any) -> ModelReply:
    last = replies[-1]
    data = last.data
    if schema is not None and not isinstance(schema, dict):
        data = validate(data, schema, "the model's answer")
    costs = [reply.cost_usd for reply in replies]
    return ModelReply(
        **{
            **{name: getattr(last, name) for name in ModelReply.__dataclass_fields__},
            "data": data,
            "input_tokens": sum(reply.input_tokens for reply in replies),
            "output_tokens": sum(reply.output_tokens for reply in replies),
            "latency_s": sum(reply.latency_s for reply in replies),
            "cost_usd": None if None in costs else _sum_usd(costs),
            "rounds": len(replies),
            "notes": tuple(note for reply in replies for note in reply.notes),
        }
    )


def _sum_usd(costs: Sequence[str | None]) -> str:
    from decimal import Decimal

    total = sum((Decimal(cost) for cost in costs if cost is not None), Decimal(0))
    return format(total.normalize(), "f")
