"""Answers about calls as a signed registry wants them: signed by a person, verified by the gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolkit.errors import CallDenied, ConfigurationError, InfrastructureError, IntegrityError
from toolkit.values import Clock, Environment, SystemClock, digest_json, iso_utc

if TYPE_CHECKING:
    from toolkit.gateway import Claim
    from toolkit.registry import Registry
    from toolkit.trust import Root, Signer

__all__ = ["Seal", "SignedAnswers", "seal_of"]

_ID_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Seal:
    """What an envelope says of itself, for people to see; nothing about it is verified.

    Attributes:
        person: Who is said to have signed.
        key: Id of the key that is said to have signed.
        digest: Of what was signed.
    """

    person: str
    key: str
    digest: str

    @property
    def short(self) -> str:
        """The beginning of the key's id."""
        return self.key.removeprefix("sha256:")[:_ID_CHARACTERS]

    def to_json(self) -> dict[str, str]:
        """Return everything as JSON values."""
        return {"person": self.person, "key": self.key, "digest": self.digest}


def seal_of(signed: str | None) -> Seal | None:
    """Return what a kept envelope says of itself; ``None`` if there is none, or it is not one."""
    from toolkit.trust import Envelope

    if signed is None:
        return None
    try:
        envelope = Envelope.from_bytes(signed.encode())
        person = json.loads(envelope.payload)["predicate"]["person"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Seal(str(person), envelope.signatures[0].keyid, envelope.digest)


@dataclass
class SignedAnswers:
    """The proofs of a workspace: see :class:`toolkit.gateway.Proofs`.

    In a registry without a trust root nothing is needed.

    Attributes:
        source: Returns the registry, whose root says who people are; read anew each time.
        pen: Opens the key of whoever is here, told whether it may ask for a passphrase; ``None``:
            nobody is, as in a gateway.
    """

    source: Callable[[], Registry]
    pen: Callable[[bool], Signer] | None = None
    clock: Clock = field(default_factory=SystemClock)
    _signer: Signer | None = None

    @cached_property
    def registry(self) -> Registry:
        """The registry, opened when somebody is asked about a call of production."""
        return self.source()

    def needed(self, environment: Environment) -> bool:
        """Whether an answer has to be signed: in production, where the registry is signed."""
        return environment is Environment.PRODUCTION and self.registry.signed

    def person(self, *, quietly: bool = False) -> str:
        """Return whose key signs here; see :class:`toolkit.gateway.Proofs`."""
        from toolkit.trust import answerer

        return answerer(self._root(), self._key(quietly=quietly))

    def sign(self, claim: Claim) -> str:
        """Return the signed envelope of a claim; see :class:`toolkit.gateway.Proofs`."""
        from toolkit.trust import answerer, call_answer, sign_answer

        signer = self._key()
        person = answerer(self._root(), signer)
        if person != claim.person:
            raise ConfigurationError(f"the key here is {person}'s, and {claim.person} is to sign")
        answer = call_answer({**_said(claim), "issued": iso_utc(self.clock.now_us())})
        return sign_answer(answer, signer).to_bytes().decode("ascii")

    def check(self, claim: Claim, signed: str | None) -> None:
        """Verify a kept envelope; see :class:`toolkit.gateway.Proofs`."""
        from toolkit.trust import read_answer

        root = self._root()
        if signed is None:
            raise CallDenied(
                f"the registry is signed, and {claim.person} did not sign "
                f"that it is {claim.state.value}"
            )
        try:
            answer = read_answer(signed.encode("utf-8", "replace"), root, claim.approval.id)
        except IntegrityError as error:
            raise CallDenied(error.message) from error
        signs = answer.model_dump()
        for member, recorded in _said(claim).items():
            if signs[member] != recorded:
                raise CallDenied(f"what {answer.person} signed has another {member}")
        if answer.issued >= iso_utc(claim.approval.expires_us):
            raise CallDenied(f"{answer.person} signed it after it had expired")

    def _key(self, *, quietly: bool = False) -> Signer:
        if self._signer is None:
            if self.pen is None:
                raise ConfigurationError("nobody signs here")
            self._signer = self.pen(quietly)
        return self._signer

    def _root(self) -> Root:
        """Return the root in force.

        Raises:
            InfrastructureError: The registry cannot be reached.
            IntegrityError, InvalidFile: The root is not in order.
        """
        trust = self.registry.trust
        if trust is None:
            raise ConfigurationError("this registry was opened without what was seen of it last")
        try:
            return trust.verifier.root()
        except IntegrityError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError):
                raise
            raise InfrastructureError(
                f"who signed an answer cannot be told now: {error.message}",
                where=self.registry.where,
                next_step="when the registry can be read again, send the same call again: "
                "what was answered is kept",
            ) from error


def _said(claim: Claim) -> dict[str, Any]:
    """Return what is signed of a claim, but for the time."""
    approval = claim.approval
    return {
        "environment": claim.environment.value,
        "approval": approval.id,
        "run": approval.run_id,
        "call": approval.call_key,
        "generation": approval.generation,
        "digest": approval.digest,
        "choice": claim.state.value,
        "arguments_digest": _digest(claim.arguments),
        "role": claim.role,
        "reason_digest": _digest(claim.reason),
        "person": claim.person,
    }


def _digest(value: Any) -> str | None:
    return None if value is None else digest_json(value)
