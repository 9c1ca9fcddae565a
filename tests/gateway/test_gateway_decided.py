"""What was not allowed is not done: targets, forged outcomes, repetitions, stops, unknown prices."""

from __future__ import annotations

import asyncio
import contextlib
import random
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workspace_world import PRODUCTION, RULES, write_workspace

from toolkit.app.approvals import make_desk
from toolkit.app.assembly import Assembly
from toolkit.app.simulations import simulate_bundle
from toolkit.app.workbench import open_workbench
from toolkit.errors import (
    ApprovalPending,
    BudgetExceeded,
    CallDenied,
    Conflict,
    ToolkitError,
)
from toolkit.gateway import Answer, Choice, Door, Governance
from toolkit.gateway.work import Work
from toolkit.ledger import Ledger, LedgerWriter, Limit, Reservation
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Effect,
    Environment,
    Intent,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
)

pytestmark = pytest.mark.anyio

TARGET = (
    "{provider: %s, model: m%s, price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}}"
)
FINE = 'answers: [{text: "an answer", input_tokens: 7, output_tokens: 3}]\n'
DOWN = "answers: [{fail: server}]\n"
ASK_EXT = """
@id("outside") @reason("what leaves the house is looked at") @ask("approver")
forbid(principal, action == Action::"call_model", resource)
when { context has provider && context.provider == "ext" };
"""
ASK_ALL = """
@id("models") @ask("approver") forbid(principal, action == Action::"call_model", resource);
"""
ASK_ADD = """
@id("two-people") @ask("approver")
forbid(principal, action == Action::"call_tool", resource == Tool::"add");
"""
CLOSED_EXT = ASK_EXT.replace('@ask("approver")', "")
CLOSED = '@id("none") forbid(principal, action, resource);\n'
ALLOW = Decision(Verdict.ALLOW, ("all",))
DONE = Outcome(CallState.OK, answer="FORGED")


@dataclass
class House:
    """One workspace whose gateway runs in this process, and ends when a test says so."""

    root: Path
    number: int = 0
    _open: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.workspace = write_workspace(self.root)
        self.registry = self.workspace.registry
        (self.registry / "people.yaml").write_text("people:\n  anna: {roles: [approver]}\n")
        self.route("inhouse", "ext")
        self.script("inhouse", FINE)
        self.script("ext", FINE)
        self.ledger = Ledger.open(self.workspace.database_url)
        self.writer = LedgerWriter(self.ledger)

    def route(self, *targets: str, more: str = "", rules: str = "", head: str = "") -> None:
        """Write the one route: its targets in this order."""
        listed = "\n".join(f"      - {TARGET % (name, more)}" for name in targets)
        providers = "".join(
            f"  {name}: {{kind: scripted, script: {name}.yaml}}\n" for name in ("inhouse", "ext")
        )
        (self.registry / "models.yaml").write_text(
            f"default_route: pair\nproviders:\n{providers}{head}routes:\n  pair:\n    max_tokens: 64\n"
            f"{rules}    targets:\n{listed}\n"
        )

    def script(self, provider: str, text: str) -> None:
        (self.registry / f"{provider}.yaml").write_text(text)

    def rules(self, text: str) -> None:
        (self.registry / "policies" / "production" / "rules.cedar").write_text(text)

    def policy(self, old: str, new: str) -> None:
        assert old in PRODUCTION
        path = self.registry / "policies" / "production" / "policy.yaml"
        path.write_text(path.read_text().replace(old, new))

    def gateway(self) -> Assembly:
        """Return a gateway that knows nothing but what is recorded."""
        made = Assembly(self.workspace, self.ledger, self.writer)
        self._open.append(made)
        return made

    def run(self, run_id: str = "run-1") -> RunRecord:
        return self.ledger.create_run(
            RunRecord(run_id, RunKind.RUN, Environment.PRODUCTION, "ana", RunState.RUNNING)
        )

    def decide(self, choice: Choice = Choice.APPROVE, **more: Any) -> None:
        """Say something to the one request that waits."""
        asked = next(each for each in self.ledger.approvals() if each.state.waiting)
        desk = make_desk(self.ledger, Governance(self.registry))
        desk.answer(asked.id, Answer(choice, asked.digest, **more), by="anna")

    async def close(self) -> None:
        while self._open:
            await self._open.pop().close(1.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "ws")
    with closing(made.ledger), closing(made.writer):
        yield made
        await made.close()
        assert made.ledger.verify() == [], "chains and tables agree, whatever happened"


