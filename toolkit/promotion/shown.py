"""What MLflow shows of a promotion; it decides nothing, and when it is down that is a warning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from toolkit.errors import TrackingError
from toolkit.promotion.attempt import Attempt
from toolkit.promotion.stages import Promotion
from toolkit.registry import Manifest, Registry
from toolkit.tracing import EvaluationLog, Tracking, artifact_url
from toolkit.values import JobRef, RunRecord

__all__ = ["Links", "Shown"]


class Links(Protocol):
    """Addresses of MLflow's pages; ``None`` while no UI runs."""

    def evaluation(self, run: RunRecord, other_mlflow_run_id: str | None = None) -> str | None:
        """Return the address of an evaluation, beside another one where given."""
        ...

    def model_version(self, job: str, number: int) -> str | None:
        """Return the address of a mirrored version."""
        ...

    def artifact(self, experiment_id: str, mlflow_run_id: str, path: str) -> str | None:
        """Return the address of a run's file, by MLflow's ids."""
        ...


@dataclass(frozen=True)
class Shown:
    """Shows evaluations and versions.

    Attributes:
        tracking: MLflow.
        links: Where people look at it.
        registry: Whose audit log knows earlier evaluations.
    """

    tracking: Tracking
    links: Links
    registry: Registry

    def evaluation(self, run: RunRecord, log: EvaluationLog, attempt: Attempt) -> None:
        """Show an evaluation that was made now, beside the job's last one."""
        try:
            mlflow_run_id = self.tracking.log_evaluation(run, log)
        except TrackingError as error:
            attempt.warnings.append(f"MLflow does not show the evaluation: {error}")
            return
        run = replace(run, mlflow_run_id=mlflow_run_id)
        self._note(log.name, run, attempt)
        before = self._last_evaluation(attempt.job)
        if before is not None and before != mlflow_run_id:
            attempt.link("compare evaluations", self.links.evaluation(run, before))

    def earlier(self, set_name: str, run: RunRecord, attempt: Attempt) -> None:
        """Link to an evaluation that MLflow shows since an earlier promotion."""
        self._note(set_name, run, attempt)

    def _note(self, set_name: str, run: RunRecord, attempt: Attempt) -> None:
        """Keep where a set's evaluation is shown; with several sets each has a link of its own."""
        shown = attempt.facts.setdefault("evaluation_mlflow_runs", {})
        attempt.link(
            f"evaluation {set_name}" if shown else "evaluation", self.links.evaluation(run)
        )
        attempt.facts["evaluation_mlflow_run_id"] = run.mlflow_run_id
        if run.mlflow_run_id:
            shown[set_name] = run.mlflow_run_id

    def version(self, promotion: Promotion, alias: str | None, by: str) -> Promotion:
        """Show a sealed version; return the promotion with its link, or with a warning.

        The model version has the digests of what it was judged by, the runs that judged it, and the
        report, which is an artifact of its rehearsal's run.  ``alias`` is what points at it by now,
        if anything does.
        """
        rehearsed = next((s.facts for s in promotion.stages if s.name == "rehearse"), {})
        sealed = self.registry.resolve(JobRef(promotion.job, str(promotion.version)))
        tags = {**_tags(promotion, sealed.manifest), "promoted_by": by}
        described = f"`{promotion.job}@{promotion.version}` from {promotion.notebook}"
        links = dict(promotion.links)
        try:
            run_id = rehearsed.get("mlflow_run_id") or _first_run(promotion)
            if run_id and promotion.report is not None and promotion.report.is_file():
                folder = f"promotion/{promotion.job}-{promotion.version}"
                path = f"{folder}/{promotion.report.name}"
                experiment = self.tracking.attach(run_id, promotion.report, folder)
                tags["report"] = f"runs:/{run_id}/{path}"
                # An address within MLflow's pages: it holds wherever they are served.
                page = artifact_url("", experiment, run_id, path).removeprefix("/")
                described += f"\n\n[Report of its promotion]({page})"
                url = self.links.artifact(experiment, run_id, path)
                links |= {"report in MLflow": url} if url else {}
            number = self.tracking.mirror_version(
                promotion.job,
                int(promotion.version or 0),
                tags=tags,
                mlflow_run_id=rehearsed.get("mlflow_run_id"),
                description=described,
                alias=alias,
            )
        except TrackingError as error:
            warning = f"MLflow does not show the version: {error}"
            return replace(promotion, warnings=(*promotion.warnings, warning))
        url = self.links.model_version(promotion.job, number)
        links |= {"model version": url} if url else {}
        return replace(promotion, links=links)

    def _last_evaluation(self, job: str) -> str | None:
        found = None
        for record in self.registry.audit():
            if record.event.startswith("promotion.") and record.body.get("job") == job:
                found = record.body.get("evaluation_mlflow_run_id") or found
        return found


def _tags(promotion: Promotion, manifest: Manifest) -> dict[str, str]:
    """What the model version says of the version: digests, and the runs that MLflow has of it."""
    tags = {
        "bundle_digest": manifest.bundle_digest,
        "gate": "passed",
        "registry_path": str(promotion.folder),
        "notebook_digest": promotion.notebook_digest,
        "policy_digest": manifest.policy_digest or "",
        "evaluation_digest": manifest.evaluation_digest or "",
    }
    for stage in promotion.stages:
        if stage.name == "evaluate" and "set" in stage.facts:
            tags[f"evaluation_digest.{stage.facts['set']}"] = str(stage.facts["set_digest"])
    for name, run_id in promotion.facts.get("evaluation_mlflow_runs", {}).items():
        tags[f"evaluation_run.{name}"] = run_id
    return tags


def _first_run(promotion: Promotion) -> str | None:
    return next(iter(promotion.facts.get("evaluation_mlflow_runs", {}).values()), None)
