"""A policy bundle: Cedar policies and typed limits of one environment, with one digest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toolkit.errors import Fault, InvalidFile, NotFound
from toolkit.policy.analysis import Reads
from toolkit.policy.cedar import CedarPolicy, read_policies
from toolkit.policy.context import build_context, fact_fault
from toolkit.policy.engine import Engine, Ruling, compile_policies
from toolkit.policy.isolation import IsolationPolicy
from toolkit.policy.limits import Limits, parse_limits
from toolkit.policy.promotions import PromotionPolicy
from toolkit.policy.reasons import reasons_of
from toolkit.policy.rules import (
    ApprovalPolicy,
    BudgetRule,
    ConcurrencyRule,
    PrivacyPolicy,
    RateRule,
)
from toolkit.policy.schema import ACTIONS, CATALOG_ID, action_named
from toolkit.policy.tools import ToolCatalog, ToolEntry
from toolkit.policy.types import BudgetPolicy, Gate, Isolation, PolicyRequest
from toolkit.values import (
    Decision,
    Digest,
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
        minimum_isolation: The least isolation of a run's kernel; ``isolation`` says it in full.
        isolation: Least and preferred level of a run's kernel, and what it may use.
        require_results: Whether a run has to publish every declared result.
        tools: The tool catalog that the policies were checked against.
        policies: Every Cedar policy, in the order of the files.
        budgets, rates, concurrency: Limits beyond ``budget``, in the order of the file.
        retries_per_run: How many attempts beyond the first the calls of one run may make.
        privacy: What happens to secrets and personal data.
        approvals: How requests to people are handled.
        promotion: Who lets versions in, and what decides about canaries.
        region: Where the targets of model calls have to be; ``None``: anywhere.
        folder: The folder's name.
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
    budgets: tuple[BudgetRule, ...]
    rates: tuple[RateRule, ...]
    concurrency: tuple[ConcurrencyRule, ...]
    retries_per_run: int
    privacy: PrivacyPolicy
    approvals: ApprovalPolicy
    isolation: IsolationPolicy
    promotion: PromotionPolicy
    region: str | None
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
        policies, cedar_faults = read_policies(cedar, catalog)
        faults = [*faults, *cedar_faults, *_unknown_names(policies, catalog)]
        engine = None
        if not faults:
            engine, faults = compile_policies(policies, catalog)
        if limits is None or engine is None:
            raise InvalidFile.of(str(folder), faults)
        digests = {name: digest_bytes(data) for name, data in files.items()}
        digest = digest_json({"files": digests, "tools": catalog.digest})
        return cls._of(
            limits=limits,
            digest=digest,
            tools=catalog,
            policies=tuple(policies),
            folder=folder.name,
            engine=engine,
        )

    @classmethod
    def _of(
        cls,
        *,
        limits: Limits,
        digest: Digest,
        tools: ToolCatalog,
        policies: tuple[CedarPolicy, ...],
        folder: str,
        engine: Engine,
    ) -> PolicyBundle:
        return cls(
            environment=limits.environment,
            mode=limits.mode,
            digest=digest,
            budget=limits.budget,
            gates=limits.gates,
            unknown_price=limits.unknown_price,
            minimum_isolation=limits.minimum_isolation,
            require_results=limits.require_results,
            tools=tools,
            policies=policies,
            folder=folder,
            budgets=limits.budgets,
            rates=limits.rates,
            concurrency=limits.concurrency,
            retries_per_run=limits.retries_per_run,
            privacy=limits.privacy,
            approvals=limits.approvals,
            isolation=limits.isolation,
            promotion=limits.promotion,
            region=limits.region,
            _engine=engine,
        )

    def decide(self, request: PolicyRequest) -> Decision:
        """Answer one question; in mode ``warn`` a denied call is allowed, with the reasons.

        A question that cannot be put to Cedar at all is denied in both modes, and one that a
        person has to answer is asked in both.  Never raises.
        """
        ruling = self._ask(request)
        decision = self._decision(request, ruling)
        if self.mode == "warn" and ruling.evaluated and decision.verdict is Verdict.DENY:
            reasons = tuple(f"would be denied: {reason}" for reason in decision.reasons)
            return Decision(
                Verdict.ALLOW, decision.policies, reasons, self.digest, shadow=decision.shadow
            )
        return decision

    def evaluate(self, request: PolicyRequest) -> Decision:
        """Answer one question by the policies alone, whatever the mode.  Never raises."""
        return self._decision(request, self._ask(request))

    def reads(self, action: str, resource: str) -> Reads:
        """Return what the policies that a call can meet look at; nothing for an unknown action."""
        known = action_named(action)
        if known is None:
            return Reads()
        return self._engine.slice(known, ACTIONS[known], resource).reads

    def _ask(self, request: PolicyRequest) -> Ruling:
        action = action_named(request.action)
        if action is None:
            known = ", ".join(ACTIONS)
            return Ruling.unasked(f"{request.action!a} is not an action ({known})")
        kind = ACTIONS[action]
        entry = self._entry(kind, request.resource)
        if entry is not None and (misfits := entry.check_arguments(request.arguments)):
            return Ruling(allowed=False, misfits=tuple(misfits))
        if request.facts and (fault := fact_fault(request.facts)):
            return Ruling.unasked(fault)
        part = self._engine.slice(action, kind, request.resource)
        context = build_context(request, self.environment, entry, part.reads)
        return self._engine.ask(part, request, action, kind, context)

    def _entry(self, kind: str, name: str) -> ToolEntry | None:
        return self.tools.get(name) if kind == "Tool" else None

    def _decision(self, request: PolicyRequest, ruling: Ruling) -> Decision:
        ids = tuple(policy.id for policy in ruling.policies)
        if ruling.allowed:
            return Decision(Verdict.ALLOW, ids, (), self.digest, shadow=ruling.shadow)
        reasons = reasons_of(self.environment, self.folder, self.tools, request, ruling)
        if not ruling.ask:
            ids = ("tool-arguments",) if ruling.misfits else ids
            return Decision(Verdict.DENY, ids, reasons, self.digest, shadow=ruling.shadow)
        first = ruling.policies[0]
        expires = self.approvals.expires_s if first.expires_s is None else first.expires_s
        return Decision(
            Verdict.ASK,
            ids,
            reasons,
            self.digest,
            approver=first.ask,
            expires_s=expires,
            shadow=ruling.shadow,
        )


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
            if kind == "Group" and name not in catalog.groups:
                message = f'names Group::"{name}", in which registry/tools.yaml puts no tool'
                known = ", ".join(catalog.groups) or "none"
                faults.append(Fault(policy.place, message, f"groups of the catalog: {known}"))
            if kind == "Catalog" and name != CATALOG_ID:
                message = f'names Catalog::"{name}"; the only catalog is Catalog::"{CATALOG_ID}"'
                faults.append(Fault(policy.place, message))
    return faults
