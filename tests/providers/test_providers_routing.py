"""Targets, retries, fallback, breakers, hedges: with scripted providers, a clock and dice by hand."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import CallDenied, InvalidAnswer, ProviderError, ToolkitError, UsageError
from toolkit.providers import (
    CallContext,
    Catalog,
    Delta,
    ModelAnswer,
    ModelRequest,
    Providers,
    RetryBudget,
    Route,
    RoutePrice,
    Router,
    Rules,
    ScriptedProvider,
    Target,
    When,
    attempts_of,
    charge_of,
    worst_case,
)
from toolkit.providers.attempts import Work
from toolkit.providers.choosing import eligible, in_order
from toolkit.providers.openai import OpenAIProvider
from toolkit.providers.prices import attempt_bound
from toolkit.providers.retries import backoff_s
from toolkit.providers.routes import BreakerRule, HedgeRule, RetryRule, Validation
from toolkit.providers.sender import Sender
from toolkit.values import DataClass, ManualClock, Money

pytestmark = pytest.mark.anyio
ASK = ModelRequest([{"role": "user", "content": "Hello?"}])
ALL = frozenset(
    {"connection", "cut", "timeout", "rate_limited", "server", "invalid_body",
     "invalid_answer", "refusal", "low_confidence"}
)  # fmt: skip
DOLLAR = RoutePrice(Decimal(1), Decimal(2))


class HalfRandom(random.Random):
    """Dice that always show the middle."""

    def random(self) -> float:
        return 0.5


@dataclass
class World:
    """Providers ``a``, ``b`` … with scripts, a clock that only sleeping moves, and a route."""

    scripts: dict[str, list[dict]]
    rules: Rules = field(default=Rules(fallback=ALL))  # noqa: RUF009 - frozen
    timeout_s: float = 60.0
    target: dict = field(default_factory=dict)
    naps: list[float] = field(default_factory=list)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.providers_ = {name: ScriptedProvider.of(rules) for name, rules in self.scripts.items()}
        targets = tuple(Target(name, "m", price=DOLLAR, **self.target) for name in self.scripts)
        self.route = Route("r", "a", "m", 64, timeout_s=self.timeout_s, price=DOLLAR,
                           targets=targets, rules=self.rules)  # fmt: skip
        catalog = Catalog(Path("models.yaml"), {}, {"r": self.route}, "r")
        router = Router(clock=self.clock, sleep=self.sleep, chance=HalfRandom())
        self.providers = Providers(catalog, environ={}, ready=self.providers_, router=router)

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.clock.advance(seconds=seconds)

    async def ask(self, request: ModelRequest = ASK, **given) -> ModelAnswer:
        return await self.providers.complete(self.route, request, **given)

    async def fail(self, request: ModelRequest = ASK, **given) -> ToolkitError:
        with pytest.raises(ToolkitError) as caught:
            await self.ask(request, **given)
        return caught.value

    @property
    def asked(self) -> str:
        """How often each was asked: ``a2 b1``."""
        return " ".join(f"{name}{len(p.requests)}" for name, p in self.providers_.items())


def fails(kind: str, times: int | None = None, **more: object) -> dict:
    return {"fail": kind, **more, **({"times": times} if times else {})}


FINE = {"text": "Fine."}


# -- retry ----------------------------------------------------------------------------------------


async def test_a_call_that_fails_for_a_moment_is_asked_again():
    """Waits double and are drawn; the attempts say why they were made."""
    world = World({"a": [fails("server", 2), FINE]},
                  Rules(RetryRule(3, base_s=1, max_s=8, jitter=0.5)))  # fmt: skip
    answer = await world.ask()
    assert answer.text == "Fine."
    assert world.naps == [0.75, 1.5]
    assert [attempt.reason for attempt in answer.attempts] == [
        None,
        "retry 2: server, waited 0.75 s",
        "retry 3: server, waited 1.5 s",
    ]
    assert [attempt.error is None for attempt in answer.attempts] == [False, False, True]
    assert answer.charged.usage == answer.usage


@given(st.integers(1, 10), st.floats(0, 1), st.integers(), st.floats(0.01, 10), st.floats(0, 90))
def test_a_wait_is_within_its_bounds(failed, jitter, seed, base, after):
    """Never above the cap, never below what jitter allows, never before `Retry-After`."""
    rule = RetryRule(5, base_s=base, max_s=max(base, 8), jitter=jitter)
    whole = min(base * 2 ** (failed - 1), rule.max_s)
    wait = backoff_s(rule, failed, None, random.Random(seed))
    assert whole * (1 - jitter) - 1e-9 <= wait <= whole
    assert backoff_s(rule, failed, after, random.Random(seed)) == max(wait, after)


async def test_without_a_rule_nothing_is_asked_twice():
    """A route as it was before: one attempt."""
    world = World({"a": [fails("server")]}, Rules())
    assert (await world.fail()).details["kind"] == "server"
    assert world.asked == "a1"


@pytest.mark.parametrize("kind", ["auth", "bad_request", "missing_model"])
async def test_what_will_fail_again_is_not_asked_again(kind):
    """A wrong key or request stays wrong."""
    world = World({"a": [fails(kind)]}, Rules(RetryRule(3)))
    assert (await world.fail()).details["kind"] == kind
    assert (world.asked, world.naps) == ("a1", [])


@pytest.mark.parametrize("kind", ["cut", "timeout", "invalid_body"])
async def test_what_may_have_been_billed_is_asked_again_only_if_the_route_says_so(kind):
    """`retry.billed` buys the further attempt, in the reservation too."""
    plain = World({"a": [fails(kind, 1), FINE]}, Rules(RetryRule(3)))
    assert (await plain.fail()).details["kind"] == kind
    assert plain.asked == "a1"
    paid = World({"a": [fails(kind, 1), FINE]}, Rules(RetryRule(3, billed=1)))
    answer = await paid.ask()
    cost, usage = attempt_bound(paid.route.legs()[0][1], ASK)
    assert answer.charged.usage.total_tokens == usage.total_tokens + answer.usage.total_tokens
    assert worst_case(paid.route, ASK) == (cost + cost, 2 * usage.total_tokens)


async def test_retry_after_is_obeyed():
    """The provider's wait takes the place of a shorter one of ours."""
    world = World({"a": [fails("rate_limited", 1, retry_after_s=20), FINE]}, Rules(RetryRule(2)))
    await world.ask()
    assert world.naps == [20]


