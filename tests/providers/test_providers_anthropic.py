"""Anthropic's Messages API: a real HTTP server on loopback stands in for it."""

from __future__ import annotations

import pytest

from toolkit.errors import InvalidAnswer, ProviderError, UsageError
from toolkit.providers import ModelRequest, Providers
from toolkit.values import Usage

pytestmark = pytest.mark.anyio

ASK = ModelRequest([{"role": "user", "content": "Hello?"}])
LOOK = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}},
}


def reply(*content: dict, stop: str = "end_turn", **usage: int) -> dict:
    counts = {"input_tokens": 7, "output_tokens": 3, **usage}
    return {
        "id": "msg-1", "model": "claude-x", "content": list(content), "stop_reason": stop,
        "usage": counts,
    }  # fmt: skip


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def use(name: str, given: object) -> dict:
    return {"type": "tool_use", "id": "t1", "name": name, "input": given}


@pytest.fixture
async def ask(upstream, write_catalog):
    """Ask the upstream through the whole of `Providers`."""
    catalog = write_catalog(f"kind: anthropic, base_url: '{upstream.url}', api_key_env: KEY")
    providers = Providers(catalog, environ={"KEY": "sk-ant-1"})
    yield lambda request=ASK: providers.complete(catalog.route(None), request)
    await providers.close()


async def test_a_plain_question(ask, upstream):
    """Key and version are headers; text blocks are joined; cached tokens belong to the input."""
    upstream.says(
        reply(text("Hi"), text("!"), cache_read_input_tokens=5, cache_creation_input_tokens=2)
    )
    answer = await ask()
    assert (answer.text, answer.finish_reason, answer.model) == ("Hi!", "stop", "claude-x")
    assert answer.usage == Usage(14, 3, 5)
    path, headers, body = upstream.heard[0]
    assert (path, headers["x-api-key"], headers["anthropic-version"]) == (
        "/v1/messages",
        "sk-ant-1",
        "2023-06-01",
    )
    assert body == {
        "model": "m1",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": [text("Hello?")]}],
    }


async def test_a_conversation_with_tools_is_translated(ask, upstream):
    """System text is split off, tool calls and results become blocks, turns alternate."""
    upstream.says(reply(text("done")))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look twice."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "function": {"name": "look", "arguments": '{"at": 1}'}},
                {"id": "b", "function": {"name": "look", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
        {"role": "system", "content": "Now answer."},
        {"role": "user", "content": [{"type": "text", "text": "Well?"}]},
    ]
    request = ModelRequest(messages, tools=[LOOK], tool_choice="required", stop=["x"], seed=3)
    await ask(request)
    body = upstream.heard[0][2]
    assert body["system"] == "Be brief.\n\nNow answer."
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "a", "name": "look", "input": {"at": 1}},
        {"type": "tool_use", "id": "b", "name": "look", "input": {}},
    ]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "one"},
        {"type": "tool_result", "tool_use_id": "b", "content": "two"},
        text("Well?"),
    ]
    expected = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
    assert body["tools"] == [expected]
    assert (body["tool_choice"], body["stop_sequences"]) == ({"type": "any"}, ["x"])
    assert "seed" not in body


async def test_tool_calls_come_back_in_openai_shape(ask, upstream):
    """tool_use blocks become tool_calls with JSON text."""
    upstream.says(reply(text("Let me see."), use("look", {"at": 1}), stop="tool_use"))
    answer = await ask(ModelRequest(ASK.messages, tools=[LOOK]))
    function = {"name": "look", "arguments": '{"at": 1}'}
    assert answer.tool_calls == [{"id": "t1", "type": "function", "function": function}]
    assert (answer.text, answer.finish_reason) == ("Let me see.", "tool_calls")


@pytest.mark.parametrize(
    ("schema", "given", "data"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}, {"a": 1}),
        ({"type": "array", "items": {"type": "string"}}, {"value": ["x"]}, ["x"]),
        ({"$defs": {"t": {"type": "string"}}, "$ref": "#/$defs/t"}, {"value": "x"}, "x"),
    ],
)
async def test_a_schema_is_asked_for_with_a_forced_tool(ask, upstream, schema, given, data):
    """The answer tool's input is the data; what is not an object travels wrapped."""
    upstream.says(reply(use("toolkit_answer", given), stop="tool_use"))
    answer = await ask(ModelRequest(ASK.messages, schema=schema))
    assert (answer.data, answer.tool_calls, answer.finish_reason) == (data, [], "stop")
    body = upstream.heard[0][2]
    assert body["tool_choice"] == {"type": "tool", "name": "toolkit_answer"}
    assert body["tools"][0]["input_schema"]["type"] == "object"


async def test_a_forced_answer_is_still_checked(ask, upstream):
    """Forcing a tool does not guarantee its schema."""
    upstream.says(reply(use("toolkit_answer", {"a": "no"}), stop="tool_use"))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    with pytest.raises(InvalidAnswer, match="at a: 'no' is not of type 'integer'"):
        await ask(ModelRequest(ASK.messages, schema=schema))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
        {"role": "critic", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "a"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "a", "function": {"name": "x", "arguments": "{"}}],
        },
    ],
)
async def test_what_has_no_counterpart_is_refused(ask, upstream, message):
    """Messages that cannot be translated are UsageError, before anything is sent."""
    with pytest.raises(UsageError, match="cannot be put to Anthropic"):
        await ask(ModelRequest([*ASK.messages, message]))
    assert upstream.heard == []


@pytest.mark.parametrize(
    "body", [{}, {"content": "x"}, {"content": [1]}, reply({"type": "tool_use"})]
)
async def test_answers_that_break_the_protocol_are_invalid_bodies(ask, upstream, body):
    """A malformed answer has its own kind."""
    upstream.says(body)
    with pytest.raises(ProviderError) as caught:
        await ask()
    assert caught.value.details["kind"] == "invalid_body"


async def test_missing_usage_is_counted_at_its_bound(ask, upstream):
    """Tokens that are not reported are never taken for none."""
    upstream.says({**reply(text("x")), "usage": {"output_tokens": 1}})
    answer = await ask()
    assert (answer.usage_estimated, answer.usage.output_tokens) == (True, 64)
