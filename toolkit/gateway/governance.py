"""Which policies hold for a run, and what they say about a call."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigurationError, NotFound
from toolkit.gateway.targets import Permitted, Ruling, combined, permitted
from toolkit.gateway.work import Facts
from toolkit.policy import People, PolicyBundle, PolicyRequest, PrivacyPolicy, ToolEntry
from toolkit.providers import Catalog, Route, Target
from toolkit.values import (
    NO_LABELS,
    CallKind,
    Decision,
    Effect,
    Environment,
    Intent,
    Labels,
    Outcome,
    RunRecord,
    Source,
    changed,
    inherited_purpose,
)

__all__ = ["Governance"]

_LOOK_AGAIN_S = 0.5


@dataclass
class _Held:
    """A parsed file set and the stamp of the files it was parsed from."""

    stamp: tuple[tuple[str, int, int], ...]
    value: PolicyBundle | Catalog | People


@dataclass
class Governance:
    """Policy bundles and the model catalog of a registry, read again when their files change.

    A broken edit never weakens what is in force: the error is raised (calls fail closed) until
    the files are valid again.

    Attributes:
        registry: The registry folder.
        default_route: Overrides the catalog's default route when set.
    """

    registry: Path
    default_route: str | None = None
    _held: dict[str, _Held] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Names and folders, which are asked for several times in each call.
    _bundles: dict[Environment, tuple[str, Path]] = field(init=False)

    def __post_init__(self) -> None:
        folder = self.registry / "policies"
        self._bundles = {each: (f"policy:{each}", folder / each.value) for each in Environment}

    def bundle(self, environment: Environment) -> PolicyBundle:
        """Return the policy bundle of an environment.

        Raises:
            InvalidFile, NotFound: The bundle has faults or is not there.
        """
        name, folder = self._bundles[environment]
        value = self._current(name, folder)
        if not isinstance(value, PolicyBundle):
            raise ConfigurationError(f"{folder} is not a policy bundle")
        return value

    def standing(self, environment: Environment) -> PolicyBundle | None:
        """Return the bundle in force; while its files are broken, the last one, ``None`` without one.

        For what has been decided already and is only to be recorded.
        """
        try:
            return self.bundle(environment)
        except (ConfigurationError, OSError):
            held = self._held.get(self._bundles[environment][0])
            return held.value if held and isinstance(held.value, PolicyBundle) else None

    def privacy(self, run: RunRecord) -> PrivacyPolicy:
        """Return how data is treated, also while the policy's files are broken."""
        bundle = self.standing(run.environment)
        return PrivacyPolicy(pii="redact") if bundle is None else bundle.privacy

    def entries(self, run: RunRecord, intent: Intent) -> tuple[str, ...]:
        """Return which members of a tool's answer our own system lists."""
        entry = self._entry(run, intent)
        return () if entry is None else entry.entries

    def declared(self, run: RunRecord, intent: Intent, outcome: Outcome | None) -> Labels:
        """Return the labels that a catalog gives to what a call answers."""
        if outcome is not None and outcome.labels is not None:
            return outcome.labels
        if intent.kind is not CallKind.TOOL:
            return NO_LABELS
        if self.standing(run.environment) is None:
            return Labels(frozenset({Source.UNTRUSTED}))  # nobody can say, until it is mended
        entry = self._entry(run, intent)
        return NO_LABELS if entry is None else entry.labels

    def writes(self, run: RunRecord, intent: Intent) -> bool:
        """Whether a call changes the world, by the caller's or by the catalog's word."""
        entry = self._entry(run, intent)
        return intent.effect is Effect.WRITE or (entry is not None and entry.effect is Effect.WRITE)

    def repeatable(self, run: RunRecord, intent: Intent) -> bool:
        """Whether a call may be made again when nobody knows how it ended.

        Where the catalog lists a tool, its word on idempotence counts, and the caller's does not.
        """
        entry = self._entry(run, intent)
        idempotent = intent.idempotent if entry is None else entry.idempotent
        return idempotent or not self.writes(run, intent)

    def timeout_s(self, run: RunRecord, intent: Intent) -> float | None:
        """Return the seconds that the catalog gives to a tool; ``None``: as long as it takes."""
        entry = self._entry(run, intent)
        return None if entry is None else entry.timeout_s

    def _entry(self, run: RunRecord, intent: Intent) -> ToolEntry | None:
        bundle = self.standing(run.environment) if intent.kind is CallKind.TOOL else None
        return None if bundle is None else bundle.tools.get(intent.name)

    def catalog(self) -> Catalog:
        """Return the model catalog.

        Raises:
            InvalidFile, NotFound: ``models.yaml`` has faults or is not there.
        """
        value = self._current("catalog", "models.yaml")
        if not isinstance(value, Catalog):
            raise ConfigurationError("models.yaml is not a model catalog")
        return value

    def route(self, name: str) -> Route:
        """Return a route; ``default`` means the configured default.

        Raises:
            NotFound: The route is unknown.
        """
        catalog = self.catalog()
        if name == "default":
            return catalog.route(self.default_route or None)
        return catalog.route(name)

    def people(self) -> People:
        """Return who has which role; nobody, where there is no ``people.yaml``.

        Raises:
            InvalidFile: ``people.yaml`` has faults.
        """
        value = self._current("people", "people.yaml")
        if not isinstance(value, People):
            raise ConfigurationError("people.yaml does not list people")
        return value

    def decide(
        self, run: RunRecord, intent: Intent, facts: Facts, session: Labels = NO_LABELS
    ) -> Decision:
        """Return what policy says; in the sandbox with what production would have said.

        A route with several targets is decided by the first that policy allows, else by the first
        that a person may allow, else by its first one.

        Args:
            run: Who calls.
            intent: What, with the labels of its arguments.
            facts: What the gateway itself knows of the call.
            session: Labels of everything that the run has read.
        """
        if facts.route is None:
            return self._decide(run, intent, facts.values, session, None)
        rulings = self._rulings(run, intent, facts, session)
        if not rulings:
            raise ConfigurationError(f"the route {facts.route.name} has no target")
        return combined(rulings)

    def permitted(
        self, run: RunRecord, intent: Intent, route: Route, session: Labels
    ) -> Permitted | None:
        """Return what policy says of the targets of a route; ``None`` where there is one only."""
        if len(route.legs()) == 1:
            return None
        return permitted(self._rulings(run, intent, Facts(route), session))

    def _rulings(
        self, run: RunRecord, intent: Intent, facts: Facts, session: Labels
    ) -> list[Ruling]:
        legs = () if facts.route is None else facts.route.legs()
        return [
            (leg, self._decide(run, intent, {**facts.values, **_of_target(target)}, session, leg))
            for target, leg in legs
            if facts.targets is None or leg.target in facts.targets
        ]

    def _decide(
        self,
        run: RunRecord,
        intent: Intent,
        facts: dict[str, Any],
        session: Labels,
        leg: Route | None,
    ) -> Decision:
        people = self.people()
        request = PolicyRequest(
            user=run.user,
            team=run.team or people.team(run.user),
            roles=people.roles(run.user),
            action=f"call_{intent.kind.value}",
            resource=leg.name if leg is not None else intent.name,
            environment=run.environment,
            job=run.job,
            version=run.version,
            purpose=intent.purpose or inherited_purpose(run),
            effect=intent.effect,
            arguments=intent.arguments,
            route=leg.name if leg is not None else None,
            provider=leg.provider if leg is not None else None,
            model=leg.model if leg is not None else None,
            agent=intent.agent,
            labels=intent.labels,
            session=session,
            facts=facts,
        )
        decision = self.bundle(run.environment).decide(request)
        if run.environment is Environment.PRODUCTION:
            return decision
        try:
            production = self.bundle(Environment.PRODUCTION)
        except NotFound:
            return decision
        would = production.decide(changed(request, environment=Environment.PRODUCTION))
        return changed(decision, production_verdict=would.verdict, production_reasons=would.reasons)

    def _current(self, name: str, path: Path | str) -> PolicyBundle | Catalog | People:
        held = self._held.get(name)
        if held is not None and time.monotonic() - self._looked.get(name, 0.0) < _LOOK_AGAIN_S:
            return held.value
        return self._looked_at(name, self.registry / path)

    def _looked_at(self, name: str, path: Path) -> PolicyBundle | Catalog | People:
        """Return a file set, read again if its files have changed."""
        with self._lock:
            held = self._held.get(name)
            now = time.monotonic()
            if held is not None and now - self._looked.get(name, 0.0) < _LOOK_AGAIN_S:
                return held.value
            # A bundle's schema comes from the tool catalog beside it.
            stamp = _stamp(path) + _stamp(self.registry / "tools.yaml")
            if held is None or held.stamp != stamp:
                held = self._held[name] = _Held(stamp, _mended(name, path))
            self._looked[name] = now
            return held.value


def _mended(name: str, path: Path) -> PolicyBundle | Catalog | People:
    """Load a file set; whoever meets its faults is told what follows from mending them."""
    try:
        return _load(name, path)
    except ConfigurationError as error:
        error.next_step = error.next_step or "mend it; the gateway reads it again by itself"
        raise


def _load(name: str, path: Path) -> PolicyBundle | Catalog | People:
    if name == "catalog":
        return Catalog.load(path)
    return People.load(path) if name == "people" else PolicyBundle.load(path)


def _of_target(target: Target) -> dict[str, Any]:
    """Return what policy may know of a target beside its name."""
    classes, region = target.when.classes, target.when.region
    known: dict[str, Any] = {}
    if classes is not None:
        known["allowed_classes"] = sorted(classes)
    if region is not None:
        known["region"] = region
    return known


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        found.append((file.name, status.st_mtime_ns, status.st_size))
    return tuple(found)
