"""Tools, agents and models through a real gateway: fresh and replayed, nested and concurrent."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import date

import pandas as pd
import pytest
from pydantic import BaseModel

import toolkit
from toolkit.client import CallEvent, connect, current
from toolkit.errors import (
    CallDenied,
    InvalidAnswer,
    ProviderError,
    ToolFailed,
    ToolkitError,
    UsageError,
)
from toolkit.values import CallKind, CallState


@dataclasses.dataclass(frozen=True)
class Order:
    number: int
    due: date


class Licence(BaseModel):
    spdx: str
    share: float


@toolkit.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@toolkit.tool
def echo(text: str) -> str:
    """Say it again."""
    return text


# -- decorators -------------------------------------------------------------------------------


def test_a_tool_is_the_function_that_it_was(workspace) -> None:
    """Name, docstring and result; called by position, by name, with defaults."""

    @toolkit.tool
    def order(number: int, urgent: bool = False) -> str:
        """Order something."""
        return f"{number}{'!' if urgent else ''}"

    assert (order.__name__, order.__doc__) == ("order", "Order something.")
    assert [order(1), order(number=2), order(3, urgent=True)] == ["1", "2", "3!"]


def test_the_same_call_is_the_same_record_however_it_is_written(workspace, calls) -> None:
    """Position, name and default make one set of arguments."""
    add(1, 2)
    add(b=2, a=1)
    digests = {call.intent.arguments_digest for call in calls()}
    assert len(digests) == 1
    assert [call.intent.occurrence for call in calls()] == [0, 1]


def test_missing_annotations_are_refused_at_once() -> None:
    """Before any call, with every place: what is not typed cannot be checked or replayed."""
    with pytest.raises(UsageError, match="no annotation for b, return") as caught:

        @toolkit.tool
        def half(a: int, b):
            return a

    assert caught.value.where == "def half"
    with pytest.raises(UsageError, match=r"\*rest cannot be recorded by name"):

        @toolkit.agent
        def loose(*rest: int) -> int:
            return 0

    with pytest.raises(UsageError, match="the effect 'maybe' is unknown"):
        toolkit.tool(effect="maybe")


def test_wrong_arguments_are_told_before_anything_is_recorded(workspace, calls) -> None:
    """A slip of the caller is no call."""
    with pytest.raises(UsageError, match="missing a required argument: 'b'"):
        add(1)
    with pytest.raises(UsageError, match=r"add\(a\) is a object, which cannot be recorded"):
        add(object(), 1)
    assert calls() == []


def test_a_return_type_that_cannot_be_recorded_is_told_before_the_body_runs(
    workspace, calls
) -> None:
    """Nothing has happened that could not be recorded afterwards."""
    ran = []

    class Handle:
        """An open connection, say."""

    def nothing() -> Handle:
        ran.append(1)
        return Handle()

    nothing.__annotations__["return"] = Handle
    with pytest.raises(UsageError, match="Handle cannot be rebuilt"):
        toolkit.tool(nothing)()
    assert (ran, calls()) == ([], [])


@pytest.mark.parametrize("answer", [object(), "text"])
def test_an_answer_that_does_not_fit_is_an_outcome(workspace, calls, answer) -> None:
    """The body ran, so its end is recorded: the call is not left in doubt."""

    @toolkit.tool
    def nothing() -> int:
        return answer

    with pytest.raises(UsageError):
        nothing()
    (call,) = calls()
    assert call.state is CallState.ERROR
    assert call.outcome.error["code"] == "usage"


def test_async_tools_and_agents_nest_like_plain_ones(workspace, calls) -> None:
    """Concurrent calls inside an agent are its children, each with a record of its own."""

    @toolkit.tool
    async def late(n: int) -> int:
        await asyncio.sleep(0.01 * (3 - n))
        return add(n, n)

    @toolkit.agent
    async def fan_out(count: int) -> list[int]:
        return list(await asyncio.gather(*(late(n) for n in range(count))))

    assert asyncio.run(fan_out(3)) == [0, 2, 4]
    by_key = {call.key: call for call in calls()}
    (root,) = [call for call in by_key.values() if call.intent.kind is CallKind.AGENT]
    lates = [call for call in by_key.values() if call.intent.name == "late"]
    adds = [call for call in by_key.values() if call.intent.name == "add"]
    assert {call.intent.parent for call in lates} == {root.key}
    assert {call.intent.parent for call in adds} == {call.key for call in lates}
    assert len(adds) == 3


def test_an_async_tools_exception_passes_and_is_recorded(workspace, calls) -> None:
    """As for plain functions."""

    @toolkit.tool
    async def fail(why: str) -> str:
        raise LookupError(why)

    with pytest.raises(LookupError, match="gone"):
        asyncio.run(fail("gone"))
    assert calls()[0].outcome.error["message"] == "fail raised LookupError: gone"


# -- replay -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "made"),
    [
        (Order, Order(3, date(2026, 1, 2))),
        (list[Order], [Order(3, date(2026, 1, 2))]),
        (Licence, Licence(spdx="MIT", share=1.0)),
        (dict[str, float], {"a": 1.0}),
        (tuple[int, str], (1, "a")),
        (type(None), None),
    ],
    ids=str,
)
def test_a_replayed_answer_has_the_type_of_the_fresh_one(run, annotation, made) -> None:
    """A new kernel of the same run gets the same value, and the body does not run again."""
    kernel = run()
    ran = []

    def order() -> None:
        ran.append(1)
        return made

    order.__annotations__["return"] = annotation
    governed = toolkit.tool(order)
    fresh = governed()
    kernel.restart()
    replayed = governed()
    assert ran == [1]
    assert replayed == fresh == made
    assert type(replayed) is type(fresh) is type(made)


def test_a_replayed_table_equals_the_fresh_one(run) -> None:
    """Values, column order and column types; whole floats stay floats."""
    kernel = run()
    ran = []

    @toolkit.tool
    def table() -> pd.DataFrame:
        ran.append(1)
        times = pd.to_datetime(["2026-01-02", None])
        return pd.DataFrame({"n": [1, 2], "f": [1.0, 2.0], "t": times, "s": ["a", None]})

    fresh = table()
    kernel.restart()
    pd.testing.assert_frame_equal(table(), fresh)
    assert ran == [1]
    assert str(fresh.dtypes["f"]) == "float64"
    assert str(fresh.dtypes["t"]).startswith("datetime64")


def test_a_recorded_error_is_raised_again_without_running_the_body(run) -> None:
    """What failed once has failed; the record keeps its words."""
    kernel = run()
    ran = []

    @toolkit.tool
    def fail(why: str) -> str:
        ran.append(why)
        raise LookupError(why)

    with pytest.raises(LookupError):
        fail("gone")
    kernel.restart()
    with pytest.raises(ToolFailed, match="fail raised LookupError: gone"):
        fail("gone")
    assert ran == ["gone"]


def test_a_replayed_model_answer_says_so(run) -> None:
    """Same text, tokens and cost; ``replayed`` tells the difference."""
    kernel = run()
    first = toolkit.model("hello")
    kernel.restart()
    again = toolkit.model("hello")
    assert (first.replayed, again.replayed) == (False, True)
    assert dataclasses.replace(again, replayed=False, latency_s=0) == dataclasses.replace(
        first, latency_s=0
    )
    assert kernel.ledger.totals(kernel.run_id).by_kind == {"model": 1}


def test_a_denied_tool_does_not_run(run) -> None:
    """In production what is not catalogued is not executed."""
    run()
    ran = []

    @toolkit.tool
    def launch(where: str) -> str:
        ran.append(where)
        return where

    with pytest.raises(CallDenied, match="launch"):
        launch("moon")
    assert ran == []


# -- models -----------------------------------------------------------------------------------


def test_a_reply_tells_all_there_is_to_know(workspace) -> None:
    """Text, tokens, cost, who answered, and what policy said."""
    reply = toolkit.model("hello", system="be brief", max_tokens=5, temperature=0, stop="\n")
    assert str(reply) == reply.text == "an answer"
    assert (reply.input_tokens, reply.output_tokens, reply.cost_usd) == (7, 3, "0.000013")
    assert (reply.provider, reply.model, reply.route) == ("script", "scripted-1", "default")
    assert (reply.verdict, reply.production_verdict, reply.rounds) == ("allow", "allow", 1)


def test_stop_may_be_one_text(workspace, calls) -> None:
    """A text is one stop, not a list of its letters."""
    toolkit.model("hello", stop="END")
    assert calls()[0].intent.arguments["stop"] == ["END"]


def test_a_schema_gives_an_instance(workspace) -> None:
    """The answer is read as the class that was asked for; a plain schema gives plain data."""
    assert toolkit.model("as json", schema=Licence).data == Licence(spdx="MIT", share=0.5)
    plain = toolkit.model("as json", schema=Licence.model_json_schema()).data
    assert plain == {"spdx": "MIT", "share": 0.5}


def test_an_answer_that_does_not_fit_its_schema_is_an_error(workspace, calls) -> None:
    """Recorded as one, too."""
    with pytest.raises(InvalidAnswer):
        toolkit.model("wrong json", schema=Licence)
    assert calls()[0].state is CallState.ERROR


def test_a_provider_error_keeps_its_kind(workspace) -> None:
    """The class and the details cross the wire."""
    with pytest.raises(ProviderError) as caught:
        toolkit.model("broken")
    assert caught.value.details["kind"] == "server"


def test_schema_and_tools_are_not_combined(workspace, calls) -> None:
    """Told with the way around."""
    with pytest.raises(UsageError, match="cannot be combined"):
        toolkit.model("x", schema=Licence, tools=[add])
    with pytest.raises(UsageError, match="is not a tool"):
        toolkit.model("x", tools=[len])
    assert calls() == []


def test_a_schema_that_is_nested_too_deep_is_refused_before_it_is_sent(workspace, calls) -> None:
    """A sentence about the call instead of Python's bare ValueError."""
    deep: dict[str, object] = {"type": "string"}
    for _ in range(100):
        deep = {"properties": {"a": deep}}
    with pytest.raises(UsageError, match="cannot be recorded"):
        toolkit.model("x", schema=deep)
    assert calls() == []


