"""What MLflow shows of a promotion; it decides nothing, and when it is down that is a warning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from toolkit.errors import TrackingError
from toolkit.promotion.attempt import Attempt
from toolkit.promotion.stages import Promotion
from toolkit.registry import Registry
from toolkit.tracing import EvaluationLog, Tracking
from toolkit.values import RunRecord

__all__ = ["Links", "Shown"]


class Links(Protocol):
    """Addresses of MLflow's pages; ``None`` while no UI runs."""

    def evaluation(self, run: RunRecord, other_mlflow_run_id: str | None = None) -> str | None:
        """Return the address of an evaluation, beside another one where given."""
        ...

    def model_version(self, job: str, number: int) -> str | None:
        """Return the address of a mirrored version."""
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
        attempt.link("evaluation", self.links.evaluation(run))
        before = self._last_evaluation(attempt.job)
        if before is not None and before != mlflow_run_id:
            attempt.link("compare evaluations", self.links.evaluation(run, before))
        attempt.facts["evaluation_mlflow_run_id"] = mlflow_run_id

    def earlier(self, run: RunRecord, attempt: Attempt) -> None:
        """Link to an evaluation that MLflow shows since an earlier promotion."""
        attempt.link("evaluation", self.links.evaluation(run))
        attempt.facts["evaluation_mlflow_run_id"] = run.mlflow_run_id

    def version(self, promotion: Promotion, digest: str, alias: str | None, by: str) -> Promotion:
        """Show a sealed version; return the promotion with its link, or with a warning.

        ``alias`` is what points at it by now, if anything does.
        """
        rehearsal = next(s for s in promotion.stages if s.name == "rehearse")
        tags = {
            "bundle_digest": digest,
            "gate": "passed",
            "promoted_by": by,
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
                alias=alias,
            )
        except TrackingError as error:
            warning = f"MLflow does not show the version: {error}"
            return replace(promotion, warnings=(*promotion.warnings, warning))
        url = self.links.model_version(promotion.job, number)
        links = {**promotion.links, "model version": url} if url else promotion.links
        return replace(promotion, links=links)

    def _last_evaluation(self, job: str) -> str | None:
        found = None
        for record in self.registry.audit():
            if record.event.startswith("promotion.") and record.body.get("job") == job:
                found = record.body.get("evaluation_mlflow_run_id") or found
        return found
