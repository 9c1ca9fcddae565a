"""The outage drill: real sockets, and the table in docs/outages.md says what is seen here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from outage_upstream import HANG, OutageUpstream, Say, closed_port, running_upstream

from toolkit.errors import ToolkitError
from toolkit.providers import Catalog, ModelRequest, Providers, attempts_of, charge_of, worst_case
from toolkit.values import Money

PAGE = Path(__file__).parents[2] / "docs" / "outages.md"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ASK = ModelRequest([{"role": "user", "content": "Hello?"}], schema=SCHEMA)
FINE = Say('{"a": 1}')
RETRY = "retry: {attempts: 3, base_s: 0.01, max_s: 0.2}"
SHORT = 0.3


@dataclass(frozen=True)
class Outage:
    """What the first target does, again and again or as listed; where it is, if not upstream."""

    says: tuple[Say, ...] = ()
    url: str | None = None
    stream: bool = False


def outages(closed: int) -> dict[str, Outage]:
    broken = b"data: {nonsense\n\n"
    return {
        "429 with `Retry-After: 0.1`, once": Outage((Say(status=429, retry_after_s=0.1), FINE)),
        "429 with `Retry-After: 90`": Outage((Say(status=429, retry_after_s=90),)),
        "500, twice": Outage((Say(status=500), Say(status=500), FINE)),
        "500, all the time": Outage((Say(status=500),)),
        "503 with `Retry-After: 0.1`, once": Outage((Say(status=503, retry_after_s=0.1), FINE)),
        "401": Outage((Say(status=401),)),
        "nobody listens at the address": Outage(url=f"http://127.0.0.1:{closed}"),
        "the name is not known to the DNS": Outage(url="http://no-such-host.invalid"),
        "hangs up without an answer": Outage((Say(hang_up=True),)),
        "hangs: no byte ever": Outage((HANG,)),
        "first byte too late": Outage((Say('{"a": 1}', first_byte_s=SHORT * 3),)),
        "slow drip, never done": Outage((Say("1 " * 400, between_s=0.05),)),
        "cut in the middle, nobody had heard a piece": Outage((Say('{"a": 1}', cut_after=1),)),
        "cut in the middle of a stream": Outage((Say('{"a": 1}', cut_after=2),), stream=True),
        "not JSON": Outage((Say(body=b"<html>Bad gateway</html>"),)),
        "broken events": Outage((Say(body=broken, content_type="text/event-stream"),)),
        "the answer does not fit the schema": Outage((Say('{"a": "x"}'),)),
    }


NAMES = list(outages(0))


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def closed():
    return closed_port()


def catalog(folder: Path, first: str, second: str) -> Catalog:
    """Two routes: `alone` has the first target only, `both` has the two."""
    times = f"timeout_s: {SHORT * 4}, first_byte_s: {SHORT}"
    path = folder / "models.yaml"
    path.write_text(
        f"providers:\n  p: {{kind: openai, base_url: '{first}/v1'}}\n"
        f"  q: {{kind: openai, base_url: '{second}/v1'}}\n"
        "routes:\n"
        f"  alone: {{provider: p, model: first, max_tokens: 64, {times}, {RETRY},\n"
        "          price: {input_per_million_usd: 1, output_per_million_usd: 1}}\n"
        f"  both:\n    max_tokens: 64\n    timeout_s: {SHORT * 8}\n    first_byte_s: {SHORT}\n"
        f"    {RETRY}\n    targets:\n"
        + "".join(
            f"      - {{provider: {p}, model: {m}, timeout_s: {SHORT * 4},\n"
            "         price: {input_per_million_usd: 1, output_per_million_usd: 1}}\n"
            for p, m in (("p", "first"), ("q", "second"))
        )
        + "default_route: alone\n"
    )
    return Catalog.load(path)


async def seen(outage: Outage, route: str, upstream: OutageUpstream, folder: Path) -> list[str]:
    """Play an outage through a route and tell in words what came of it."""
    upstream.tell(*outage.says or (FINE,), model="first")
    upstream.tell(FINE, model="second")
    models = catalog(folder, outage.url or upstream.url, upstream.url)
    providers = Providers(models, environ={})
    heard: list[str] = []

    async def listen(delta):
        heard.append(delta.text)

    try:
        answer = await providers.complete(
            models.route(route), ASK, listen if outage.stream else None
        )
    except ToolkitError as error:
        attempts, charge = attempts_of(error), charge_of(error)
        told = f"error `{error.details['kind']}`"
        assert error.next_step  # noqa: PT017
        assert error.__cause__ is None  # noqa: PT017
    else:
        attempts, charge = answer.attempts, answer.charged
        told = "answer" + (" of the next target" if answer.provider == "q" else "")
    finally:
        await providers.close()
    times = f"{len(attempts)} attempt{'s' * (len(attempts) > 1)}"
    most = worst_case(models.route(route), ASK)
    assert charge.cost <= most[0]
    assert all(attempt.reason for attempt in attempts[1:])
    return [f"{told}, {times}", _charged(charge.cost, attempts, models, upstream)]


def _charged(cost: Money, attempts, models: Catalog, upstream: OutageUpstream) -> str:
    bound = worst_case(models.route("alone"), ASK)[0]
    if cost == Money(0):
        return "nothing"
    return "worst case" if cost >= bound else "tokens used"


def table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    cells = [row.split(" | ") for row in rows]
    return {row[0]: row[1:] for row in cells if row[0] in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.anyio
async def test_each_outage_ends_as_the_table_says(name, upstream, closed, tmp_path):
    """One target, two targets, and what one target is charged: as documented."""
    outage = outages(closed)[name]
    alone, charged = await seen(outage, "alone", upstream, tmp_path)
    both, _ = await seen(outage, "both", upstream, tmp_path)
    assert [alone, both, charged] == table().get(name)


def test_the_table_has_every_outage_and_no_other():
    """A row cannot be left over from a drill that is gone."""
    section = PAGE.read_text("utf-8").partition("## Providers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section, re.MULTILINE)
    assert rows[1:] == NAMES


@pytest.mark.anyio
async def test_when_all_targets_are_down_the_call_says_so_for_each(closed, tmp_path):
    """Every attempt is in the error, nothing is charged, and no key or address leaks."""
    models = catalog(tmp_path, f"http://127.0.0.1:{closed}", f"http://127.0.0.1:{closed}")
    providers = Providers(models, environ={})
    with pytest.raises(ToolkitError) as caught:
        await providers.complete(models.route("both"), ASK)
    await providers.close()
    targets = [attempt.target for attempt in attempts_of(caught.value)]
    assert targets == ["p/first"] * 3 + ["q/second"] * 3
    assert charge_of(caught.value).cost == Money(0)
    assert str(closed) not in str(caught.value.to_json())
