"""The door itself: one short method per concern, each calling the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from toolkit.errors import BudgetExceeded, CallInDoubt, ToolFailed, ToolkitError
from toolkit.gateway.context import Ancestry
from toolkit.gateway.governance import Governance
from toolkit.gateway.modelling import Asking, OnDelta, model_request
from toolkit.gateway.work import FREE, Facts, Work, Worst
from toolkit.ledger import Begun, Ledger, LedgerWriter, Reservation
from toolkit.providers import Providers, Route, worst_case
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Clock,
    Decision,
    Effect,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    SystemClock,
    Verdict,
)

__all__ = ["Door"]

_REPLAY_ONLY = (RunKind.REPRODUCTION,)


class _OpenCalls:
    """Calls that were begun here and run in a kernel: what `finish` need not read again.

    Only a memory: the ledger decides whether a call may still be finished, and one that is not
    remembered (a kernel died, or too many are open) is read from it.
    """

    _MOST = 10_000

    def __init__(self) -> None:
        self._calls: dict[str, CallRecord] = {}

    def add(self, call: CallRecord) -> None:
        if len(self._calls) >= self._MOST:
            self._calls.pop(next(iter(self._calls)))
        self._calls[call.call_id] = call

    def take(self, call_id: str) -> CallRecord | None:
        return self._calls.pop(call_id, None)


@dataclass
class Door:
    """Decides, executes and records calls.

    Attributes:
        ledger, writer: Where calls are recorded; the writer commits groups durably.
        governance: Policies and routes.
        providers: Returns the providers of the current catalog.
    """

    ledger: Ledger
    writer: LedgerWriter
    governance: Governance
    providers: Callable[[], Providers]
    clock: Clock = field(default_factory=SystemClock)
    ancestry: Ancestry = field(init=False)
    _flying: dict[str, asyncio.Future[CallRecord]] = field(default_factory=dict)
    _open: _OpenCalls = field(default_factory=_OpenCalls)

    def __post_init__(self) -> None:
        self.ancestry = Ancestry(self.ledger)

    # -- what a kernel may ask ----------------------------------------------------------------

    async def model(
        self, run: RunRecord, intent: Intent, *, on_delta: OnDelta | None = None
    ) -> CallRecord:
        """Make one model call and return its record.

        Args:
            run: The caller.
            intent: The call.
            on_delta: Told each piece of the answer as it comes; not when the answer is recorded
                already.

        Raises:
            CallDenied, BudgetExceeded: Policy or budget said no.
            CallInDoubt, LedgerError, NotFound, UsageError: See the classes.
        """
        route = self.governance.route(intent.name)
        request = model_request(intent.arguments)
        cost, tokens = worst_case(route, request)
        asking = Asking(self.providers, self.clock, route, on_delta)
        work = Work(asking.perform, Facts(route), Worst(cost, tokens, seconds=route.timeout_s))
        return await self.perform(run, intent, work)

    async def perform(self, run: RunRecord, intent: Intent, work: Work) -> CallRecord:
        """Decide about a call, execute it in this process and return its record.

        Raises:
            CallDenied, BudgetExceeded: Policy or budget said no.
            CallInDoubt: It is a write, was begun before, and nobody knows how it ended.
            LedgerError, UsageError: See the classes.
        """
        begun = await self._begin(run, intent, work.facts, work.worst)
        call = begun.call
        if call.outcome is not None:
            return call
        if not begun.fresh:
            if (flying := self._flying.get(call.call_id)) is not None:
                return await asyncio.shield(flying)
            if not work.repeatable:
                raise _in_doubt(intent)
        # It is done and its outcome recorded even if the kernel goes away meanwhile: what was
        # paid for is kept, and the kernel's next incarnation finds it.
        task = asyncio.ensure_future(self._perform_and_record(call, work))
        self._flying[call.call_id] = task
        task.add_done_callback(lambda _: self._flying.pop(call.call_id, None))
        return await asyncio.shield(task)

    async def begin(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Decide and record a call whose body runs in the kernel.

        Returns the record; one with an outcome is answered from it and must not run.
        """
        begun = await self._begin(run, intent, Facts(), FREE)
        call = begun.call
        if run.kind in _REPLAY_ONLY:
            return _to_run_again(call)
        if not begun.fresh and call.outcome is None:
            call = await self._resume(call, intent)
        if call.outcome is None:
            self._open.add(call)
        return call

    async def finish(
        self, run: RunRecord, key: str, generation: int, outcome: Outcome
    ) -> CallRecord:
        """Record how a call that ran in the kernel ended."""
        if run.kind in _REPLAY_ONLY:  # the journal holds it, and is all there is
            source = str(run.source_run_id)
            return await asyncio.to_thread(self.ledger.get_call, source, key, generation)
        call = self._open.take(f"{run.run_id}/{key}/{generation}")
        if call is None:  # begun at another gateway, or finished before
            call = await asyncio.to_thread(self.ledger.get_call, run.run_id, key, generation)
        return await asyncio.wrap_future(self.writer.finish(call, outcome))

    async def result(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Record a published result: decided like a call, executed by being recorded."""
        begun = await self._begin(run, intent, Facts(), FREE)
        if begun.call.outcome is not None:
            return begun.call
        outcome = Outcome(CallState.OK, answer=intent.arguments["value"])
        return await asyncio.wrap_future(self.writer.finish(begun.call, outcome))

    async def settle(self, timeout_s: float) -> None:
        """Wait for the provider calls under way, and give up on what is left after ``timeout_s``.

        Those stay in doubt, and are asked again: an outcome that only says that this process ended
        would be a lie about the provider.
        """
        if not self._flying:
            return
        _, late = await asyncio.wait(list(self._flying.values()), timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    # -- steps --------------------------------------------------------------------------------

    async def _begin(self, run: RunRecord, intent: Intent, facts: Facts, worst: Worst) -> Begun:
        """Replay, else authorize, reserve and record the intent, durably."""
        if (replayed := await self._replay(run, intent)) is not None:
            return replayed
        intent = await self._in_context(intent)
        decision = self._decide(run, intent, facts, worst)
        reserve: Reservation | None = None
        if decision:
            reserve = self.governance.reservation(run, intent, worst)
        try:
            begun = await asyncio.wrap_future(self.writer.begin(intent, decision, reserve=reserve))
        except BudgetExceeded as error:
            await self._record_refusal(intent, error, decision.policy_digest)
            raise
        self.ancestry.remember(begun.call)
        return begun

    async def _in_context(self, intent: Intent) -> Intent:
        """Add what the gateway knows about the surroundings of a call."""
        if self.ancestry.known(intent):
            agent = self.ancestry.agent_of(intent)
        else:
            agent = await asyncio.to_thread(self.ancestry.agent_of, intent)
        return intent if agent is None else replace(intent, agent=agent)

    async def _record_refusal(
        self, intent: Intent, error: BudgetExceeded, policy_digest: str | None
    ) -> None:
        """Keep what the budget stopped: a refused call is a fact like any other."""
        refused = Decision(
            Verdict.DENY,
            policies=("budget",),
            reasons=(error.message,),
            policy_digest=policy_digest,
        )
        await asyncio.wrap_future(self.writer.begin(intent, refused, reserve=None))

    async def _replay(self, run: RunRecord, intent: Intent) -> Begun | None:
        """Answer from the source run's journal, where the run has one."""
        if run.source_run_id is None:
            return None
        found = await asyncio.to_thread(self.ledger.lookup, run.source_run_id, intent.key)
        if found is not None and found.outcome is not None:
            return Begun(found, fresh=False)
        if run.kind in _REPLAY_ONLY:
            raise CallInDoubt(
                f"the notebook asks for {intent.kind} {intent.name!r} (occurrence "
                f"{intent.occurrence}), which {run.source_run_id} did not record",
                where=f"cell {intent.cell}" if intent.cell else None,
                next_step="run the notebook from top to bottom in the sandbox and promote again",
                details={"arguments_digest": intent.arguments_digest},
            )
        return None

    def _decide(self, run: RunRecord, intent: Intent, facts: Facts, worst: Worst) -> Decision:
        decision = self.governance.decide(run, intent, facts)
        bundle = self.governance.bundle(run.environment)
        unpriced = worst.cost is None and bundle.budget.usd is not None
        if decision and unpriced and bundle.unknown_price == "deny":
            return Decision(
                Verdict.DENY,
                policies=("unknown-price",),
                reasons=(_unpriced(facts.route),),
                policy_digest=bundle.digest,
            )
        return decision

    async def _resume(self, call: CallRecord, intent: Intent) -> CallRecord:
        """Decide about an intent that has no outcome and was asked for again."""
        if call.intent.request_id == intent.request_id:
            return call  # the answer to `begin` was lost; the body has not run
        if call.intent.effect is Effect.WRITE:
            raise _in_doubt(intent)
        return await asyncio.to_thread(self.ledger.restart, call)

    async def _perform_and_record(self, call: CallRecord, work: Work) -> CallRecord:
        try:
            outcome = await work.perform(call, call.intent.arguments)
        except ToolkitError as error:
            outcome = Outcome(CallState.ERROR, error=error.to_json())
        except Exception as error:  # noqa: BLE001 - a surprise is an outcome too
            surprise = ToolFailed(f"{call.intent.name} failed: {type(error).__name__}")
            outcome = Outcome(CallState.ERROR, error=surprise.to_json())
        return await asyncio.wrap_future(self.writer.finish(call, outcome))


def _in_doubt(intent: Intent) -> CallInDoubt:
    return CallInDoubt(
        f"{intent.name!r} was started at an earlier attempt and has no recorded outcome; "
        "as a write it is not repeated",
        next_step=f"find out what happened, then decide: toolkit show {intent.run_id}",
    )


def _to_run_again(call: CallRecord) -> CallRecord:
    """Let an agent's body run in a reproduction: its present code has to give what was saved.

    What the body asks is answered from the journal, so nothing reaches the outside.
    """
    if call.intent.kind is not CallKind.AGENT or call.state is CallState.DENIED:
        return call
    return replace(call, outcome=None, ended_us=None)


def _unpriced(route: Route | None) -> str:
    target = f"{route.provider}/{route.model}" if route else "this call"
    return (
        f"the price of {target} is unknown and the policy has a dollar budget; "
        "give the route a price in registry/models.yaml"
    )
