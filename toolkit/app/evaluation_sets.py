"""Evaluation sets as a person keeps them: what there is, and where cases come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.app.known import check_known
from toolkit.app.workbench import Workbench
from toolkit.errors import InvalidFile, NotFound, UsageError
from toolkit.evaluation import (
    REVIEW,
    Case,
    EvaluationSet,
    Imported,
    create_set,
    import_cases,
    read_case_file,
)
from toolkit.values import CallKind, CallState, Environment, RunKind, RunState, check_name

__all__ = ["Asked", "EvaluationSets", "case_of"]

_MOST_RUNS = 10_000
_NOTHING = "only runs that succeeded count: go further back with --since, or name another --agent"


@dataclass(frozen=True)
class Asked:
    """Where cases are to come from; exactly one.

    Attributes:
        file: A file of the form of ``cases.jsonl``.
        dataset: Name or id of an MLflow dataset.
        job: A job whose recorded runs are read, from ``since_us`` on.
        agent: Who answers in a new set; of a job's runs: whose calls become cases.  Empty: the
            whole job, by its parameters and results.
    """

    file: Path | None = None
    dataset: str | None = None
    job: str | None = None
    since_us: int = 0
    agent: str = ""


@dataclass(frozen=True)
class EvaluationSets:
    """The sets of a workspace.

    Attributes:
        bench: The workspace's rooms.
    """

    bench: Workbench

    def folder(self, name: str) -> Path:
        """Return where a set is, or would be.

        Raises:
            UsageError: It cannot be a set's name.
        """
        return self.bench.workspace.registry / "evaluations" / check_name(name, "set name")

    def names(self) -> list[str]:
        """Return the names of all sets."""
        folder = self.bench.workspace.registry / "evaluations"
        return sorted(path.parent.name for path in folder.glob("*/set.yaml"))

    def load(self, name: str) -> EvaluationSet:
        """Return a set.

        Raises:
            InvalidFile: It has faults.
            NotFound: There is none of that name.
        """
        folder = self.existing(name)
        return EvaluationSet.load(folder)

    def existing(self, name: str) -> Path:
        """Return the folder of a set that is there.

        Raises:
            NotFound: It is not.
        """
        folder = self.folder(name)
        if not (folder / "set.yaml").is_file():
            known = ", ".join(self.names()) or "none"
            raise NotFound(
                f"there is no evaluation set {name!r}",
                where=str(folder.parent),
                next_step=f"known sets: {known}; `toolkit evaluation import {name} …` makes one",
            )
        return folder

    def waiting(self, name: str) -> int:
        """Return how many imported cases wait for a person."""
        path = self.folder(name) / REVIEW
        return len(read_case_file(path)) if path.exists() else 0

    def empty(self, name: str) -> bool:
        """Whether a set has no case yet: only some that wait for a person."""
        return self.waiting(name) > 0 and not (self.folder(name) / "cases.jsonl").exists()

    def gates(self, name: str) -> int | None:
        """Return how many gates the production policy has for a set; ``None``: it has faults."""
        try:
            bundle = self.bench.governance.bundle(Environment.PRODUCTION)
        except (InvalidFile, NotFound):
            return None
        return len(bundle.gates.get(name, ()))

    def bring(self, name: str, asked: Asked) -> Imported:
        """Import cases for review; a set that is not there yet is made.

        Raises:
            UsageError: No source was given, or more than one.
            NotFound: The source is not there, or holds nothing.
            InvalidFile: A file has faults.
        """
        given = [asked.file is not None, asked.dataset is not None, asked.job is not None]
        if sum(given) != 1:
            raise UsageError(
                "say where the cases are to come from, once",
                next_step="give a file, --mlflow-dataset NAME, or --from-runs JOB",
            )
        folder = self.folder(name)
        cases, where = self._cases(asked)
        if not cases:
            self._check_source(asked)
            raise NotFound(
                f"no case was found in {where}; nothing was imported",
                where=where,
                next_step=_NOTHING if asked.job else "put cases into it, and import again",
            )
        if not (folder / "set.yaml").is_file():
            create_set(
                folder,
                agent=asked.agent,
                description=f"Imported from {where}.",
                scorers=[{"name": "correct", "kind": "exact"}],
            )
        return import_cases(folder, cases)

    def _check_source(self, asked: Asked) -> None:
        """Refuse a job that nobody knows: it is misspelt, not empty."""
        if asked.job is not None:
            check_known(self.bench, "job", asked.job, next_step="see them: toolkit registry list")

    def _cases(self, asked: Asked) -> tuple[list[Case], str]:
        if asked.file is not None:
            return read_case_file(asked.file), asked.file.name
        if asked.dataset is not None:
            return self._from_dataset(asked.dataset)
        job = check_name(asked.job or "", "job name")
        return self._from_runs(job, asked), f"the recorded runs of {job}"

    def _from_dataset(self, name: str) -> tuple[list[Case], str]:
        from toolkit.tracing import read_dataset

        dataset_id, records = read_dataset(self.bench.tracking.store, name)
        cases = [Case(r.record_id, r.inputs, r.expectations or None) for r in records]
        return cases, f"MLflow's dataset {name} ({dataset_id})"

    def _from_runs(self, job: str, asked: Asked) -> list[Case]:
        """Return what production asked and got: of runs that succeeded, oldest first."""
        ledger = self.bench.ledger
        runs = ledger.runs(job=job, kind=RunKind.RUN, state=RunState.SUCCEEDED, limit=_MOST_RUNS)
        found: list[Case] = []
        for run in reversed(runs):
            if run.created_us < asked.since_us:
                continue
            if not asked.agent:
                found.append(Case(run.run_id, run.parameters, ledger.results(run.run_id)))
                continue
            after = 0
            while calls := ledger.calls(run.run_id, after_seq=after, limit=1000):
                after = calls[-1].seq
                found += [
                    Case(f"{run.run_id}.{call.seq}", call.intent.arguments, call.outcome.answer)
                    for call in calls
                    if call.intent.kind is CallKind.AGENT
                    and call.intent.name == asked.agent
                    and call.state is CallState.OK
                    and call.outcome is not None
                ]
        return found


def case_of(name: str, inputs: str, expected: str, part: str) -> Case:
    """Build a case from what a person typed.

    Raises:
        UsageError: The texts are not JSON, or the inputs are no object.
    """
    values: list[Any] = []
    for option, text in (("--inputs", inputs), ("--expected", expected)):
        try:
            values.append(json.loads(text))
        except ValueError as error:
            raise UsageError(
                f"{option} is not JSON: {error}",
                where=option,
                next_step="quote texts twice, as in --expected '\"Lisbon\"'",
            ) from error
    if not isinstance(values[0], dict):
        raise UsageError("--inputs is not an object", where="--inputs")
    return Case(name, values[0], values[1], part)
