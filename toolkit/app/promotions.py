"""Versions that wait for people: asked, approved, rejected, and let in by whoever completes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from toolkit.app.admitting import check_let_in, unasked_note, verifier_of
from toolkit.app.policy_promotions import check_in_force
from toolkit.app.standing import Standing, Wish, authors_of, facts_of, number_of
from toolkit.errors import (
    ApprovalPending,
    ConfigurationError,
    Conflict,
    NotFound,
    UsageError,
)
from toolkit.registry import Registry, Request, Version
from toolkit.trust import Asked
from toolkit.values import Clock, Environment, JobRef, SystemClock, iso_utc

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench
    from toolkit.policy import People, PolicyBundle, PromotionRule
    from toolkit.trust import Verifier

__all__ = ["Promotions", "open_promotions"]

_DAY_S = 86_400.0


@dataclass
class Promotions:
    """Lets versions into production for one person.

    What a person does is in the audit log before it is so: who is killed in between says it again,
    and nothing is ever in force that the log does not have.

    Attributes:
        registry: Where versions, requests and aliases are.
        bundle: Returns the production policy in force.
        people: Returns who has which role.
        user: Who acts.
        mirror: Shows a job's aliases elsewhere; told after every change.
        clock: For expiry.
    """

    registry: Registry
    bundle: Callable[[], PolicyBundle]
    people: Callable[[], People]
    user: str
    mirror: Callable[[str], None] = lambda _: None
    clock: Clock = field(default_factory=SystemClock)

    # -- asking ----------------------------------------------------------------------------

    def check_policy(self, job: str) -> None:
        """Refuse before any trial what a policy that nobody promoted would judge; that is recorded.

        Raises:
            ConfigurationError: The production policy was changed and not promoted.
        """
        try:
            check_in_force(self.registry, self.bundle())
        except ConfigurationError as error:
            body = {"job": job, "reason": error.message}
            self.registry.record("promotion.policy-refused", body, by=self.user)
            raise

    def admit(self, job: str, wish: Wish, *, judged: str | None = None) -> None:
        """Refuse before anything is sealed what could not be let in, or not by this person.

        Args:
            job: The job.
            wish: How it is to run.
            judged: Digest of the policy that judged it; ``None``: nothing did yet.

        Raises:
            ConfigurationError: The policy was changed and not promoted, or since it judged; or, in a signed registry,
                this person is no promoter, or no operator where nobody else would move the alias.
            UsageError: The alias is none, or nothing is there that the version could run beside.
        """
        self.check_policy(job)
        self._check_judged(job, judged)
        self.registry.releases.check_goal(job, wish.alias, beside=wish.kind != "stable")
        trust = self.registry.trust
        if trust is not None and self.registry.signed:
            notary = trust.notary()
            notary.person("promoter")
            if not self._asks(job, wish.alias):
                notary.person("operator")

    def release(self, job: str, version: int, wish: Wish) -> Standing | None:
        """Let a version in, or ask for the approvals that it needs; a repeat does what is missing.

        Returns:
            How the request stands; ``None``: nobody had to be asked, it is in.
        """
        self.check_policy(job)
        found = self.registry.resolve(JobRef(job, str(version)))
        rule = self.bundle().promotion.of(job)
        environment = self._environment(wish.alias)
        self._check_judged(found.ref, found.manifest.policy_digest)
        if not self._asks(job, wish.alias):
            self._move(job, version, wish, 0)
            return None
        before = self._asked_before(found, wish)
        if before is not None:
            return self.settle(before)
        request = Request(
            job=job,
            version=version,
            bundle_digest=found.bundle_digest,
            alias=wish.alias,
            kind=wish.kind,
            share=wish.share,
            environment=environment or Environment.PRODUCTION.value,
            policy_digest=found.manifest.policy_digest,
            evaluation_digest=found.manifest.evaluation_digest,
            needed=rule.approvals,
            roles=rule.roles,
            by=self.user,
            at=iso_utc(self.clock.now_us()),
        )
        self.registry.record("promotion.asked", facts_of(request), by=self.user)
        return self.settle(self.registry.requests.ask(request))

    def waiting(self) -> Iterator[Standing]:
        """Yield what waits; an approval that expired does not count."""
        for job in self.registry.jobs():
            for request in self.registry.requests.of(job):
                if request.state == "waiting":
                    yield self.standing(request)

    def get(self, ref: JobRef) -> Standing:
        """Return how a version's request stands.

        Raises:
            NotFound: Nothing was asked about it.
        """
        return self.standing(self.registry.requests.get(ref.name, number_of(ref)))

    def standing(self, request: Request) -> Standing:
        """Count what people said, as of now."""
        version = self.registry.resolve(JobRef(request.job, str(request.version)))
        if (verifier := self._verifier()) is not None:
            return self._signed(request, version, verifier)
        rule = self.bundle().promotion.of(request.job)
        given, notes = request.counted(self.clock.now_us())
        people, roles = set(), rule.roles or request.roles
        for one in given:
            why = self._why_not(one.person, request, version, roles)
            if why is None:
                people.add(one.person)
            else:
                notes.append(why)
        if version.bundle_digest != request.bundle_digest:
            people, notes = set(), ["the version is not the one that was asked about"]
        could = [
            p
            for role in roles
            for p in self.people().with_role(role)
            if p not in people and self._why_not(p, request, version, roles) is None
        ]
        asked = f"{' or '.join(roles)} ({', '.join(dict.fromkeys(could)) or 'nobody has the role'})"
        needed = max(rule.approvals, request.needed)
        return Standing(request, tuple(sorted(people)), needed, asked, tuple(notes))

    # -- deciding --------------------------------------------------------------------------

    def approve(self, ref: JobRef) -> Standing:
        """Approve a version, and let it in if that was the last approval.

        Raises:
            ConfigurationError: This person may not: an author, or without the role.
            NotFound, Conflict: Nothing waits for it.
        """
        request = self._waiting(ref)
        files = self.registry.load(
            JobRef(request.job, str(request.version))
        )  # whole, or no approval
        rule = self.bundle().promotion.of(request.job)
        self._check_judged(request.ref, request.policy_digest)
        if self._verifier() is None:
            request = self._approve_plainly(request, rule)
        elif self._signer_person() not in self.standing(request).people:
            trust = self.registry.trust
            notary = trust.notary() if trust else None
            if notary is not None:
                days = rule.expires_s / _DAY_S

                def told(path: str) -> None:
                    body = {**facts_of(request), "approval": path, "files": len(files)}
                    self.registry.record("approval.given", body, by=self.user)

                place = request.environment
                notary.approve(request.job, request.version, place, days=days, before=told)
        return self.settle(request)

    def reject(self, ref: JobRef, reason: str) -> Standing:
        """Reject a version, or withdraw it as its author.

        In a signed registry approvals that were signed stay what they are: to make sure that the
        version never runs, revoke it.

        Raises:
            UsageError: There is no reason.
            ConfigurationError: This person may neither approve it nor withdraw it.
            NotFound, Conflict: Nothing waits for it.
        """
        if not reason.strip():
            raise UsageError("a rejection needs a reason", next_step="say why: --reason TEXT")
        request = self._waiting(ref)
        version = self.registry.resolve(JobRef(request.job, str(request.version)))
        if self._verifier() is not None:
            self._signer_person("approver", "promoter")
        elif self.user not in authors_of(request, version):
            self._check_person(request, version)
        body = {**facts_of(request), "reason": reason.strip()}
        return self.standing(self._close(request, "rejected", reason.strip(), body))

    def settle(self, request: Request) -> Standing:
        """Move the alias of a request that has its approvals; a repeat changes nothing.

        The alias moves first and the request is closed then: after a crash between the two, the
        next who settles it finds the alias moved and closes it.
        """
        standing = self.standing(request)
        if request.state != "waiting" or not standing.enough:
            return standing
        self._check_judged(request.ref, request.policy_digest)
        wish = Wish(request.alias, request.kind, request.share)
        try:
            self._move(request.job, request.version, wish, standing.needed)
        except ApprovalPending as error:
            return replace(standing, notes=(error.message, *standing.notes))
        except ConfigurationError as error:
            if self._verifier() is None:
                raise
            hint = (
                f"{error.message}; an operator completes it: toolkit registry release {request.ref}"
            )
            return replace(standing, notes=(hint, *standing.notes))
        body = {**facts_of(request), "approved_by": list(standing.people)}
        try:
            request = self._close(request, "released", None, body)
        except Conflict:  # somebody else completed it
            request = self.registry.requests.get(request.job, request.version)
        return replace(standing, request=request, moved=True)

    def check_number(self, version: Version) -> None:
        """Refuse to run a version by its number that nobody let in: see :func:`check_let_in`.

        Raises:
            ApprovalPending: Nobody did.
        """
        check_let_in(self.registry, version, self.bundle().promotion.of(version.name))

    # -- parts -----------------------------------------------------------------------------

    def _move(self, job: str, version: int, wish: Wish, needed: int) -> None:
        asked, by = Asked(needed, Environment.PRODUCTION.value), self.user
        if wish.kind == "stable":
            self.registry.set_alias(job, wish.alias, version, by=by, asked=asked)
        else:
            share = wish.share if wish.kind == "canary" else None
            beside = self.registry.releases.put_beside
            beside(job, wish.alias, version, share, by=by, asked=asked)
        self.mirror(job)

    def _close(
        self,
        request: Request,
        state: Literal["released", "rejected"],
        reason: str | None,
        body: dict[str, Any],
    ) -> Request:
        at = iso_utc(self.clock.now_us())
        event = "promotion.released" if state == "released" else "approval.rejected"

        def closed(found: Request) -> Request:
            self.registry.record(event, body, by=self.user)
            return replace(found, state=state, closed_by=self.user, closed_at=at, reason=reason)

        return self.registry.requests.change(request.job, request.version, closed)

    def _waiting(self, ref: JobRef) -> Request:
        request = self.registry.requests.get(ref.name, number_of(ref))
        return self.registry.requests.change(ref.name, request.version, lambda found: found)

    def _approve_plainly(self, request: Request, rule: PromotionRule) -> Request:
        version = self.registry.resolve(JobRef(request.job, str(request.version)))
        self._check_person(request, version)
        now = self.clock.now_us()

        def approved(found: Request) -> Request:
            if any(one.person == self.user for one in found.counted(now)[0]):
                return found
            changed = found.approve(self.user, now_us=now, expires_s=rule.expires_s)
            body = {**facts_of(request), "approval": changed.given[-1].digest}
            self.registry.record("approval.given", body, by=self.user)
            return changed

        return self.registry.requests.change(request.job, request.version, approved)

    def _check_person(self, request: Request, version: Version) -> None:
        rule = self.bundle().promotion.of(request.job)
        why = self._why_not(self.user, request, version, rule.roles or request.roles)
        if why is not None:
            raise ConfigurationError(
                why,
                where=request.ref,
                next_step=f"ask somebody else: {self.standing(request).asked}",
            )

    def _why_not(
        self, person: str, request: Request, version: Version, roles: tuple[str, ...]
    ) -> str | None:
        if person in authors_of(request, version):
            return f"{person} is an author of {request.ref}: authors never approve"
        if not set(self.people().roles(person)) & set(roles):
            return f"{person} does not have the role {' or '.join(roles)}"
        return None

    def _check_judged(self, ref: str, judged: str | None) -> None:
        """Refuse what another policy judged than the one in force; ``None``: none did.

        Raises:
            ConfigurationError: The policy changed since; also while the version was promoted.
        """
        now = self.bundle().digest
        if judged not in (None, now):
            raise ConfigurationError(
                f"{ref} was promoted under another policy than the one in force",
                where=ref,
                next_step="promote it again, so that approvals are of what will judge it",
                details={"promoted": judged, "in_force": now},
            )

    def _signed(self, request: Request, version: Version, verifier: Verifier) -> Standing:
        rule = self.bundle().promotion.of(request.job)
        root = verifier.root()
        found = verifier.approvals(request.job, request.version, request.environment)
        protected = root.facts.environment_of(request.alias) is not None
        needed = max(found.needed if protected else 0, rule.approvals, request.needed)
        could = sorted(root.holders("approver") - found.people - authors_of(request, version))
        notes = [*(f"{one.where} {one.message}" for one in found.ignored), *unasked_note(rule)]
        asked = f"approver ({', '.join(could) or 'nobody is left'})"
        return Standing(request, tuple(sorted(found.people)), needed, asked, tuple(notes))

    def _signer_person(self, *roles: str) -> str:
        trust = self.registry.trust
        if trust is None:
            return self.user
        notary, error = trust.notary(), None
        for role in roles or ("approver",):
            try:
                return notary.person(role)
            except ConfigurationError as refused:
                error = refused
        raise error or ConfigurationError("no role")

    def _verifier(self) -> Verifier | None:
        return verifier_of(self.registry)

    def _asks(self, job: str, alias: str) -> bool:
        """Whether anybody has to approve a version before the alias moves."""
        return bool(self.bundle().promotion.of(job).approvals) or bool(self._environment(alias))

    def _asked_before(self, version: Version, wish: Wish) -> Request | None:
        """Return the request that waits for the same: what people said of it stands."""
        try:
            found = self.registry.requests.get(version.name, version.number)
        except NotFound:
            return None
        same = (found.alias, found.kind, found.share) == (wish.alias, wish.kind, wish.share)
        whole = same and found.bundle_digest == version.bundle_digest
        return found if whole and found.state == "waiting" else None

    def _environment(self, alias: str) -> str | None:
        verifier = self._verifier()
        return None if verifier is None else verifier.root().facts.environment_of(alias)


def open_promotions(bench: Workbench) -> Promotions:
    """Return the promotions of a workspace, for whoever uses it."""
    from toolkit.app.mirroring import mirror_job
    from toolkit.policy import People

    def people() -> People:
        return People.load(bench.workspace.registry / "people.yaml")

    return Promotions(
        bench.registry,
        lambda: bench.governance.bundle(Environment.PRODUCTION),
        people,
        bench.workspace.user,
        lambda job: mirror_job(bench, job),
    )