@pytest.mark.parametrize(("after", "timeout_s"), [(61, 600), (59, 30)])
async def test_a_retry_after_that_is_too_long_ends_the_call_at_once(after, timeout_s):
    """Beyond 60 seconds, or beyond the route's time, nobody waits; the error says how long."""
    world = World({"a": [fails("rate_limited", retry_after_s=after)]},
                  Rules(RetryRule(3)), timeout_s)  # fmt: skip
    error = await world.fail()
    assert (world.naps, world.asked) == ([], "a1")
    assert error.details["retry_after_s"] == after


async def test_another_target_is_asked_instead_of_waiting_long():
    """`max_s` is the longest wait while there is somebody else."""
    world = World({"a": [fails("rate_limited", retry_after_s=20)], "b": [FINE]},
                  Rules(RetryRule(3, max_s=8), ALL))  # fmt: skip
    answer = await world.ask()
    assert (world.naps, world.asked) == ([], "a1 b1")
    assert answer.attempts[1].reason == "fallback: rate_limited"


async def test_a_run_has_one_budget_for_all_its_retries():
    """When it is used up, calls are asked once; answers earn a little back."""
    budget = RetryBudget(most=3, earned=0.5)
    world = World({"a": [fails("server", 8), FINE]}, Rules(RetryRule(3)))
    context = CallContext(run_id="run-1", retries=budget)
    for _ in range(5):
        await world.fail(context=context)
    assert (world.asked, budget.left) == ("a8", 0)
    await world.ask(context=context)
    assert budget.left == 0
    await world.ask(context=context)
    assert budget.left == 1


