"""The door itself: one short method per concern, each calling the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from toolkit.errors import BudgetExceeded, CallInDoubt, LedgerError, ToolFailed, ToolkitError
from toolkit.gateway.approvals import Approvals, Question
from toolkit.gateway.context import Ancestry
from toolkit.gateway.flow import Flow
from toolkit.gateway.governance import Governance
from toolkit.gateway.memory import OpenCalls, Retries, Unrecorded
from toolkit.gateway.modelling import Asking, OnDelta, embedding_work, model_request, price_missing
from toolkit.gateway.recall import Recall
from toolkit.gateway.scopes import check_call_budget, reservation, switches
from toolkit.gateway.screening import Screen
from toolkit.gateway.work import Facts, Work, Worst
from toolkit.ledger import Begun, Ledger, LedgerWriter, Reservation
from toolkit.policy import PrivacyPolicy
from toolkit.providers import CallContext, Providers, Route, worst_case
from toolkit.values import (
    NO_LABELS,
    CallKind,
    CallRecord,
    CallState,
    Clock,
    DataClass,
    Decision,
    Effect,
    Intent,
    Labels,
    Outcome,
    RunKind,
    RunRecord,
    Source,
    SystemClock,
    Verdict,
)

__all__ = ["Door"]

_REPLAY_ONLY = (RunKind.REPRODUCTION,)


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
    retries: Retries = field(default_factory=Retries)
    _flying: dict[str, asyncio.Future[CallRecord]] = field(default_factory=dict)
    _open: OpenCalls = field(init=False)
    _unrecorded: Unrecorded = field(default_factory=Unrecorded)

    def __post_init__(self) -> None:
        self.ancestry = Ancestry(self.ledger)
        self.flow = Flow(self.screen.detector)
        self.recall = Recall(
            self.ledger, self.flow, lambda run, intent: self._declared(run, intent, None)
        )
        self._open = OpenCalls(self.clock)

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

        def work(prepared: Intent) -> Work:
            return self._model_work(run, prepared, route, on_delta)

        return await self.perform(run, intent, work)

    async def embed(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Ask for the vectors of ``intent.arguments["input"]``, a list of texts; see :meth:`model`."""
        route = self.governance.route(intent.name)

        def work(prepared: Intent) -> Work:
            context = self._routing(run, prepared, route)
            return embedding_work(self.providers, self.clock, route, prepared.arguments, context)

        return await self.perform(run, intent, work)

    async def perform(self, run: RunRecord, intent: Intent, work: Making) -> CallRecord:
        """Decide about a call, execute it in this process and return its record.

        Raises:
            ApprovalPending: A person has to decide first; the same call may be sent again.
            CallDenied, BudgetExceeded: Policy or budget said no.
            CallInDoubt: It is a write, was begun before, and nobody knows how it ended.
            LedgerError, UsageError: See the classes.
        """
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
                raise _in_doubt(intent)
        # It is done and its outcome recorded even if the kernel goes away meanwhile: what was
        # paid for is kept, and the kernel's next incarnation finds it.
        task = asyncio.ensure_future(self._perform_and_record(run, call, made))
        self._flying[call.call_id] = task
        task.add_done_callback(lambda _: self._flying.pop(call.call_id, None))
        return await asyncio.shield(task)

    async def begin(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Decide and record a call whose body runs in the kernel.

        Returns the record; one with an outcome is answered from it and must not run.
        """
        begun, _ = await self._begin(run, intent, _IN_KERNEL)
        call = begun.call
        if run.kind in _REPLAY_ONLY:
            return _to_run_again(call)
        if not begun.fresh and call.outcome is None:
            if (outcome := self._unrecorded.take(call.call_id)) is not None:
                return await self._record(run, call, outcome)
            call = await self._resume(run, call, intent)
        if call.outcome is None:
            self._open.add(call)
            self.flow.opened(run, call.intent, self._declared(run, call.intent, None))
        return call

    async def finish(
        self, run: RunRecord, key: str, generation: int, outcome: Outcome
    ) -> CallRecord:
        """Record how a call that ran in the kernel ended."""
        if run.kind in _REPLAY_ONLY:  # the journal holds it, and is all there is
            source = str(run.source_run_id)
            return await asyncio.to_thread(self.ledger.get_call, source, key, generation)
        call, seconds = self._open.take(f"{run.run_id}/{key}/{generation}")
        if call is None:  # begun at another gateway, or finished before
            call = await asyncio.to_thread(self.ledger.get_call, run.run_id, key, generation)
        return await self._record(run, call, replace(outcome, seconds=seconds))

    async def result(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Record a published result: decided like a call, executed by being recorded."""
        begun, _ = await self._begin(run, intent, _IN_KERNEL)
        call = begun.call
        if call.outcome is not None:
            return call
        return await self._record(
            run, call, Outcome(CallState.OK, answer=call.intent.arguments["value"])
        )

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
        bundle = self.governance.bundle(run.environment)
        asked = intent.arguments
        intent, personal = self.screen.arguments(run, intent, bundle.privacy)
        await self.recall.ready(run)
        if (replayed := await self._replay(run, intent)) is not None:
            return self._taken(run, replayed), _IN_KERNEL
        intent = await self._in_context(run, intent, personal, asked)
        made = work if isinstance(work, Work) else work(intent)
        facts, worst = made.facts, made.worst
        scopes = switches(run, intent, facts)
        decision = self._decide(run, intent, facts, worst)
        reserve: Reservation | None = None
        try:
            if decision.verdict is not Verdict.DENY:
                check_call_budget(bundle, intent, worst)
                reserve = reservation(bundle, run, intent, worst, self.clock.now_us())
            begun = await asyncio.wrap_future(
                self.writer.begin(intent, decision, reserve=reserve, switches=scopes)
            )
        except BudgetExceeded as error:
            await self._record_refusal(intent, error, decision.policy_digest)
            raise
        self.ancestry.remember(begun.call)
        question = Question(
            decide=lambda now: self._decide(run, now, facts, worst), switches=scopes, worst=worst
        )
        return self._taken(run, await self.approvals.settle(run, begun, question)), made

    def _taken(self, run: RunRecord, begun: Begun) -> Begun:
        """Remember where a recorded answer came from: its caller has it from now on."""
        call = begun.call
        if call.outcome is not None and not begun.fresh:
            self._remember(run, call, call.outcome)
        return begun

    async def _in_context(
        self, run: RunRecord, intent: Intent, personal: frozenset[str], asked: object
    ) -> Intent:
        """Add what the gateway knows about a call: its agent, and where its arguments came from."""
        ask = self.ancestry.agent_of
        agent = ask(intent) if self.ancestry.known(intent) else await asyncio.to_thread(ask, intent)
        labels = self.flow.label(run, intent, pii=personal, asked=asked)
        return replace(intent, agent=agent, labels=labels)

    def _declared(self, run: RunRecord, intent: Intent, outcome: Outcome | None) -> Labels:
        """Return the labels that a catalog gives to what a call answers."""
        if outcome is not None and outcome.labels is not None:
            return outcome.labels
        if intent.kind is not CallKind.TOOL:
            return NO_LABELS
        if (bundle := self.governance.standing(run.environment)) is None:
            return Labels(frozenset({Source.UNTRUSTED}))  # nobody can say, until it is mended
        entry = bundle.tools.get(intent.name)
        return NO_LABELS if entry is None else entry.labels

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
        session = self.flow.session(run.run_id)
        decision = self.governance.decide(run, intent, facts, session)
        bundle = self.governance.bundle(run.environment)
        unpriced = worst.cost is None and bundle.budget.usd is not None
        if unpriced and bundle.unknown_price == "deny" and decision.verdict is not Verdict.DENY:
            return Decision(
                Verdict.DENY,
                policies=("unknown-price",),
                reasons=(price_missing(facts.route),),
                policy_digest=bundle.digest,
            )
        return decision

    def _model_work(
        self, run: RunRecord, intent: Intent, route: Route, on_delta: OnDelta | None
    ) -> Work:
        """Return the work of asking a route's targets, as far as policy permits them."""
        context = self._routing(run, intent, route)
        cost, tokens = worst_case(route, model_request(intent.arguments), context)
        asking = Asking(self.providers, self.clock, route, on_delta, context)
        return Work(asking.perform, Facts(route), Worst(cost, tokens, seconds=route.timeout_s))

    def _routing(self, run: RunRecord, intent: Intent, route: Route) -> CallContext:
        """Return what routing may know of a call."""
        bundle = self.governance.bundle(run.environment)
        permitted = self.governance.permitted(run, intent, route, self.flow.session(run.run_id))
        return CallContext(
            run_id=run.run_id,
            classes=frozenset[DataClass]().union(
                *(each.classes for each in intent.labels.values())
            ),
            task=intent.purpose,
            retries=self.retries.of(run.run_id, bundle.retries_per_run),
            # Where policy permits no target, the decision says why.
            targets=permitted or None,
        )

    async def _resume(self, run: RunRecord, call: CallRecord, intent: Intent) -> CallRecord:
        """Decide about an intent that has no outcome and was asked for again."""
        if call.intent.request_id == intent.request_id:
            return call  # the answer to `begin` was lost; the body has not run
        if call.intent.effect is Effect.WRITE:
            raise _in_doubt(intent)
        scopes = switches(run, call.intent, Facts())
        restarted = await asyncio.to_thread(self.ledger.restart, call, switches=scopes)
        # Arguments that a person chose are kept with the request, not in the call's record.
        return replace(restarted, intent=call.intent, tags={**call.tags, **restarted.tags})

    async def _perform_and_record(self, run: RunRecord, call: CallRecord, work: Work) -> CallRecord:
        started = self.clock.monotonic_s()
        try:
            outcome = await work.perform(call, call.intent.arguments)
        except ToolkitError as error:
            outcome = Outcome(CallState.ERROR, error=error.to_json())
        except Exception as error:  # noqa: BLE001 - a surprise is an outcome too
            surprise = ToolFailed(f"{call.intent.name} failed: {type(error).__name__}")
            outcome = Outcome(CallState.ERROR, error=surprise.to_json())
        # What a call worked, without what it waited for a person.
        outcome = replace(outcome, seconds=round(self.clock.monotonic_s() - started, 6))
        return await self._record(run, call, outcome)

    async def _record(self, run: RunRecord, call: CallRecord, outcome: Outcome) -> CallRecord:
        """Screen, label and record an outcome; only then is it anybody's to see."""
        await self.recall.ready(run)
        # What was done is recorded, whatever has happened to the policy's files meanwhile.
        bundle = self.governance.standing(run.environment)
        privacy = PrivacyPolicy(pii="redact") if bundle is None else bundle.privacy
        outcome, personal = self.screen.outcome(run, outcome, privacy)
        declared = self._declared(run, call.intent, outcome)
        labels = self.flow.answer_labels(run, call.intent, outcome, declared, pii=personal)
        outcome = replace(outcome, labels=labels or None)
        try:
            done = await asyncio.wrap_future(self.writer.finish(call, outcome))
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


async def _in_kernel(_: CallRecord, __: object) -> Outcome:
    raise ToolFailed("the body of this call runs in the kernel")


_IN_KERNEL = Work(_in_kernel)
"""What the gateway does not execute itself, with the facts and bounds of nothing."""


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
