"""Routes with targets as models.yaml writes them, options that are passed on, and embeddings."""

from __future__ import annotations

import math

import pytest
from outage_upstream import Say, running_upstream

from toolkit.errors import InvalidFile, ProviderError, UsageError
from toolkit.providers import (
    CallContext,
    Catalog,
    LocalProvider,
    ModelRequest,
    Providers,
    Route,
    ScriptedProvider,
    charge_of,
    embedding_worst_case,
)
from toolkit.providers.choosing import embedding_legs
from toolkit.values import DataClass, Money, Usage

ASK = ModelRequest([{"role": "user", "content": "Hello?"}])
HEAD = """
providers:
  house: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}
  openai: {kind: openai}
  anthropic: {kind: anthropic}
default_route: careful
routes:
"""
FULL = """
  careful:
    targets:
      - {provider: house, model: "qwen3:8b", weight: 3, when: {classes: [public, internal],
         max_input_tokens: 8000, task: [classify], max_usd: "0.01", region: eu}}
      - {provider: openai, model: gpt-4o-mini, timeout_s: 20, first_byte_s: 5}
    max_tokens: 1024
    retry: {attempts: 3, base_s: 0.5, max_s: 8, jitter: 0.5}
    fallback: [connection, timeout, rate_limited, server, invalid_body, invalid_answer, refusal,
      low_confidence]
    breaker: {failures: 5, window_s: 30, open_s: 15}
    hedge: {after_s: 2.0, most: 1}
    first_byte_s: 10
    timeout_s: 60
    validate: {schema: true, refusal: true, min_logprob: -1.5, otherwise: person}
"""


def load(tmp_path, text):
    path = tmp_path / "models.yaml"
    path.write_text(HEAD + text)
    return Catalog.load(path)


def test_a_route_with_everything_is_read(tmp_path):
    """Every member arrives where it belongs; the first target is the route's own."""
    route = load(tmp_path, FULL).route(None)
    assert route.target == "house/qwen3:8b"
    first, second = route.targets
    assert first.weight == 3
    assert first.when.classes == {DataClass.PUBLIC, DataClass.INTERNAL}
    assert first.when.max_usd == Money.of_usd("0.01")
    assert (first.when.task, first.when.region) == (frozenset({"classify"}), "eu")
    assert second.price_provider == "openai"
    assert (route.rules.retry.jitter, route.rules.retry.billed) == (0.5, 0)
    assert (route.rules.breaker.failures, route.rules.hedge.after_s) == (5, 2.0)
    assert (route.rules.validation.min_logprob, route.rules.validation.otherwise) == (
        -1.5,
        "person",
    )
    legs = [leg for _, leg in route.legs()]
    assert [(leg.timeout_s, leg.first_byte_s) for leg in legs] == [(60, 10), (20, 5)]


def test_the_old_form_is_one_target(tmp_path):
    """Rules may stand beside it."""
    text = "  careful: {provider: openai, model: m, max_tokens: 9, retry: {}, breaker: {}}\n"
    route = load(tmp_path, text).route(None)
    assert [leg for _, leg in route.legs()] == [route]
    assert (route.rules.retry.attempts, route.rules.breaker.open_s) == (3, 15)


def test_a_list_of_targets_falls_back_unless_it_says_otherwise(tmp_path):
    """The usual kinds are meant; an empty list means none."""
    targets = "targets: [{provider: house, model: a}, {provider: house, model: b}], max_tokens: 9"
    usual = load(tmp_path, f"  careful: {{{targets}}}\n").route(None)
    assert {"timeout", "cut", "refusal"} <= usual.rules.fallback
    assert "auth" not in usual.rules.fallback
    none = load(tmp_path, f"  careful: {{{targets}, fallback: []}}\n").route(None)
    assert none.rules.fallback == frozenset()