# -- fallback -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ALL - {"invalid_answer", "refusal", "low_confidence"}))
async def test_the_next_target_is_asked_after_each_kind_of_failure(kind):
    """The answer says who gave it and what happened before."""
    world = World({"a": [fails(kind)], "b": [FINE]})
    answer = await world.ask()
    assert answer.provider == "b"
    assert [(a.target, a.reason) for a in answer.attempts] == [
        ("a/m", None),
        ("b/m", f"fallback: {kind}"),
    ]


async def test_only_the_kinds_that_are_named_fall_back():
    """Another kind ends the call."""
    world = World({"a": [fails("timeout")], "b": [FINE]}, Rules(fallback=frozenset({"server"})))
    assert (await world.fail()).details["kind"] == "timeout"
    assert world.asked == "a1 b0"


async def test_when_all_fail_the_error_tells_every_attempt():
    """The last failure, with all attempts, also across pickling."""
    world = World({"a": [fails("server")], "b": [fails("connection")]})
    error = await world.fail()
    assert "the last of 2 attempts" in error.message
    assert [(a.target, a.reason) for a in attempts_of(error)] == [
        ("a/m", None),
        ("b/m", "fallback: server"),
    ]
    assert charge_of(error).cost == Money(0)


async def test_a_target_that_does_not_know_an_option_is_passed_over():
    """The request was not sent, so there is nothing to weigh."""
    world = World({"a": [FINE], "b": [FINE]}, Rules())
    request = ModelRequest(ASK.messages, extra={"thinking": {"type": "enabled"}})
    sender = Sender("http://127.0.0.1:9", {})
    world.providers = Providers(
        Catalog(Path("models.yaml"), {}, {}, "r"),
        environ={},
        ready={"a": OpenAIProvider(sender), "b": world.providers_["b"]},
    )
    answer = await world.ask(request)
    await sender.close()
    assert answer.attempts[1].reason == "fallback: usage"


@pytest.mark.parametrize("kind", ["cut", "server"])
async def test_nothing_follows_a_piece_that_was_passed_on(kind):
    """Neither a retry nor another target: the listener would hear two answers."""
    heard: list[Delta] = []

    async def listen(delta):
        heard.append(delta)

    world = World({"a": [fails(kind, text="It is")], "b": [FINE]},
                  Rules(RetryRule(3, billed=2), ALL))  # fmt: skip
    error = await world.fail(on_delta=listen)
    assert "".join(piece.text for piece in heard) == "It is"
    assert (world.asked, error.details["kind"]) == ("a1 b0", kind)


async def test_a_failure_before_the_first_piece_falls_back_in_a_stream_too():
    """Nobody has heard anything yet."""
    heard: list[Delta] = []

    async def listen(delta):
        heard.append(delta)

    world = World({"a": [fails("cut")], "b": [FINE]})
    await world.ask(on_delta=listen)
    assert "".join(piece.text for piece in heard) == "Fine."


async def test_a_route_has_one_time_for_all():
    """Retries and targets share `timeout_s`; a target without its own gets an equal part."""
    world = World({"a": [fails("server")], "b": [fails("server")], "c": [FINE]},
                  Rules(RetryRule(2, base_s=8, jitter=0), ALL), timeout_s=30)  # fmt: skip
    await world.ask()
    times = [
        round(route.timeout_s, 2) for p in world.providers_.values() for route, _ in p.requests
    ]
    assert times == [10, 7.33, 11, 7, 14]
    assert sum(world.naps) == 16


