"""The gate, from a notebook file to a sealed version or a refusal with every finding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from toolkit.document import Notebook, check_parameters
from toolkit.environments import Environments
from toolkit.errors import InvalidFile, NotFound, ToolkitError, TrackingError
from toolkit.evaluation import EvaluationSet
from toolkit.execution import Runner
from toolkit.gateway import Governance
from toolkit.ledger import Ledger
from toolkit.policy import PolicyBundle
from toolkit.promotion import evidence
from toolkit.promotion.attempt import Announce, Attempt
from toolkit.promotion.before import look_back
from toolkit.promotion.checking import catalog_of, check_stage, checked
from toolkit.promotion.locking import Surroundings, lock_environment
from toolkit.promotion.report import render_report
from toolkit.promotion.reproduce import Reproduction, reproduce
from toolkit.promotion.stages import Promotion, Stage, finding
from toolkit.promotion.trials import Candidate, evaluate, rehearse
from toolkit.registry import Registry
from toolkit.tracing import EvaluationLog, Tracking
from toolkit.values import Clock, Environment, RunRecord, SystemClock, check_name, new_id

__all__ = ["Promoter", "Wanted", "job_name"]


class Links(Protocol):
    """Addresses of MLflow's pages; ``None`` while no UI runs."""

    def evaluation(self, run: RunRecord, other_mlflow_run_id: str | None = None) -> str | None:
        """Return the address of an evaluation, beside another one where given."""
        ...

    def model_version(self, job: str, number: int) -> str | None:
        """Return the address of a mirrored version."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What a person asks to promote.

    Attributes:
        path: The notebook.
        job: The job's name; default: from the file's name.
        sets: Evaluation sets; default: the set that is named like the job.
        parameters: For the rehearsal; defaults fill the rest.
        alias: What points at the new version afterwards.
        git_commit: The workspace's commit.
    """

    path: Path
    job: str | None = None
    sets: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    alias: str = "production"
    git_commit: str | None = None


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
    clock: Clock = field(default_factory=SystemClock)

    def promote(self, wanted: Wanted, *, announce: Announce = lambda _: None) -> Promotion:
        """Run the gate; a refusal is a result, not an error, and is recorded like a success.

        Raises:
            ConfigurationError: Policy, catalog or evaluation set have faults.
            InfrastructureError: The gate could not be run; nothing is said about the notebook.
        """
        job = wanted.job or job_name(wanted.path)
        check_name(job, "job name")
        bundle = self.governance.bundle(Environment.PRODUCTION)
        name = self._relative(wanted.path)
        attempt = Attempt(job, name, announce)
        notebook = self._check(wanted, bundle, attempt)
        sets = self._sets(wanted, bundle, attempt)
        candidate = None
        if notebook is not None and not attempt.failed("check"):
            candidate = self._candidate(wanted, notebook, bundle, attempt)
        if candidate is not None:
            self._execute(wanted, candidate, sets, attempt)
        digest = notebook.digest if notebook is not None else ""
        promotion = attempt.finish(digest, self._count(job, digest) + 1)
        return self._conclude(wanted, candidate, sets, bundle, promotion)

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
        attempt.add(reproduce(asked, self.ledger, self.gateway, self.clock))
        attempt.add(rehearse(candidate, self.runner, self.ledger))
        for chosen in sets:
            before = look_back(self.registry, attempt.job, chosen, self.clock)
            stage, evaluation, verdicts, report = evaluate(
                candidate, chosen, self.runner, self.ledger, before
            )
            attempt.evaluated(stage, evaluation, verdicts, before.evaluation)
            if evaluation is not None and report is not None:
                log = evidence.evaluation_log(chosen, evaluation, verdicts, report, self.ledger)
                self._show_evaluation(report.run, log, attempt)

    def _show_evaluation(self, run: RunRecord, log: EvaluationLog, attempt: Attempt) -> None:
        try:
            mlflow_run_id = self.tracking.log_evaluation(run, log)
        except TrackingError as error:
            attempt.warnings.append(f"MLflow does not show the evaluation: {error}")
            return
        run = replace(run, mlflow_run_id=mlflow_run_id)
        attempt.link("evaluation", self.links.evaluation(run))
        before = self._last_evaluation(attempt.job)
        if before is not None and before != mlflow_run_id:
            attempt.link("compare evaluations", self.links.evaluation(run, before))
        attempt.facts["evaluation_mlflow_run_id"] = mlflow_run_id

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
        if candidate is None or any(stage.passed is not True for stage in promotion.stages):
            return self._refuse(promotion, facts)
        return self._seal(wanted, candidate, sets, promotion, facts)

    def _refuse(self, promotion: Promotion, facts: dict[str, Any]) -> Promotion:
        folder = self.runner.runs / new_id("refused")
        folder.mkdir(mode=0o700, parents=True)
        report = folder / "report.html"
        report.write_text(render_report(promotion, facts), "utf-8")
        self.registry.record("promotion.refused", evidence.summary(promotion, facts), by=self.user)
        return replace(promotion, report=report)

    def _seal(
        self,
        wanted: Wanted,
        candidate: Candidate,
        sets: list[EvaluationSet],
        promotion: Promotion,
        facts: dict[str, Any],
    ) -> Promotion:
        started = time.monotonic()
        files = {
            "notebook.ipynb": candidate.data,
            **candidate.surroundings.files,
            "evidence.json": evidence.to_bytes(facts),
            "report.html": render_report(promotion, facts).encode(),
        }
        manifest = {**evidence.manifest(candidate, sets, promotion, facts), "by": self.user}
        sealed = self.registry.seal(promotion.job, files, manifest)
        self.registry.set_alias(promotion.job, wanted.alias, sealed.version, by=self.user)
        self.registry.record(
            "promotion.accepted",
            {**evidence.summary(promotion, facts), "version": sealed.version},
            by=self.user,
        )
        stage = Stage(
            "seal",
            passed=True,
            summary=f"version {sealed.version}, alias {wanted.alias}",
            seconds=time.monotonic() - started,
            facts={"version": sealed.version, "bundle_digest": sealed.bundle_digest},
        )
        promotion = replace(
            promotion,
            stages=(*promotion.stages, stage),
            version=sealed.version,
            folder=sealed.path,
            report=sealed.path / "report.html",
        )
        return self._mirror(wanted, promotion, sealed.bundle_digest)

    def _mirror(self, wanted: Wanted, promotion: Promotion, digest: str) -> Promotion:
        rehearsal = next(s for s in promotion.stages if s.name == "rehearse")
        tags = {
            "bundle_digest": digest,
            "gate": "passed",
            "promoted_by": self.user,
            "registry_path": str(promotion.folder),
            "notebook_digest": promotion.notebook_digest,
        }
        try:
            number = self.tracking.mirror_version(
                promotion.job,
                int(promotion.version or 0),
                tags=tags,
                mlflow_run_id=rehearsal.facts.get("mlflow_run_id"),
                description=f"`{promotion.job}@{promotion.version}` from {promotion.notebook}",
                alias=wanted.alias,
            )
        except TrackingError as error:
            warning = f"MLflow does not show the version: {error}"
            return replace(promotion, warnings=(*promotion.warnings, warning))
        url = self.links.model_version(promotion.job, number)
        links = {**promotion.links, "model version": url} if url else promotion.links
        return replace(promotion, links=links)

    # -- facts --------------------------------------------------------------------------------

    def _has_set(self, name: str) -> bool:
        return (self.registry.root / "evaluations" / name / "set.yaml").is_file()

    def _count(self, job: str, digest: str) -> int:
        """Return how often this notebook was offered before: no silent best-of-N."""
        bodies = (r.body for r in self.registry.audit() if r.event.startswith("promotion."))
        return sum(1 for b in bodies if b.get("job") == job and b.get("notebook_digest") == digest)

    def _last_evaluation(self, job: str) -> str | None:
        found = None
        for record in self.registry.audit():
            if record.event.startswith("promotion.") and record.body.get("job") == job:
                found = record.body.get("evaluation_mlflow_run_id") or found
        return found

    def _relative(self, path: Path) -> str:
        full = path.resolve()
        return str(full.relative_to(self.root)) if full.is_relative_to(self.root) else str(full)


def _refused(stage: str, rule: str, error: ToolkitError) -> Stage:
    fault = finding(rule, error.message, fix=error.next_step or "see the message")
    return Stage(stage, passed=False, summary=error.message, findings=(fault,))