# -- the loop ---------------------------------------------------------------------------------


def told(calls) -> list[str]:
    """What tools told the model in the last request of the loop."""
    last = [call for call in calls() if call.intent.kind is CallKind.MODEL][-1]
    return [m["content"] for m in last.intent.arguments["messages"] if m["role"] == "tool"]


def test_the_model_calls_a_tool_and_then_answers(workspace, calls) -> None:
    """Two model calls and a tool call between them, all recorded; costs are summed."""
    reply = toolkit.model("add two and three", tools=[add])
    assert (reply.text, reply.rounds) == ("an answer", 2)
    assert [(c.intent.kind.value, c.intent.name) for c in calls()] == [
        ("model", "default"), ("tool", "add"), ("model", "default"),
    ]  # fmt: skip
    assert told(calls) == ["5"]
    assert reply.output_tokens > 3
    assert float(reply.cost_usd) > 0.000013


def test_tool_calls_of_one_answer_are_all_run(workspace, calls) -> None:
    """In the order in which the model asked, each answer under its own id."""
    toolkit.model("two at once", tools=[add])
    assert told(calls) == ["2", "4"]
    last = [call for call in calls() if call.intent.kind is CallKind.MODEL][-1]
    ids = [m["tool_call_id"] for m in last.intent.arguments["messages"] if m["role"] == "tool"]
    assert len(set(ids)) == 2