async def test_no_target_is_asked_after_the_time_is_over():
    """The error says that there was no time, not that nobody was there."""
    world = World({"a": [fails("server", 1), fails("server")], "b": [FINE]},
                  Rules(RetryRule(2, base_s=9.97, max_s=20, jitter=0), ALL), timeout_s=10)  # fmt: skip
    world.route = replace(world.route, targets=(
        *world.route.targets[:1], Target("b", "m", price=DOLLAR, timeout_s=5)))  # fmt: skip
    world.naps.clear()
    answer = await world.ask()
    assert answer.provider == "b"  # a wait that leaves no time is not begun
    assert world.naps == []


# -- choosing -------------------------------------------------------------------------------------

CHOICE = Route("r", "a", "m", 64, targets=(
    Target("a", "m", when=When(classes=frozenset({DataClass.PUBLIC}), region="eu"), price=DOLLAR),
    Target("b", "m", when=When(task=frozenset({"classify"}), max_input_tokens=50), price=DOLLAR),
    Target("c", "m", when=When(max_usd=Money.of_usd("0.0005")), price=DOLLAR),
    Target("d", "m"),
))  # fmt: skip


@pytest.mark.parametrize(
    ("context", "request_", "expected"),
    [
        (CallContext(), ASK, "acd"),
        (CallContext(classes=frozenset({DataClass.PUBLIC})), ASK, "acd"),
        (CallContext(classes=frozenset({DataClass.PUBLIC, DataClass.PII})), ASK, "cd"),
        (CallContext(region="eu"), ASK, "a"),
        (CallContext(task="classify"), ASK, "abcd"),
        (CallContext(task="write"), ASK, "acd"),
        (
            CallContext(task="classify"),
            ModelRequest([{"role": "user", "content": "x" * 200}]),
            "ad",
        ),
        (CallContext(max_usd=Money.of_usd("0.0004")), ASK, "ac"),
        (CallContext(targets=frozenset({"b/m", "d/m"})), ASK, "d"),
    ],
)
def test_conditions_choose_the_targets(context, request_, expected):
    """Class, region, task, length, cost and policy; an unknown price is above every ceiling."""
    found = eligible(CHOICE, request_, context)
    assert "".join(target.provider for target, _ in found) == expected


def test_a_call_that_no_target_takes_says_why_for_each():
    """Not one target less is named."""
    with pytest.raises(UsageError) as caught:
        eligible(CHOICE, ASK, CallContext(region="us", max_usd=Money(1)))
    assert len(caught.value.details["reasons"]) == 4
    assert "a/m is not known to be in us" in caught.value.message


async def test_a_call_that_no_target_takes_is_not_charged():
    """Nothing was sent."""
    error = await World({"a": [FINE]}).fail(context=CallContext(region="us"))
    assert charge_of(error).cost == Money(0)
    assert attempts_of(error) == ()


def test_weights_share_the_calls_and_the_others_come_after():
    """3 to 1 among those with weights; the one without is never first; a seed repeats the draw."""
    route = Route("r", "x", "m", 64, targets=(
        Target("backup", "m"), Target("x", "m", weight=3), Target("y", "m", weight=1)))  # fmt: skip
    found = eligible(route, ASK)
    chance = random.Random(7)
    orders = ["".join(t.provider[0] for t, _ in in_order(found, chance)) for _ in range(4000)]
    counts = Counter(orders)
    assert set(counts) == {"xyb", "yxb"}
    assert 0.72 < counts["xyb"] / 4000 < 0.78
    again = random.Random(7)
    assert orders == [
        "".join(t.provider[0] for t, _ in in_order(found, again)) for _ in range(4000)
    ]


def test_without_weights_the_list_is_the_order():
    """A plain chain."""
    assert [t.provider for t, _ in in_order(eligible(CHOICE, ASK), random.Random(1))] == list("acd")


# -- breaker --------------------------------------------------------------------------------------

BREAKER = BreakerRule(failures=2, window_s=30, open_s=15)


