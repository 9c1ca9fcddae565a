"""The gate, from a notebook file to a sealed version or a refusal with every finding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
from toolkit.promotion.asking import Asking
from toolkit.promotion.attempt import Announce, Attempt, Heard
from toolkit.promotion.before import look_back
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.checking import catalog_of, check_stage, checked
from toolkit.promotion.judging import Judges
from toolkit.promotion.locking import Surroundings, lock_environment
from toolkit.promotion.recall import Memory, remember, standing_digest, unchanged_version
from toolkit.promotion.report import render_report
from toolkit.promotion.reproduce import Reproduction, reproduce
from toolkit.promotion.shown import Links, Shown
from toolkit.promotion.simulating import DecideAgain, simulate_history
from toolkit.promotion.since import Since, since_production
from toolkit.promotion.stages import Promotion, Stage, finding
from toolkit.promotion.trials import evaluate, rehearse
from toolkit.registry import Registry, Version
from toolkit.tracing import Tracking
from toolkit.values import (
    Clock,
    Environment,
    IsolationLevel,
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
        sets: Evaluation sets; default: the set that is named like the job.
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
        decide_again: Decides the job's recorded calls again under a policy.
        isolation: Returns how far scorers of a set can be kept from this machine.
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
    clock: Clock = field(default_factory=SystemClock)
    isolation: Callable[[], IsolationLevel] = lambda: IsolationLevel.L1

    def promote(
        self,
        wanted: Wanted,
        *,
        announce: Announce = lambda _: None,
        heard: Heard = lambda _answered, _all: None,
    ) -> Promotion:
        """Run the gate; a refusal is a result, not an error, and is recorded like a success.

        Where nothing has changed since the version that the alias points at was sealed, that
        version is returned, and nothing is sealed or recorded.

        Raises:
            ConfigurationError: Policy, catalog or evaluation set have faults.
            InfrastructureError: The gate could not be run; nothing is said about the notebook.
        """
        job = wanted.job or job_name(wanted.path)
        check_name(job, "job name")
        bundle = self.governance.bundle(Environment.PRODUCTION)
        name = self._relative(wanted.path)
        attempt = Attempt(job, name, announce, heard)
        notebook = self._check(wanted, bundle, attempt)
        sets = self._sets(wanted, bundle, attempt)
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
                same = unchanged_version(self.registry, job, wanted.alias, standing)
                if same is not None:
                    return self._unchanged(candidate, attempt, same)
            self._execute(wanted, candidate, sets, attempt, memory)
        digest = notebook.digest if notebook is not None else ""
        promotion = attempt.finish(digest, self._count(job, digest) + 1)
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
            attempt.add(_refused("rehearse", "rehearse.parameters", error))
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

    def _sets(self, wanted: Wanted, bundle: PolicyBundle, attempt: Attempt) -> list[EvaluationSet]:
        job = attempt.job
        names = wanted.sets or ((job,) if self._has_set(job) or job in bundle.gates else ())
        if not names:
            attempt.hold(
                finding(
                    "evaluate.no-set",
                    f"the job {job!r} has no evaluation set",
                    fix=f"make registry/evaluations/{job}/ with set.yaml and cases.jsonl, and a "
                    "gate for it in registry/policies/production/policy.yaml",
                    why="what was not measured is not promoted",
                )
            )
        found = []
        for each in names:
            if not self._has_set(each):
                raise NotFound(
                    f"there is no evaluation set {each!r}",
                    where=str(self.registry.root / "evaluations"),
                    next_step="name one with --evaluate",
                )
            found.append(EvaluationSet.load(self.registry.root / "evaluations" / each))
        return found

    def _execute(
        self,
        wanted: Wanted,
        candidate: Candidate,
        sets: list[EvaluationSet],
        attempt: Attempt,
        memory: Memory,
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
        attempt.add(reproduce(asked, self.ledger, self.gateway, memory, self.clock))
        attempt.add(rehearse(candidate, self.runner, self.ledger, memory))
        judges = Judges(self.ledger, self.gateway, self.isolation)
        for chosen in sets:
            before = look_back(self.registry, attempt.job, chosen, self.clock)
            asking = Asking(candidate, chosen, memory, attempt.heard)
            stage, evaluation, verdicts, answered = evaluate(
                asking, self.runner, self.ledger, before, judges
            )
            attempt.evaluated(stage, evaluation, verdicts, before.evaluation)
            if evaluation is None or answered is None:
                continue
            if answered.report is not None:
                log = evidence.evaluation_log(chosen, evaluation, verdicts, answered)
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
        manifest = {**evidence.manifest(candidate, sets, promotion, facts), "by": self.user}
        sealed = self.registry.seal(promotion.job, files, manifest)
        waiting = self.release(wanted, promotion.job, sealed.version)
        self.registry.record(
            "promotion.accepted",
            {**evidence.summary(promotion, facts), "version": sealed.version},
            by=self.user,
        )
        stage = Stage(
            "seal",
            passed=True,
            summary=waiting or f"version {sealed.version}, {_way(wanted)}",
            seconds=time.monotonic() - started,
            facts={"version": sealed.version, "bundle_digest": sealed.bundle_digest},
        )
        promotion = replace(
            promotion,
            stages=(*promotion.stages, stage),
            version=sealed.version,
            folder=sealed.path,
            report=sealed.path / "report.html",
            waiting=waiting,
        )
        alias = wanted.alias if waiting is None and wanted.kind == "stable" else None
        return self._shown.version(promotion, alias, self.user)

    # -- facts --------------------------------------------------------------------------------

    def _has_set(self, name: str) -> bool:
        return (self.registry.root / "evaluations" / name / "set.yaml").is_file()

    def _count(self, job: str, digest: str) -> int:
        """Return how often this notebook was offered before: no silent best-of-N."""
        bodies = (r.body for r in self.registry.audit() if r.event.startswith("promotion."))
        return sum(1 for b in bodies if b.get("job") == job and b.get("notebook_digest") == digest)

    def _relative(self, path: Path) -> str:
        full = path.resolve()
        return str(full.relative_to(self.root)) if full.is_relative_to(self.root) else str(full)


def _refused(stage: str, rule: str, error: ToolkitError) -> Stage:
    fault = finding(rule, error.message, fix=error.next_step or "see the message")
    return Stage(stage, passed=False, summary=error.message, findings=(fault,))


def _way(wanted: Wanted) -> str:
    if wanted.kind == "canary":
        return f"{wanted.share} % of the runs of {wanted.alias}"
    return f"shadow of {wanted.alias}" if wanted.kind == "shadow" else f"alias {wanted.alias}"
