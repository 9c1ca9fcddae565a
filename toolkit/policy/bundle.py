"""A policy bundle: Cedar policies and typed limits of one environment, with one digest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import Fault, InvalidFile, NotFound
from toolkit.policy.arguments import to_record
from toolkit.policy.cedar import CedarPolicy, Engine, Ruling, compile_policies, read_policies
from toolkit.policy.limits import parse_limits
from toolkit.policy.schema import ACTIONS, CATALOG_ID, action_named
from toolkit.policy.tools import ToolCatalog
from toolkit.policy.types import BudgetPolicy, Gate, Isolation, PolicyRequest
from toolkit.values import (
    Decision,
    Digest,
    Effect,
    Environment,
    Verdict,
    digest_bytes,
    digest_json,
)

__all__ = ["PolicyBundle"]

_FILE = "policy.yaml"


@dataclass(frozen=True, eq=False)
class PolicyBundle:
    """The policies and limits of one environment; immutable and thread-safe.

    Attributes:
        environment: Which environment it governs; also the folder's name.
        mode: ``enforce``, or ``warn`` (sandbox only): a denied call goes on, with its reasons.
        digest: Digest over the bytes of every file and over the tool catalog.
        budget: Per run.
        gates: By name of the evaluation set.
        unknown_price: Whether a model call whose price is not known may be made.
        minimum_isolation: The least isolation of a run's kernel.
        require_results: Whether a run has to publish every declared result.
        tools: The tool catalog that the policies were checked against.
        policies: Every Cedar policy, in the order of the files.
    """

    environment: Environment
    mode: Literal["enforce", "warn"]
    digest: Digest
    budget: BudgetPolicy
    gates: dict[str, tuple[Gate, ...]]
    unknown_price: Literal["deny", "allow"]
    minimum_isolation: Isolation
    require_results: bool
    tools: ToolCatalog
    policies: tuple[CedarPolicy, ...]
    folder: str
    _engine: Engine = field(repr=False)

    @classmethod
    def load(cls, folder: Path, *, tools: ToolCatalog | None = None) -> PolicyBundle:
        """Read ``policy.yaml`` and every ``*.cedar`` of a folder.

        Args:
            folder: ``registry/policies/<environment>``.
            tools: The tool catalog; default: ``registry/tools.yaml`` beside ``policies/``,
                and an empty catalog when there is none.

        Raises:
            NotFound: The folder or its ``policy.yaml`` is not there.
            InvalidFile: Files have faults; YAML's and Cedar's are all named.
        """
        files = _read_folder(folder)
        catalog = _catalog_beside(folder) if tools is None else tools
        limits, faults = parse_limits(files[_FILE], _FILE)
        if limits and limits.environment != folder.name:
            message = f"environment is {limits.environment}, the folder is named {folder.name}"
            faults.append(Fault(_FILE, message, "make the two agree"))
        cedar = {name: data for name, data in files.items() if name != _FILE}
        policies, cedar_faults = read_policies(cedar)
        faults = [*faults, *cedar_faults, *_unknown_names(policies, catalog)]
        engine = None
        if not faults:
            engine, faults = compile_policies(policies)
        if limits is None or engine is None:
            raise InvalidFile.of(str(folder), faults)
        digests = {name: digest_bytes(data) for name, data in files.items()}
        return cls(
            environment=limits.environment,
            mode=limits.mode,
            digest=digest_json({"files": digests, "tools": catalog.digest}),
            budget=limits.budget,
            gates=limits.gates,
            unknown_price=limits.unknown_price,
            minimum_isolation=limits.minimum_isolation,
            require_results=limits.require_results,
            tools=catalog,
            policies=tuple(policies),
            folder=folder.name,
            _engine=engine,
        )

    def decide(self, request: PolicyRequest) -> Decision:
        """Answer one question; in mode ``warn`` a denied call is allowed, with the reasons.

        A question that cannot be put to Cedar at all is denied in both modes.  Never raises.
        """
        ruling = self._ask(request)
        decision = self._decision(request, ruling)
        if self.mode == "warn" and ruling.evaluated and not decision:
            reasons = tuple(f"would be denied: {reason}" for reason in decision.reasons)
            return Decision(Verdict.ALLOW, decision.policies, reasons, self.digest)
        return decision

    def evaluate(self, request: PolicyRequest) -> Decision:
        """Answer one question by the policies alone, whatever the mode.  Never raises."""
        return self._decision(request, self._ask(request))

    def _ask(self, request: PolicyRequest) -> Ruling:
        action = action_named(request.action)
        if action is None:
            known = ", ".join(ACTIONS)
            return Ruling.unasked(f"{request.action!a} is not an action ({known})")
        kind = ACTIONS[action]
        resource = {"type": kind, "id": request.resource}
        question = {
            "principal": {"type": "User", "id": request.user},
            "action": {"type": "Action", "id": action},
            "resource": resource,
            "context": self._context(request, kind),
        }
        listed = kind == "Tool" and request.resource in self.tools
        parents = [{"type": "Catalog", "id": CATALOG_ID}] if listed else []
        entities = [_user(request), {"uid": resource, "attrs": {}, "parents": parents}]
        return self._engine.ask(question, entities)

    def _context(self, request: PolicyRequest, kind: str) -> dict[str, Any]:
        arguments, omitted = to_record(request.arguments)
        optional = {
            "job": request.job,
            "version": request.version,
            "purpose": request.purpose,
            "route": request.route,
            "provider": request.provider,
            "model": request.model,
        }
        return {
            "environment": str(self.environment),
            "effect": str(self._effect(request, kind)),
            "arguments": arguments,
            "omitted": omitted,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _effect(self, request: PolicyRequest, kind: str) -> Effect:
        """The stricter of what the caller and the catalog say: a notebook is not believed."""
        if kind == "Tool" and request.resource in self.tools:
            entry = self.tools[request.resource]
            return Effect.WRITE if Effect.WRITE in (entry.effect, request.effect) else Effect.READ
        return request.effect

    def _decision(self, request: PolicyRequest, ruling: Ruling) -> Decision:
        ids = tuple(policy.id for policy in ruling.policies)
        if ruling.allowed:
            return Decision(Verdict.ALLOW, ids, (), self.digest)
        return Decision(Verdict.DENY, ids, self._reasons(request, ruling), self.digest)

    def _reasons(self, request: PolicyRequest, ruling: Ruling) -> tuple[str, ...]:
        if ruling.failures:
            return tuple(
                f"policy could not be evaluated, so the call is denied: {failure}"
                for failure in ruling.failures
            )
        if ruling.policies:
            own = [policy.reason for policy in ruling.policies if policy.reason]
            rest = [
                f"policy {policy.id} ({policy.place}) forbids it"
                for policy in ruling.policies
                if not policy.reason
            ]
            return (*own, *rest)
        return (self._nothing_permits(request),)

    def _nothing_permits(self, request: PolicyRequest) -> str:
        action = action_named(request.action) or request.action
        name = request.resource.replace("\\", "\\\\").replace('"', '\\"')
        entity = f'{ACTIONS[action]}::"{name}"'
        unlisted = action == "call_tool" and request.resource not in self.tools
        hint = ", which registry/tools.yaml does not list," if unlisted else ""
        return (
            f"no policy of {self.environment} permits {action} on {entity}{hint} for "
            f"{request.user}; to allow it, add to registry/policies/{self.folder}/*.cedar: "
            f'@id("…") permit(principal, action == Action::"{action}", resource == {entity});'
        )


def _user(request: PolicyRequest) -> dict[str, Any]:
    parents = [{"type": "Role", "id": role} for role in request.roles]
    if request.team is not None:
        parents.append({"type": "Team", "id": request.team})
    return {"uid": {"type": "User", "id": request.user}, "attrs": {}, "parents": parents}


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Read each file once, so that what is digested is what is parsed."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == ".cedar")
        return {name: (folder / name).read_bytes() for name in [_FILE, *names]}
    except OSError as error:
        raise NotFound(
            f"the policy bundle {folder} cannot be read: {error.filename}: {error.strerror}",
            where=str(folder),
            next_step=f"create {folder / _FILE}, or run `toolkit init` for a workspace with both",
        ) from error


def _catalog_beside(folder: Path) -> ToolCatalog:
    path = folder.resolve().parent.parent / "tools.yaml"
    return ToolCatalog.load(path) if path.exists() else ToolCatalog({})


def _unknown_names(policies: list[CedarPolicy], catalog: ToolCatalog) -> list[Fault]:
    """Names in policies that the catalog does not have: most often a spelling mistake."""
    faults = []
    for policy in policies:
        for kind, name in policy.entities:
            if kind == "Tool" and name not in catalog:
                message = f'names Tool::"{name}", which registry/tools.yaml does not list'
                faults.append(Fault(policy.place, message, f"add {name} to registry/tools.yaml"))
            if kind == "Catalog" and name != CATALOG_ID:
                message = f'names Catalog::"{name}"; the only catalog is Catalog::"{CATALOG_ID}"'
                faults.append(Fault(policy.place, message))
    return faults