async def test_a_target_that_keeps_failing_is_left_alone_also_if_it_is_the_only_one():
    """The third call fails at once, and says when to come back."""
    world = World({"a": [fails("server")]}, Rules(breaker=BREAKER))
    for _ in range(2):
        await world.fail()
    error = await world.fail()
    assert (world.asked, error.details["kind"]) == ("a2", "breaker_open")
    assert error.details["retry_after_s"] == 15
    assert "left alone for another 15.0 s" in error.message
    assert [a.reason for a in attempts_of(error)] == ["breaker open: skipped"]
    assert charge_of(error).cost == Money(0)


async def test_one_call_tries_when_the_time_is_over():
    """Its failure opens the breaker again; its answer closes it."""
    world = World({"a": [fails("server", 3), FINE]}, Rules(breaker=BREAKER))
    for _ in range(2):
        await world.fail()
    world.clock.advance(seconds=15)
    assert (await world.fail()).details["kind"] == "server"
    assert (await world.fail()).details["kind"] == "breaker_open"
    world.clock.advance(seconds=15)
    assert (await world.ask()).text == "Fine."
    assert (await world.ask()).text == "Fine."
    assert world.asked == "a5"


async def test_while_one_call_tries_the_others_do_not():
    """Half open means one."""
    world = World({"a": [fails("server", 2), {"text": "Fine.", "delay_s": 0.05}]},
                  Rules(breaker=BREAKER))  # fmt: skip
    for _ in range(2):
        await world.fail()
    world.clock.advance(seconds=15)
    found = []

    async def one():
        try:
            found.append((await world.ask()).text)
        except ProviderError as error:
            found.append(error.details["kind"])

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
    assert sorted(found) == ["Fine."] + ["breaker_open"] * 4


async def test_a_trial_that_is_cancelled_lets_another_try():
    """Otherwise the target would never be asked again."""
    world = World({"a": [fails("server", 2), {"text": "slow", "delay_s": 30, "times": 1}, FINE]},
                  Rules(breaker=BREAKER))  # fmt: skip
    for _ in range(2):
        await world.fail()
    world.clock.advance(seconds=15)
    with anyio.move_on_after(0.05):
        await world.ask()
    assert (await world.ask()).text == "Fine."


async def test_the_others_are_asked_while_a_breaker_is_open():
    """The skipped target is in the record."""
    world = World({"a": [fails("server")], "b": [FINE]}, Rules(fallback=ALL, breaker=BREAKER))
    for _ in range(2):
        await world.ask()
    answer = await world.ask()
    assert world.asked == "a2 b3"
    assert [(a.target, a.reason) for a in answer.attempts] == [
        ("a/m", "breaker open: skipped"),
        ("b/m", None),
    ]


async def test_when_all_are_open_the_call_fails_at_once_with_the_soonest_time():
    """Nobody is asked, nobody waits."""
    world = World({"a": [fails("server")], "b": [fails("server")]},
                  Rules(fallback=ALL, breaker=BREAKER))  # fmt: skip
    await world.fail()
    world.clock.advance(seconds=5)
    await world.fail()
    world.clock.advance(seconds=3)
    error = await world.fail()
    assert (world.asked, world.naps) == ("a2 b2", [])
    assert error.details["retry_after_s"] == 12
    assert "each of its 2 targets" in error.message


@pytest.mark.parametrize("kind", ["bad_request", "auth", "missing_model"])
async def test_failures_that_are_ours_do_not_open_a_breaker(kind):
    """A wrong request says nothing about the target."""
    world = World({"a": [fails(kind)]}, Rules(breaker=BREAKER))
    assert [(await world.fail()).details["kind"] for _ in range(4)] == [kind] * 4


async def test_failures_long_ago_or_before_an_answer_do_not_count():
    """They have to be in a row and within the window."""
    world = World({"a": [fails("server", 1), FINE | {"times": 1}, fails("server", 1),
                         fails("server", 1), FINE]}, Rules(breaker=BREAKER))  # fmt: skip
    await world.fail()
    await world.ask()
    await world.fail()
    world.clock.advance(seconds=31)
    await world.fail()
    assert (await world.ask()).text == "Fine."


