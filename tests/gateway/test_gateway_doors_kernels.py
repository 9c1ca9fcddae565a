"""What a kernel's environment holds, and that an SDK in a run is governed by it."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from doors_world import address, be_kernel, recorded
from gateway_world import open_run
from hypothesis import given
from hypothesis import strategies as st

import toolkit
from toolkit.client import ensure_gateway, environment, sdk_headers, workspace_root
from toolkit.client.environment import outer_environment, point_sdks, release_sdks, sdk_environment
from toolkit.errors import Conflict, ToolkitError, UsageError
from toolkit.gateway.doors.chat import read_chat
from toolkit.gateway.doors.messages import read_messages
from toolkit.gateway.doors.repeats import Repeats, Sent
from toolkit.gateway.doors.responses import read_responses
from toolkit.settings import Workspace
from toolkit.values import CallKind, Intent, canonical_bytes

assert environment
ASK = [{"role": "user", "content": "Hello?"}]


# -- environment --------------------------------------------------------------------------------


def test_a_persons_own_values_give_way_and_come_back() -> None:
    """Ours win while connected; the gateway is started with the person's own."""
    mine = {
        "OPENAI_API_KEY": "a-key",
        "OPENAI_API_BASE": "https://x.example",
        "ANTHROPIC_AUTH_TOKEN": "b",
        "NO_PROXY": "intranet",
    }
    environ = dict(mine)
    replaced = point_sdks("http://127.0.0.1:9", "token", environ)
    assert set(replaced) == {"OPENAI_API_KEY", "OPENAI_API_BASE", "ANTHROPIC_AUTH_TOKEN"}
    assert environ["OPENAI_API_KEY"] == environ["ANTHROPIC_API_KEY"] == "token"
    assert environ["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert "OPENAI_API_BASE" not in environ
    assert point_sdks("http://127.0.0.1:10", "other", environ) == ()
    assert environ["OPENAI_BASE_URL"] == "http://127.0.0.1:10/v1"
    assert outer_environment(environ) == mine
    release_sdks(environ)
    assert environ == mine


def test_a_process_that_inherited_our_values_does_not_pass_them_to_a_gateway() -> None:
    """A run token must never go to a vendor as its key."""
    inherited = {"PATH": "/bin", **sdk_environment("http://127.0.0.1:9", "run-token")}
    assert outer_environment(inherited) == {"PATH": "/bin"}


def test_connecting_points_the_sdks_and_says_so_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names, never values; disconnecting gives them back."""
    import openai

    monkeypatch.setenv("OPENAI_API_KEY", "a-persons-own-key")
    assert toolkit.model("hello").text == "an answer"
    reply = openai.OpenAI().chat.completions.create(model="default", messages=ASK)
    assert reply.choices[0].message.content == "an answer"
    told = capsys.readouterr().err
    assert told.count("OPENAI_API_KEY") == 1
    assert "a-persons-own-key" not in told
    toolkit.client.disconnect()
    assert os.environ["OPENAI_API_KEY"] == "a-persons-own-key"
    assert "OPENAI_BASE_URL" not in os.environ


def test_a_call_inside_of_an_agent_can_name_its_parent(workspace: Workspace) -> None:
    """``sdk_headers`` ties an SDK's call to the agent that makes it."""
    import openai

    @toolkit.agent
    def helper(text: str) -> str:
        """Asks with an SDK."""
        reply = openai.OpenAI().chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": text}],
            extra_headers=sdk_headers(),
        )
        return str(reply.choices[0].message.content)

    toolkit.connect(workspace_root())
    assert helper("hello") == "an answer"
    agent, call = recorded(workspace, toolkit.client.current().run_id)
    assert (agent.intent.kind, call.intent.kind) == (CallKind.AGENT, CallKind.MODEL)
    assert call.intent.parent == agent.key
    assert call.intent.agent == "helper"


