"""Where people decide: who may, what is checked before a decision counts, and what is written.

One place for all entrances: the command line, the buttons in a notebook, other systems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from toolkit.errors import CallDenied, Conflict, ToolkitError, UsageError
from toolkit.gateway.given import checked_answer
from toolkit.gateway.proofs import TIME, Claim, Proofs, Unsigned, check_proof, check_shown
from toolkit.ledger import Approval, ApprovalState, Ledger
from toolkit.policy import PolicyBundle
from toolkit.values import (
    ANSWER,
    CallKind,
    CallRecord,
    Clock,
    Decision,
    Environment,
    Intent,
    Labels,
    RunRecord,
    Source,
    SystemClock,
    Verdict,
    iso_utc,
)

__all__ = ["FACTS", "OWN_SESSION", "Answer", "Choice", "Desk", "Roles", "due_us", "with_arguments"]

OWN_SESSION = "own-session"
"""Among the policies of a question: whoever caused it may answer it, with or without its role."""

FACTS = "facts_of_policy"
"""In the view of a request: what policy was told of the call beside its arguments."""

_MOST_REASON = 2_000


class Choice(StrEnum):
    """What a person may say to a request."""

    APPROVE = "approve"  # with other arguments, where the answer has some
    REJECT = "reject"
    ESCALATE = "escalate"  # another role decides
    STOP = "stop"  # refuse this call and every later one of the run


_LET_IN = (Choice.APPROVE, Choice.ESCALATE)


class Roles(Protocol):
    """Who has which role."""

    def roles(self, user: str) -> tuple[str, ...]:
        """Return the roles of a user; nobody unknown has any."""
        ...

    def with_role(self, role: str) -> tuple[str, ...]:
        """Return the users who have a role."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer.

    Attributes:
        choice: See :class:`Choice`.
        digest: Of the request that the person has seen; another one is not answered by this.
        reason: Told to whoever made the call, be it a model.
        arguments: With ``APPROVE``: the arguments to use instead, all of them.
        role: With ``ESCALATE``: who decides instead; default: the policy's ``escalate_to``.
    """

    choice: Choice
    digest: str
    reason: str | None = None
    arguments: Any = None
    role: str | None = None


@dataclass
class Desk:
    """Checks answers and records them.

    Attributes:
        ledger: Where requests are.
        people: Returns who has which role, now.
        bundle: Returns the policies of an environment, now.
        judge: Says what policy thinks of a call with other arguments, given the facts that it was
            told of the call before.
        screen: Cuts secrets out of what a person wrote, before it is kept.
        proofs: Says which answers have to be signed, and signs them with the key of whoever is
            here.
    """

    ledger: Ledger
    people: Callable[[], Roles]
    bundle: Callable[[Environment], PolicyBundle]
    judge: Callable[[RunRecord, Intent, dict[str, Any]], Decision]
    clock: Clock = field(default_factory=SystemClock)
    screen: Callable[[str, Any], Any] = lambda _run_id, value: value
    proofs: Proofs = field(default_factory=Unsigned)

    def answer(self, approval_id: str, answer: Answer, *, by: str) -> Approval:
        """Record a person's answer; nothing is recorded when this raises.

        Args:
            approval_id: The request.
            answer: What is said.
            by: Who says it, where that is believed; else it is whoever's key signs.

        Raises:
            ConfigurationError: It has to be signed, and there is no key here that the root lists.
            CallDenied: This person may not decide, or policy denies the changed arguments.
            Conflict: It is decided already, has expired, or is not what the person has seen.
            NotFound: There is no such request.
            UsageError: The answer does not fit together.
        """
        # 1 what is asked, by whom, in which environment
        approval = self.lapse(self.ledger.approval(approval_id))
        run = self.ledger.get_run(approval.run_id)
        # 2 it is still a question, and the one that the person has seen
        self._check_open(approval, answer)
        # 3 this person may decide it
        by, signs = self._who(approval, run, answer.choice, by)
        self.check_person(approval, run, by, answer.choice)
        # 4 the answer makes sense
        changed = self._changed(approval, run, answer, by)
        role = self._next_role(approval, run, answer)
        reason = self._reason(run, answer)
        verdict = _state(answer.choice, changed)
        # 5 what is signed is what is recorded
        claim = Claim(run.environment, approval, verdict, by, reason, changed, role)
        signed = self._signed(run, claim, answer.choice) if signs else None
        # 6 nothing of the above can have changed meanwhile unnoticed: the ledger compares again
        decided = self.ledger.answer(
            approval.id,
            by=by,
            verdict=verdict,
            digest=answer.digest,
            reason=reason,
            arguments=changed,
            role=role,
            signed=signed,
        )
        if answer.choice is Choice.STOP:
            self.ledger.stop(f"run:{run.run_id}", by, reason or f"stopped on request {approval.id}")
        return decided

    def fault(self, approval: Approval, run: RunRecord) -> str | None:
        """Return why an answer that lets a call go on would not count now; ``None``: nothing is wrong.

        Only where answers are signed: elsewhere whoever decided is believed.
        """
        try:
            if not approval.lets_in or not self.proofs.needed(run.environment):
                return None
            check_proof(self, run, approval)
        except ToolkitError as error:
            return error.message
        return None

    def lapse(self, approval: Approval) -> Approval:
        """Do what time does to a request: escalate it once, where policy says so, or end it."""
        now = self.clock.now_us()
        if not approval.state.waiting or now < due_us(approval):
            return approval
        try:
            if now >= approval.expires_us:
                self.ledger.expire(now)
            else:
                self.ledger.answer(
                    approval.id,
                    by=TIME,
                    verdict=ApprovalState.ESCALATED,
                    digest=approval.digest,
                    reason=f"nobody with the role {approval.role} decided in time",
                    role=str(approval.view["escalates"]["to"]),
                )
        except Conflict:
            pass  # somebody decided in this very moment
        return self.ledger.approval(approval.id)

    def check_person(self, approval: Approval, run: RunRecord, by: str, choice: Choice) -> None:
        """Check that a person may say this to a request.

        Raises:
            CallDenied: The role is missing, or the request is the person's own, in production.
        """
        own = by == approval.requested_by
        if own and (choice is Choice.REJECT or self._is_for_its_author(approval)):
            return  # whoever asked may take it back
        held = self.people().roles(by)
        if approval.decider not in held:
            others = ", ".join(self.people().with_role(approval.decider)) or "nobody"
            raise CallDenied(
                f"{by} does not have the role {approval.decider}, which decides about "
                f"{approval.id} ({others} has it)",
                where="registry/people.yaml",
                next_step=f"ask somebody with the role {approval.decider}",
                details={"role": approval.decider, "roles": list(held)},
            )
        unattended = run.environment is Environment.PRODUCTION
        if own and unattended and choice in _LET_IN:
            raise CallDenied(
                f"{approval.id} is {by}'s own request; in production somebody else decides",
                next_step=f"ask somebody else with the role {approval.decider}",
                details={"requested_by": approval.requested_by},
            )

    def _who(self, approval: Approval, run: RunRecord, choice: Choice, by: str) -> tuple[str, bool]:
        """Return who decides, and whether they sign: the key says who they are, and not a name.

        What only refuses counts without a key: whoever could stop a call must not need one first.
        """
        if choice in _LET_IN:
            needed = self.proofs.needed(run.environment)
            return (self.proofs.person(), True) if needed else (by, False)
        try:
            if self.proofs.needed(run.environment):
                person = self.proofs.person()
                self.check_person(approval, run, person, choice)
                return person, True
        except ToolkitError:
            pass
        return by, False

    def _signed(self, run: RunRecord, claim: Claim, choice: Choice) -> str | None:
        """Return the signed envelope; a refusal that cannot be signed is none and counts all the same."""
        try:
            check_shown(self.ledger, run, claim.approval)
            return self.proofs.sign(claim)
        except ToolkitError:
            if choice in _LET_IN:
                raise
            return None

    def _is_for_its_author(self, approval: Approval) -> bool:
        if approval.view.get("kind") != "in_doubt":
            return False
        call = self.ledger.get_call(approval.run_id, approval.call_key, approval.generation)
        return OWN_SESSION in call.decision.policies

    def _check_open(self, approval: Approval, answer: Answer) -> None:
        if not approval.state.waiting:
            at = iso_utc(approval.decided_us)[:19] if approval.decided_us else "before"
            who = f" by {approval.decided_by}" if approval.decided_by else ""
            raise Conflict(
                f"{approval.id} was {approval.state}{who} ({at})",
                next_step="nothing is left to decide; see `toolkit inbox --all`",
                details={"state": approval.state.value, "decided_by": approval.decided_by},
            )
        if approval.expires_us <= self.clock.now_us():
            self.ledger.expire(self.clock.now_us())
            raise Conflict(
                f"{approval.id} expired at {iso_utc(approval.expires_us)[:19]}",
                next_step="the call has to be made again; then it is asked anew",
                details={"state": ApprovalState.EXPIRED.value},
            )
        if answer.digest != approval.digest:
            raise Conflict(
                f"{approval.id} is not what was shown: its digest is {approval.digest[:19]}…",
                next_step=f"look at it again: toolkit decide {approval.id}",
                details={"digest": approval.digest},
            )

    def _changed(self, approval: Approval, run: RunRecord, answer: Answer, by: str) -> Any:
        """Return the arguments to use instead, checked; ``None`` where they stay."""
        if answer.choice is Choice.APPROVE and approval.view.get("kind") == "in_doubt":
            return self._happened(run, answer)
        if answer.choice is Choice.APPROVE and approval.view.get("kind") == ANSWER:
            call = self.ledger.get_call(approval.run_id, approval.call_key, approval.generation)
            return self.screen(run.run_id, checked_answer(call.intent, answer.arguments))
        if answer.arguments is None:
            return None
        if answer.choice is not Choice.APPROVE:
            raise UsageError("only an approval can change arguments")
        call = self.ledger.get_call(approval.run_id, approval.call_key, approval.generation)
        if call.intent.kind is not CallKind.TOOL:
            raise UsageError(
                f"the arguments of a {call.intent.kind} call cannot be changed",
                next_step="reject it with a reason that says what to ask for",
            )
        changed = self.screen(run.run_id, answer.arguments)
        if changed == call.intent.arguments:
            return None
        self._check_types(run, call, changed)
        facts = approval.view.get(FACTS) or {}
        decision = self.judge(run, with_arguments(call.intent, changed), facts)
        missing = decision.approver not in (None, *self.people().roles(by))
        if decision.verdict is Verdict.DENY or (decision.verdict is Verdict.ASK and missing):
            said = "; ".join(decision.reasons) or "no policy allows it"
            verb = (
                "denies" if decision.verdict is Verdict.DENY else f"asks {decision.approver} about"
            )
            raise CallDenied(
                f"policy {verb} the call with these arguments: {said}",
                next_step="change them again, or reject the call",
                details={"policies": list(decision.policies), "reasons": list(decision.reasons)},
            )
        return changed

    def _happened(self, run: RunRecord, answer: Answer) -> Any:
        """Return what a person says became of a write in doubt; a bare yes could mean either."""
        told = answer.arguments if isinstance(answer.arguments, dict) else {}
        happened = told.get("happened")
        if not isinstance(happened, bool) or set(told) != {"happened", *["answer"] * happened}:
            raise UsageError(
                "an approval does not say whether the call happened",
                next_step="toolkit decide ID approve --happened JSON (what it answered), "
                "or --not-happened (then it is made)",
            )
        return self.screen(run.run_id, told)

    def _check_types(self, run: RunRecord, call: CallRecord, changed: Any) -> None:
        if not isinstance(changed, dict):
            raise UsageError("the arguments of a tool are an object: names and values")
        given = call.intent.arguments
        known = set(given) if isinstance(given, dict) else set()
        if unknown := sorted(set(changed) - known):
            raise UsageError(
                f"{call.intent.name} was not called with an argument {unknown[0]!a}",
                next_step=f"its arguments are: {', '.join(sorted(known)) or 'none'}",
            )
        entry = self.bundle(run.environment).tools.get(call.intent.name)
        if entry is not None and (faults := entry.check_arguments(changed)):
            raise UsageError("; ".join(faults), where=f"registry/tools.yaml: {call.intent.name}")

    def _next_role(self, approval: Approval, run: RunRecord, answer: Answer) -> str | None:
        if answer.choice is not Choice.ESCALATE:
            return None
        role = answer.role or self.bundle(run.environment).approvals.escalate_to
        if role is None:
            raise UsageError(
                "the policy names nobody to escalate to", next_step="name a role: --to ROLE"
            )
        if role == approval.decider:
            raise UsageError(f"{approval.id} is with the role {role} already")
        if not self.people().with_role(role):
            raise UsageError(
                f"nobody has the role {role!a}",
                where="registry/people.yaml",
                next_step="name a role that somebody has",
            )
        return role

    def _reason(self, run: RunRecord, answer: Answer) -> str | None:
        text = (answer.reason or "").strip()
        if not text and answer.choice is Choice.REJECT:
            raise UsageError(
                "a rejection needs a reason", next_step="say what would be acceptable: --reason"
            )
        if len(text) > _MOST_REASON:
            raise UsageError(f"the reason is longer than {_MOST_REASON:,} characters")
        return str(self.screen(run.run_id, text)) if text else None


def due_us(approval: Approval) -> int:
    """Return when time changes a waiting request: it is escalated, or expires."""
    return approval.due_us


def with_arguments(intent: Intent, arguments: Any) -> Intent:
    """Return a call with the arguments that a person chose, labelled as the person's."""
    before = intent.arguments if isinstance(intent.arguments, dict) else {}
    mine = {
        name: Labels(frozenset({Source.USER}))
        for name, value in arguments.items()
        if name not in before or before[name] != value
    }
    kept = {name: labels for name, labels in intent.labels.items() if name in arguments}
    return replace(intent, arguments=arguments, labels=kept | mine)


def _state(choice: Choice, changed: Any) -> ApprovalState:
    if changed is not None:
        return ApprovalState.CHANGED
    return {
        Choice.APPROVE: ApprovalState.APPROVED,
        Choice.REJECT: ApprovalState.REJECTED,
        Choice.ESCALATE: ApprovalState.ESCALATED,
        Choice.STOP: ApprovalState.STOPPED,
    }[choice]