# -- hedging --------------------------------------------------------------------------------------

HEDGE = Rules(fallback=ALL, hedge=HedgeRule(after_s=2.0, most=1))
SLOW = {"text": "slow", "delay_s": 30}


async def test_a_slow_call_is_asked_elsewhere_and_the_first_answer_counts():
    """The loser is ended, and charged at its worst case."""
    world = World({"a": [SLOW], "b": [FINE]}, HEDGE)
    answer = await world.ask()
    assert (answer.text, answer.provider, world.naps) == ("Fine.", "b", [2.0])
    assert {(a.target, a.reason, a.error is None) for a in answer.attempts} == {
        ("b/m", "hedge", True),
        ("a/m", None, False),
    }
    bound = attempt_bound(world.route.legs()[0][1], ASK)[1]
    assert answer.charged.usage.total_tokens == bound.total_tokens + answer.usage.total_tokens


async def test_a_single_target_is_hedged_with_itself():
    """A second connection to the same model."""
    world = World({"a": [SLOW | {"times": 1}, FINE]}, HEDGE)
    assert (await world.ask()).text == "Fine."
    assert world.asked == "a2"


async def test_a_hedge_that_fails_does_not_end_the_first_attempt():
    """The slow one still may answer."""
    world = World({"a": [{"text": "slow", "delay_s": 0.1}], "b": [fails("server")]}, HEDGE)
    answer = await world.ask()
    assert answer.text == "slow"
    assert {a.reason for a in answer.attempts} == {None, "hedge"}


async def test_when_both_fail_the_next_target_is_asked():
    """A race is one step on the way."""
    world = World({"a": [{"fail": "server", "delay_s": 0.1}], "b": [fails("server")], "c": [FINE]},
                  HEDGE)  # fmt: skip
    assert (await world.ask()).provider == "c"


async def test_a_stream_is_won_by_its_first_piece():
    """Pieces of two answers never mix."""
    heard: list[Delta] = []

    async def listen(delta):
        heard.append(delta)
        await anyio.sleep(0.01)

    world = World({"a": [{"text": "one two three", "delay_s": 0.05}], "b": [SLOW]}, HEDGE)
    answer = await world.ask(on_delta=listen)
    assert "".join(piece.text for piece in heard) == answer.text == "one two three"
    assert {a.error for a in answer.attempts if a.target == "b/m"} == {
        "cancelled: it was not needed any more"
    }


async def test_a_run_without_retries_left_is_not_hedged():
    """Hedges come out of the same budget."""
    world = World({"a": [{"text": "slow", "delay_s": 0.05}], "b": [FINE]}, HEDGE)
    budget = RetryBudget(most=0)
    assert (await world.ask(context=CallContext(retries=budget))).text == "slow"
    assert world.asked == "a1 b0"


# -- good enough ----------------------------------------------------------------------------------

COLOUR = ModelRequest(
    ASK.messages,
    schema={"type": "object", "properties": {"c": {"enum": ["red", "blue"]}}, "required": ["c"]},
)


def checked(**rule: object) -> Rules:
    return Rules(fallback=ALL, validation=Validation(**rule))


async def test_an_answer_that_does_not_fit_goes_to_the_next_target():
    """Both are charged."""
    world = World({"a": [{"text": "green"}], "b": [{"data": {"c": "red"}}]})
    answer = await world.ask(COLOUR)
    assert answer.data == {"c": "red"}
    assert answer.attempts[1].reason == "fallback: invalid_answer"
    assert answer.charged.usage.output_tokens == 1 + answer.usage.output_tokens