def test_an_unmodified_sdk_belongs_to_the_one_agent_that_is_at_work(workspace: Workspace) -> None:
    """Without a header: its agent while one is at work, nobody's between two, and never the wrong one's."""
    import openai

    def ask(text: str) -> str:
        messages = [{"role": "user", "content": text}]
        reply = openai.OpenAI().chat.completions.create(model="default", messages=messages)
        return str(reply.choices[0].message.content)

    @toolkit.agent
    def inner(text: str) -> str:
        """Asks with an SDK."""
        return ask(text)

    @toolkit.agent
    def outer(text: str) -> str:
        """Asks, and has another agent ask."""
        return ask(f"{text} of outer") + inner(f"{text} of inner")

    both = threading.Barrier(2, timeout=20)

    @toolkit.agent
    def left(text: str) -> str:
        """Asks while another agent is at work, too."""
        both.wait()
        said = ask(f"{text} of left")
        both.wait()
        return said

    @toolkit.agent
    def right(text: str) -> str:
        """Is at work meanwhile."""
        both.wait()
        both.wait()
        return text

    toolkit.connect(workspace_root())
    outer("a question")
    ask("a question of nobody")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda work: work("a question"), (left, right)))
    calls = recorded(workspace, toolkit.client.current().run_id)
    agents = {
        call.intent.arguments["messages"][0]["content"].rpartition(" ")[2]: call.intent.agent
        for call in calls
        if call.intent.kind is CallKind.MODEL
    }
    assert agents == {"outer": "outer", "inner": "inner", "nobody": None, "left": None}


def test_a_run_of_a_notebook_governs_its_sdk(workspace: Workspace) -> None:
    """A kernel that the runner starts has the variables before its first cell."""
    from toolkit.execution.facts import Execution
    from toolkit.execution.kernel import Place, kernel_environment

    ensure_gateway(workspace.root)
    kernel = open_run(workspace, "run-of-a-kernel")
    run = kernel.query(toolkit.client.wire.STATUS)
    place = Place(workspace.state, workspace.state, workspace.state / "kernel.log")
    execution = Execution(
        run=_run(workspace, run["run_id"]),
        ledger="",
        notebook=b"",
        parameters={},
        folder=workspace.state,
        gateway_socket=workspace.socket,
        token="t" * 20,
        timeout_s=None,
    )
    made = kernel_environment(execution, place, {"OPENAI_API_KEY": "the-runners-own"})
    assert made["OPENAI_BASE_URL"] == f"{address(workspace)}/v1"
    assert made["OPENAI_API_KEY"] == made["ANTHROPIC_API_KEY"] == "t" * 20


def _run(workspace: Workspace, run_id: str):
    from doors_world import ledger_of

    with ledger_of(workspace) as ledger:
        return ledger.get_run(run_id)


# -- the local model ----------------------------------------------------------------------------


