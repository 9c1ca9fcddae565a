"""Streamed answers: pieces as they come, and at the end the same answer as without a stream."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outage_upstream import Call, Say, running_upstream

from toolkit.errors import ProviderError
from toolkit.providers import (
    Catalog,
    Delta,
    LocalProvider,
    ModelAnswer,
    ModelRequest,
    Providers,
    Route,
    ScriptedProvider,
)
from toolkit.providers.sse import EventParser

ASK = ModelRequest([{"role": "user", "content": "Name a fruit please."}])
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
USE = ModelRequest(ASK.messages, tools=TOOLS)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
KINDS = pytest.mark.parametrize("kind", ["openai", "anthropic"])


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as running:
        yield running


@pytest.fixture
async def ask(upstream, tmp_path):
    """Ask the upstream as one kind of provider, and collect the pieces."""
    built = []

    async def complete(kind, request=ASK, *, stream=True, route="timeout_s: 10", gone=False):
        url = upstream.openai_url if kind == "openai" else upstream.anthropic_url
        path = tmp_path / "models.yaml"
        path.write_text(
            f"providers:\n  p: {{kind: {kind}, base_url: '{url}'}}\n"
            f"routes:\n  r: {{provider: p, model: m1, max_tokens: 64, {route}}}\n"
            "default_route: r\n"
        )
        providers = Providers(Catalog.load(path), environ={})
        built.append(providers)
        pieces: list[Delta] = []

        async def listen(delta):
            pieces.append(delta)
            if gone:
                raise OSError("nobody is there")

        route_ = Catalog.load(path).route(None)
        answer = await providers.complete(route_, request, listen if stream else None)
        return answer, pieces

    yield complete
    for providers in built:
        await providers.close()


def told(pieces: list[Delta]) -> tuple[str, list[dict]]:
    """Put the pieces together as a client of OpenAI's does."""
    calls: list[dict] = []
    for piece in (call for delta in pieces for call in delta.tool_calls):
        if piece["index"] == len(calls):
            calls.append({"id": piece["id"], "type": piece["type"], "name": "", "arguments": ""})
        for name, text in piece["function"].items():
            calls[piece["index"]][name] += text
    named = [
        {
            "id": c["id"],
            "type": c["type"],
            "function": {"name": c["name"], "arguments": c["arguments"]},
        }
        for c in calls
    ]
    return "".join(delta.text for delta in pieces), named


def same(one: ModelAnswer, other: ModelAnswer) -> bool:
    names = ("text", "data", "tool_calls", "finish_reason", "usage", "model", "response_id")
    return all(getattr(one, name) == getattr(other, name) for name in names)


