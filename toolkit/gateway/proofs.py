"""Answers that have to be signed: what the desk asks for, and what the gateway holds them against.

The ledger's word is not enough where a registry has a trust root: an answer about a call in production
counts by the signature that is kept with it, verified again when the call goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from toolkit.errors import CallDenied, ConfigurationError
from toolkit.gateway.views import shows
from toolkit.ledger import Approval, ApprovalState, Ledger, Said
from toolkit.values import CallRecord, Environment, RunRecord, digest_json

if TYPE_CHECKING:
    from toolkit.gateway.desk import Desk

__all__ = ["TIME", "Claim", "Proofs", "Unsigned", "check_proof", "check_same", "check_shown"]

TIME = "(time)"
"""Who escalates when nobody decides; not a name that a user can have."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody said to a request, as it is recorded or about to be.

    Attributes:
        environment: Of the run.
        approval: The request; of it count id, call and digest.
        state: What was said.
        person: Who said it.
        reason, arguments, role: What was said with it.
    """

    environment: Environment
    approval: Approval
    state: ApprovalState
    person: str
    reason: str | None = None
    arguments: Any = None
    role: str | None = None


class Proofs(Protocol):
    """Signatures of people under their answers."""

    def needed(self, environment: Environment) -> bool:
        """Whether an answer that lets a call go on has to be signed.

        Raises:
            ToolkitError: Nobody can tell now; then nothing goes on.
        """
        ...

    def person(self, *, quietly: bool = False) -> str:
        """Return whose key signs here.

        Args:
            quietly: Ask nobody for a passphrase.

        Raises:
            ConfigurationError: There is no key here, or it is nobody's.
        """
        ...

    def sign(self, claim: Claim) -> str:
        """Return the envelope in which the person signs a claim.

        Raises:
            ConfigurationError: The key here is not that person's.
        """
        ...

    def check(self, claim: Claim, signed: str | None) -> None:
        """Verify that the person signed this claim, with a key that is theirs now.

        Raises:
            CallDenied: It is not so; the message says what is wrong.
            ToolkitError: Nobody can tell now; the call stays as it is.
        """
        ...


class Unsigned:
    """Of a registry without a trust root: whoever decides is believed by name."""

    def needed(self, environment: Environment) -> bool:  # noqa: ARG002
        """Nothing has to be signed."""
        return False

    def person(self, *, quietly: bool = False) -> str:  # noqa: ARG002
        """Nobody signs; raises :class:`ConfigurationError`."""
        raise ConfigurationError("answers are not signed in a registry without a trust root")

    def sign(self, claim: Claim) -> str:  # noqa: ARG002
        """Nobody signs; raises :class:`ConfigurationError`."""
        return self.person()

    def check(self, claim: Claim, signed: str | None) -> None:
        """Nothing is refused."""


def check_same(run: RunRecord, call: CallRecord, approval: Approval) -> None:
    """Check that a request is about a call as it is recorded; see ``toolkit.ledger.Approval``.

    Raises:
        CallDenied: Its digest is of something else.
    """
    intent, policy = call.intent, call.decision.policy_digest
    what = [run.user, intent.kind.value, intent.name, intent.arguments_digest, policy]
    if approval.digest != digest_json([*what, approval.expires_us]):
        raise CallDenied("the call is not the one that was approved")


def check_shown(ledger: Ledger, run: RunRecord, approval: Approval) -> None:
    """Check that a person was shown the call: a view may have been made to look harmless.

    Raises:
        CallDenied: Digest or view of the request are of something else.
    """
    call = ledger.get_call(approval.run_id, approval.call_key, approval.generation)
    check_same(run, call, approval)
    if not shows(approval.view, call):
        raise CallDenied(
            f"what {approval.id} shows is not what the call says",
            where=approval.id,
            next_step="somebody changed the ledger: toolkit ledger verify",
        )


def check_proof(desk: Desk, run: RunRecord, approval: Approval) -> None:
    """Verify every answer that an approval stands on, the escalations before it included.

    Args:
        desk: Knows who has which role now, and what policy says of escalations now.
        run: Who asked.
        approval: The request as it is recorded.

    Raises:
        CallDenied: One of the answers does not count; the message says which, and why.
        ToolkitError: Nobody can tell now.
    """
    if not approval.lets_in:
        raise CallDenied(f"the request is {approval.state}")
    call = desk.ledger.get_call(approval.run_id, approval.call_key, approval.generation)
    check_same(run, call, approval)
    said = desk.ledger.answers(approval.id)
    if not said:
        raise CallDenied("no answer to it is in the run's chain")
    decider = approval.role
    for number, step in enumerate(said[:-1]):
        decider = _escalated(desk, run, approval, step, decider, first=number == 0)
    if decider != approval.decider:
        raise CallDenied(f"nobody escalated it to {approval.decider}")
    # What is made is what the request's row says: that is held against the signature.
    claim = Claim(
        run.environment,
        approval,
        approval.state,
        str(approval.decided_by),
        approval.reason,
        approval.arguments,
    )
    _check_person(desk, run, claim, said[-1].signed, decider)


def _escalated(
    desk: Desk, run: RunRecord, approval: Approval, step: Said, decider: str, *, first: bool
) -> str:
    """Return the role that decides after an escalation that counts."""
    if step.state is not ApprovalState.ESCALATED or not step.role:
        raise CallDenied(f"it was {step.state} before that, by {step.by}")
    if step.by == TIME:
        policy = desk.bundle(run.environment).approvals
        told = approval.view.get("escalates") or {}
        named = policy.on_expiry == "escalate" and policy.escalate_to == step.role
        due = step.role == told.get("to") and step.at_us >= int(told.get("at_us", 0))
        if not (first and named and due):
            raise CallDenied(f"policy does not let time escalate it to {step.role}")
        return step.role
    said = Claim(run.environment, approval, step.state, str(step.by), step.reason, role=step.role)
    _check_person(desk, run, said, step.signed, decider)
    return step.role


def _check_person(
    desk: Desk, run: RunRecord, claim: Claim, signed: str | None, decider: str
) -> None:
    desk.proofs.check(claim, signed)
    if claim.person in (run.user, claim.approval.requested_by):
        raise CallDenied(f"{claim.person} made the request: in production somebody else decides")
    if decider not in desk.people().roles(claim.person):
        raise CallDenied(f"{claim.person} does not have the role {decider} now")