@pytest.mark.parametrize(
    "poor",
    [
        {"refusal": "No."},
        {"text": "x", "finish_reason": "content_filter"},
        {"text": "I'm sorry, but I can't help with that."},
        {"text": "I cannot assist with this request."},
        {"text": "As an AI language model, I am unable to provide that."},
        {"text": "Sorry, I won’t do that."},
        {"text": "Unfortunately, I'm not able to share it."},
    ],
)
async def test_a_refusal_goes_to_the_next_target(poor):
    """Told by the provider, or by how the text begins; without the rule it is an answer."""
    world = World({"a": [poor], "b": [FINE]}, checked(refusal=True))
    assert (await world.ask()).attempts[1].reason == "fallback: refusal"
    assert (await World({"a": [poor]}, Rules()).ask()).provider == "a"


@pytest.mark.parametrize(
    "text",
    [
        "Sorry to hear that. Here is the answer: 5.",
        "The clerk said: I'm sorry, but I can't help with that.",
        "I can help with that.",
        "I will not only list them but rank them.",
        "I cannot overstate how good it is.",
        "",
    ],
)
async def test_other_texts_are_no_refusals(text):
    """The rule looks at the beginning only."""
    world = World({"a": [{"text": text}], "b": [FINE]}, checked(refusal=True))
    assert (await world.ask()).text == text


@pytest.mark.parametrize(
    ("values", "provider"), [([-0.1, -0.2], "a"), ([-3, -1], "b"), (None, "b")]
)
async def test_an_answer_without_enough_confidence_goes_to_the_next_target(values, provider):
    """The mean counts; a provider that gives none is not believed."""
    script = {"text": "x", **({"logprobs": values} if values else {})}
    world = World({"a": [script], "b": [FINE | {"logprobs": [-0.5]}]}, checked(min_logprob=-1.5))
    assert (await world.ask()).provider == provider
    assert world.providers_["a"].requests[0][1].extra == {"logprobs": True}


async def test_a_function_answers_when_no_model_does():
    """`first_enum` takes what the schema allows; the models' attempts are charged."""
    world = World(
        {"a": [{"text": "?"}], "b": [{"text": "?"}]}, checked(otherwise="function:first_enum")
    )
    answer = await world.ask(COLOUR)
    assert (answer.provider, answer.model, answer.data) == ("function", "first_enum", {"c": "red"})
    assert len(answer.attempts) == 2
    assert answer.charged.usage.output_tokens == 2


async def test_a_constant_answers_only_if_it_fits():
    """A value that breaks the promise of the schema is no answer."""
    rule = {"otherwise": "function:constant"}
    fits = World({"a": [{"text": "?"}]}, checked(**rule, value={"c": "blue"}))
    assert (await fits.ask(COLOUR)).data == {"c": "blue"}
    wrong = World({"a": [{"text": "?"}]}, checked(**rule, value={"c": "green"}))
    assert (await wrong.fail(COLOUR)).details["kind"] == "invalid_answer"


async def test_a_person_is_asked_for_when_no_model_does():
    """The error says so; the gateway turns it into a question."""
    world = World({"a": [{"text": "?"}], "b": [fails("server")]}, checked(otherwise="person"))
    error = await world.fail(COLOUR)
    assert isinstance(error, InvalidAnswer)
    assert (error.details["kind"], error.details["failed_as"]) == ("needs_person", "invalid_answer")


async def test_an_answer_that_was_streamed_cannot_be_taken_back():
    """It is an error, and no function puts another beside it."""

    async def listen(_):
        pass

    world = World({"a": [{"text": "?"}], "b": [FINE]}, checked(otherwise="function:first_enum"))
    assert (await world.fail(COLOUR, on_delta=listen)).details["kind"] == "invalid_answer"
    assert world.asked == "a1 b0"


# -- budgets --------------------------------------------------------------------------------------

KINDS = ["connection", "cut", "timeout", "rate_limited", "server", "invalid_body", "auth"]
answers = st.one_of(
    st.sampled_from(KINDS).map(lambda kind: {"fail": kind}),
    st.just({"text": "I cannot help.", "input_tokens": 5, "output_tokens": 64}),
    st.just({"text": "Fine.", "input_tokens": 150, "output_tokens": 64}),
    st.just({"text": "Fine.", "delay_s": 0.002}),
)