async def begun_call(house: House, run: RunRecord) -> CallRecord:
    """Wait until the run's first call is recorded."""
    async with asyncio.timeout(20):
        while not (found := house.ledger.calls(run.run_id)):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    return found[0]


def question(run: RunRecord, text: str = "hello", request: str = "first") -> Intent:
    arguments = {"messages": [{"role": "user", "content": text}]}
    return Intent(
        run.run_id, CallKind.MODEL, "default", arguments, request_id=f"{request}/{text}/{'x' * 20}"
    )


def asked(call: CallRecord) -> list[str]:
    """The targets that were asked, in order."""
    assert call.outcome is not None
    return [each.target for each in call.outcome.attempts]


# -- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [False, True], ids=["fallback", "weights"])
async def test_a_target_that_a_person_is_asked_about_is_no_fallback(
    house: House, *, weights: bool
) -> None:
    """Nobody was asked, so nobody allowed it: the call ends with the failure of the other one."""
    house.rules(RULES + ASK_EXT)
    house.script("inhouse", DOWN)
    if weights:
        house.route("inhouse", "ext", more=", weight: 1")
    run, door = house.run(), house.gateway().door
    for n in range(6):  # weights draw
        call = await door.model(run, question(run, f"hello {n}"))
        assert call.state is CallState.ERROR
        assert set(asked(call)) == {"inhouse/m"}
        assert call.decision.targets == ("inhouse/m",)
    assert house.ledger.approvals() == []


async def test_where_every_target_asks_the_call_asks_and_goes_where_the_person_saw(
    house: House,
) -> None:
    """A catalog that is edited between question and answer sends it nowhere else."""
    house.rules(RULES + ASK_ALL)
    run, door = house.run(), house.gateway().door
    with pytest.raises(ApprovalPending) as told:
        await door.model(run, question(run))
    view = told.value.details["approval"]["view"]
    assert ["targets", "inhouse/m, ext/m"] in [list(fact) for fact in view["facts"]]
    house.decide()
    house.route("ext", "inhouse")
    house.script("ext", DOWN)
    call = await house.gateway().door.model(run, question(run))
    assert (call.state, asked(call)) == (CallState.OK, ["ext/m", "inhouse/m"])


async def test_an_approval_does_not_follow_the_route_to_another_target(house: House) -> None:
    """What was approved for one target is not sent to another that took its place."""
    house.rules(RULES + ASK_EXT)
    house.route("ext")
    run, door = house.run(), house.gateway().door
    with pytest.raises(ApprovalPending):
        await door.model(run, question(run))
    house.decide()
    house.route("inhouse", "inhouse2", head="  inhouse2: {kind: scripted, script: inhouse.yaml}\n")
    call = await house.gateway().door.model(run, question(run))
    assert call.state is CallState.ERROR
    assert call.outcome is not None
    assert call.outcome.error["details"]["kind"] == "no_target"
    assert asked(call) == ["inhouse/m"] or call.outcome.usage is None or not asked(call)


async def test_a_target_that_asks_is_asked_about_where_no_other_takes_the_call(
    house: House,
) -> None:
    """A condition of the allowed target keeps the call away from it; then a person decides."""
    house.rules(RULES + ASK_EXT)
    models = house.registry / "models.yaml"
    models.write_text(
        models.read_text().replace("provider: inhouse, ", "provider: inhouse, when: {task: [x]}, ")
    )
    run, door = house.run(), house.gateway().door
    with pytest.raises(ApprovalPending):
        await door.model(run, question(run))
    house.decide()
    assert asked(await door.model(run, question(run))) == ["ext/m"]


async def test_targets_that_one_call_may_not_pay_for_are_left_out(house: House) -> None:
    """The budget of a single call is a ceiling for each target, and denies where none is below it."""
    models = house.registry / "models.yaml"
    dear = models.read_text().replace(
        "input_per_million_usd: 1.0", "input_per_million_usd: 900.0", 1
    )
    models.write_text(dear)
    house.policy("gates: {}", 'gates: {}\nbudgets: [{scope: call, usd: "0.001"}]')
    run = house.run()
    assert asked(await house.gateway().door.model(run, question(run))) == ["ext/m"]
    models.write_text(models.read_text().replace("usd: 1.0", "usd: 900.0"))
    with pytest.raises(BudgetExceeded, match="one call may use"):
        await house.gateway().door.model(run, question(run, "another"))


