"""People's side of a workspace: requests that wait for somebody, and the stop switch."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.app.answers import Seal, SignedAnswers, seal_of
from toolkit.app.own_secrets import OwnSecrets
from toolkit.app.trusting import own_signer
from toolkit.app.waiting import Waking
from toolkit.errors import NotFound, ToolkitError, UsageError
from toolkit.gateway import (
    Answer,
    Choice,
    Desk,
    Facts,
    Flow,
    Governance,
    Recall,
    Roles,
    Screen,
    approval_reply,
    due_us,
)
from toolkit.ledger import Approval, Ledger, Stop
from toolkit.policy import People
from toolkit.privacy import Detector
from toolkit.registry import Registry
from toolkit.values import CallRecord, Clock, Decision, Intent, RunRecord, SystemClock

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench

__all__ = ["Asked", "Inbox", "make_desk", "open_inbox"]

_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a person sees it.

    Attributes:
        approval: The request.
        run: Who asks.
        call: What is asked.
        why_not: Why the person who looks may not approve it; ``None``: may.
        warning: What a reader has to know beside the view (a webhook that failed).
        seal: Who signed the last answer; ``None``: nobody did.
        fault: Why that answer would not count now; looked for only where one request is shown.
    """

    approval: Approval
    run: RunRecord
    call: CallRecord
    why_not: str | None
    warning: str | None = None
    seal: Seal | None = None
    fault: str | None = None

    @property
    def due_us(self) -> int:
        """When time changes it: it is escalated, or expires."""
        return due_us(self.approval)

    def to_json(self, now_us: int) -> dict[str, Any]:
        """Return the request as JSON values."""
        return {
            **approval_reply(self.approval, self.call, now_us),
            "environment": self.run.environment.value,
            "why_not": self.why_not,
            "warning": self.warning,
            "signed": None if self.seal is None else self.seal.to_json(),
            "fault": self.fault,
        }


