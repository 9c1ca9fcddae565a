"""Model calls as work: which targets they may go to, what they can cost, and when they stop asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.errors import CallDenied, ToolkitError, UsageError
from toolkit.gateway.approvals import Approvals
from toolkit.gateway.flow import Flow
from toolkit.gateway.governance import Governance
from toolkit.gateway.memory import Retries
from toolkit.gateway.modelling import (
    Asking,
    Embedding,
    OnDelta,
    embedding_bounds,
    model_bounds,
    model_request,
)
from toolkit.gateway.persons import Persons, waits_for_a_person
from toolkit.gateway.scopes import switches
from toolkit.gateway.targets import fitting
from toolkit.gateway.work import Facts, Work, Worst
from toolkit.ledger import Ledger
from toolkit.policy import PolicyBundle, Scope
from toolkit.providers import CallContext, Providers, Route
from toolkit.values import Clock, DataClass, Intent, Money, RunRecord, changed

__all__ = ["Routing"]


@dataclass(frozen=True)
class Routing:
    """Makes the work of model calls.

    Attributes:
        ledger: Where stop switches are.
        governance: What policy says about targets.
        providers: Returns the providers of the current catalog.
        approvals: Takes calls past the people who answer in the place of a model.
        flow: Knows what a run has read.
        clock: What time it is.
        retries: What is left of each run's retries.
    """

    ledger: Ledger
    governance: Governance
    providers: Callable[[], Providers]
    approvals: Approvals
    flow: Flow
    clock: Clock
    retries: Retries = field(default_factory=Retries)

    def model(self, run: RunRecord, intent: Intent, route: Route, on_delta: OnDelta | None) -> Work:
        """Return the work of asking a route's targets, as far as policy permits them.

        Raises:
            UsageError: The arguments are no model call's, or no target takes it.
        """
        context = self._context(run, intent, route)
        among = self.governance.permitted(run, intent, route, self.flow.session(run.run_id))
        request = model_request(intent.arguments)

        def most(having: CallContext) -> Worst:
            return model_bounds(route, request, having)

        targets, worst = fitting(among, lambda only: _bounds(most, _among(context, only)))
        context = _among(context, targets)
        read = (intent.arguments, request)
        asking = Asking(self.providers, self.clock, route, on_delta, context, among, read)
        perform = Persons(self.ledger, self.approvals, self.governance).behind(run, asking)
        facts = Facts(route, targets=targets or None)
        return Work(perform, facts, worst, waits=waits_for_a_person)

    def embedding(self, run: RunRecord, intent: Intent, route: Route) -> Work:
        """Return the work of embedding ``intent.arguments["input"]``, a list of texts.

        Raises:
            UsageError: No target takes them, of those with the model of the route's first one.
        """
        context = self._context(run, intent, route)
        among = self.governance.permitted(run, intent, route, self.flow.session(run.run_id))

        def most(having: CallContext) -> Worst:
            return embedding_bounds(route, intent.arguments["input"], having)

        targets, worst = fitting(among, lambda only: _bounds(most, _among(context, only)))
        work = Embedding(self.providers, self.clock, route, _among(context, targets), among)
        return Work(work.perform, Facts(route, targets=targets or None), worst)

    def _context(self, run: RunRecord, intent: Intent, route: Route) -> CallContext:
        """Return what routing may know of a call."""
        bundle = self.governance.bundle(run.environment)

        async def halted() -> ToolkitError | None:
            return await asyncio.to_thread(self._halted, run, intent, route)

        return CallContext(
            run_id=run.run_id,
            classes=frozenset[DataClass]().union(
                *(each.classes for each in intent.labels.values())
            ),
            task=intent.purpose,
            max_usd=_most_usd(bundle) if route.targets else None,
            region=bundle.region,
            retries=self.retries.of(run.run_id, bundle.retries_per_run),
            halted=halted,
        )

    def _halted(self, run: RunRecord, intent: Intent, route: Route) -> ToolkitError | None:
        """Return why a call makes no further attempt; a ledger that cannot tell is a reason, too."""
        try:
            stop = self.ledger.stopped(switches(run, intent, Facts(route)))
        except ToolkitError as error:
            return error
        if stop is None:
            return None
        reason = f": {stop.reason}" if stop.reason else ""
        return CallDenied(
            f"{stop.scope} was stopped by {stop.by} while the call was under way{reason}",
            where=stop.scope,
            next_step=f"wait until somebody starts {stop.scope} again",
            details={"policies": ["stop"], "kind": "stopped"},
        )


def _among(context: CallContext, targets: frozenset[str] | None) -> CallContext:
    return context if targets is context.targets else changed(context, targets=targets)


def _bounds(most: Callable[[CallContext], Worst], context: CallContext) -> Worst:
    """Return the most that a call can cost at the targets that one call may pay for.

    Where it may pay for none of them, the most that it would cost: its budget says why not.
    """
    try:
        return most(context)
    except UsageError as error:
        if context.max_usd is None or error.details.get("kind") != "no_target":
            raise
    return most(changed(context, max_usd=None))


def _most_usd(bundle: PolicyBundle) -> Money | None:
    """Return what one call may cost, by the budgets of single calls."""
    given = [
        rule.usd for rule in bundle.budgets if rule.scope is Scope.CALL and rule.usd is not None
    ]
    return min(given, default=None)