async def test_a_region_of_the_policy_keeps_calls_in_it(house: House) -> None:
    """Targets that state no region, or another one, are not asked."""
    house.policy("gates: {}", "gates: {}\nregion: eu")
    run = house.run()
    with pytest.raises(ToolkitError, match="is not known to be in eu"):
        await house.gateway().door.model(run, question(run))
    models = house.registry / "models.yaml"
    there = models.read_text().replace("provider: ext, ", "provider: ext, when: {region: eu}, ")
    models.write_text(there)
    call = await house.gateway().door.model(run, question(run, "another"))
    assert asked(call) == ["ext/m"]


# -- outcomes that kernels tell -------------------------------------------------------------------


async def test_a_kernel_cannot_tell_how_a_model_call_ended(house: House) -> None:
    """Neither while it is under way nor when another gateway finds it in the ledger."""
    house.script("inhouse", 'answers: [{text: "an answer", delay_s: 0.5}]\n')
    run, door = house.run(), house.gateway().door
    intent = question(run)
    task = asyncio.ensure_future(door.model(run, intent))
    under_way = await begun_call(house, run)
    key = under_way.key
    for gateway in (door, house.gateway().door):
        with pytest.raises(Conflict, match="is made by the gateway"):
            await gateway.finish(run, key, 0, DONE)
        with pytest.raises(Conflict, match="is made by the gateway"):
            await gateway.finish(run, key, 0, Outcome(CallState.ERROR, error={"code": "x"}))
    call = await task
    assert call.outcome is not None
    assert call.outcome.answer["text"] == "an answer"
    (call,) = house.ledger.calls(run.run_id)
    assert "made by the gateway" in call.tags["finish_refused"]


async def test_a_kernel_cannot_take_over_a_tool_that_the_gateway_calls(house: House) -> None:
    """Neither by finishing nor by beginning the same call, also after a restart of the gateway."""
    run, door = house.run(), house.gateway().door
    release = asyncio.Event()

    async def work(_: CallRecord, __: Any) -> Outcome:
        await release.wait()
        return Outcome(CallState.OK, answer="true")

    intent = Intent(run.run_id, CallKind.TOOL, "add", {"a": 1}, request_id="r" * 20)
    task = asyncio.ensure_future(door.perform(run, intent, Work(work)))
    under_way = await begun_call(house, run)
    for gateway in (door, house.gateway().door):
        with pytest.raises(Conflict, match="is made by the gateway"):
            await gateway.begin(run, intent)
        with pytest.raises(Conflict, match="is made by the gateway"):
            await gateway.finish(run, under_way.key, 0, DONE)
    release.set()
    call = await task
    assert call.outcome is not None
    assert call.outcome.answer == "true"


async def test_a_tool_that_waits_for_a_person_cannot_be_finished(house: House) -> None:
    """Approved, begun, finished: in this order only; and the kernel's own word counts then."""
    house.rules(RULES + ASK_ADD)
    run, door = house.run(), house.gateway().door
    intent = Intent(run.run_id, CallKind.TOOL, "add", {"a": 1}, request_id="r" * 20)
    with pytest.raises(ApprovalPending):
        await door.begin(run, intent)
    for gateway in (door, house.gateway().door):
        with pytest.raises(Conflict, match="waits for a person"):
            await gateway.finish(run, intent.key, 0, DONE)
    house.decide()
    begun = await door.begin(run, intent)
    assert begun.outcome is None
    after = house.gateway().door  # the gateway that it was begun at is gone
    done = await after.finish(run, begun.key, 0, Outcome(CallState.OK, answer=2))
    assert done.outcome is not None
    assert done.outcome.answer == 2
    again = await after.finish(run, begun.key, 0, DONE)
    assert again.outcome is not None
    assert again.outcome.answer == 2, "the first outcome counts"