@dataclass
class Inbox:
    """Requests and switches of one workspace, for one person.

    Attributes:
        ledger: Where both are.
        registry: Whose audit log tells what people did.
        desk: Where answers are checked.
        user: Who decides, where a name is believed; else it is whoever's key signs.
        wake: Called with the run of a request that was decided: it may go on.
    """

    ledger: Ledger
    registry: Registry
    desk: Desk
    user: str
    clock: Clock
    wake: Callable[[RunRecord], None] = lambda _: None

    def requests(self, *, role: str | None = None, everything: bool = False) -> list[Asked]:
        """Return the requests that wait, the oldest first; with ``everything`` decided ones, too.

        Args:
            role: Only those that this role decides.
            everything: All, the newest first, at most a thousand.
        """
        for waiting in self.ledger.approvals(waiting=True, limit=_MOST):
            self.desk.lapse(waiting)
        found = self.ledger.approvals(role=role, limit=_MOST, waiting=not everything)
        return [self._asked(approval) for approval in found]

    def request(self, approval_id: str) -> Asked:
        """Return one request; raises :class:`NotFound`."""
        asked = self._asked(self.desk.lapse(self.ledger.approval(approval_id)))
        return replace(asked, fault=self.desk.fault(asked.approval, asked.run))

    def decide(
        self,
        approval_id: str,
        choice: str,
        digest: str,
        *,
        reason: str | None = None,
        arguments: Any = None,
        role: str | None = None,
    ) -> Approval:
        """Record an answer, in the ledger and in the audit log.

        Args:
            approval_id: The request.
            choice: ``approve``, ``reject``, ``escalate`` or ``stop``.
            digest: Of the request that the person has seen.
            reason: See :class:`toolkit.gateway.Answer`, like the other two.
            arguments: With ``approve``.
            role: With ``escalate``.

        Raises:
            CallDenied, ConfigurationError, Conflict, NotFound, UsageError: See ``Desk.answer``;
                nothing was recorded.
            IntegrityError, InfrastructureError: The answer counts, the audit log has no record.
        """
        answer = Answer(Choice(choice), digest, reason, arguments, role)
        decided = self.desk.answer(approval_id, answer, by=self.user)
        facts = {
            "approval": decided.id,
            "run": decided.run_id,
            "call": decided.call_key,
            "state": decided.state.value,
            "digest": decided.digest,
            "role": decided.role if decided.escalated_to is None else decided.escalated_to,
            "requested_by": decided.requested_by,
        }
        if seal := self._seal(decided):
            facts |= {"signed": seal.digest, "key": seal.key}
        self._audit("approval.answered", facts, by=decided.decided_by)
        self.wake(self.ledger.get_run(decided.run_id))
        return decided

    def stop(self, scope: str, reason: str) -> Stop:
        """Refuse every call of a scope from now on; the next call feels it, everywhere.

        Raises:
            UsageError: The scope is none, or the reason is missing.
            IntegrityError, InfrastructureError: The stop counts, the audit log has no record.
        """
        if not reason.strip():
            raise UsageError("a stop needs a reason", next_step="say why: --reason TEXT")
        stopped = self.ledger.stop(scope, self.user, self._screened(reason))
        self._audit("switch.stopped", {"scope": scope, "reason": stopped.reason})
        kind, _, name = scope.partition(":")
        if kind == "run":
            with suppress(NotFound):
                self.wake(self.ledger.get_run(name))
        return stopped

    def start(self, scope: str, reason: str = "") -> Stop:
        """Undo a stop, and return it.

        Raises:
            NotFound: The scope is not stopped.
            IntegrityError, InfrastructureError: The start counts, the audit log has no record.
        """
        why = self._screened(reason)
        stopped = self.ledger.start(scope, self.user, why)
        self._audit("switch.started", {"scope": scope, "reason": why})
        return stopped

    def stops(self) -> list[Stop]:
        """Return what is stopped now."""
        return self.ledger.stops()

    def _screened(self, reason: str) -> str:
        return str(self.desk.screen("", reason.strip()))

    def _asked(self, approval: Approval) -> Asked:
        run = self.ledger.get_run(approval.run_id)
        call = self.ledger.get_call(approval.run_id, approval.call_key, approval.generation)
        why_not = None
        if approval.state.waiting:
            try:
                needed = self.desk.proofs.needed(run.environment)
                me = self.desk.proofs.person(quietly=True) if needed else self.user
                self.desk.check_person(approval, run, me, Choice.APPROVE)
            except ToolkitError as error:
                why_not = error.message
        return Asked(
            approval, run, call, why_not, call.tags.get("webhook"), seal=self._seal(approval)
        )

    def _seal(self, approval: Approval) -> Seal | None:
        """Return who signed the last answer to a request."""
        if approval.decided_by is None:
            return None
        said = self.ledger.answers(approval.id)
        return seal_of(said[-1].signed) if said else None

    def _audit(self, event: str, body: dict[str, Any], *, by: str | None = None) -> None:
        """Record what was done; the login beside the name, which settings can choose."""
        try:
            login = getpass.getuser()
        except (KeyError, OSError):  # a container's uid without a passwd entry
            login = "unknown"
        try:
            self.registry.record(event, {**body, "login": login}, by=by or self.user)
        except ToolkitError as error:
            step = f"; {error.next_step}" if error.next_step else ""
            error.next_step = f"what you did counts and is in the ledger{step}"
            raise


def make_desk(ledger: Ledger, governance: Governance, clock: Clock | None = None) -> Desk:
    """Return the desk of a workspace: its people, its policies, its ledger."""
    folder = governance.registry

    def people() -> Roles:
        return People.load(folder / "people.yaml")

    def judge(run: RunRecord, intent: Intent, facts: dict[str, Any]) -> Decision:
        # As the door will: with all that the run has read by now.
        recall = Recall(
            ledger, Flow(Detector()), lambda run, intent: governance.declared(run, intent, None)
        )
        return governance.decide(run, intent, Facts(values=facts), recall.session(run))

    return Desk(
        ledger,
        people=people,
        bundle=governance.bundle,
        judge=judge,
        clock=clock or SystemClock(),
    )


def open_inbox(bench: Workbench) -> Inbox:
    """Return the inbox of whoever uses a workspace; reads no policy, so that a stop always works."""
    desk = make_desk(bench.ledger, bench.governance)
    place = bench.workspace
    desk.screen = Screen(Detector(), OwnSecrets(os.environ, place.registry)).value
    desk.proofs = SignedAnswers(
        lambda: bench.registry, lambda quietly: own_signer(place, ask=not quietly), desk.clock
    )
    wake = Waking(bench.ledger, lambda: bench.engine).decided
    return Inbox(bench.ledger, bench.registry, desk, place.user, desk.clock, wake)
