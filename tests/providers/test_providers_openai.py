"""OpenAI-compatible servers: a real HTTP server on loopback stands in for one."""

from __future__ import annotations

import json

import pytest

from toolkit.errors import InvalidAnswer, ProviderError, UsageError
from toolkit.providers import ModelRequest, Providers
from toolkit.values import Usage

pytestmark = pytest.mark.anyio

ASK = ModelRequest([{"role": "user", "content": "Hello?"}])
SCHEMA = {
    "type": "object",
    "properties": {"spdx": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["spdx"],
    "additionalProperties": False,
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}


def reply(content: object, **message: object) -> dict:
    return {
        "id": "r-1",
        "model": "m1-2026",
        "choices": [{"finish_reason": "stop", "message": {"content": content, **message}}],
        "usage": USAGE,
    }


@pytest.fixture
async def ask(upstream, write_catalog):
    """Ask the upstream through the whole of `Providers`."""
    built = []

    async def complete(request=ASK, *, provider="", route="", environ=None):
        text = f"kind: openai, base_url: '{upstream.url}/v1', {provider}"
        catalog = write_catalog(text, route)
        providers = Providers(catalog, environ=environ or {})
        built.append(providers)
        return await providers.complete(catalog.route(None), request)

    yield complete
    for providers in built:
        await providers.close()


async def test_a_plain_question(ask, upstream):
    """Text, tokens (cached ones too), model and id come back."""
    upstream.says(reply("Hi."))
    answer = await ask(route="temperature: 0.5, seed: 4")
    assert (answer.text, answer.finish_reason, answer.data) == ("Hi.", "stop", None)
    assert (answer.provider, answer.model, answer.response_id) == ("p", "m1-2026", "r-1")
    assert (answer.usage, answer.usage_estimated) == (Usage(7, 3, 5), False)
    path, headers, body = upstream.heard[0]
    assert path == "/v1/chat/completions"
    assert "authorization" not in headers
    assert body == {
        "model": "m1",
        "messages": ASK.messages,
        "max_tokens": 64,
        "temperature": 0.5,
        "seed": 4,
    }


async def test_a_request_wins_over_the_route_but_cannot_raise_its_limit(ask, upstream):
    """Sampling comes from the request; max_tokens is capped by the route."""
    upstream.says(reply("x"))
    request = ModelRequest(ASK.messages, max_tokens=10_000, temperature=0, seed=9, stop=["\n"])
    await ask(
        request, route="temperature: 1, seed: 1", provider="max_tokens_field: max_completion_tokens"
    )
    body = upstream.heard[0][2]
    assert body["max_completion_tokens"] == 64
    assert "max_tokens" not in body
    assert (body["temperature"], body["seed"], body["stop"]) == (0, 9, ["\n"])


async def test_the_key_is_sent_from_the_given_environment(ask, upstream):
    """`api_key_env` names the variable; the ambient environment is not read."""
    upstream.says(reply("x"))
    await ask(provider="api_key_env: SOME_KEY", environ={"SOME_KEY": " sk-abc "})
    assert upstream.heard[0][1]["authorization"] == "Bearer sk-abc"


@pytest.mark.parametrize("environ", [{}, {"SOME_KEY": ""}, {"SOME_KEY": "a b\nc"}])
async def test_a_missing_or_unusable_key_is_an_auth_failure(ask, upstream, environ):
    """The error names the variable, and the value does not appear."""
    with pytest.raises(ProviderError) as caught:
        await ask(provider="api_key_env: SOME_KEY", environ=environ)
    assert caught.value.details["kind"] == "auth"
    assert "SOME_KEY" in caught.value.next_step
    assert "a b" not in str(caught.value.to_json())
    assert upstream.heard == []


async def test_tools_travel_both_ways(ask, upstream):
    """Tools go out as they are; the calls that come back keep OpenAI's shape."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    upstream.says(reply(None, tool_calls=[call]))
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    answer = await ask(ModelRequest(ASK.messages, tools=tools, tool_choice="required"))
    assert answer.tool_calls == [call]
    assert answer.text is None
    body = upstream.heard[0][2]
    assert (body["tools"], body["tool_choice"]) == (tools, "required")


async def test_an_answer_that_fits_the_schema_is_parsed(ask, upstream):
    """The schema goes out as response_format; data is the parsed answer."""
    upstream.says(reply('{"spdx": "MIT", "n": 2}'))
    answer = await ask(ModelRequest(ASK.messages, schema=SCHEMA))
    assert answer.data == {"spdx": "MIT", "n": 2}
    sent = upstream.heard[0][2]["response_format"]
    assert sent["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": False}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MIT", "not JSON"),
        ("", "not JSON"),
        (None, "not JSON"),
        ('{"n": 1}', "'spdx' is a required property"),
        ('{"spdx": 5}', "at spdx: 5 is not of type 'string'"),
        ('{"spdx": "MIT", "x": 1}', "Additional properties"),
        ('{"spdx": "MIT", "n": NaN}', "NaN is not a JSON value"),
        ('{"spdx": "MIT", "n": 1e999}', "too large"),
        ("[" * 5000 + "]" * 5000, "nested"),
    ],
)
async def test_an_answer_that_does_not_fit_is_invalid_with_the_first_reason(
    ask, upstream, text, reason
):
    """The error says why, and holds the tokens, which were spent all the same."""
    upstream.says(reply(text))
    with pytest.raises(InvalidAnswer) as caught:
        await ask(ModelRequest(ASK.messages, schema=SCHEMA))
    assert reason in caught.value.message
    assert caught.value.details["usage"]["input_tokens"] == 7


async def test_a_cut_answer_says_so(ask, upstream):
    """finish_reason `length` is named as the cause."""
    cut = reply('{"spdx": "MI')
    cut["choices"][0]["finish_reason"] = "length"
    upstream.says(cut)
    with pytest.raises(InvalidAnswer, match="cut off after 64") as caught:
        await ask(ModelRequest(ASK.messages, schema=SCHEMA))
    assert "max_tokens" in caught.value.next_step


async def test_a_schema_that_is_none_is_refused_before_it_costs(ask, upstream):
    """A wrong schema is the caller's error, found before the request."""
    with pytest.raises(UsageError, match="not a JSON Schema"):
        await ask(ModelRequest(ASK.messages, schema={"type": "nonsense"}))
    assert upstream.heard == []


async def test_a_schema_never_fetches_anything(ask, upstream):
    """A $ref to an address is an error and not a request."""
    upstream.says(reply('{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"$ref": f"{upstream.url}/schema.json"}}}
    with pytest.raises(UsageError, match="refers to"):
        await ask(ModelRequest(ASK.messages, schema=schema))
    assert [path for path, _, _ in upstream.heard] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": "7", "completion_tokens": 3}, {"prompt_tokens": -1}]
)
async def test_missing_usage_is_counted_at_its_bound(ask, upstream, usage):
    """Tokens that a server does not report are never taken for none."""
    upstream.says({**reply("x"), "usage": usage})
    answer = await ask()
    assert answer.usage_estimated
    assert answer.usage.output_tokens == 64
    assert answer.usage.input_tokens > len(json.dumps(ASK.messages, separators=(",", ":")))


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", [1], {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 1}]},
        {"choices": [{"message": {"content": [1]}}]}, b"[" * 100_000,
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": {}}]}}]},
    ],
)  # fmt: skip
async def test_answers_that_break_the_protocol_are_invalid_bodies(ask, upstream, body):
    """Whatever a server sends, it ends in one kind of error."""
    upstream.says(body)
    with pytest.raises(ProviderError) as caught:
        await ask()
    assert caught.value.details["kind"] == "invalid_body"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"content": "x"}]},
        {"messages": [1]},
        {"max_tokens": 0},
        {"max_tokens": "9"},
        {"temperature": 9},
        {"seed": 1.5},
        {"schema": []},
        {"tools": {}},
        {"stop": "x"},
    ],
)
async def test_requests_are_checked_when_they_are_made(fields):
    """A kernel's arguments are not believed: wrong ones are UsageError."""
    with pytest.raises(UsageError):
        ModelRequest(**{"messages": ASK.messages, **fields})
