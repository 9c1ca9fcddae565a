"""Tests of a bundle: questions with the verdict that is expected.

``registry/policies/<environment>/tests.yaml``::

    - name: untrusted text never chooses who is paid
      request:
        user: anna
        tool: pay
        arguments: {recipient: "DE00…", amount: 12}
        origin: {recipient: {sources: [untrusted]}}
      expect: deny
      by: untrusted-never-chooses-a-destination

Exactly one of ``model``, ``tool``, ``agent``, ``data``, ``job``, ``human`` and ``result`` says
what is called.  Arguments without an ``origin`` come from the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator, model_validator

from toolkit.policy.bundle import PolicyBundle
from toolkit.policy.context import fact_fault
from toolkit.policy.people import People
from toolkit.policy.schema import FACTS
from toolkit.policy.types import PolicyRequest
from toolkit.settings import read_model
from toolkit.values import DataClass, Decision, Effect, Labels, Source, Verdict

__all__ = ["CASES_FILE", "CaseResult", "PolicyCase", "read_cases", "run_cases"]

CASES_FILE = "tests.yaml"
_KINDS = ("model", "tool", "agent", "data", "job", "human", "result")
_BY_USER = Labels(frozenset({Source.USER}))


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """One case.

    Attributes:
        name: What it shows, unique in its file.
        request: The question; its environment and roles are filled in when it is run.
        roles: Roles of the user; ``None`` takes them from ``people.yaml``.
        team: Team of the user; ``None`` likewise.
        expect: The verdict of the policies (in mode ``warn``, too, a denial is a denial).
        by: Id of a policy that has to be among those that decided.
        approver: The role that has to be asked.
    """

    name: str
    request: dict[str, Any]
    roles: tuple[str, ...] | None
    team: str | None
    expect: Verdict
    by: str | None
    approver: str | None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a bundle said about a case.

    Attributes:
        case: The case.
        decision: The verdict of the policies.
        faults: Why it does not pass; empty if it does.
    """

    case: PolicyCase
    decision: Decision
    faults: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.faults


class _Labels(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sources: list[Annotated[Source, Field(strict=False)]] = []
    classes: list[Annotated[DataClass, Field(strict=False)]] = []

    def labels(self) -> Labels:
        return Labels(frozenset(self.sources), frozenset(self.classes))


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    user: Annotated[str, Field(min_length=1, max_length=128)]
    team: str | None = None
    roles: list[str] | None = None
    model: str | None = None
    tool: str | None = None
    agent: str | None = None
    data: str | None = None
    job: str | None = None
    human: str | None = None
    result: str | None = None
    arguments: Any = None
    effect: Annotated[Effect, Field(strict=False)] = Effect.READ
    by_agent: str | None = None
    by_job: str | None = None
    version: int | None = None
    purpose: str | None = None
    provider: str | None = None
    provider_model: str | None = None
    origin: dict[str, _Labels] = {}
    session: _Labels = _Labels()
    facts: dict[str, Any] = {}

    @field_validator("facts")
    @classmethod
    def _known(cls, facts: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(facts) - set(FACTS))
        if unknown:
            msg = f"has the unknown fact {unknown[0]!a} (known: {', '.join(FACTS)})"
            raise ValueError(msg)
        if fault := fact_fault(facts):
            raise ValueError(fault)
        return facts

    @model_validator(mode="after")
    def _one(self) -> Self:
        named = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(named) != 1:
            msg = f"names {len(named)} of {', '.join(_KINDS)}; name exactly one"
            raise ValueError(msg)
        return self

    def request(self) -> dict[str, Any]:
        (kind,) = (kind for kind in _KINDS if getattr(self, kind) is not None)
        given = self.arguments
        names = [""] if not isinstance(given, dict) else list(given)
        labels = dict.fromkeys(names, _BY_USER) if given is not None else {}
        return {
            "user": self.user,
            "action": f"call_{kind}",
            "resource": getattr(self, kind),
            "job": self.by_job,
            "version": self.version,
            "purpose": self.purpose,
            "effect": self.effect,
            "arguments": given,
            "route": self.model,
            "provider": self.provider,
            "model": self.provider_model,
            "agent": self.by_agent,
            "labels": {**labels, **{name: each.labels() for name, each in self.origin.items()}},
            "session": self.session.labels(),
            "facts": self.facts,
        }


class _Case(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    request: _Request
    expect: Literal["allow", "deny", "ask"]
    by: str | None = None
    approver: str | None = None


class _File(RootModel[list[_Case]]):
    @model_validator(mode="after")
    def _unique(self) -> Self:
        seen: set[str] = set()
        for case in self.root:
            if case.name in seen:
                msg = f"has two cases named {case.name!a}"
                raise ValueError(msg)
            seen.add(case.name)
        if not self.root:
            msg = "has no case"
            raise ValueError(msg)
        return self


def read_cases(path: Path) -> list[PolicyCase]:
    """Read the cases of a bundle.

    Raises:
        NotFound: There is no such file.
        InvalidFile: The file has faults (all are named).
    """
    file = read_model(
        path, _File, "file of policy tests", missing=f"write cases into {path}; see docs/policy.md"
    ).value
    return [
        PolicyCase(
            case.name,
            case.request.request(),
            None if case.request.roles is None else tuple(case.request.roles),
            case.request.team,
            Verdict(case.expect),
            case.by,
            case.approver,
        )
        for case in file.root
    ]


def run_cases(bundle: PolicyBundle, cases: list[PolicyCase], people: People) -> list[CaseResult]:
    """Put every case to the bundle."""
    return [_run(bundle, case, people) for case in cases]


def _run(bundle: PolicyBundle, case: PolicyCase, people: People) -> CaseResult:
    user = case.request["user"]
    roles = people.roles(user) if case.roles is None else case.roles
    team = people.team(user) if case.team is None else case.team
    request = PolicyRequest(**case.request, environment=bundle.environment, roles=roles, team=team)
    decision = bundle.evaluate(request)
    faults = []
    if decision.verdict is not case.expect:
        why = f": {'; '.join(decision.reasons)}" if decision.reasons else ""
        faults.append(f"is {decision.verdict}, expected {case.expect}{why}")
    if case.by is not None and case.by not in decision.policies:
        decided = ", ".join(decision.policies) or "no policy"
        faults.append(f"was decided by {decided}, expected {case.by}")
    if case.approver is not None and case.approver != decision.approver:
        faults.append(f"asks {decision.approver or 'nobody'}, expected {case.approver}")
    return CaseResult(case, decision, tuple(faults))