@pytest.mark.parametrize("kind", [CallKind.RESULT, CallKind.VALUE, CallKind.DATA, CallKind.JOB])
async def test_no_other_kind_of_call_is_finished_by_a_kernel(house: House, kind: CallKind) -> None:
    """Values, results, data and jobs are the gateway's."""
    run = house.run()
    intent = Intent(run.run_id, kind, "now", {}, request_id="r" * 20)
    call = house.ledger.begin(intent, ALLOW).call
    with pytest.raises(Conflict, match="is made by the gateway"):
        await house.gateway().door.finish(run, call.key, 0, DONE)


# -- repetitions ----------------------------------------------------------------------------------


def in_doubt(house: House, run: RunRecord, worst: int = 5_000) -> Intent:
    """Record a model call of a gateway that died before its outcome; return it, asked for again."""
    reserve = Reservation((Limit("run:run-1"),), Money(worst), tokens=300, calls=1)
    house.ledger.begin(question(run), ALLOW, reserve=reserve)
    return question(run, request="again")


async def test_a_repetition_is_decided_recorded_and_paid_for_anew(house: House) -> None:
    """The lost attempt is charged at its worst case: two bills, two reservations."""
    run = house.run()
    again = in_doubt(house, run)
    call = await house.gateway().door.model(run, again)
    assert (call.state, call.tags["restarts"]) == (CallState.OK, "1")
    budget = house.ledger.budget("run:run-1")
    assert budget is not None
    assert call.outcome is not None
    assert call.outcome.cost is not None
    assert budget.spent == Money(5_000 + call.outcome.cost.nanos)
    assert (budget.spent_calls, budget.reserved_calls) == (2, 0)
    assert budget.reserved == Money(0)


async def test_crashes_cannot_overshoot_a_budget(house: House) -> None:
    """Each repetition needs room of its own; without it the call stays in doubt."""
    house.policy('usd: "0.01"', 'usd: "0.001"')
    run = house.run()
    again = in_doubt(house, run, worst=999_000)  # nano-dollars of 1,000,000
    with pytest.raises(BudgetExceeded):
        await house.gateway().door.model(run, again)
    (call,) = house.ledger.calls(run.run_id)
    assert (call.state, call.tags) == (CallState.STARTED, {})
    budget = house.ledger.budget("run:run-1")
    assert budget is not None
    assert budget.reserved == Money(999_000)


async def test_a_stop_holds_for_repetitions(house: House) -> None:
    """A call in doubt is not made while somebody has stopped everything, and is afterwards."""
    run = house.run()
    again = in_doubt(house, run)
    house.ledger.stop("all", "anna", "an incident")
    with pytest.raises(CallDenied, match="an incident"):
        await house.gateway().door.model(run, again)
    (call,) = house.ledger.calls(run.run_id)
    assert call.state is CallState.STARTED
    house.ledger.start("all", "anna")
    assert (await house.gateway().door.model(run, again)).state is CallState.OK


@pytest.mark.parametrize("kind", ["model", "tool", "kernel"])
async def test_the_policy_of_today_decides_about_repetitions(house: House, kind: str) -> None:
    """None permitted means none, for models, tools of the gateway and bodies in the kernel."""
    run = house.run()
    made: list[str] = []

    async def work(_: CallRecord, __: Any) -> Outcome:
        made.append("made")
        return Outcome(CallState.OK, answer="")

    def tool(request: str) -> Intent:
        return Intent(run.run_id, CallKind.TOOL, "add", {}, request_id=request * 4)

    ways: dict[str, tuple[Intent, Callable[[Any], Awaitable[CallRecord]]]] = {
        "model": (question(run), lambda door: door.model(run, question(run, request="again"))),
        "tool": (
            tool("first").but(at_gateway=True),
            lambda door: door.perform(run, tool("again"), Work(work)),
        ),
        "kernel": (tool("first"), lambda door: door.begin(run, tool("again"))),
    }
    intent, again = ways[kind]
    house.ledger.begin(intent, ALLOW)
    house.rules(CLOSED)
    with pytest.raises(CallDenied, match="is not repeated"):
        await again(house.gateway().door)
    (call,) = house.ledger.calls(run.run_id)
    assert (call.state, made) == (CallState.STARTED, [])
    house.rules(RULES + ASK_ALL + ASK_ADD)
    with pytest.raises(CallDenied, match="asks the role approver"):
        await again(house.gateway().door)
    house.rules(RULES)
    call = await again(house.gateway().door)
    assert call.tags["restarts"] == "1"


