"""The gate, from a notebook file to a sealed version or a refusal with every finding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from toolkit.document import Notebook, check_parameters
from toolkit.environments import Environments
from toolkit.errors import InvalidFile, NotFound, ToolkitError
from toolkit.evaluation import EvaluationSet
from toolkit.execution import Runner
from toolkit.gateway import Governance
from toolkit.ledger import Ledger
from toolkit.policy import PolicyBundle
from toolkit.promotion import evidence
from toolkit.promotion.attempt import Announce, Attempt, Heard
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.checking import catalog_of, check_stage, checked
from toolkit.promotion.choosing import chosen_sets, fitting_sets, tell_choice
from toolkit.promotion.counting import code_digest, times_offered
from toolkit.promotion.judging import Judges
from toolkit.promotion.landing import Landed, Landing, aliases_of, seal_stage
from toolkit.promotion.locking import Surroundings, lock_environment
from toolkit.promotion.offering import Offer
from toolkit.promotion.production import predecessor
from toolkit.promotion.recall import remember, standing_digest, unchanged_version
from toolkit.promotion.report import render_report
from toolkit.promotion.reproduce import Reproduce, Reproduction, reproduce
from toolkit.promotion.sealed import evidence_of
from toolkit.promotion.shown import Links, Shown
from toolkit.promotion.simulating import DecideAgain, simulate_history
from toolkit.promotion.since import Since, since_production
from toolkit.promotion.stages import Promotion, refused_stage
from toolkit.promotion.standards import standard
from toolkit.promotion.trials import evaluate, rehearse
from toolkit.registry import Registry, Version
from toolkit.tracing import Tracking
from toolkit.values import (
    Clock,
    Environment,
    IsolationLevel,
    JobRef,
    SystemClock,
    check_name,
    new_id,
)

__all__ = ["Promoter", "Wanted", "job_name"]


@dataclass(frozen=True)
class Wanted:
    """What a person asks to promote.

    Attributes:
        path: The notebook.
        job: The job's name; default: from the file's name.
        sets: Evaluation sets beside the job's own (:func:`.choosing.chosen_sets`).
        parameters: For the rehearsal; defaults fill the rest.
        alias: What points at the new version afterwards.
        kind: ``stable``; ``canary`` or ``shadow`` puts it beside the version that the alias has.
        share: Percent of the runs, of a canary.
        git_commit: The workspace's commit.
        fresh: Measure everything, also what was measured before on the same content.
        again: Seal another version, even though nothing has changed since the last.
    """

    path: Path
    job: str | None = None
    sets: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    alias: str = "production"
    kind: Literal["stable", "canary", "shadow"] = "stable"
    share: int | None = None
    git_commit: str | None = None
    fresh: bool = False
    again: bool = False


def job_name(path: Path) -> str:
    """Return the job's name for a notebook file: ``licence_review.ipynb`` → ``licence-review``.

    Raises:
        UsageError: The file's name cannot be made a job's name.
    """
    return check_name(path.stem.lower().replace("_", "-").replace(" ", "-"), "job name")


@dataclass
class Promoter:
    """Takes notebooks to production.

    Attributes:
        root: The workspace.
        links: Where people look at what MLflow shows.
        registry, governance, ledger, runner, tracking: The rooms it works with.
        gateway: Returns the socket of a living gateway.
        user: Who promotes.
        environments: Where locked environments are built.
        release: Lets a sealed version in, or asks for the approvals that it needs; returns what it
            waits for, ``None`` if it is in.
        admit: Refuses who may not let in what is wanted, or a policy that is in force no more.
        decide_again: Decides the job's recorded calls again under a policy.
        isolation: Returns how far scorers of a set can be kept from this machine.
        reproduction: Makes the step *reproduce*.
    """

    root: Path
    registry: Registry
    governance: Governance
    ledger: Ledger
    runner: Runner
    tracking: Tracking
    links: Links
    gateway: Callable[[], str]
    user: str
    environments: Environments
    release: Callable[[Wanted, str, int], str | None]
    decide_again: DecideAgain
    admit: Callable[[Wanted, str, str | None], None] = lambda _wanted, _job, _policy: None
    clock: Clock = field(default_factory=SystemClock)
    isolation: Callable[[], IsolationLevel] = lambda: IsolationLevel.L1
    reproduction: Reproduce = reproduce

    def promote(
        self,
        wanted: Wanted,
        *,
        announce: Announce = lambda _: None,
        heard: Heard = lambda _answered, _all: None,
    ) -> Promotion:
        """Run the gate; a refusal is a result, not an error, and is recorded like a success.

        Where nothing has changed since the version that the alias points at was sealed, that
        version is returned, and nothing is sealed or recorded.  One that the same promotion sealed
        and did not let in, since it was killed, is completed (:mod:`.landing`).

        Raises:
            ConfigurationError: Policy, catalog or evaluation set have faults.
            InfrastructureError: The gate could not be run; nothing is said about the notebook.
        """
        job = wanted.job or job_name(wanted.path)
        check_name(job, "job name")
        self.admit(wanted, job, None)
        bundle = self.governance.bundle(Environment.PRODUCTION)
        name = self._relative(wanted.path)
        attempt = Attempt(job, name, announce, heard)
        notebook = self._check(wanted, bundle, attempt)
        before = predecessor(self.registry, job, self.registry.audit())
        sets = chosen_sets(self.registry.root / "evaluations", job, wanted.sets, bundle, before)
        tell_choice(sets, before, attempt)
        candidate = None
        if notebook is not None and not attempt.failed("check"):
            candidate = self._candidate(wanted, notebook, bundle, attempt)
        if candidate is not None:
            memory = remember(candidate, self.registry, self.ledger, self.governance, self.clock)
            memory.used = not wanted.fresh
            waivers = attempt.facts.get("waivers")
            standing = standing_digest(memory.basis, bundle, sets, candidate.parameters, waivers)
            attempt.facts["standing"] = standing
            if not (wanted.fresh or wanted.again):
                begun = self._landing(wanted).begun(job, standing, wanted)
                if begun is not None:
                    return self._complete(wanted, candidate, attempt, begun)
                same = unchanged_version(self.registry, job, aliases_of(wanted), standing)
                if same is not None:
                    return self._unchanged(candidate, attempt, same)
            offer = Offer(candidate, memory, self.registry, self.ledger, before, attempt.heard)
            self._execute(wanted, candidate, sets, attempt, offer)
        digest = notebook.digest if notebook is not None else ""
        own = attempt.facts.get("evaluating")
        promotion = attempt.finish(digest, self._count(job, digest, own) + 1)
        return self._conclude(wanted, candidate, sets, bundle, promotion)

    @property
    def _shown(self) -> Shown:
        return Shown(self.tracking, self.links, self.registry)

    # -- stages -------------------------------------------------------------------------------

    def _check(self, wanted: Wanted, bundle: PolicyBundle, attempt: Attempt) -> Notebook | None:
        started = time.monotonic()
        root = self.registry.root
        report = checked(
            wanted.path,
            catalog_of(root, self.governance, bundle, job=attempt.job),
            root,
            name=attempt.notebook,
            job=attempt.job,
            now_us=self.clock.now_us(),
        )
        if report.waived:
            attempt.facts["waivers"] = [one.to_json() for one in report.waived]
        attempt.add(check_stage(report, started))
        try:
            return Notebook.read(wanted.path)
        except (InvalidFile, NotFound):
            return None  # the check has already told every fault of the file

    def _candidate(
        self, wanted: Wanted, notebook: Notebook, bundle: PolicyBundle, attempt: Attempt
    ) -> Candidate | None:
        try:
            parameters = check_parameters(notebook.schema, wanted.parameters)
        except ToolkitError as error:
            attempt.add(refused_stage("rehearse", "rehearse.parameters", error))
            return None
        surroundings = self._surroundings(notebook, attempt)
        if surroundings is None:
            return None
        return Candidate(
            job=attempt.job,
            notebook=notebook,
            # What runs and is sealed is the normal form: no outputs, no local metadata.
            data=notebook.normalised(),
            name=attempt.notebook,
            user=self.user,
            bundle=bundle,
            parameters=parameters,
            surroundings=surroundings,
        )

    def _surroundings(self, notebook: Notebook, attempt: Attempt) -> Surroundings | None:
        stage, surroundings = lock_environment(notebook, self.environments)
        if stage is not None:
            attempt.add(stage)
        if surroundings is not None:
            attempt.facts["environment"] = surroundings.facts
        return surroundings

    def _execute(
        self,
        wanted: Wanted,
        candidate: Candidate,
        sets: list[EvaluationSet],
        attempt: Attempt,
        offer: Offer,
    ) -> None:
        folder = self.runner.runs / new_id("nbval")
        folder.mkdir(mode=0o700, parents=True)
        asked = Reproduction(
            wanted.path,
            candidate.notebook,
            candidate.name,
            self.user,
            folder,
            python=candidate.surroundings.python,
        )
        memory = offer.memory
        attempt.add(self.reproduction(asked, self.ledger, self.gateway, memory, self.clock))
        attempt.add(rehearse(candidate, self.runner, self.ledger, memory))
        judges = Judges(self.ledger, self.gateway, self.isolation)
        attempt.facts["code"] = code_digest(candidate.notebook)
        attempt.standards = {
            each.name: standard(each, candidate.bundle.gates.get(each.name, ()), memory.world)
            for each in sets
        }
        fitting = fitting_sets(candidate.notebook, sets, attempt)
        attempt.facts["evaluating"], offered = offer.announce(fitting)
        for each in offered:
            done = evaluate(each.asking, self.runner, self.ledger, each.before, judges)
            attempt.evaluated(done.stage, done.evaluation, done.verdicts, done.comparison)
            chosen = each.asking.chosen
            if done.changes is not None:
                told = attempt.facts.setdefault("set_changes", {})
                told[chosen.name] = done.changes.to_json()
            answered = done.answered
            if answered.report is not None:
                log = evidence.evaluation_log(chosen, done.evaluation, done.verdicts, answered)
                self._shown.evaluation(answered.report.run, log, attempt)
            else:
                self._shown.earlier(chosen.name, answered.sources[0].run, attempt)
        again = self.decide_again
        attempt.add(simulate_history(candidate, attempt, self.registry, again, self.clock))
        attempt.facts["measurements"] = memory.noted

    def _unchanged(self, candidate: Candidate, attempt: Attempt, same: Version) -> Promotion:
        folder = self.registry.show(same)
        digest = candidate.notebook.digest
        return Promotion(
            job=attempt.job,
            notebook=attempt.notebook,
            notebook_digest=digest,
            stages=tuple(attempt.stages),
            attempt=self._count(attempt.job, digest),
            version=same.number,
            folder=folder,
            report=folder / "report.html",
            facts=attempt.facts,
            unchanged=True,
        )

    # -- the end ------------------------------------------------------------------------------

    def _conclude(
        self,
        wanted: Wanted,
        candidate: Candidate | None,
        sets: list[EvaluationSet],
        bundle: PolicyBundle,
        promotion: Promotion,
    ) -> Promotion:
        facts = evidence.collect(
            promotion,
            sets,
            policy_digest=bundle.digest,
            by=self.user,
            git_commit=wanted.git_commit,
            at_us=self.clock.now_us(),
        )
        if candidate is not None and candidate.surroundings.distributions:
            facts["distributions"] = list(candidate.surroundings.distributions)
        since = since_production(self.registry, candidate, sets, promotion, facts)
        if candidate is None or any(stage.passed is not True for stage in promotion.stages):
            return self._refuse(promotion, facts, since)
        return self._seal(wanted, candidate, sets, promotion, facts, since=since)

    def _refuse(
        self, promotion: Promotion, facts: dict[str, Any], since: Since | None
    ) -> Promotion:
        folder = self.runner.runs / new_id("refused")
        folder.mkdir(mode=0o700, parents=True)
        report = folder / "report.html"
        report.write_text(render_report(promotion, facts, since), "utf-8")
        self.registry.record("promotion.refused", evidence.summary(promotion, facts), by=self.user)
        return replace(promotion, report=report)

    def _seal(
        self,
        wanted: Wanted,
        candidate: Candidate,
        sets: list[EvaluationSet],
        promotion: Promotion,
        facts: dict[str, Any],
        *,
        since: Since | None,
    ) -> Promotion:
        started = time.monotonic()
        files = {
            **candidate.files,
            "evidence.json": evidence.to_bytes(facts),
            "report.html": render_report(promotion, facts, since).encode(),
        }
        manifest = evidence.manifest(candidate, sets, promotion, facts)
        try:
            self.admit(wanted, promotion.job, facts["policy_digest"])
        except ToolkitError:  # an attempt all the same
            self._refuse(promotion, facts, since)
            raise
        landed = self._landing(wanted).land(promotion.job, files, manifest)
        return self._landed(wanted, promotion, landed, started)

    def _complete(
        self, wanted: Wanted, candidate: Candidate, attempt: Attempt, begun: Version
    ) -> Promotion:
        """Let in what was sealed before; what it was judged by then is shown again."""
        started, landing = time.monotonic(), self._landing(wanted)
        judged = evidence_of(self.registry, begun)
        made_now = {each.name for each in attempt.stages}
        for stage in evidence.stages_of(judged):
            if stage.name not in made_now:
                attempt.add(stage)
        attempt.facts |= {name: judged[name] for name in evidence.SHOWN if name in judged}
        promotion = self._unchanged(candidate, attempt, begun)
        landed = landing.finish(begun)
        return self._landed(wanted, replace(promotion, unchanged=False), landed, started)

    def _landing(self, wanted: Wanted) -> Landing:
        return Landing(self.registry, self.user, partial(self.release, wanted), self.clock)

    def _landed(
        self, wanted: Wanted, promotion: Promotion, landed: Landed, started: float
    ) -> Promotion:
        version = self.registry.resolve(JobRef(promotion.job, str(landed.number)))
        folder = self.registry.show(version)
        promotion = replace(
            promotion,
            stages=(*promotion.stages, seal_stage(wanted, landed, started)),
            version=landed.number,
            folder=folder,
            report=folder / "report.html",
            waiting=landed.waiting,
        )
        alias = wanted.alias if landed.waiting is None and wanted.kind == "stable" else None
        return self._shown.version(promotion, alias, self.user)

    # -- facts --------------------------------------------------------------------------------

    def _count(self, job: str, digest: str, own: int | None = None) -> int:
        """Return how often this notebook was offered before: no silent best-of-N."""
        return times_offered(self.registry.audit(), job, digest, own)

    def _relative(self, path: Path) -> str:
        full = path.resolve()
        return str(full.relative_to(self.root)) if full.is_relative_to(self.root) else str(full)