ONE = "provider: openai, model: m, max_tokens: 9"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("max_tokens: 9", "provider is missing"),
        (ONE + ", targets: [{provider: house, model: a}]", "belongs into each of the targets"),
        ("max_tokens: 9, targets: []", "targets"),
        ("max_tokens: 9, targets: [{provider: nobody, model: a}]", "names the provider 'nobody'"),
        (
            "max_tokens: 9, targets: [{provider: house, model: a}, {provider: house, model: a}]",
            "two targets are the same",
        ),
        (ONE + ", fallback: [timeout]", "needs a second target"),
        (ONE + ", fallback: [sunshine]", "fallback"),
        (ONE + ", retry: {attempts: 0}", "retry.attempts"),
        (ONE + ", retry: {attempts: 2, billed: 2}", "billed has to be less than attempts"),
        (ONE + ", retry: {base_s: 9, max_s: 1}", "base_s has to be at most max_s"),
        (ONE + ", hedge: {}", "hedge.after_s"),
        (ONE + ", validate: {otherwise: 'os:system'}", "otherwise has to be one of"),
        (ONE + ", validate: {otherwise: 'function:constant'}", "value is what"),
        (ONE + ", validate: {schema: false}", "validate.schema"),
        (
            "provider: anthropic, model: m, max_tokens: 9, validate: {min_logprob: -1}",
            "gives no log-probabilities",
        ),
        (
            "max_tokens: 9, targets: [{provider: house, model: a, when: {max_usd: '-1'}}]",
            "is below 0",
        ),
        (
            "max_tokens: 9, targets: [{provider: house, model: a, when: {classes: [secret]}}]",
            "classes",
        ),
    ],
)
def test_faults_of_a_route_are_named(tmp_path, fields, problem):
    """Each with its place in the file."""
    with pytest.raises(InvalidFile) as caught:
        load(tmp_path, f"  careful: {{{fields}}}\n")
    assert problem in str(caught.value)
    assert "careful" in str(caught.value)


# -- options --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as running:
        yield running


@pytest.fixture
async def world(upstream, tmp_path):
    """Routes `openai` and `anthropic` to the upstream."""
    path = tmp_path / "models.yaml"
    path.write_text(
        f"providers:\n  o: {{kind: openai, base_url: '{upstream.openai_url}'}}\n"
        f"  a: {{kind: anthropic, base_url: '{upstream.anthropic_url}'}}\n"
        "routes:\n"
        "  openai: {provider: o, model: m1, max_tokens: 64,\n"
        "    price: {input_per_million_usd: 1, output_per_million_usd: 1}}\n"
        "  anthropic: {provider: a, model: m1, max_tokens: 64}\n"
        "default_route: openai\n"
    )
    catalog = Catalog.load(path)
    providers = Providers(catalog, environ={})
    yield catalog, providers
    await providers.close()


@pytest.mark.anyio
async def test_options_are_passed_on_to_openai(world, upstream):
    """By their names; they cannot take the place of what the route decides."""
    catalog, providers = world
    extra = {
        "top_p": 0.5,
        "presence_penalty": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_object"},
        "parallel_tool_calls": False,
        "user": "u-1",
        "n": 1,
        "store": False,
    }
    upstream.tell("x")
    await providers.complete(catalog.route("openai"), ModelRequest(ASK.messages, extra=extra))
    body = upstream.heard[-1].body
    sent = {name: value for name, value in extra.items() if name not in ("n", "store")}
    assert {name: body.get(name) for name in sent} == sent
    assert "n" not in body
    assert "store" not in body


@pytest.mark.anyio
async def test_options_are_translated_for_anthropic_or_refused(world, upstream):
    """`user` and `parallel_tool_calls` have other names there; penalties have none."""
    catalog, providers = world
    tools = [{"type": "function", "function": {"name": "look"}}]
    extra = {"top_p": 0.5, "user": "u-1", "parallel_tool_calls": False, "presence_penalty": 0}
    upstream.tell("x")
    request = ModelRequest(ASK.messages, tools=tools, extra=extra)
    await providers.complete(catalog.route("anthropic"), request)
    body = upstream.heard[-1].body
    assert (body["top_p"], body["metadata"]) == (0.5, {"user_id": "u-1"})
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "presence_penalty" not in body
    heard = len(upstream.heard)
    with pytest.raises(UsageError, match="does not know presence_penalty") as caught:
        request = ModelRequest(ASK.messages, extra={"presence_penalty": 1})
        await providers.complete(catalog.route("anthropic"), request)
    assert charge_of(caught.value).cost == Money(0)
    assert len(upstream.heard) == heard


@pytest.mark.parametrize(
    "extra",
    [
        {"n": 2},
        {"n": True},
        {"best_of": 3},
        {"service_tier": "priority"},
        {"prediction": {}},
        {"store": True},
        {"top_p": 2},
        {"logprobs": "yes"},
        {"top_logprobs": 21},
        {"response_format": {"type": "json_schema"}},
        {"model": "other"},
        {"messages": []},
        {"stream": True},
        [],
    ],
)
def test_options_that_would_escape_the_bound_or_the_route_are_refused(extra):
    """By name, when the request is made."""
    with pytest.raises(UsageError, match="this is not a model call"):
        ModelRequest(ASK.messages, extra=extra)


