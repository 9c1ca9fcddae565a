"""The door itself: one short method per concern, each calling the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.errors import (
    BudgetExceeded,
    CallInDoubt,
    ProviderError,
    ToolkitError,
    UsageError,
)
from toolkit.gateway.governance import Governance
from toolkit.ledger import Begun, Ledger, LedgerWriter, Reservation
from toolkit.providers import ModelAnswer, ModelRequest, Providers, Route, price, worst_case
from toolkit.values import (
    Attempt,
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
    Usage,
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
    _flying: dict[str, asyncio.Future[CallRecord]] = field(default_factory=dict)
    _open: _OpenCalls = field(default_factory=_OpenCalls)

    # -- what a kernel may ask ----------------------------------------------------------------

    async def model(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Make one model call and return its record.

        Raises:
            CallDenied, BudgetExceeded: Policy or budget said no.
            CallInDoubt, LedgerError, NotFound, UsageError: See the classes.
        """
        route = self.governance.route(intent.name)
        request = _model_request(intent.arguments)
        begun = await self._begin(run, intent, route=route, worst=worst_case(route, request))
        if begun.call.outcome is not None:
            return begun.call
        if not begun.fresh and (flying := self._flying.get(begun.call.call_id)) is not None:
            return await asyncio.shield(flying)
        # The provider is asked and the outcome recorded even if the kernel goes away meanwhile:
        # what was paid for is kept, and the kernel's next incarnation finds it.
        task = asyncio.ensure_future(self._ask_and_record(begun.call, route, request))
        self._flying[begun.call.call_id] = task
        task.add_done_callback(lambda _: self._flying.pop(begun.call.call_id, None))
        return await asyncio.shield(task)

    async def begin(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Decide and record a call whose body runs in the kernel.

        Returns the record; one with an outcome is answered from it and must not run.
        """
        begun = await self._begin(run, intent, route=None, worst=None)
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
        begun = await self._begin(run, intent, route=None, worst=None)
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

    async def _begin(
        self,
        run: RunRecord,
        intent: Intent,
        *,
        route: Route | None,
        worst: tuple[Any, int] | None,
    ) -> Begun:
        """Replay, else authorize, reserve and record the intent, durably."""
        if (replayed := await self._replay(run, intent)) is not None:
            return replayed
        decision = self._decide(run, intent, route=route, worst=worst)
        reserve: Reservation | None = None
        if decision:
            reserve = self.governance.reservation(run, intent, worst)
        try:
            return await asyncio.wrap_future(self.writer.begin(intent, decision, reserve=reserve))
        except BudgetExceeded as error:
            await self._record_refusal(intent, error, decision.policy_digest)
            raise

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

    def _decide(
        self,
        run: RunRecord,
        intent: Intent,
        *,
        route: Route | None,
        worst: tuple[Any, int] | None,
    ) -> Decision:
        decision = self.governance.decide(run, intent, route=route)
        bundle = self.governance.bundle(run.environment)
        unpriced = worst is not None and worst[0] is None and bundle.budget.usd is not None
        if decision and unpriced and bundle.unknown_price == "deny":
            return Decision(
                Verdict.DENY,
                policies=("unknown-price",),
                reasons=(_unpriced(route),),
                policy_digest=bundle.digest,
            )
        return decision

    async def _resume(self, call: CallRecord, intent: Intent) -> CallRecord:
        """Decide about an intent that has no outcome and was asked for again."""
        if call.intent.request_id == intent.request_id:
            return call  # the answer to `begin` was lost; the body has not run
        if call.intent.effect is Effect.WRITE:
            raise CallInDoubt(
                f"{intent.name!r} was started at an earlier attempt and has no recorded outcome; "
                "as a write it is not repeated",
                next_step=f"find out what happened, then decide: toolkit show {intent.run_id}",
            )
        return await asyncio.to_thread(self.ledger.restart, call)

    async def _ask_and_record(
        self, call: CallRecord, route: Route, request: ModelRequest
    ) -> CallRecord:
        started = self.clock.now_us()
        try:
            answer = await self.providers().complete(route, request)
        except ToolkitError as error:
            outcome = self._failed(error, route, started)
        except Exception as error:  # noqa: BLE001 - a provider's surprise is an outcome too
            text = f"the provider {route.provider} failed: {type(error).__name__}"
            outcome = self._failed(
                ProviderError(text, details={"kind": "unexpected"}), route, started
            )
        else:
            outcome = self._answered(answer, route, started)
        return await asyncio.wrap_future(self.writer.finish(call, outcome))

    def _answered(self, answer: ModelAnswer, route: Route, started_us: int) -> Outcome:
        return Outcome(
            CallState.OK,
            answer={
                "text": answer.text,
                "data": answer.data,
                "tool_calls": answer.tool_calls,
                "finish_reason": answer.finish_reason,
                "response_id": answer.response_id,
            },
            usage=answer.usage,
            cost=price(answer.provider, answer.model, answer.usage, route=route),
            provider=answer.provider,
            model=answer.model,
            attempts=(
                Attempt(f"{answer.provider}/{answer.model}", started_us, self.clock.now_us()),
            ),
        )

    def _failed(self, error: ToolkitError, route: Route, started_us: int) -> Outcome:
        target = f"{route.provider}/{route.model}"
        # An answer that did not fit was paid for all the same.
        spent = error.details.get("usage")
        usage = Usage(**spent) if isinstance(spent, dict) else None
        attempt = Attempt(target, started_us, self.clock.now_us(), error=error.message)
        return Outcome(
            CallState.ERROR,
            error=error.to_json(),
            usage=usage,
            cost=None if usage is None else price(route.provider, route.model, usage, route=route),
            provider=route.provider,
            model=route.model,
            attempts=(attempt,),
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


def _model_request(arguments: Any) -> ModelRequest:
    """Read a model call's arguments.

    Raises:
        UsageError: They are not what :func:`toolkit.model` sends.
    """
    known = {
        "messages", "max_tokens", "temperature", "seed", "schema", "tools", "tool_choice", "stop",
    }  # fmt: skip
    if not isinstance(arguments, dict) or not isinstance(arguments.get("messages"), list):
        raise UsageError("a model call needs a list of messages")
    if unknown := sorted(set(arguments) - known):
        raise UsageError(f"a model call has no argument {', '.join(unknown)}")
    return ModelRequest(**arguments)
