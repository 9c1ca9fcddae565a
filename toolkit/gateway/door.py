"""The door itself: one short method per concern, each calling the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.errors import (
    ApprovalPending,
    BudgetExceeded,
    Diverged,
    LedgerError,
    ToolFailed,
    ToolkitError,
    UsageError,
)
from toolkit.gateway.approvals import Approvals, Question
from toolkit.gateway.context import Ancestry
from toolkit.gateway.deciding import Deciding
from toolkit.gateway.divergence import REPLAYS, Journals, asked_anew
from toolkit.gateway.doubt import Doubts
from toolkit.gateway.finishing import check_finish, check_kernels_own
from toolkit.gateway.flow import Flow
from toolkit.gateway.governance import Governance
from toolkit.gateway.memory import OpenCalls, Unrecorded
from toolkit.gateway.recall import Recall
from toolkit.gateway.replaying import Replays, to_run_again
from toolkit.gateway.routing import Routing
from toolkit.gateway.scopes import switches
from toolkit.gateway.screening import Screen
from toolkit.gateway.shadowing import Shadows
from toolkit.gateway.work import IN_KERNEL, Work
from toolkit.ledger import Begun, Ledger, LedgerWriter, Reservation
from toolkit.providers import OnDelta, Providers
from toolkit.values import (
    NO_LABELS,
    CallKind,
    CallRecord,
    CallState,
    Clock,
    Decision,
    Intent,
    Outcome,
    RunRecord,
    SystemClock,
    Verdict,
    changed,
)

__all__ = ["Door"]

Making = Work | Callable[[Intent], Work]
"""Work, or what makes it from the call as it is after screening and labelling."""


@dataclass
class Door:
    """Decides, executes and records calls.

    Attributes:
        ledger, writer: Where calls are recorded; the writer commits groups durably.
        governance: Policies and routes.
        providers: Returns the providers of the current catalog.
        approvals: Takes calls past the people who have to be asked.
        screen: Cuts secrets out of what comes in and of what is recorded.
        flow: Knows where the arguments of a call came from.
        recall: Fills its memory of a run that began before this process.
        journals, replays, shadows, doubts, routing, deciding: See the classes.
    """

    ledger: Ledger
    writer: LedgerWriter
    governance: Governance
    providers: Callable[[], Providers]
    approvals: Approvals
    screen: Screen
    clock: Clock = field(default_factory=SystemClock)
    flow: Flow = field(init=False)
    recall: Recall = field(init=False)
    ancestry: Ancestry = field(init=False)
    journals: Journals = field(init=False)
    replays: Replays = field(init=False)
    shadows: Shadows = field(init=False)
    doubts: Doubts = field(init=False)
    routing: Routing = field(init=False)
    deciding: Deciding = field(init=False)
    _flying: dict[str, asyncio.Future[CallRecord]] = field(default_factory=dict)
    _open: OpenCalls = field(init=False)
    _unrecorded: Unrecorded = field(default_factory=Unrecorded)

    def __post_init__(self) -> None:
        self.ancestry = Ancestry(self.ledger)
        self.flow = Flow(self.screen.detector)
        self.recall = Recall(
            self.ledger, self.flow, lambda run, intent: self.governance.declared(run, intent, None)
        )
        self._open = OpenCalls(self.clock)
        self.journals = Journals(self.ledger)
        self.replays = Replays(self.ledger, self.journals)
        self.shadows = Shadows(self.ledger, self.governance)
        self.routing = Routing(
            self.ledger, self.governance, self.providers, self.approvals, self.flow, self.clock
        )
        self.deciding = Deciding(
            self.ledger, self.governance, self.approvals, self.shadows, self.flow, self.clock
        )
        self.doubts = Doubts(
            self.ledger, self.approvals, lambda run: self.governance.bundle(run.environment)
        )

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
        if run.kind in REPLAYS:  # whatever routes there are today
            return (await self.replayed(run, intent)).call
        route = self.governance.route(intent.name)
        return await self.perform(
            run, intent, lambda now: self.routing.model(run, now, route, on_delta)
        )

    async def embed(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Ask for the vectors of ``intent.arguments["input"]``, a list of texts; see :meth:`model`."""
        if run.kind in REPLAYS:
            return (await self.replayed(run, intent)).call
        route = self.governance.route(intent.name)
        return await self.perform(run, intent, lambda now: self.routing.embedding(run, now, route))

    async def perform(self, run: RunRecord, intent: Intent, work: Making) -> CallRecord:
        """Decide about a call, execute it in this process and return its record.

        Raises:
            ApprovalPending: A person has to decide first; the same call may be sent again.
            CallDenied, BudgetExceeded: Policy or budget said no.
            CallInDoubt: It is a write, was begun before, and nobody knows how it ended.
            Diverged: It is a write that an earlier attempt did not ask for.
            LedgerError, UsageError: See the classes.
        """
        if intent.kind is CallKind.TOOL:
            intent = intent.but(at_gateway=True)
        begun, made = await self._begin(run, intent, work)
        call = begun.call
        if call.outcome is not None:
            return call
        if not begun.fresh:
            if (flying := self._flying.get(call.call_id)) is not None:
                return await asyncio.shield(flying)
            if (outcome := self._unrecorded.take(call.call_id)) is not None:
                return await self._record(run, call, outcome)
            if not made.repeatable:
                call = await self._settled(run, call, intent, made)
                if call.outcome is not None:
                    return call
        # It is done and its outcome recorded even if the kernel goes away meanwhile: what was
        # paid for is kept, and the kernel's next incarnation finds it.
        again = not begun.fresh and made.repeatable and not made.waits(call)
        task = asyncio.ensure_future(self._perform_and_record(run, call, made, again=again))
        self._flying[call.call_id] = task
        task.add_done_callback(lambda _: self._flying.pop(call.call_id, None))
        return await asyncio.shield(task)

    def at_work(self, run_id: str) -> str | None:
        """Return the agent that a call without a parent is made in, as far as one can tell.

        Only what the kernel does now is looked at: an SDK says nothing of what is around a call.
        """
        return self._open.agent(run_id)

    async def begin(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Decide and record a call whose body runs in the kernel.

        Returns the record; one with an outcome is answered from it and must not run.
        """
        begun, _ = await self._begin(run, intent, IN_KERNEL)
        call = begun.call
        if run.kind in REPLAYS:
            return to_run_again(call)
        if call.outcome is None:
            check_kernels_own(call)
        if not begun.fresh and call.outcome is None:
            if (outcome := self._unrecorded.take(call.call_id)) is not None:
                return await self._record(run, call, outcome)
            call = await self._resume(run, call, intent)
        if call.outcome is None:
            self._open.add(call)
            self.flow.opened(run, call.intent, self.governance.declared(run, call.intent, None))
        return call

    async def finish(
        self, run: RunRecord, key: str, generation: int, outcome: Outcome
    ) -> CallRecord:
        """Record how a call that ran in the kernel ended.

        Raises:
            Conflict: The gateway makes this call, or a person has not decided about it.
        """
        if run.kind in REPLAYS:  # the journal holds it, and is all there is
            source = str(run.source_run_id)
            return await asyncio.to_thread(self.ledger.get_call, source, key, generation)
        call, seconds = self._open.take(f"{run.run_id}/{key}/{generation}")
        if call is None:  # begun at another gateway, or finished before
            call = await asyncio.to_thread(self.ledger.get_call, run.run_id, key, generation)
            await check_finish(self.ledger, call)
        return await self._record(run, call, changed(outcome, seconds=seconds))

    async def result(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Record a published result: decided like a call, executed by being recorded."""
        call = (await self._begin(run, intent, IN_KERNEL))[0].call
        if call.outcome is not None:
            return call
        outcome = Outcome(CallState.OK, answer=call.intent.arguments["value"])
        return await self._record(run, call, outcome)

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

    async def _begin(self, run: RunRecord, intent: Intent, work: Making) -> tuple[Begun, Work]:
        """Screen, replay or label, authorize, reserve, record the intent, ask a person."""
        if run.kind in REPLAYS:
            return await self.replayed(run, intent), IN_KERNEL
        bundle = self.governance.bundle(run.environment)
        asked = intent.arguments
        intent, personal = await self.screen.incoming(run, intent, bundle.privacy)
        await self.recall.ready(run)
        if (recorded := await self.replays.answer(run, intent)) is not None:
            return self._taken(run, Begun(recorded, fresh=False)), IN_KERNEL
        intent = await self._in_context(run, intent, personal, asked)
        try:
            made = work if isinstance(work, Work) else work(intent)
            await self.journals.asked(run, intent, write=self.governance.writes(run, intent))
        except Diverged as error:
            await self._refused(intent, error, "divergence", bundle.digest)
            raise
        except UsageError as error:
            if error.details.get("kind") == "no_target":
                await self._refused(intent, error, "no-target", bundle.digest)
            raise
        facts, worst = made.facts, made.worst
        scopes = switches(run, intent, facts)
        decision = self.deciding.outright(run, intent, facts, worst)
        reserve: Reservation | None = None
        anew = asked_anew(run)
        if anew is not None and not self.governance.repeatable(run, intent):
            anew = None
        try:
            if decision.verdict is not Verdict.DENY:
                reserve = self.deciding.reserved(run, intent, worst)
            begun = await self.writer.promise(
                lambda session: session.begin(
                    intent, decision, reserve=reserve, switches=scopes, anew=anew
                ),
                synced=not made.harmless(intent, decision),
                alone=not self._flying,
            )
        except BudgetExceeded as error:
            await self._refused(intent, error, "budget", decision.policy_digest)
            raise
        self.ancestry.remember(begun.call)
        if (noted := await self.shadows.answer(run, begun)) is not None:
            return Begun(await self._record(run, begun.call, noted), fresh=False), made
        question = Question(
            decide=lambda now: self.deciding.decide(run, now, facts, worst),
            switches=scopes,
            worst=worst,
            facts=facts.values,
        )
        if begun.call.outcome is not None and not begun.fresh:
            await self.writer.settled()  # another request recorded it; nobody is told too early
        return self._taken(run, await self.approvals.settle(run, begun, question)), made

    def _taken(self, run: RunRecord, begun: Begun) -> Begun:
        """Remember where a recorded answer came from: its caller has it from now on."""
        if begun.call.outcome is not None and not begun.fresh:
            self._remember(run, begun.call, begun.call.outcome)
        return begun

    async def _in_context(
        self, run: RunRecord, intent: Intent, personal: frozenset[str], asked: object
    ) -> Intent:
        """Add what the gateway knows about a call: its agent, and where its arguments came from."""
        agent = await self.ancestry.agent(run, intent)
        labels = self.flow.label(run, intent, pii=personal, asked=asked)
        return intent.but(agent=agent, labels=labels)

    async def _refused(
        self, intent: Intent, error: ToolkitError, policy: str, policy_digest: str | None
    ) -> None:
        """Keep what was stopped: a refused call is a fact like any other."""
        refused = Decision(
            Verdict.DENY, policies=(policy,), reasons=(error.message,), policy_digest=policy_digest
        )
        await self.writer.promise(lambda session: session.begin(intent, refused))

    async def replayed(self, run: RunRecord, intent: Intent) -> Begun:
        """Answer a run that gets nothing but what another one recorded, whatever holds today."""
        intent, _ = await self.screen.incoming(run, intent, self.governance.privacy(run))
        await self.recall.ready(run)
        recorded = await self.replays.answer(run, intent)
        if recorded is None:
            raise LedgerError(f"the run {run.run_id} names no run to be answered from")
        return self._taken(run, Begun(recorded, fresh=False))

    async def _resume(self, run: RunRecord, call: CallRecord, intent: Intent) -> CallRecord:
        """Decide about an intent that has no outcome and was asked for again."""
        if call.intent.request_id == intent.request_id:
            if not self._open.has(call):
                await self.deciding.believed(run, call, intent)
            return call  # the answer to `begin` was lost; the body has not run
        if not self.governance.repeatable(run, call.intent):
            return await self._settled(run, call, intent, IN_KERNEL)
        return await self.deciding.repeated(run, call, IN_KERNEL)

    async def _settled(
        self, run: RunRecord, call: CallRecord, intent: Intent, work: Work
    ) -> CallRecord:
        """Return a write in doubt as a person decided: to be made, or ended with its answer."""

        async def repeat(attempt: int) -> CallRecord:
            return await self.deciding.repeated(run, call, work, attempt)

        again, answer = await self.doubts.settle(run, call, intent, repeat)
        if answer is not None:
            return await self._record(run, call, Outcome(CallState.OK, answer=answer["answer"]))
        return again

    async def _perform_and_record(
        self, run: RunRecord, call: CallRecord, work: Work, *, again: bool
    ) -> CallRecord:
        if again:
            call = await self.deciding.repeated(run, call, work)
        started = self.clock.monotonic_s()
        try:
            outcome = await work.perform(call, call.intent.arguments)
        except ApprovalPending:  # it has not ended: a person answers in the place of its models
            raise
        except Exception as error:  # noqa: BLE001 - a surprise is an outcome too
            if not isinstance(error, ToolkitError):
                error = ToolFailed(f"{call.intent.name} failed: {type(error).__name__}")
            outcome = Outcome(CallState.ERROR, error=error.to_json())
        if outcome.seconds is None:
            outcome = changed(outcome, seconds=round(self.clock.monotonic_s() - started, 6))
        return await self._record(run, call, outcome)

    async def _record(self, run: RunRecord, call: CallRecord, outcome: Outcome) -> CallRecord:
        """Screen, label and record an outcome; only then is it anybody's to see."""
        await self.recall.ready(run)
        # What was done is recorded, whatever has happened to the policy's files meanwhile.
        outcome, personal = await self.screen.outgoing(run, outcome, self.governance.privacy(run))
        declared = self.governance.declared(run, call.intent, outcome)
        labels = self.flow.answer_labels(run, call.intent, outcome, declared, pii=personal)
        outcome = changed(outcome, labels=labels or None)
        try:
            alone = len(self._flying) < 2
            done = await self.writer.promise(lambda s: s.finish(call, outcome), alone=alone)
        except LedgerError:
            self._unrecorded.keep(call.call_id, outcome)
            raise
        self._remember(run, done, done.outcome or outcome)
        return done

    def _remember(self, run: RunRecord, call: CallRecord, outcome: Outcome) -> None:
        ok, labels = outcome.state is CallState.OK, outcome.labels or NO_LABELS
        entries = self.governance.entries(run, call.intent) if ok else ()
        answer = outcome.answer if ok else outcome.error
        self.flow.remember(run, call.intent, answer, labels, entries=entries)
