"""A provider whose answers are written down: for tests, demonstrations and outage drills.

A script is a YAML file; ``models.yaml`` names it (``kind: scripted``, ``script: answers.yaml``)::

    answers:                       # the first rule that fits answers
      - when: {contains: MIT}      # all given conditions have to hold
        text: "MIT"
      - when: {route: licence, turn: 1}
        data: {spdx: Apache-2.0}   # the same as text with JSON
      - when: {contains: weather}
        tool_calls: [{name: get_weather, arguments: {city: Paris}}]
      - fail: rate_limited         # a kind of ProviderError
        retry_after_s: 2
        times: 1                   # only once; then the next rule that fits
      - text: "The answer is"      # a stream that breaks off
        fail: cut
      - text: "I do not know."
        delay_s: 0.2
        logprobs: [-0.1, -2.5]

A stream is passed on by word.  Embeddings are made of the words of a text: texts that share words
are near each other, and the same text has the same vector everywhere.

``contains`` looks in the last message's text, ``route`` is the route's name, ``turn`` counts
this provider's calls from 1.  No rule that fits: ``bad_request``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from pydantic import BaseModel, ConfigDict, Field, model_validator

from toolkit.providers.failures import failure
from toolkit.providers.types import (
    Delta,
    EmbeddingAnswer,
    ModelAnswer,
    ModelRequest,
    OnDelta,
    Route,
)
from toolkit.settings import read_model
from toolkit.values import Usage

__all__ = ["ScriptedAnswer", "ScriptedProvider"]

FailureKind = Literal[
    "connection", "cut", "timeout", "rate_limited", "auth", "bad_request", "server", "invalid_body",
    "missing_model",
]  # fmt: skip
_DIMENSIONS = 64
_Seconds = Annotated[float, Field(ge=0, le=3600, strict=False)]


class _When(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    contains: str | None = None
    route: str | None = None
    turn: Annotated[int, Field(ge=1)] | None = None

    def fits(self, route: Route, text: str, turn: int) -> bool:
        return (
            (self.contains is None or self.contains in text)
            and (self.route is None or self.route == route.name)
            and (self.turn is None or self.turn == turn)
        )


class _ToolCall(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    arguments: dict[str, Any] = {}


class ScriptedAnswer(BaseModel):
    """One rule: when it fits, what to answer.

    Attributes:
        when: Conditions; none means always.
        text, data, tool_calls: The answer; ``data`` is written as JSON text.
        fail: Fail with this kind of :class:`ProviderError` instead, or after the text.
        retry_after_s: Goes into the error's details.
        delay_s: Seconds to wait first.
        times: How often the rule may answer; ``None`` means always.
        finish_reason: Default: ``tool_calls`` with tool calls, else ``stop``.
        refusal: What is said in place of an answer.
        logprobs: One per token.
        input_tokens, output_tokens: Default: counted in words of prompt and answer.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    when: _When = _When()
    text: str | None = None
    data: Any = None
    tool_calls: list[_ToolCall] = []
    fail: FailureKind | None = None
    retry_after_s: _Seconds | None = None
    delay_s: _Seconds = 0.0
    times: Annotated[int, Field(ge=1)] | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    logprobs: list[float] | None = None
    input_tokens: Annotated[int, Field(ge=0)] | None = None
    output_tokens: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> ScriptedAnswer:
        given = {"text", "data", "tool_calls", "fail", "refusal"} & self.model_fields_set
        if len(given) != 1 and given not in ({"text", "tool_calls"}, {"text", "fail"}):
            msg = "needs one of text, data, tool_calls, refusal and fail (text goes with two)"
            raise ValueError(msg)
        return self