@settings(max_examples=150)
@given(
    st.lists(st.lists(answers, min_size=1, max_size=6), min_size=1, max_size=3),
    st.builds(RetryRule, attempts=st.integers(1, 4), billed=st.just(0) | st.integers(0, 3)),
    st.none() | st.builds(HedgeRule, after_s=st.just(0.001), most=st.integers(1, 3)),
    st.just(ALL) | st.sets(st.sampled_from(sorted(ALL))).map(frozenset),
    st.lists(st.integers(0, 50), min_size=3, max_size=3),
)
def test_no_course_of_events_costs_more_than_the_worst_case(
    scripts, retry, hedge, fallback, prices
):
    """Retries, fallbacks and hedges together stay within what was reserved, in tokens and money."""
    named = {"abc"[n]: [a | {"times": 1} for a in s] for n, s in enumerate(scripts)}
    rules = Rules(retry, fallback, hedge=hedge, validation=Validation(refusal=True))
    world = World(named, rules, timeout_s=600)
    targets = tuple(
        replace(target, price=RoutePrice(Decimal(cost), Decimal(cost)))
        for target, cost in zip(world.route.targets, prices, strict=False)
    )
    world.route = replace(world.route, targets=targets)
    most, tokens = worst_case(world.route, ASK)

    async def run():
        try:
            return (await world.ask()).charged
        except ToolkitError as error:
            return charge_of(error)

    charged = anyio.run(run)
    assert charged.usage.total_tokens <= tokens
    assert charged.cost <= most


async def test_an_attempt_that_the_reserve_does_not_cover_is_not_made():
    """The router holds each attempt against the bound, and does not trust in its formula."""
    world = World({"a": [fails("cut")], "b": [FINE]})
    legs = world.route.legs()

    async def ask(leg, _):
        return await world.providers_[leg.provider].complete(leg, ASK)

    cost, usage = attempt_bound(legs[0][1], ASK)
    bound = lambda leg: attempt_bound(leg, ASK)  # noqa: E731
    small = Work(ask, bound, lambda: (cost + cost, 2 * usage.total_tokens - 1), lambda _: None)
    with pytest.raises(ProviderError) as caught:
        await Router(clock=world.clock).run(world.route, legs, small)
    assert world.asked == "a1 b0"
    assert attempts_of(caught.value)[1].reason == "reserve used up: skipped"
    enough = replace(small, most=lambda: (cost + cost, 2 * usage.total_tokens))
    assert (await Router(clock=world.clock).run(world.route, legs, enough)).text == "Fine."


# -- stops under way --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scripts", "rules", "asked"),
    [
        ({"a": [fails("server")]}, Rules(RetryRule(5, base_s=1, max_s=1)), "a1"),
        ({"a": [fails("server")], "b": [FINE]}, Rules(fallback=ALL), "a1 b0"),
    ],
    ids=["retry", "fallback"],
)
async def test_nothing_is_asked_again_once_a_call_is_halted(scripts, rules, asked):
    """The first attempt was allowed with the call; the reason takes the place of the failure."""
    world, looked = World(scripts, rules), []

    async def halted():
        looked.append(world.asked)
        return CallDenied("route:r was stopped", details={"kind": "stopped"})

    error = await world.fail(context=CallContext(halted=halted))
    assert (error.message, world.asked, len(looked)) == ("route:r was stopped", asked, 1)
    last = error.details["attempts"][-1]
    assert (last["reason"], last["error"]) == ("stopped: skipped", "route:r was stopped")
    assert "cost_nanos" in error.details


async def test_a_call_that_is_not_halted_is_asked_again():
    """Looked at before each further attempt, after its waiting."""
    world, naps = World({"a": [fails("server", 2), FINE]}, Rules(RetryRule(3, base_s=1))), []

    async def halted():
        naps.append(len(world.naps))

    assert (await world.ask(context=CallContext(halted=halted))).text == "Fine."
    assert naps == [1, 2]
