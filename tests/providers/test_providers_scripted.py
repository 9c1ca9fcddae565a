"""Scripted answers: the public test double, also from a file."""

from __future__ import annotations

import pytest

from toolkit.errors import InvalidAnswer, InvalidFile, NotFound, ProviderError
from toolkit.providers import ModelRequest, Providers, Route, ScriptedProvider, worst_case
from toolkit.values import Money, Usage

pytestmark = pytest.mark.anyio
ROUTE = Route("r", "p", "m1", 64)


def ask(text: str, **fields: object) -> ModelRequest:
    return ModelRequest([{"role": "user", "content": text}], **fields)


async def test_texts_come_one_after_the_other_and_the_last_stays():
    """`saying` answers in order."""
    provider = ScriptedProvider.saying("one", "two")
    texts = [(await provider.complete(ROUTE, ask("?"))).text for _ in range(4)]
    assert texts == ["one", "two", "two", "two"]
    assert len(provider.requests) == 4


async def test_the_first_rule_that_fits_answers():
    """Conditions on text, route and turn are combined; used-up rules are passed over."""
    provider = ScriptedProvider.of(
        [
            {"when": {"contains": "MIT", "route": "r"}, "text": "mit"},
            {"when": {"contains": "MIT"}, "text": "elsewhere"},
            {"when": {"turn": 3}, "text": "third"},
            {"text": "once", "times": 1},
            {"text": "else"},
        ]
    )
    other = Route("s", "p", "m1", 64)
    asked = [(ROUTE, "a"), (ROUTE, "b"), (ROUTE, "c"), (ROUTE, "the MIT text"), (other, "MIT")]
    texts = [(await provider.complete(route, ask(text))).text for route, text in asked]
    assert texts == ["once", "else", "third", "mit", "elsewhere"]


async def test_failures_and_what_follows_them():
    """A rule may fail with any kind, a number of times."""
    provider = ScriptedProvider.of(
        [{"fail": "rate_limited", "retry_after_s": 2, "times": 1}, {"text": "fine"}]
    )
    with pytest.raises(ProviderError) as caught:
        await provider.complete(ROUTE, ask("?"))
    assert (caught.value.details["kind"], caught.value.details["retry_after_s"]) == (
        "rate_limited",
        2,
    )
    assert (await provider.complete(ROUTE, ask("?"))).text == "fine"


async def test_a_delay_beyond_the_timeout_is_a_timeout():
    """The route's timeout holds for scripts too."""
    provider = ScriptedProvider.of([{"text": "late", "delay_s": 60}])
    with pytest.raises(ProviderError) as caught:
        await provider.complete(Route("r", "p", "m", 1, timeout_s=0.02), ask("?"))
    assert caught.value.details["kind"] == "timeout"


async def test_no_rule_that_fits_is_an_error():
    """A script never makes an answer up."""
    provider = ScriptedProvider.of([{"when": {"contains": "x"}, "text": "y"}])
    with pytest.raises(ProviderError, match="no rule of the script fits call 1"):
        await provider.complete(ROUTE, ask("?"))


SCRIPT = """\
answers:
  - when: {contains: MIT}
    data: {spdx: MIT}
    input_tokens: 11
    output_tokens: 2
  - when: {contains: weather}
    tool_calls: [{name: look, arguments: {city: Paris}}]
  - data: {wrong: 1}
"""


async def test_a_catalog_can_name_a_script(write_catalog):
    """A product's test needs no more than a models.yaml: answers, tool calls, bad answers."""
    catalog = write_catalog("kind: scripted, script: script.yaml", script=SCRIPT)
    providers = Providers(catalog, environ={})
    schema = {"type": "object", "required": ["spdx"]}
    route = catalog.route(None)
    answer = await providers.complete(route, ask("MIT", schema=schema))
    assert (answer.data, answer.usage) == ({"spdx": "MIT"}, Usage(11, 2))
    called = await providers.complete(route, ask("weather?", schema=schema))
    assert called.tool_calls[0]["function"] == {"name": "look", "arguments": '{"city": "Paris"}'}
    assert called.finish_reason == "tool_calls"
    with pytest.raises(InvalidAnswer, match="'spdx' is a required property"):
        await providers.complete(route, ask("?", schema=schema))
    assert worst_case(route, ask("?"))[0] == Money(0)


@pytest.mark.parametrize(
    "rule", ["{}", "{data: 1, fail: server}", "{fail: nonsense}", "{text: a, colour: red}"]
)
async def test_faults_of_a_script_are_found(write_catalog, rule):
    """A rule says one thing, in known words."""
    catalog = write_catalog("kind: scripted, script: s.yaml", s=f"answers:\n  - {rule}\n")
    with pytest.raises(InvalidFile, match=r"s.yaml:2 answers.0"):
        await Providers(catalog, environ={}).complete(catalog.route(None), ask("?"))


async def test_a_missing_script_names_its_path(write_catalog):
    """NotFound tells where the script was looked for."""
    catalog = write_catalog("kind: scripted, script: none.yaml")
    with pytest.raises(NotFound, match=r"none\.yaml"):
        await Providers(catalog, environ={}).complete(catalog.route(None), ask("?"))


async def test_ready_providers_take_the_place_of_built_ones(write_catalog):
    """An embedding program can hand in its own provider under a catalog's name."""
    catalog = write_catalog("kind: local")
    mine = ScriptedProvider.saying("mine")
    providers = Providers(catalog, environ={}, ready={"p": mine})
    assert (await providers.complete(catalog.route(None), ask("?"))).text == "mine"