async def test_two_requests_for_one_call_in_doubt_make_it_once(house: House) -> None:
    """The second one waits for the first one's outcome."""
    run = house.run()
    again = in_doubt(house, run)
    door = house.gateway().door
    first, second = await asyncio.gather(door.model(run, again), door.model(run, again))
    assert first.outcome == second.outcome
    assert first.tags["restarts"] == "1"


async def test_a_killed_run_that_goes_on_pays_for_its_repetitions(house: House) -> None:
    """Its end charged what was under way; what it repeats is held anew, and settled once."""
    run = house.run()
    again = in_doubt(house, run)
    agent = Intent(run.run_id, CallKind.AGENT, "clerk", {}, request_id="a" * 20)
    reserve = Reservation((Limit("run:run-1"),), Money(0), calls=1)
    house.ledger.begin(agent, ALLOW, reserve=reserve)
    house.ledger.update_run("run-1", state=RunState.LOST)
    run = house.ledger.update_run("run-1", state=RunState.RUNNING)
    door = house.gateway().door
    begun = await door.begin(
        run, Intent(run.run_id, CallKind.AGENT, "clerk", {}, request_id="b" * 20)
    )
    assert begun.outcome is None
    assert (await door.model(run, again)).state is CallState.OK
    await door.finish(run, begun.key, 0, Outcome(CallState.OK, answer=1))
    budget = house.ledger.budget("run:run-1")
    assert budget is not None
    assert (budget.reserved, budget.reserved_calls, budget.spent_calls) == (Money(0), 0, 4)


# -- stops under way ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules", ["    retry: {attempts: 8, base_s: 0.3, max_s: 0.3, jitter: 0}\n", ""]
)
async def test_a_stop_ends_the_attempts_of_a_call_under_way(house: House, rules: str) -> None:
    """The attempt under way ends by itself; no retry and no other target comes after it."""
    house.route("inhouse", "ext", rules=rules)
    house.script("inhouse", "answers: [{fail: server, delay_s: 0.4}]\n")
    run, door = house.run(), house.gateway().door
    task = asyncio.ensure_future(door.model(run, question(run)))
    await begun_call(house, run)
    house.ledger.stop("route:pair", "anna", "an incident")
    call = await task
    assert call.outcome is not None
    error = call.outcome.error
    assert (call.state, error["code"], error["details"]["kind"]) == ("error", "denied", "stopped")
    tried = [each for each in call.outcome.attempts if each.reason != "stopped: skipped"]
    assert {each.target for each in tried} == {"inhouse/m"}
    assert len(tried) == 1
    assert call.outcome.attempts[-1].reason == "stopped: skipped"


# -- unknown prices -------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "state"), [("deny", "denied"), ("allow", "ok")])
async def test_an_unknown_price_is_denied_without_any_limit_in_dollars(
    house: House, said: str, state: str
) -> None:
    """What nobody can reckon is not made, unless the policy says so."""
    house.policy('usd: "0.01"', "usd: null")
    house.policy("unknown_price: deny", f"unknown_price: {said}")
    models = house.registry / "models.yaml"
    text = models.read_text().replace(", price: {", ", when: {}, timeout_s: 9}  # {")
    models.write_text(text.replace("{kind: scripted,", "{kind: scripted, prices_as: openai,"))
    run = house.run()
    call = await house.gateway().door.model(run, question(run))
    assert call.state == state
    if state == "denied":
        assert call.decision.policies == ("unknown-price",)
        assert "denies unknown prices" in call.decision.reasons[0]


# -- what people decide ---------------------------------------------------------------------------