@KINDS
@pytest.mark.anyio
async def test_pieces_come_and_make_the_answer(ask, upstream, kind):
    """The text comes by word; tokens, model and id are those of the unstreamed call."""
    upstream.tell("An apple, or a pear.")
    answer, pieces = await ask(kind)
    assert told(pieces) == ("An apple, or a pear.", [])
    assert len(pieces) == 5
    assert (answer.text, answer.finish_reason) == ("An apple, or a pear.", "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 5)
    assert not answer.usage_estimated
    plain, none = await ask(kind, stream=False)
    assert none == []
    assert same(answer, plain)


@KINDS
@pytest.mark.anyio
async def test_calls_of_tools_are_streamed_too(ask, upstream, kind):
    """Two calls, their arguments in pieces, after some text."""
    upstream.tell(Say("Let me look.", calls=(Call("look", {"a": 1}), Call("look", {"b": [2]}))))
    answer, pieces = await ask(kind, USE)
    assert told(pieces) == ("Let me look.", answer.tool_calls)
    assert [json.loads(c["function"]["arguments"]) for c in answer.tool_calls] == [
        {"a": 1},
        {"b": [2]},
    ]
    assert answer.finish_reason == "tool_calls"
    assert same(answer, (await ask(kind, USE, stream=False))[0])


@pytest.mark.anyio
async def test_a_call_of_a_tool_without_arguments(ask, upstream):
    """Anthropic streams no input at all then; it is an empty object."""
    upstream.tell(Say(None, calls=(Call("look"),)))
    answer, _ = await ask("anthropic", USE)
    assert answer.tool_calls[0]["function"]["arguments"] == "{}"


@KINDS
@pytest.mark.anyio
async def test_a_streamed_answer_to_a_schema_is_checked(ask, upstream, kind):
    """The pieces are the JSON text; the data is checked at the end."""
    calls = (Call("toolkit_answer", {"a": 5}),) if kind == "anthropic" else ()
    upstream.tell(Say("Well:", calls=calls) if calls else Say('{"a": 5}'))
    answer, pieces = await ask(kind, ModelRequest(ASK.messages, schema=SCHEMA))
    assert answer.data == {"a": 5}
    assert told(pieces) == ('{"a": 5}', [])
    assert answer.tool_calls == []


@KINDS
@pytest.mark.anyio
async def test_usage_that_a_stream_does_not_report_is_counted_at_its_bound(ask, upstream, kind):
    """A stream without usage is not free."""
    upstream.tell(Say("x", usage=False))
    answer, _ = await ask(kind)
    assert answer.usage_estimated
    assert answer.usage.output_tokens == 64


@pytest.mark.anyio
async def test_usage_is_asked_for(ask, upstream):
    """OpenAI's servers report tokens of a stream only when they are told to."""
    upstream.tell("x")
    await ask("openai")
    body = upstream.heard[-1].body
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


@KINDS
@pytest.mark.anyio
async def test_a_server_that_does_not_stream_is_understood(ask, upstream, kind):
    """It answers with plain JSON: one piece."""
    whole = (
        {"choices": [{"message": {"content": "A b."}, "finish_reason": "stop"}]}
        if kind == "openai"
        else {"content": [{"type": "text", "text": "A b."}], "stop_reason": "end_turn"}
    )
    upstream.tell(Say(body=json.dumps(whole).encode()))
    answer, pieces = await ask(kind)
    assert [piece.text for piece in pieces] == ["A b."] == [answer.text]


@KINDS
@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.anyio
async def test_a_stream_that_breaks_off_is_cut(ask, upstream, kind, after):
    """Whatever came before: `cut`, and the worst case is charged."""
    upstream.tell(Say("one two three four", cut_after=after))
    with pytest.raises(ProviderError) as caught:
        await ask(kind)
    assert (caught.value.details["kind"], caught.value.details["billed"]) == ("cut", True)
    assert caught.value.details["usage"]["output_tokens"] == 64


@KINDS
@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"], ids=["silence", "done"])
@pytest.mark.anyio
async def test_a_stream_that_ends_politely_but_early_is_cut(ask, upstream, kind, end):
    """The body is whole for HTTP, but nothing said that the answer is."""
    event = (
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
        if kind == "openai"
        else b'data: {"type": "message_start", "message": {}}\n\n'
    )
    upstream.tell(Say(body=event + end, content_type="text/event-stream"))
    with pytest.raises(ProviderError) as caught:
        await ask(kind)
    expected = "invalid_body" if kind == "anthropic" and end else "cut"
    assert caught.value.details["kind"] == expected


@KINDS
@pytest.mark.parametrize(
    "body",
    [
        b"data: {nonsense\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": 1}\n\n',
        b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{"index": 7, "function": {}}]}}]}\n\n',
        b'data: {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta"}}\n\n',
        b'data: {"type": "content_block_start", "index": 0, "content_block": {}}\n\n',
        b"data: \xff\xfe\n\n",
        b"data: " + b"x" * (5 * 1024 * 1024),
    ],
)
@pytest.mark.anyio
async def test_broken_streams_are_invalid_bodies(ask, upstream, kind, body):
    """Bytes that are no events, events that are no chunks: one kind of error, in both protocols."""
    upstream.tell(Say(body=body, content_type="text/event-stream"))
    with pytest.raises(ProviderError) as caught:
        await ask(kind)
    # What is strange to one protocol may be an unknown event to the other, which it has to ignore.
    assert caught.value.details["kind"] in ("invalid_body", "cut")
    if kind == "openai" or b"type" in body or b"choices" not in body:
        assert caught.value.details["kind"] == "invalid_body"


@pytest.mark.parametrize(
    ("kind", "error", "expected"),
    [
        ("openai", {"message": "x", "type": "server_error"}, "server"),
        ("openai", {"message": "x", "code": "rate_limit_exceeded"}, "rate_limited"),
        ("openai", "text", "server"),
        ("anthropic", {"type": "overloaded_error", "message": "x"}, "server"),
        ("anthropic", {"type": "rate_limit_error", "message": "x"}, "rate_limited"),
    ],
)
@pytest.mark.anyio
async def test_an_error_in_a_stream_has_its_kind(ask, upstream, kind, error, expected):
    """The status was 200, so it may be billed; the provider's text is not repeated."""
    event = {"type": "error", "error": error}
    body = f"event: error\ndata: {json.dumps(event)}\n\n".encode()
    upstream.tell(Say(body=body, content_type="text/event-stream"))
    with pytest.raises(ProviderError) as caught:
        await ask(kind)
    assert (caught.value.details["kind"], caught.value.details["billed"]) == (expected, True)