def test_the_local_model_answers_an_sdk(
    own_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real model of the wheel, streamed and not, behind OpenAI's and Anthropic's clients."""
    import anthropic
    import openai

    from toolkit.client import Connection

    models = "default_route: small\nproviders:\n  here: {kind: local}\nroutes:\n"
    models += "  small: {provider: here, model: smollm2, max_tokens: 12, seed: 1, temperature: 0}\n"
    (own_workspace.root / "registry" / "models.yaml").write_text(models)
    kernel = Connection(ensure_gateway(own_workspace.root), root=own_workspace.root).open()
    be_kernel(monkeypatch, own_workspace, kernel)
    client = openai.OpenAI()
    whole = client.chat.completions.create(model="small", messages=ASK)
    with client.chat.completions.create(model="small", messages=ASK, stream=True) as stream:
        pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert whole.choices[0].message.content
    assert "".join(piece or "" for piece in pieces) == whole.choices[0].message.content
    message = anthropic.Anthropic().messages.create(model="small", messages=ASK, max_tokens=12)
    assert message.content[0].type == "text"
    assert message.usage.output_tokens > 0
    assert len(recorded(own_workspace, kernel.run_id)) == 3
    kernel.close()


# -- reading and counting -----------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_MEMBERS = st.sampled_from(
    ["model", "messages", "input", "max_tokens", "tools", "tool_choice", "stream", "system", "text",
     "response_format", "stop", "temperature", "role", "content", "type", "instructions", "n"]
)  # fmt: skip


@given(st.dictionaries(_MEMBERS, _JSON, max_size=6), st.sampled_from([read_chat, read_responses, read_messages]))  # fmt: skip
def test_any_body_is_read_or_refused_with_a_reason(body: dict, read) -> None:
    """No body makes a fault of ours; what is read can be recorded."""
    try:
        asked = read(body)
    except ToolkitError:
        return
    assert canonical_bytes(asked.arguments)


@pytest.mark.parametrize(
    ("read", "body", "named"),
    [
        (read_chat, {"model": "m", "messages": ASK, "audio": {}}, "audio"),
        (read_chat, {"model": "m", "messages": ASK, "functions": []}, "functions"),
        (read_chat, {"model": "m", "messages": ASK, "service_tier": "priority"}, "service_tier"),
        (read_chat, {"messages": ASK}, "model is missing"),
        (read_responses, {"model": "m", "input": "x", "previous_response_id": "r"}, "previous"),
        (read_responses, {"model": "m", "input": "x", "tools": [{"type": "web_search"}]}, "tools"),
        (read_messages, {"model": "m", "messages": ASK, "max_tokens": 9, "mcp_servers": []}, "mcp"),
        (read_messages, {"model": "m", "messages": ASK}, "max_tokens is missing"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(read, body: dict, named: str) -> None:
    """Nothing that changes an answer is dropped in silence."""
    with pytest.raises(UsageError, match=named):
        read(json.loads(json.dumps(body)))


def _intent(text: str = "a") -> Intent:
    return Intent("run-1", CallKind.MODEL, "default", {"messages": [text]})


def test_requests_are_counted_and_found_again() -> None:
    """Equal requests count on; one that is sent again is the one that nobody got."""
    repeats = Repeats(lambda _run, _key: None, 0)
    first = repeats.claim("t", _intent(), Sent())
    second = repeats.claim("t", _intent(), Sent())
    assert (first.intent.occurrence, second.intent.occurrence) == (0, 1)
    first.ended(None, heard=True)
    first.refused = False
    assert repeats.claim("t", _intent(), Sent(retry=1)) is second
    assert repeats.claim("other", _intent(), Sent(retry=1)).intent.occurrence == 0
    assert repeats.claim("t", _intent("b"), Sent(retry=1)).intent.occurrence == 0


def test_a_refused_request_that_comes_again_is_a_new_call() -> None:
    """A rate limit said when to come again; the record of the refusal is no answer then."""
    repeats = Repeats(lambda _run, _key: None, 0)
    refused = repeats.claim("t", _intent(), Sent())
    refused.ended(None, heard=True)
    again = repeats.claim("t", _intent(), Sent(retry=1))
    assert again is not refused
    assert again.intent.occurrence == 1


def test_an_idempotency_key_belongs_to_one_call() -> None:
    """Also when the answer came long ago."""
    repeats = Repeats(lambda _run, _key: None, 0)
    first = repeats.claim("t", _intent(), Sent(key="k"))
    assert repeats.claim("t", _intent(), Sent(key="k")) is first
    with pytest.raises(Conflict):
        repeats.claim("t", _intent("b"), Sent(key="k"))


def test_answered_calls_are_forgotten_after_a_thousand_others() -> None:
    """A session may make a million; those whose answer has not arrived stay."""
    repeats = Repeats(lambda _run, _key: None, 0)
    lost = repeats.claim("t", _intent("lost"), Sent())
    first = repeats.claim("t", _intent("first"), Sent())
    for number in range(3_000):
        claim = repeats.claim("t", _intent(f"number {number}"), Sent())
        claim.ended(None, heard=True)
        claim.refused = False
        first.answered = True
    assert repeats.claim("t", _intent("lost"), Sent(retry=1)) is lost
    assert repeats.claim("t", _intent("number 2999"), Sent(retry=1)) is claim
    again = repeats.claim("t", _intent("first"), Sent(retry=1))
    assert again is not first
    assert again.intent.occurrence == 1
