"""Unmodified SDKs in a kernel of the toolkit: governed without a line changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import anthropic
import doors_world
import openai
import pytest
from doors_world import be_kernel, ledger_of, recorded, write_doors_workspace
from gateway_world import open_run
from outage_upstream import Call, OutageUpstream, Say, running_upstream
from pydantic import BaseModel
from workspace_world import end_gateway

from toolkit.client import Connection, ensure_gateway
from toolkit.settings import Workspace
from toolkit.values import CallKind, CallState

assert doors_world  # it makes outage_upstream importable

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Workspace, OutageUpstream]]:
    """One gateway and one upstream for the module."""
    with running_upstream() as upstream:
        root = tmp_path_factory.mktemp("sdks") / "ws"
        root.mkdir()
        made = write_doors_workspace(root, upstream.openai_url, upstream.anthropic_url)
        yield made, upstream
        end_gateway(made)


@pytest.fixture
def upstream(world: tuple[Workspace, OutageUpstream]) -> OutageUpstream:
    """The upstream, with nothing told."""
    world[1].heard.clear()
    world[1].tell(Say())
    return world[1]


@pytest.fixture
def workspace(
    world: tuple[Workspace, OutageUpstream], monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """The module's workspace, as the working folder."""
    monkeypatch.chdir(world[0].root)
    ensure_gateway(world[0].root)
    return world[0]