@KINDS
@pytest.mark.anyio
async def test_a_late_first_byte_is_a_timeout_of_its_own(ask, upstream, kind):
    """`first_byte_s` ends the wait, also when nobody listens to a stream."""
    upstream.tell(Say("late", first_byte_s=30))
    for stream in (True, False):
        with pytest.raises(ProviderError, match=r"no first byte within 0\.2 s") as caught:
            await ask(kind, stream=stream, route="timeout_s: 20, first_byte_s: 0.2")
        assert caught.value.details["phase"] == "first_byte"


@KINDS
@pytest.mark.anyio
async def test_a_slow_drip_ends_with_the_total_time(ask, upstream, kind):
    """Each piece comes in time, all of them do not."""
    upstream.tell(Say("a b c d e f g h i j k l m n o p", between_s=0.1))
    with pytest.raises(ProviderError) as caught:
        await ask(kind, route="timeout_s: 0.5, first_byte_s: 0.4")
    assert (caught.value.details["kind"], caught.value.details["phase"]) == ("timeout", "total")


@pytest.mark.anyio
async def test_logprobs_and_refusals_come_through_a_stream(ask, upstream):
    """Both are where they are without a stream."""
    request = ModelRequest(ASK.messages, extra={"logprobs": True, "top_logprobs": 0})
    upstream.tell(Say("a b", logprobs=(-0.5, -1.5)))
    for stream in (True, False):
        assert (await ask("openai", request, stream=stream))[0].logprobs == [-0.5, -1.5]
    upstream.tell(Say(None, refusal="I would rather not."))
    for stream in (True, False):
        assert (await ask("openai", stream=stream))[0].refusal == "I would rather not."


@pytest.mark.anyio
async def test_a_listener_that_fails_is_not_told_again(ask, upstream):
    """The client went away: the answer is read to its end all the same."""
    upstream.tell("a b c d")
    answer, pieces = await ask("openai", gone=True)
    assert answer.text == "a b c d"
    assert len(pieces) == 1


@pytest.mark.anyio
async def test_the_local_model_streams():
    """llama.cpp's chunks: the same text as without a stream, and its tokens."""
    route = Route("r", "local", "SmolLM2", 12, temperature=0.0, price_provider="local")
    provider, pieces = LocalProvider(), []

    async def listen(delta):
        pieces.append(delta)

    try:
        plain = await provider.complete(route, ASK)
        answer = await provider.complete(route, ASK, listen)
    finally:
        await provider.close()
    assert told(pieces)[0] == answer.text == plain.text
    assert len(pieces) > 3
    assert answer.usage == plain.usage
    assert not answer.usage_estimated


@pytest.mark.anyio
async def test_a_script_streams_by_word_and_may_break_off():
    """Blanks stay where they were; `fail` after `text` is an outage in the middle."""
    provider = ScriptedProvider.of(
        [
            {"text": "A  b\n c.", "times": 1},
            {"tool_calls": [{"name": "look", "arguments": {"a": 1}}], "times": 1},
            {"text": "It is", "fail": "cut"},
        ]
    )
    route, pieces = Route("r", "p", "m", 64), []

    async def listen(delta):
        pieces.append(delta)

    await provider.complete(route, ASK, listen)
    assert [piece.text for piece in pieces] == ["A  ", "b\n ", "c."]
    pieces.clear()
    answer = await provider.complete(route, ASK, listen)
    assert told(pieces) == ("", answer.tool_calls)
    pieces.clear()
    with pytest.raises(ProviderError):
        await provider.complete(route, ASK, listen)
    assert told(pieces)[0] == "It is"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=30)


@given(st.lists(st.tuples(st.sampled_from(["", "ping", "error"]), st.lists(texts, min_size=1))),
       st.sampled_from(["\n", "\r\n"]), st.data())  # fmt: skip
def test_events_are_the_same_however_the_bytes_are_cut(events, end, data):
    """Splitting at any place, and separators that only Unicode knows, change nothing."""
    lines = []
    for name, parts in events:
        lines += [f"event: {name}"] if name else []
        lines += [f"data: {part}" for part in parts] + [": a comment", ""]
    raw = "".join(line + end for line in lines).encode()
    parser, found, start = EventParser(), [], 0
    while start < len(raw):
        size = data.draw(st.integers(1, max(1, len(raw) - start)))
        found += parser.feed(raw[start : start + size])
        start += size
    assert found == [(name or "message", "\n".join(parts)) for name, parts in events]


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_a_value_error(raw):
    """The parser raises nothing else."""
    try:
        for name, data in EventParser().feed(raw):
            assert isinstance(name, str)
            assert isinstance(data, str)
    except ValueError:
        pass