def test_arguments_of_a_model_become_what_the_tool_declares(workspace, calls) -> None:
    """Text that is a number is read as one; objects become the tool's own classes."""

    @dataclasses.dataclass
    class Parcel:
        name: str
        grams: float

    def weigh(parcel) -> str:
        return f"{type(parcel).__name__} {parcel.grams}"

    weigh.__annotations__ = {"parcel": Parcel, "return": str}
    toolkit.model("add as text", tools=[add])
    assert told(calls) == ["5"]
    toolkit.model("weigh the parcel", tools=[toolkit.tool(weigh)])
    assert told(calls) == ["Parcel 5.0"]


def test_an_answer_that_does_not_fit_is_the_functions_own(workspace, calls) -> None:
    """What was made this moment is not called recorded."""

    @toolkit.agent
    def count(word: str) -> int:
        return word  # type: ignore[return-value]

    with pytest.raises(UsageError, match="the answer of count does not fit int"):
        count("no")


def test_failures_are_told_to_the_model_not_raised(workspace, calls) -> None:
    """Wrong arguments, unknown tools and exceptions: the model may react."""

    @toolkit.tool
    def look_up(word: str) -> str:
        raise KeyError(word)

    toolkit.model("add badly", tools=[add])
    assert "a does not fit int" in told(calls)[0]
    toolkit.model("use what is not there", tools=[add])
    assert "there is no tool 'launch'" in told(calls)[0]
    toolkit.model("look it up", tools=[look_up])
    assert "KeyError: 'x'" in told(calls)[0]


