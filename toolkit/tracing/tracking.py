"""Our runs, versions and evaluations in MLflow, so that people can look at and compare them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError, TrackingError
from toolkit.tracing.attributes import has_session
from toolkit.tracing.evaluations import EvaluationLog, write_evaluation
from toolkit.tracing.outbox import RunTotals
from toolkit.tracing.querying import traces_of
from toolkit.tracing.runs import (
    STATUS,
    run_metrics,
    run_name,
    run_params,
    run_tags,
    table_csv,
)
from toolkit.tracing.shipping import experiment_of
from toolkit.tracing.store import MlflowStore
from toolkit.tracing.vendor import is_database, quoted, tracking_errors
from toolkit.values import RunRecord

__all__ = ["Tracking"]

_PER_BATCH = 100
_PROXIED = "mlflow-artifacts:/"


class Tracking:
    """Writes runs, versions and evaluations; every method may be repeated.

    Args:
        uri: MLflow tracking URI.
        artifacts: Folder of artifacts when ``uri`` is a database.
        experiment: Experiment of runs that belong to no job.
        store: Shares the connection of another part of this room.
    """

    def __init__(
        self,
        uri: str,
        *,
        artifacts: Path | None = None,
        experiment: str = "toolkit-sandbox",
        store: MlflowStore | None = None,
    ) -> None:
        self.store = store or MlflowStore(uri, artifacts=artifacts)
        self._sandbox = experiment

    def experiment_id(self, run: RunRecord) -> str:
        """Return MLflow's id of the experiment of a run, creating the experiment if needed.

        Raises:
            TrackingError: MLflow failed.
        """
        return self.store.experiment(experiment_of(run, self._sandbox))

    @contextmanager
    def _client(self, what: str) -> Iterator[Any]:
        with tracking_errors(what, self.store.uri):
            yield self.store.client

    def find_run(self, run_id: str, experiment_id: str) -> str | None:
        """Return MLflow's id of one of our runs, if it was mirrored.

        Raises:
            TrackingError: MLflow failed.
        """
        with self._client(f"look for the run {run_id}") as client:
            found = client.search_runs(
                [experiment_id], f"tags.`toolkit.run` = {quoted(run_id)}", max_results=1
            )
            return str(found[0].info.run_id) if found else None

    def start_run(self, run: RunRecord) -> str:
        """Mirror a run that begins (or is found again) and return MLflow's id of it.

        Raises:
            TrackingError: MLflow failed; the caller goes on, and mirrors the run at its end.
        """
        experiment = self.experiment_id(run)
        known = run.mlflow_run_id or self.find_run(run.run_id, experiment)
        with self._client(f"mirror the run {run.run_id}") as client:
            if known is None:
                tags = run_tags(run) | self._parent_tag(run, experiment)
                started = (run.started_us or run.created_us or None) and (
                    (run.started_us or run.created_us) // 1000
                )
                created = client.create_run(
                    experiment, start_time=started, tags=tags, run_name=run_name(run)
                )
                known = str(created.info.run_id)
            self._log_params(client, known, run_params(run.parameters))
            return known

    def _parent_tag(self, run: RunRecord, experiment: str) -> dict[str, str]:
        """MLflow draws a run below its parent when both are in one experiment."""
        if run.parent_run_id is None:
            return {}
        parent = self.find_run(run.parent_run_id, experiment)
        return {"mlflow.parentRunId": parent} if parent else {}

    @staticmethod
    def _log_params(client: Any, mlflow_run_id: str, params: Mapping[str, str]) -> None:
        """Log params that are not there yet: MLflow refuses to change one."""
        from mlflow.entities import Param

        there = client.get_run(mlflow_run_id).data.params if params else {}
        fresh = [Param(key, value) for key, value in params.items() if key not in there]
        for at in range(0, len(fresh), _PER_BATCH):
            client.log_batch(mlflow_run_id, params=fresh[at : at + _PER_BATCH])

    def finish_run(
        self,
        run: RunRecord,
        totals: RunTotals,
        results: Mapping[str, Any],
        artifacts: Sequence[Path] = (),
    ) -> str:
        """Mirror how a run stands: tags, metrics, results, files, links to its traces, status.

        Args:
            run: The run as the ledger has it; in a state that is not terminal the MLflow run
                stays open.
            totals: Sums over its calls.
            results: Values that the notebook declared; numbers become metrics ``result.<name>``,
                tables (lists of objects) become CSV files, all of them ``results.json``.
            artifacts: Files to keep (output notebook, HTML report); missing ones are skipped.

        Returns:
            MLflow's id of the run.

        Raises:
            TrackingError: MLflow failed; calling again completes what is missing.
        """
        from mlflow.entities import Metric, RunTag

        mlflow_run_id = self.start_run(run)
        at_ms = (run.ended_us or run.started_us or run.created_us) // 1000
        with self._client(f"finish the run {run.run_id}") as client:
            # With a fixed time and step, logging again writes the same row.
            metrics = [
                Metric(name, value, at_ms, 0)
                for name, value in run_metrics(run, totals, results).items()
            ]
            tags = [RunTag(name, value) for name, value in run_tags(run).items()]
            for at in range(0, max(len(metrics), len(tags)), _PER_BATCH):
                part = slice(at, at + _PER_BATCH)
                client.log_batch(mlflow_run_id, metrics=metrics[part], tags=tags[part])
            self._log_files(client, mlflow_run_id, results, artifacts)
        self._link_traces(run, mlflow_run_id)
        with self._client(f"finish the run {run.run_id}") as client:
            if run.state.terminal:
                client.set_terminated(mlflow_run_id, STATUS[run.state], end_time=at_ms)
            else:
                client.update_run(mlflow_run_id, status=STATUS[run.state])
        return mlflow_run_id

    def _log_files(
        self, client: Any, mlflow_run_id: str, results: Mapping[str, Any], artifacts: Sequence[Path]
    ) -> None:
        repository = self._artifact_repository(client, mlflow_run_id)
        with tempfile.TemporaryDirectory(prefix="toolkit-results-") as name:
            folder = Path(name)
            if results:
                text = json.dumps(dict(results), indent=2, ensure_ascii=False, default=str)
                (folder / "results.json").write_text(text, "utf-8", "replace")
            for result, value in results.items():
                table = table_csv(value)
                if table is not None:
                    (folder / "tables").mkdir(exist_ok=True)
                    file = folder / "tables" / f"{_file_name(result)}.csv"
                    file.write_text(table, "utf-8", "replace")
            if results:
                repository.log_artifacts(str(folder))
        for path in artifacts:
            if path.is_dir():
                repository.log_artifacts(str(path), path.name)
            elif path.is_file():
                repository.log_artifact(str(path))

    def attach(self, mlflow_run_id: str, file: Path, folder: str) -> str:
        """Put a file among the artifacts of an MLflow run; again replaces it.

        Args:
            mlflow_run_id: MLflow's id of the run.
            file: The file; its name is kept.
            folder: Where among the artifacts.

        Returns:
            MLflow's id of the run's experiment.

        Raises:
            TrackingError: MLflow failed.
        """
        with self._client(f"keep {file.name} in the run {mlflow_run_id}") as client:
            self._artifact_repository(client, mlflow_run_id).log_artifact(str(file), folder)
            return str(client.get_run(mlflow_run_id).info.experiment_id)

    def _artifact_repository(self, client: Any, mlflow_run_id: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        uri = str(client.get_run(mlflow_run_id).info.artifact_uri)
        if uri.startswith(_PROXIED) and is_database(self.store.uri) and self.store.artifacts:
            # An experiment that was made in the interface keeps its files behind the server; we
            # write past the server, into the folder that it serves.
            uri = (self.store.artifacts / uri.removeprefix(_PROXIED)).as_uri()
        return get_artifact_repository(uri, tracking_uri=self.store.uri)

    def _link_traces(self, run: RunRecord, mlflow_run_id: str) -> None:
        """Link traces that were shipped before the MLflow run was known."""
        experiment = self.experiment_id(run)
        with self._client(f"list the traces of {run.run_id}") as client:
            token: str | None = None
            while True:
                page = client.search_traces(
                    locations=[experiment],
                    filter_string=traces_of(run.run_id, session=has_session(run)),
                    max_results=500,
                    include_spans=False,
                    page_token=token,
                )
                names = [trace.info.trace_id for trace in page]
                if names:
                    self.store.link(names, mlflow_run_id)
                token = page.token
                if not token:
                    return

    def log_evaluation(self, run: RunRecord, log: EvaluationLog) -> str:
        """Write an evaluation so that MLflow's evaluation pages show and compare it.

        Ship the calls of the run first (:meth:`Shipper.drain`), else cases that made calls are
        drawn twice: without them now, and with them later.

        Returns:
            MLflow's id of the run.

        Raises:
            TrackingError: MLflow failed; calling again completes what is missing.
        """
        mlflow_run_id = self.start_run(run)
        write_evaluation(self.store, self.experiment_id(run), mlflow_run_id, run, log)
        return mlflow_run_id

    def mirror_version(
        self,
        job: str,
        version: int,
        *,
        tags: Mapping[str, str],
        source: str = "",
        mlflow_run_id: str | None = None,
        description: str | None = None,
        alias: str | None = None,
    ) -> int:
        """Show a registry version as a model version.  The registry stays the truth.

        Args:
            job: Name of the job and of the registered model.
            version: Number in the registry, kept as the tag ``toolkit.version``.
            tags: Facts to show (bundle digest, gate, promoted_by, registry path …).
            source: Where the version is, a text for people; default ``runs:/…`` or the tag.
            mlflow_run_id: The run that the version came from.
            description: Markdown.
            alias: An alias that points at this version from now on.

        Returns:
            MLflow's number of the version: the same, unless an earlier one was never mirrored.

        Raises:
            TrackingError: MLflow failed.
        """
        with self._client(f"mirror {job}@{version}") as client:
            self._model(client, job)
            number = self._find_version(client, job, version)
            facts = {"toolkit.version": str(version)} | {k: str(v) for k, v in tags.items() if v}
            if number is None:
                default = (
                    f"runs:/{mlflow_run_id}" if mlflow_run_id else f"registry:/{job}/{version}"
                )
                created = client.create_model_version(
                    job,
                    source or default,
                    run_id=mlflow_run_id,
                    tags=facts,
                    description=description,
                )
                number = int(created.version)
            else:
                for key, value in facts.items():
                    client.set_model_version_tag(job, str(number), key, value)
                if description is not None:
                    client.update_model_version(job, str(number), description)
            if alias is not None:
                client.set_registered_model_alias(job, alias, str(number))
            return number

    @staticmethod
    def _model(client: Any, job: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.get_registered_model(job)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            try:
                client.create_registered_model(job, tags={"toolkit.kind": "job"})
            except MlflowException as second:
                if second.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    @staticmethod
    def _find_version(client: Any, job: str, version: int) -> int | None:
        """Return MLflow's lowest number that is tagged with our version."""
        token: str | None = None
        numbers: list[int] = []
        while True:
            # Tags cannot be searched together with names in every backend; jobs have few versions.
            page = client.search_model_versions(
                f"name = '{job}'", max_results=1000, page_token=token
            )
            numbers += [
                int(m.version) for m in page if m.tags.get("toolkit.version") == str(version)
            ]
            token = page.token
            if not token:
                return min(numbers, default=None)

    def set_alias(self, job: str, alias: str, version: int) -> None:
        """Point an alias at a mirrored version.

        Raises:
            TrackingError: The version was never mirrored, or MLflow failed.
        """
        with self._client(f"set the alias {alias} of {job}") as client:
            number = self._find_version(client, job, version)
            if number is None:
                raise TrackingError(
                    f"MLflow does not know {job}@{version}",
                    where=f"registered model {job}",
                    next_step="mirror the version first",
                )
            client.set_registered_model_alias(job, alias, str(number))

    def sync_aliases(
        self, job: str, aliases: Mapping[str, int], tags: Mapping[int, Mapping[str, str]]
    ) -> None:
        """Make the aliases of a mirrored job exactly these, and set tags of its versions.

        What was never mirrored is left out.

        Raises:
            TrackingError: MLflow failed.
        """
        with self._client(f"show the aliases of {job}") as client:
            self._model(client, job)
            had = dict(client.get_registered_model(job).aliases)
            numbers = {n: self._find_version(client, job, n) for n in {*aliases.values(), *tags}}
            for version, facts in tags.items():
                for key, value in facts.items() if numbers[version] else ():
                    client.set_model_version_tag(job, str(numbers[version]), key, value)
            for alias, version in aliases.items():
                if numbers[version] and had.get(alias) != str(numbers[version]):
                    client.set_registered_model_alias(job, alias, str(numbers[version]))
            for alias in set(had) - set(aliases):
                client.delete_registered_model_alias(job, alias)

    def model_version(self, job: str, version: int) -> int | None:
        """Return MLflow's number of a registry version, ``None`` if it was never mirrored.

        Raises:
            TrackingError: MLflow failed.
        """
        try:
            with self._client(f"look for {job}@{version}") as client:
                return self._find_version(client, job, version)
        except ToolkitError as error:
            if error.details.get("code") == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _file_name(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text)[:80]