# -- embeddings -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_embeddings_come_in_the_order_of_the_texts(world, upstream):
    """With tokens, price, attempts, and within the bound."""
    catalog, providers = world
    upstream.tell(Say())
    route = catalog.route("openai")
    texts = ["one two", "three", "one two"]
    answer = await providers.embed(route, texts)
    assert answer.vectors[0] == answer.vectors[2] != answer.vectors[1]
    assert (answer.usage, answer.usage_estimated) == (Usage(5), False)
    assert answer.charged.cost == Money.of_usd("0.000005")
    assert [attempt.target for attempt in answer.attempts] == ["o/m1"]
    cost, tokens = embedding_worst_case(route, texts)
    assert answer.charged.cost <= cost
    assert tokens >= 5


@pytest.mark.parametrize(
    "body",
    [b'{"data": []}', b'{"data": [{"embedding": []}]}', b'{"data": [{"embedding": [NaN]}]}', b"{}"],
)
@pytest.mark.anyio
async def test_missing_vectors_are_an_invalid_body(world, upstream, body):
    """One vector for each text, of finite numbers."""
    catalog, providers = world
    upstream.tell(Say(body=body))
    with pytest.raises(ProviderError) as caught:
        await providers.embed(catalog.route("openai"), ["a"])
    assert caught.value.details["kind"] == "invalid_body"


@pytest.mark.parametrize("texts", [[], "text", [1], None])
@pytest.mark.anyio
async def test_embeddings_need_texts(world, texts):
    """The caller's types are not believed."""
    catalog, providers = world
    with pytest.raises(UsageError, match="at least one text"):
        await providers.embed(catalog.route("openai"), texts)


@pytest.mark.anyio
async def test_who_has_no_embeddings_says_so(world):
    """Anthropic and the local model."""
    catalog, providers = world
    with pytest.raises(UsageError, match="has no embeddings"):
        await providers.embed(catalog.route("anthropic"), ["a"])
    with pytest.raises(UsageError, match="has no embeddings"):
        await LocalProvider().embed(Route("r", "local", "m", 4), ["a"])


@pytest.mark.anyio
async def test_scripted_embeddings_know_common_words():
    """Deterministic, of length one, and nearer for texts that share words."""
    provider = ScriptedProvider.saying("unused")
    route = Route("r", "p", "m", 4)
    one, two, other, empty = (
        await provider.embed(route, ["red green blue", "red green grey", "a dog barks", ""])
    ).vectors
    assert (await provider.embed(route, ["red green blue"])).vectors == [one]
    near = sum(a * b for a, b in zip(one, two, strict=True))
    far = sum(a * b for a, b in zip(one, other, strict=True))
    assert near > far + 0.2
    assert all(math.isclose(math.hypot(*v), 1) for v in (one, two, other, empty))


EMBEDDING = """
  careful:
    max_tokens: 9
    targets:
      - {provider: house, model: e1, when: {classes: [public], max_input_tokens: 20, region: eu}}
      - {provider: openai, model: e1, when: {classes: [public, pii], task: [search],
         max_usd: "0.001"}, price: {input_per_million_usd: 10, output_per_million_usd: 10}}
      - {provider: openai, model: e2}
"""


@pytest.mark.parametrize(
    ("text", "context", "targets"),
    [
        ("a", CallContext(), ["house/e1"]),
        ("a", CallContext(task="search"), ["house/e1", "openai/e1"]),
        ("a" * 80, CallContext(task="search"), ["openai/e1"]),
        ("a" * 200, CallContext(task="search"), []),
        ("a", CallContext(task="search", classes=frozenset({DataClass.PII})), ["openai/e1"]),
        ("a", CallContext(classes=frozenset({DataClass.PII})), []),
        ("a", CallContext(task="search", region="eu"), ["house/e1"]),
        ("a", CallContext(region="us"), []),
        ("a", CallContext(targets=frozenset({"openai/e2"})), []),
    ],
)
@pytest.mark.anyio
async def test_conditions_hold_for_embeddings(tmp_path, text, context, targets):
    """A target takes the texts that it would take as a question; the model stays the first one's."""
    catalog = load(tmp_path, EMBEDDING)
    route = catalog.route(None)
    if targets:
        assert [leg.target for _, leg in embedding_legs(route, [text], context)] == targets
        assert embedding_worst_case(route, [text], context)[1] >= 16 + len(text)
        return
    for ask in (embedding_legs, embedding_worst_case):
        with pytest.raises(UsageError, match="no target of the route careful takes this call"):
            ask(route, [text], context)
    providers = Providers(catalog, environ={})
    with pytest.raises(UsageError, match="no target of the route careful") as caught:
        await providers.embed(route, [text], context=context)
    assert caught.value.details["attempts"] == []
    await providers.close()
