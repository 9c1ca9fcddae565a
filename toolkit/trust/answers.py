"""A person's answer about one call, signed: who let it go on, and what exactly.

The answer is bound to the request (and by its digest to user, call, arguments, policy and expiry) and
to what was said about it.  The envelope is kept with the answer in the ledger, not in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from toolkit.errors import ConfigurationError, UsageError
from toolkit.trust.dsse import Envelope
from toolkit.trust.keys import Signer
from toolkit.trust.notary import sign
from toolkit.trust.reader import statement, stored
from toolkit.trust.root import Root, refused
from toolkit.trust.shapes import Amount, DigestText, Name, Text, Utc, shape_faults
from toolkit.trust.statements import Predicate, statement_bytes
from toolkit.values import Digest

__all__ = ["CallAnswer", "answerer", "call_answer", "read_answer", "sign_answer"]


class CallAnswer(Predicate):
    """What one person said to one request about a call.  Subject: the request, by its digest.

    Attributes:
        environment: Of the run.
        approval: The request's id.
        run, call, generation: The call: its run, its key, and how often it was made anew.
        digest: The request's digest, as the person was shown it.
        choice: What was said.
        arguments_digest: With ``changed``: of the arguments (or the answer) that were recorded.
        role: With ``escalated``: who decides instead.
        reason_digest: Of the reason that was recorded, if one was given.
        person: Who, as the root names them.
        issued: When.
    """

    kind: ClassVar[str] = "urn:agent-toolkit:call-answer:1"

    environment: Name
    approval: Name
    run: Text
    call: Text
    generation: Amount
    digest: DigestText
    choice: Literal["approved", "changed", "escalated", "rejected", "stopped"]
    arguments_digest: DigestText | None
    role: Text | None
    reason_digest: DigestText | None
    person: Name
    issued: Utc

    @property
    def subject(self) -> str:
        return self.approval

    @property
    def subject_digest(self) -> Digest:
        return self.digest


def answerer(root: Root, signer: Signer) -> str:
    """Return whose key it is, as the root names them.

    Raises:
        ConfigurationError: The root does not list the key.
    """
    person = root.person_of(signer.public)
    if person is None:
        raise ConfigurationError(
            f"the root does not list the key {signer.public.id[:23]}…",
            where="trust/root.json",
            next_step="let the people of the root add it (toolkit trust add-person)",
        )
    return person


def call_answer(members: Mapping[str, Any]) -> CallAnswer:
    """Return an answer with these members.

    Raises:
        UsageError: One of them has a form that cannot be signed; the text names it.
    """
    try:
        return CallAnswer.model_validate(members)
    except ValidationError as error:
        raise UsageError(
            f"this answer cannot be signed: {'; '.join(shape_faults(error))}"
        ) from None


def sign_answer(answer: CallAnswer, signer: Signer) -> Envelope:
    """Return the answer in an envelope that the signer's key signed.

    Raises:
        IntegrityError: The signer's signature is not its key's.
    """
    return sign(Envelope(statement_bytes(answer)), signer)


def read_answer(data: bytes, root: Root, where: str) -> CallAnswer:
    """Verify a signed answer and return what it says.

    Steps: (1) it has the one byte form of an envelope; (2) one key signed these bytes, and the root
    lists it; (3) they are a sound answer; (4) the key is that of the person it names.

    Args:
        data: The envelope.
        root: The root in force.
        where: The request's id, for messages.

    Raises:
        IntegrityError: A step failed.
    """
    envelope = stored(data, where)  # 1
    people = root.signers(envelope, where)  # 2
    answer, _ = statement(envelope, CallAnswer, where)  # 3
    if len(envelope.signatures) != 1 or people != {answer.person}:  # 4
        signed = " and ".join(sorted(people))
        raise refused(where, f"names {answer.person}, and is signed by {signed}")
    return answer