async def test_changed_arguments_are_judged_by_what_the_door_knows(house: House) -> None:
    """Facts of the call and all that the run has read: else the yes is used up for nothing."""
    house.rules(
        RULES
        + ASK_ADD
        + '@id("small") forbid(principal, action == Action::"call_tool", resource == Tool::"add")\n'
        'when { context has session && context.session.sources.contains("untrusted") && '
        "context has arguments && context.arguments has a && context.arguments.a > 10 };\n"
    )
    (house.registry / "tools.yaml").write_text(
        textwrap.dedent("""
        tools:
          add: {effect: read, description: Adds., arguments: {a: {type: integer}}}
          fetch: {effect: read, description: Fetches., labels: {sources: [untrusted]}}
        """)
    )
    run, door = house.run(), house.gateway().door
    fetch = Intent(run.run_id, CallKind.TOOL, "fetch", {}, request_id="f" * 20)
    begun = await door.begin(run, fetch)
    await door.finish(run, begun.key, 0, Outcome(CallState.OK, answer="a web page"))
    add = Intent(run.run_id, CallKind.TOOL, "add", {"a": 1}, request_id="r" * 20)
    with pytest.raises(ApprovalPending):
        await door.begin(run, add)
    with pytest.raises(CallDenied, match="policy denies the call with these arguments"):
        house.decide(arguments={"a": 99})
    house.decide(arguments={"a": 9})  # the request is still open
    call = await door.begin(run, add)
    assert (call.outcome, call.intent.arguments) == (None, {"a": 9})
    assert call.intent.effect is Effect.READ


# -- simulation -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_bundle_in_force_changes_nothing_in_any_history(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Allowed, asked, refused by policy and by every other control, failed, repeated, of one or two
    targets: simulated under the same bundle, no call is news, and none is left untold about."""
    chance = random.Random(seed)
    house = House(tmp_path_factory.mktemp("past") / "ws")
    rules = [RULES, RULES + ASK_EXT, RULES + ASK_ALL, RULES + ASK_EXT + ASK_ADD, RULES + CLOSED_EXT]
    house.rules(chance.choice(rules))
    house.route(*chance.choice([("inhouse", "ext"), ("ext", "inhouse"), ("ext",), ("inhouse",)]))
    house.script("inhouse", chance.choice([FINE, DOWN]))
    if chance.random() < 0.2:
        house.policy('usd: "0.01"', 'usd: "0.0004"')

    async def history() -> None:
        door, run = house.gateway().door, house.run()
        for n in range(chance.randrange(1, 12)):
            with contextlib.suppress(ToolkitError):
                await one(door, run, n)
        await house.close()

    async def one(door: Door, run: RunRecord, n: int) -> None:
        what = chance.choice(["model", "tool", "stop", "start", "repeat", "yes", "long"])
        if what == "model":
            await door.model(run, question(run, f"hello {n}"))
        elif what == "tool":
            name = chance.choice(["add", "write_file", "unknown"])
            begun = await door.begin(
                run, Intent(run.run_id, CallKind.TOOL, name, {"a": n}, request_id=f"{n}" * 20)
            )
            await door.finish(run, begun.key, 0, Outcome(CallState.OK, answer=n))
        elif what in ("stop", "start"):
            getattr(house.ledger, what)("all", "anna")
        elif what == "repeat":
            earlier = [c.intent for c in house.ledger.calls(run.run_id) if c.intent.kind == "model"]
            if earlier:
                await door.model(run, earlier[-1].but(request_id=f"again {n}" * 5))
        elif what == "yes":
            if any(each.state.waiting for each in house.ledger.approvals()):
                house.decide(chance.choice([Choice.APPROVE, Choice.REJECT]), reason="so")
        else:  # no target takes it
            long = question(run, "long " * 20_000 + str(n))
            await door.model(run, long)

    with closing(house.ledger), closing(house.writer):
        asyncio.run(history())
    with open_workbench(house.root) as bench:
        found = simulate_bundle(bench, environment=Environment.PRODUCTION)
    assert (found.changed, found.more, found.not_told) == ([], 0, {})
    assert found.same == found.calls


def test_of_an_older_record_that_names_no_target_nothing_is_said(tmp_path: Path) -> None:
    """A refused call has no answer that would name one: told as such where policies look at it."""
    house = House(tmp_path / "ws")
    house.rules(RULES + CLOSED_EXT)
    run = house.run()
    denied = Decision(Verdict.DENY, ("outside",), ("closed",))
    house.ledger.begin(question(run), denied)
    with closing(house.ledger), closing(house.writer), open_workbench(house.root) as bench:
        found = simulate_bundle(bench, environment=Environment.PRODUCTION)
        assert (found.changed, found.not_told) == ([], {("call_model", "pair"): 1})
