"""Which policies hold for a run, and what they say about a call."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from toolkit.errors import ConfigurationError, NotFound
from toolkit.gateway.work import Facts, Worst
from toolkit.ledger import Limit, Reservation
from toolkit.policy import PolicyBundle, PolicyRequest
from toolkit.providers import Catalog, Route
from toolkit.values import CallKind, Decision, Environment, Intent, RunRecord

__all__ = ["Governance"]

_LOOK_AGAIN_S = 0.5


@dataclass
class _Held:
    """A parsed file set and the stamp of the files it was parsed from."""

    stamp: tuple[tuple[str, int, int], ...]
    value: PolicyBundle | Catalog


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

    def bundle(self, environment: Environment) -> PolicyBundle:
        """Return the policy bundle of an environment.

        Raises:
            InvalidFile, NotFound: The bundle has faults or is not there.
        """
        folder = self.registry / "policies" / environment.value
        value = self._current(f"policy:{environment}", folder)
        if not isinstance(value, PolicyBundle):
            raise ConfigurationError(f"{folder} is not a policy bundle")
        return value

    def catalog(self) -> Catalog:
        """Return the model catalog.

        Raises:
            InvalidFile, NotFound: ``models.yaml`` has faults or is not there.
        """
        value = self._current("catalog", self.registry / "models.yaml")
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

    def decide(self, run: RunRecord, intent: Intent, facts: Facts) -> Decision:
        """Return what policy says; in the sandbox with what production would have said."""
        route = facts.route
        request = PolicyRequest(
            user=run.user,
            team=run.team,
            roles=(),
            action=f"call_{intent.kind.value}",
            resource=route.name if route is not None else intent.name,
            environment=run.environment,
            job=run.job,
            version=run.version,
            effect=intent.effect,
            arguments=intent.arguments,
            route=route.name if route is not None else None,
            provider=route.provider if route is not None else None,
            model=route.model if route is not None else None,
        )
        bundle = self.bundle(run.environment)
        decision = bundle.decide(request)
        if run.environment is Environment.PRODUCTION:
            return decision
        try:
            production = self.bundle(Environment.PRODUCTION)
        except NotFound:
            return decision
        would = production.decide(replace(request, environment=Environment.PRODUCTION))
        return replace(decision, production_verdict=would.verdict, production_reasons=would.reasons)

    def reservation(self, run: RunRecord, intent: Intent, worst: Worst) -> Reservation:
        """Return what a call may use at most, against the limits of its run."""
        bundle = self.bundle(run.environment)
        budget = bundle.budget
        # An unknown price cannot be held against dollars; where the policy allows it all the
        # same, tokens and calls still count.  (Where it does not, the call was denied before.)
        usd = None if worst.cost is None and bundle.unknown_price == "allow" else budget.usd
        limit = Limit(scope=f"run:{run.run_id}", usd=usd, tokens=budget.tokens, calls=budget.calls)
        counts = intent.kind is not CallKind.RESULT
        return Reservation(
            limits=(limit,), cost=worst.cost, tokens=worst.tokens, calls=1 if counts else 0
        )

    def _current(self, name: str, path: Path) -> PolicyBundle | Catalog:
        with self._lock:
            held = self._held.get(name)
            now = time.monotonic()
            if held is not None and now - self._looked.get(name, 0.0) < _LOOK_AGAIN_S:
                return held.value
            # A bundle's schema comes from the tool catalog beside it.
            stamp = _stamp(path) + _stamp(self.registry / "tools.yaml")
            if held is None or held.stamp != stamp:
                value: PolicyBundle | Catalog = (
                    Catalog.load(path) if name == "catalog" else PolicyBundle.load(path)
                )
                held = self._held[name] = _Held(stamp, value)
            self._looked[name] = now
            return held.value


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