@pytest.fixture
def kernel(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A sandbox session whose variables this process has."""
    made = Connection(ensure_gateway(workspace.root), root=workspace.root).open()
    be_kernel(monkeypatch, workspace, made)
    yield made
    made.close()


@pytest.fixture
def production(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Connection:
    """A production run whose variables this process has."""
    made = open_run(workspace, f"run-{abs(hash(request.node.name))}")
    be_kernel(monkeypatch, workspace, made)
    return made


def test_openai_chat_is_a_call_like_any_other(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """Answer, usage and record are those of ``toolkit.model``."""
    upstream.tell("Hello back.")
    reply = openai.OpenAI().chat.completions.create(
        model="default", messages=ASK, temperature=0.5, seed=3, stop="END", max_tokens=20
    )
    assert reply.choices[0].message.content == "Hello back."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 2
    (call,) = recorded(workspace, kernel.run_id)
    assert (call.intent.kind, call.intent.name) == (CallKind.MODEL, "default")
    assert call.intent.arguments == {
        "messages": ASK,
        "temperature": 0.5,
        "seed": 3,
        "stop": ["END"],
        "max_tokens": 20,
    }
    assert call.outcome is not None
    assert call.outcome.answer["text"] == "Hello back."


def test_openai_streams_pieces_and_the_usage(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """The pieces are the answer; the record is there when the stream ends."""
    upstream.tell("one two three")
    with openai.OpenAI().chat.completions.create(
        model="default", messages=ASK, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text for text in texts if text) == "one two three"
    assert sum(bool(text) for text in texts) > 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert recorded(workspace, kernel.run_id)[0].state is CallState.OK


def test_a_stream_that_told_what_the_record_leaves_out_says_so(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """A secret that was streamed is cut out of the record, and the call is marked; others are not."""
    secret = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT" + "1vW4xY7zA0cD3fG6"
    upstream.tell(Say(f"the key is {secret} today"), Say("nothing to hide"))
    said = []
    for _ in range(2):
        with openai.OpenAI().chat.completions.create(
            model="default", messages=ASK, stream=True
        ) as stream:
            said.append("".join(c.choices[0].delta.content or "" for c in stream if c.choices))
    assert secret in said[0]
    cut, whole = recorded(workspace, kernel.run_id)
    assert secret not in str(cut.outcome)
    assert cut.tags["streamed"] == "before-screening"
    assert "streamed" not in whole.tags


def test_arguments_that_are_nested_too_deep_are_the_callers_mistake(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """A 4xx with a sentence, and no fault of the gateway."""
    deep: dict[str, object] = {"type": "string"}
    for _ in range(100):
        deep = {"properties": {"a": deep}}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    with pytest.raises(openai.APIStatusError, match="nested deeper") as told:
        openai.OpenAI(max_retries=0).chat.completions.create(
            model="default", messages=ASK, tools=[tool]
        )
    assert 400 <= told.value.status_code < 500
    assert not upstream.heard


@pytest.mark.parametrize("stream", [False, True])
def test_openai_tools_come_back_and_their_results_go_out(
    kernel: Connection, upstream: OutageUpstream, stream: bool
) -> None:
    """One round of a tool loop, streamed and not."""
    upstream.tell(Say(None, calls=(Call("weather", {"city": "Oslo"}),)), "Rain.")
    client = openai.OpenAI()
    if stream:
        with client.chat.completions.stream(
            model="default", messages=ASK, tools=[TOOL]
        ) as streamed:
            message = streamed.get_final_completion().choices[0].message
    else:
        message = (
            client.chat.completions.create(model="default", messages=ASK, tools=[TOOL])
            .choices[0]
            .message
        )
    assert message.tool_calls is not None
    (called,) = message.tool_calls
    assert (called.function.name, json.loads(called.function.arguments)) == (
        "weather",
        {"city": "Oslo"},
    )
    messages = [
        *ASK,
        message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": called.id, "content": "wet"},
    ]
    for one in messages[1].get("tool_calls", []):
        one["function"].pop("parsed_arguments", None)
    last = client.chat.completions.create(model="default", messages=messages, tools=[TOOL])
    assert last.choices[0].message.content == "Rain."
    assert upstream.heard[-1].body["messages"][-1]["content"] == "wet"


def test_openai_parses_a_structured_answer(kernel: Connection, upstream: OutageUpstream) -> None:
    """A pydantic class as response_format becomes the call's schema."""

    class Licence(BaseModel):
        spdx: str

    upstream.tell('{"spdx": "MIT"}')
    reply = openai.OpenAI().chat.completions.parse(
        model="default", messages=ASK, response_format=Licence
    )
    assert reply.choices[0].message.parsed == Licence(spdx="MIT")


def test_openai_embeddings(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """Vectors come as the SDK asks for them, and are recorded."""
    client = openai.OpenAI()
    packed = client.embeddings.create(model="default", input=["a", "b"])
    plain = client.embeddings.create(model="default", input=["a", "b"], encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert len(packed.data) == 2
    assert packed.data[0].embedding != packed.data[1].embedding
    assert len(recorded(workspace, kernel.run_id)) == 2


def test_openai_lists_routes_as_models(kernel: Connection, upstream: OutageUpstream) -> None:
    """Routes are models; one can be asked for."""
    client = openai.OpenAI()
    assert {model.id for model in client.models.list()} >= {"default", "careful"}
    assert client.models.retrieve("careful").id == "careful"
    assert {model.id for model in anthropic.Anthropic().models.list()} >= {"default", "careful"}


@pytest.mark.parametrize("stream", [False, True])
def test_openai_responses_with_text_and_tools(
    kernel: Connection, upstream: OutageUpstream, stream: bool
) -> None:
    """The responses API gives the same calls another shape."""
    upstream.tell(Say("Let me see.", calls=(Call("weather", {"city": "Oslo"}),)), "Rain.")
    tool = {"type": "function", **TOOL["function"], "strict": False}
    client = openai.OpenAI()
    if stream:
        with client.responses.stream(model="default", input="Hello?", tools=[tool]) as streamed:
            kinds = [event.type for event in streamed]
            reply = streamed.get_final_response()
        assert "response.output_text.delta" in kinds
        assert "response.function_call_arguments.done" in kinds
        assert kinds[-1] == "response.completed"
    else:
        reply = client.responses.create(model="default", input="Hello?", tools=[tool])
    assert reply.output_text == "Let me see."
    called = next(item for item in reply.output if item.type == "function_call")
    assert json.loads(called.arguments) == {"city": "Oslo"}
    assert reply.usage is not None
    again = client.responses.create(
        model="default",
        instructions="Be short.",
        input=[
            {"role": "user", "content": "Hello?"},
            {
                "type": "function_call",
                "call_id": called.call_id,
                "name": "weather",
                "arguments": called.arguments,
            },
            {"type": "function_call_output", "call_id": called.call_id, "output": "wet"},
        ],
        tools=[tool],
    )
    assert again.output_text == "Rain."
    sent = upstream.heard[-1].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]


@pytest.mark.parametrize("model", ["careful", "claude-9", "default"])
@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_messages_with_text_and_tools(
    kernel: Connection, upstream: OutageUpstream, model: str, stream: bool
) -> None:
    """Whoever is behind the route, Anthropic's client gets its own shape."""
    upstream.tell(Say("Let me see.", calls=(Call("weather", {"city": "Oslo"}),)), "Rain.")
    tool = {
        "name": "weather",
        "description": "The weather of a city.",
        "input_schema": TOOL["function"]["parameters"],
    }
    client = anthropic.Anthropic()
    asked = {"model": model, "max_tokens": 50, "tools": [tool], "system": "Be short."}
    if stream:
        with client.messages.stream(messages=ASK, **asked) as streamed:
            assert "".join(streamed.text_stream) == "Let me see."
            message = streamed.get_final_message()
    else:
        message = client.messages.create(messages=ASK, **asked)
    assert message.stop_reason == "tool_use"
    text, called = message.content
    assert text.type == "text"
    assert called.type == "tool_use"
    assert called.input == {"city": "Oslo"}
    assert message.usage.output_tokens > 0
    result = {"type": "tool_result", "tool_use_id": called.id, "content": "wet"}
    turns = [
        *ASK,
        {"role": "assistant", "content": [block.model_dump() for block in message.content]},
        {"role": "user", "content": [result]},
    ]
    last = client.messages.create(messages=turns, **asked)
    assert last.content[0].type == "text"
    assert last.content[0].text == "Rain."


def test_pydantic_ai_runs_an_agent_with_a_tool(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """Chat completions and responses, structured and streamed."""
    from pydantic_ai import Agent

    def answered(model: str) -> tuple[str, list[str]]:
        upstream.tell(Say(None, calls=(Call("weather", {"city": "Oslo"}),)), "Rain in Oslo.")
        agent = Agent(model)
        asked: list[str] = []

        @agent.tool_plain
        def weather(city: str) -> str:
            asked.append(city)
            return "rain"

        return agent.run_sync("The weather of Oslo?").output, asked

    for prefix in ("openai-chat", "openai-responses"):
        assert answered(f"{prefix}:house-1") == ("Rain in Oslo.", ["Oslo"])

    async def streamed() -> str:
        upstream.tell("one two three")
        async with Agent("openai-chat:default").run_stream("Count.") as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    assert asyncio.run(streamed()) == "one two three"
    assert len(recorded(workspace, kernel.run_id)) == 5


def test_langgraph_runs_a_graph_with_a_tool(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """A react agent of langgraph over langchain-openai, invoked and streamed."""
    from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    model = ChatOpenAI(model="default").bind_tools([weather])

    def ask(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    upstream.tell(Say(None, calls=(Call("weather", {"city": "Oslo"}),)), "Take an umbrella.")
    done = graph.compile().invoke({"messages": [HumanMessage("The weather of Oslo?")]})
    assert done["messages"][-1].content == "Take an umbrella."
    assert any(isinstance(one, ToolMessage) for one in done["messages"])
    upstream.tell("one two three")
    pieces = [piece.content for piece in ChatOpenAI(model="default").stream("Count.")]
    assert "".join(map(str, pieces)) == "one two three"
    assert len(recorded(workspace, kernel.run_id)) == 3


# -- refusals -----------------------------------------------------------------------------------


def test_a_denial_is_the_sdks_own_exception_with_the_policys_reason(
    production: Connection, upstream: OutageUpstream
) -> None:
    """403 with the reason, sent once, streamed or not."""
    client = openai.OpenAI()
    for stream in (False, True):
        with pytest.raises(openai.PermissionDeniedError, match="closed for maintenance"):
            client.chat.completions.create(model="forbidden", messages=ASK, stream=stream)
    with pytest.raises(anthropic.PermissionDeniedError, match="closed for maintenance"):
        anthropic.Anthropic().messages.create(model="forbidden", messages=ASK, max_tokens=9)
    assert upstream.heard == []


def test_a_budget_is_a_rate_limit_error_that_is_not_repeated(
    workspace: Workspace, production: Connection, upstream: OutageUpstream
) -> None:
    """The run's budget of 100,000 tokens does not cover the call."""
    long = [{"role": "user", "content": "word " * 60_000}]
    with pytest.raises(openai.RateLimitError, match="budget"):
        openai.OpenAI().chat.completions.create(model="default", messages=long)
    assert len(recorded(workspace, production.run_id)) == 1
    assert upstream.heard == []


def test_an_unknown_model_is_a_404_that_lists_the_routes(
    kernel: Connection, upstream: OutageUpstream
) -> None:
    """Also a vendor's model that two routes lead to."""
    client = openai.OpenAI()
    with pytest.raises(openai.NotFoundError, match=r"the routes are careful, default"):
        client.chat.completions.create(model="gpt-nothing", messages=ASK)
    with pytest.raises(openai.NotFoundError, match=r"2 routes lead to it \(twin, twin-too\)"):
        client.chat.completions.create(model="house-2", messages=ASK)
    with pytest.raises(anthropic.NotFoundError, match="the routes are"):
        anthropic.Anthropic().messages.create(model="claude-none", messages=ASK, max_tokens=9)
    with pytest.raises(openai.NotFoundError, match="does not offer POST /v1/images"):
        client.images.generate(prompt="a cat", model="default")


def test_a_providers_failure_is_not_repeated_by_the_sdk(
    kernel: Connection, upstream: OutageUpstream
) -> None:
    """The route's own retries are behind it already."""
    upstream.tell(Say(status=500))
    with pytest.raises(openai.InternalServerError):
        openai.OpenAI(max_retries=3).chat.completions.create(model="default", messages=ASK)
    assert len(upstream.heard) == 1
    upstream.tell(Say(status=429, retry_after_s=7))
    with pytest.raises(openai.RateLimitError) as limited:
        openai.OpenAI(max_retries=0).chat.completions.create(model="default", messages=ASK)
    assert limited.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("sdk", ["openai", "responses", "anthropic"])
def test_a_stream_that_fails_midway_ends_with_the_vendors_error(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream, sdk: str
) -> None:
    """What came so far is given; then the SDK raises its own exception."""
    upstream.tell(Say("one two three four five", between_s=0.02, cut_after=3))
    seen: list[str] = []
    with pytest.raises((openai.APIError, anthropic.APIError)) as failed:
        if sdk == "openai":
            for chunk in openai.OpenAI().chat.completions.create(
                model="default", messages=ASK, stream=True
            ):
                seen += chunk.choices[0].delta.content or ""
        elif sdk == "responses":
            for event in openai.OpenAI().responses.create(
                model="default", input="Hello?", stream=True
            ):
                if event.type == "error":
                    raise openai.APIError(event.message, request=None, body=None)
                seen.append(getattr(event, "delta", ""))
        else:
            with anthropic.Anthropic().messages.stream(
                model="default", messages=ASK, max_tokens=50
            ) as stream:
                seen.extend(stream.text_stream)
    assert "".join(seen).startswith("one")
    assert "ended before its end" in str(failed.value) or "cut" in str(failed.value)
    (call,) = recorded(workspace, kernel.run_id)
    assert call.state is CallState.ERROR


def test_without_a_valid_token_nothing_is_answered(
    kernel: Connection, upstream: OutageUpstream
) -> None:
    """401 in the vendor's shape."""
    with pytest.raises(openai.AuthenticationError, match="unknown here"):
        openai.OpenAI(api_key="sk-wrong").chat.completions.create(model="default", messages=ASK)
    with pytest.raises(anthropic.AuthenticationError, match="unknown here"):
        anthropic.Anthropic(api_key="wrong").messages.create(
            model="default", messages=ASK, max_tokens=9
        )
    assert upstream.heard == []


# -- one call, not two --------------------------------------------------------------------------


def test_a_request_that_the_sdk_sends_again_is_one_call(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """The client gives up before the answer and asks again; the provider is asked once."""
    upstream.tell(Say("late", first_byte_s=1.0))
    reply = openai.OpenAI(timeout=0.5, max_retries=5).chat.completions.create(
        model="default", messages=ASK
    )
    assert reply.choices[0].message.content == "late"
    assert len(upstream.heard) == 1
    assert len(recorded(workspace, kernel.run_id)) == 1


def test_equal_calls_are_calls_of_their_own(
    workspace: Workspace, production: Connection, upstream: OutageUpstream
) -> None:
    """Three equal questions in a run are three calls with three answers."""
    upstream.tell("one", "two", "three")
    client = openai.OpenAI()
    texts = [
        client.chat.completions.create(model="default", messages=ASK).choices[0].message.content
        for _ in range(3)
    ]
    assert texts == ["one", "two", "three"]
    assert [call.intent.occurrence for call in recorded(workspace, production.run_id)] == [0, 1, 2]


def test_a_run_that_begins_again_is_answered_from_its_record(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, upstream: OutageUpstream
) -> None:
    """A new token of the same run counts from the start; the provider is not asked again."""
    upstream.tell("one", "two", "three")

    def texts() -> list[str | None]:
        client = openai.OpenAI()
        return [
            client.chat.completions.create(model="default", messages=ASK).choices[0].message.content
            for _ in range(2)
        ]

    be_kernel(monkeypatch, workspace, open_run(workspace, "run-begins-again"))
    first = texts()
    be_kernel(monkeypatch, workspace, open_run(workspace, "run-begins-again"))
    with openai.OpenAI().chat.completions.create(
        model="default", messages=ASK, stream=True
    ) as stream:
        replayed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert (first, replayed) == (["one", "two"], "one")
    assert len(upstream.heard) == 2


def test_an_idempotency_key_names_one_call(kernel: Connection, upstream: OutageUpstream) -> None:
    """The same key answers from the record; with other arguments it is a conflict."""
    upstream.tell("one", "two")
    client = openai.OpenAI(max_retries=0)
    headers = {"Idempotency-Key": "order-7"}
    texts = [
        client.chat.completions.create(model="default", messages=ASK, extra_headers=headers)
        .choices[0]
        .message.content
        for _ in range(2)
    ]
    assert texts == ["one", "one"]
    other = [{"role": "user", "content": "Something else"}]
    with pytest.raises(openai.ConflictError, match="idempotency key"):
        client.chat.completions.create(model="default", messages=other, extra_headers=headers)


def test_a_gateway_that_restarts_counts_on(
    workspace: Workspace, production: Connection, upstream: OutageUpstream
) -> None:
    """The ledger says what was asked with this token; the port is the same."""
    upstream.tell("one", "two")
    client = openai.OpenAI()
    first = client.chat.completions.create(model="default", messages=ASK)
    end_gateway(workspace)
    ensure_gateway(workspace.root)
    second = client.chat.completions.create(model="default", messages=ASK)
    assert first.choices[0].message.content == "one"
    assert second.choices[0].message.content == "two"


def test_a_client_that_goes_away_loses_no_outcome(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream, wait_for
) -> None:
    """The stream is closed after its first piece; the whole answer is recorded."""
    upstream.tell(Say("one two three four", between_s=0.1))
    with openai.OpenAI().chat.completions.create(
        model="default", messages=ASK, stream=True
    ) as stream:
        next(chunk for chunk in stream if chunk.choices[0].delta.content)
    wait_for(
        lambda: recorded(workspace, kernel.run_id)[0].state is CallState.OK, "the outcome's record"
    )
    outcome = recorded(workspace, kernel.run_id)[0].outcome
    assert outcome is not None
    assert outcome.answer["text"] == "one two three four"


def test_cells_that_run_again_take_their_places(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """A cell run twice makes two generations of one call, as with ``toolkit.model``."""
    client = openai.OpenAI()
    for cell in ("a", "b", "a"):
        kernel.start_cell(cell)
        client.chat.completions.create(model="default", messages=ASK)
    calls = recorded(workspace, kernel.run_id)
    facts = [(call.intent.cell, call.intent.occurrence, call.generation) for call in calls]
    assert facts == [("a", 0, 0), ("b", 1, 0), ("a", 0, 1)]


def test_context_comes_by_headers(
    workspace: Workspace, kernel: Connection, upstream: OutageUpstream
) -> None:
    """Parent, purpose and the caller's own span are recorded."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": trace, "x-toolkit-purpose": "monthly report"}
    openai.OpenAI().chat.completions.create(model="default", messages=ASK, extra_headers=headers)
    with ledger_of(workspace) as ledger:
        (call,) = ledger.calls(kernel.run_id)
    assert (call.intent.traceparent, call.intent.purpose) == (trace, "monthly report")