def test_a_loop_ends(workspace) -> None:
    """A model that never answers is stopped after ``max_rounds``."""
    with pytest.raises(InvalidAnswer, match="still asked for tools after 3 rounds"):
        toolkit.model("for ever", tools=[echo], max_rounds=3)


def test_without_a_loop_the_asked_calls_are_handed_out(workspace) -> None:
    """Messages in OpenAI's shape go in, tool calls come out, for loops of one's own."""
    reply = toolkit.model([{"role": "user", "content": "add two and three"}])
    (asked,) = reply.tool_calls
    assert asked["function"] == {"name": "add", "arguments": '{"a": 2, "b": 3}'}
    assert reply.finish_reason == "tool_calls"


# -- counters, listeners ----------------------------------------------------------------------


def test_a_cell_that_runs_again_repeats_its_own_calls(workspace, calls) -> None:
    """Occurrences belong to cells: running one again makes a generation, not a new call."""
    connection = connect()
    for cell in ("one", "two", "one", "two", "three"):
        connection.start_cell(cell)
        add(1, 1)
    seen = [(call.intent.cell, call.intent.occurrence, call.generation) for call in calls()]
    assert sorted(seen) == [
        ("one", 0, 0), ("one", 0, 1), ("three", 2, 0), ("two", 1, 0), ("two", 1, 1),
    ]  # fmt: skip


def test_calls_of_a_frame_are_counted_in_the_frame(workspace, calls) -> None:
    """The same inner call in two agent calls has occurrence 0 in both."""

    @toolkit.agent
    def twice(n: int) -> int:
        return add(n, 0) + add(n, 0)

    twice(1)
    twice(1)
    adds = [call.intent for call in calls() if call.intent.name == "add"]
    assert [intent.occurrence for intent in adds] == [0, 1, 0, 1]
    assert len({intent.parent for intent in adds}) == 2


def test_listeners_hear_every_call_and_cannot_break_one(workspace) -> None:
    """What the display gets; a display that fails is not the call's problem."""
    heard: list[CallEvent] = []

    def broken(event: CallEvent) -> None:
        raise RuntimeError("display")

    current().listeners += [broken, heard.append]

    @toolkit.agent
    def ask(question: str) -> str:
        return toolkit.model(question).text

    ask("hello")
    assert [(e.kind, e.name, e.depth) for e in heard] == [
        ("model", "default", 1),
        ("agent", "ask", 0),
    ]
    assert (heard[0].cost_usd, heard[0].state, heard[0].replayed) == ("0.000013", "ok", False)


def test_what_the_gateway_refuses_is_an_error_of_ours(workspace) -> None:
    """A body beyond 8 MiB is stopped here, with what to do instead."""
    with pytest.raises(UsageError, match="at most 8,388,608") as caught:
        toolkit.model("x" * (8 * 1024 * 1024))
    assert isinstance(caught.value, ToolkitError)
    assert "reference" in (caught.value.next_step or "")