class _Script(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    answers: list[ScriptedAnswer]


@dataclass
class ScriptedProvider:
    """A :class:`~toolkit.providers.Provider` that answers by rule, and remembers what it was asked.

    Attributes:
        answers: The rules; the first that fits answers.
        requests: Every request so far, in order.
    """

    answers: tuple[ScriptedAnswer, ...]
    requests: list[tuple[Route, ModelRequest]] = field(default_factory=list)
    _used: dict[int, int] = field(default_factory=dict, repr=False)

    @classmethod
    def saying(cls, *texts: str) -> ScriptedProvider:
        """Answer with these texts, one after the other, and the last one from then on."""
        once = [ScriptedAnswer(text=text, times=1) for text in texts[:-1]]
        return cls((*once, *(ScriptedAnswer(text=text) for text in texts[-1:])))

    @classmethod
    def of(cls, rules: Iterable[dict[str, Any]]) -> ScriptedProvider:
        """Build from rules in the form of the file.

        Raises:
            ValueError: A rule has faults.
        """
        return cls(tuple(ScriptedAnswer.model_validate(rule) for rule in rules))

    @classmethod
    def load(cls, path: Path) -> ScriptedProvider:
        """Read a script.

        Raises:
            NotFound: There is no such file.
            InvalidFile: The file has faults (all are named).
        """
        script = read_model(
            path,
            _Script,
            "script",
            missing="create it, or correct `script` in registry/models.yaml",
        )
        return cls(tuple(script.value.answers))

    async def complete(
        self, route: Route, request: ModelRequest, on_delta: OnDelta | None = None
    ) -> ModelAnswer:
        """See :class:`toolkit.providers.Provider`."""
        self.requests.append((route, request))
        turn = len(self.requests)
        rule = self._choose(route, request, turn)
        await _wait(rule.delay_s, route)
        answer = _answer(rule, route, request, turn)
        if on_delta is not None:
            await _tell(answer, on_delta)
        if rule.fail is not None:
            raise failure(rule.fail, "the script says so", route, retry_after_s=rule.retry_after_s)
        return answer

    async def embed(self, route: Route, texts: list[str]) -> EmbeddingAnswer:
        """See :class:`toolkit.providers.Provider`; always answers, whatever the script says."""
        words = sum(len(text.split()) for text in texts)
        vectors = [_vector(text) for text in texts]
        return EmbeddingAnswer(vectors, Usage(words), route.provider, route.model)

    def _choose(self, route: Route, request: ModelRequest, turn: int) -> ScriptedAnswer:
        text = _last_text(request)
        for number, rule in enumerate(self.answers):
            used = self._used.get(number, 0)
            if (rule.times is None or used < rule.times) and rule.when.fits(route, text, turn):
                self._used[number] = used + 1
                return rule
        raise failure("bad_request", f"no rule of the script fits call {turn}", route)

    async def close(self) -> None:
        """See :class:`toolkit.providers.Provider`."""


def _last_text(request: ModelRequest) -> str:
    content = request.messages[-1].get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


async def _wait(delay_s: float, route: Route) -> None:
    if not delay_s:
        return
    limit = route.timeout_s if route.first_byte_s is None else route.first_byte_s
    limit = min(limit, route.timeout_s)
    with anyio.move_on_after(limit) as scope:
        await anyio.sleep(delay_s)
    if scope.cancelled_caught:
        raise failure("timeout", f"no answer within {round(limit, 2):g} s", route)


async def _tell(answer: ModelAnswer, on_delta: OnDelta) -> None:
    for word in re.findall(r"\S+\s*|\s+", answer.text or ""):
        await on_delta(Delta(word))
    for index, call in enumerate(answer.tool_calls):
        await on_delta(Delta(tool_calls=({"index": index, **call},)))


def _vector(text: str) -> list[float]:
    """Add up one pseudo-random direction per word and make the sum one long."""
    total = [0.0] * _DIMENSIONS
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.shake_256(word.encode()).digest(_DIMENSIONS)
        total = [sum_ + byte - 127.5 for sum_, byte in zip(total, digest, strict=True)]
    length = math.hypot(*total)
    return [number / length for number in total]


def _answer(rule: ScriptedAnswer, route: Route, request: ModelRequest, turn: int) -> ModelAnswer:
    text = rule.text
    if "data" in rule.model_fields_set:
        text = json.dumps(rule.data, ensure_ascii=False)
    calls = [
        {
            "id": f"call_{turn}_{number}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for number, call in enumerate(rule.tool_calls)
    ]
    words = sum(len(str(message.get("content") or "").split()) for message in request.messages)
    answered = len((text or "").split()) or 1
    return ModelAnswer(
        text=text,
        refusal=rule.refusal,
        logprobs=rule.logprobs,
        usage=Usage(
            words if rule.input_tokens is None else rule.input_tokens,
            answered if rule.output_tokens is None else rule.output_tokens,
        ),
        provider=route.provider,
        model=route.model,
        tool_calls=calls,
        finish_reason=rule.finish_reason or ("tool_calls" if calls else "stop"),
        response_id=f"scripted-{turn}",
    )
