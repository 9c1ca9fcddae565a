"""What earlier promotions of the same content measured, so that it is not measured again.

A *key* is a digest of all that a step's outcome depends on, as far as this machine can see it.  The
audit log keeps, for each step of each attempt, its key, the ledger run that was made for it, and
the head of that run's hash chain.  An outcome is taken from there only if the chain of the run still
verifies and still holds that head, and what is used are the ledger's own records: nothing is read
from a cache file.  What was measured counts for :data:`DAYS` days from the measurement.

Not seen, and so no reason to measure again: a model that its provider changed behind its name, data
that changed behind its source or in a file, another machine.  ``toolkit promote --fresh`` measures
all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.environments import WorkspaceEnvironment
from toolkit.errors import NotFound
from toolkit.evaluation import EvaluationSet
from toolkit.gateway import Governance
from toolkit.ledger import CaseAnswer, ChainHead, Ledger
from toolkit.policy import PolicyBundle
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.sealed import evidence_of
from toolkit.providers import Catalog
from toolkit.registry import AuditRecord, Registry, Version
from toolkit.settings import parse_yaml
from toolkit.values import Clock, Digest, JobRef, RunRecord, RunState, digest_bytes, digest_json

__all__ = ["DAYS", "Memory", "Source", "remember", "standing_digest", "unchanged_version"]

DAYS = 30
"""How long a measurement counts: models and data change behind their names, and nobody is told."""

_FILES = ("models.yaml", "tools.yaml", "data.yaml", "people.yaml")
_VERDICTS = ("gates", "promotion")
"""Members of ``policy.yaml`` that judge what was measured, and change nothing of how it came about."""


def remember(
    candidate: Candidate,
    registry: Registry,
    ledger: Ledger,
    governance: Governance,
    clock: Clock,
) -> Memory:
    """Return what is known of earlier promotions of the same content."""
    facts = {
        "code": digest_bytes(candidate.data),
        "environment": candidate.surroundings.facts,
        "job": candidate.job,
        "user": candidate.user,
        "route": governance.route("default").name,
    }
    catalog = governance.catalog()
    basis = _basis_digest(registry.root, candidate.bundle, catalog, facts)
    world = _basis_digest(registry.root, candidate.bundle, catalog, {})
    return Memory(registry, ledger, candidate.job, basis, clock, world=world)


def _basis_digest(
    registry: Path, bundle: PolicyBundle, catalog: Catalog, facts: dict[str, Any]
) -> Digest:
    """Return the digest of what every run of a candidate depends on.

    Args:
        registry: The registry folder: routes, tools, sources and people count with their bytes.
        bundle: The policy: all of its folder counts but what judges an outcome.
        catalog: The models: files that providers answer from count too.
        facts: JSON values: the code, its environment, the job, who promotes …

    Raises:
        OSError: A file cannot be read.
    """
    policy = registry / "policies" / bundle.folder
    used = [registry / name for name in _FILES]
    given = catalog.providers.values()
    used += sorted(catalog.path.parent / each.script for each in given if each.script)
    used += sorted(policy.glob("*.cedar"))
    weights = sorted(catalog.path.parent / each.model_path for each in given if each.model_path)
    document, _ = parse_yaml((policy / "policy.yaml").read_bytes(), "policy.yaml")
    limits = dict(document.value) if isinstance(document.value, dict) else {}
    return digest_json(
        {
            **facts,
            "host": WorkspaceEnvironment.current().digest,
            "files": [[p.name, digest_bytes(p.read_bytes())] for p in used if p.exists()],
            # Gigabytes are not read each time: a file that was written anew is another file.
            "weights": [[p.name, *_stamp(p)] for p in weights],
            "limits": {
                name: repr(limits[name]) for name in sorted(limits) if name not in _VERDICTS
            },
        }
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def standing_digest(
    basis: Digest,
    bundle: PolicyBundle,
    sets: Iterable[EvaluationSet],
    parameters: dict[str, Any],
    waivers: Any,
) -> Digest:
    """Return the digest of all that a promotion's verdict depends on."""
    return digest_json(
        {
            "basis": basis,
            "policy": bundle.digest,
            "sets": {each.name: each.digest for each in sets},
            "parameters": parameters,
            "waivers": waivers,
        }
    )


def unchanged_version(
    registry: Registry, job: str, aliases: Iterable[str], standing: Digest
) -> Version | None:
    """Return the first version that one of these aliases points at with the same standing.

    Raises:
        IntegrityError: A version is damaged.
    """
    for alias in aliases:
        try:
            version = registry.resolve(JobRef(job, alias))
        except NotFound:
            continue
        if evidence_of(registry, version).get("standing") == standing:
            return version
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """An earlier measurement: which attempt recorded it, and the run that it stands in.

    Attributes:
        run: The run, as the ledger has it.
        record: Number of the attempt's record in the audit log.
        job, version: What the attempt sealed; ``version`` is ``None`` after a refusal.
        body: The attempt's record.
    """

    run: RunRecord
    record: int
    job: str
    version: int | None
    body: dict[str, Any] = field(repr=False)

    @property
    def sentence(self) -> str:
        """Where it is from, for people."""
        if self.version is not None:
            return f"cached from the promotion of {self.job}@{self.version}"
        return f"cached from the refused promotion in record {self.record} of the audit log"

    def to_json(self) -> dict[str, Any]:
        """Return what the evidence says about it."""
        return {"run_id": self.run.run_id, "record": self.record, "version": self.version}


@dataclass
class Memory:
    """Earlier measurements of one job.

    Attributes:
        registry, ledger: Where they stand.
        job: The job.
        basis: Digest of what each of its runs depends on.
        clock: For their age.
        used: Whether they are to be used; if not, nothing is found, and what is measured now is
            noted all the same.
        world: Digest of what is so whatever the candidate: what judges' verdicts depend on.
    """

    registry: Registry
    ledger: Ledger
    job: str
    basis: Digest
    clock: Clock
    used: bool = True
    world: Digest = ""
    _noted: list[dict[str, Any]] = field(default_factory=list)

    def key(self, step: str, **facts: Any) -> Digest:
        """Return the key of a step: the basis, and what this step depends on besides."""
        return digest_json({"step": step, "basis": self.basis, **facts})

    def note(self, key: Digest, run_ids: Iterable[str]) -> None:
        """Keep runs under a key, for the attempt's record."""
        for run_id in run_ids:
            head = self.ledger.head(run_id)
            kept = {"key": key, "run_id": run_id, "n": head.n, "hash": head.hash}
            self._noted.append(kept)

    @property
    def noted(self) -> list[dict[str, Any]]:
        """What the attempt's record is to keep."""
        return list(self._noted)

    def find(self, key: Digest) -> list[Source]:
        """Return verified earlier runs under a key that succeeded, the newest record first."""
        found: dict[str, Source] = {}
        for record in self._records if self.used else ():
            for kept in record.body.get("measurements") or ():
                if kept.get("key") != key or kept.get("run_id") in found:
                    continue
                run = self._verified(kept)
                if run is not None:
                    version = record.body.get("version")
                    found[run.run_id] = Source(run, record.n, self.job, version, record.body)
        return list(found.values())

    @cached_property
    def _records(self) -> Sequence[AuditRecord]:
        mine = [
            record
            for record in self.registry.audit()
            if record.event.startswith("promotion.") and record.body.get("job") == self.job
        ]
        return mine[::-1]

    def _verified(self, kept: dict[str, Any]) -> RunRecord | None:
        """Return the run if it is what the record says, and not too old."""
        try:
            head = ChainHead(str(kept["run_id"]), int(kept["n"]), str(kept["hash"]))
            run = self.ledger.get_run(head.run_id)
            faults = self.ledger.verify(head.run_id, expected=(head,))
        except (NotFound, KeyError, TypeError, ValueError):
            return None  # another machine's ledger, or a record of another kind: measure again
        age_us = self.clock.now_us() - (run.ended_us or run.created_us)
        if faults or run.state is not RunState.SUCCEEDED or age_us > DAYS * 86_400_000_000:
            return None
        return run

    def answers(
        self, key: Digest, wanted: Iterable[tuple[str, dict[str, Any]]]
    ) -> dict[str, tuple[CaseAnswer, Source]]:
        """Return earlier answers to cases whose inputs are the same, errors included.

        An agent's error is an answer: a case is not asked again until it succeeds.
        """
        asked = {case_id: digest_json(inputs) for case_id, inputs in wanted}
        found: dict[str, tuple[CaseAnswer, Source]] = {}
        for source in self.find(key):
            inputs = self.ledger.case_inputs(source.run.run_id)
            for case_id, answer in self.ledger.case_answers(source.run.run_id).items():
                if case_id in found or asked.get(case_id) != digest_json(inputs[case_id]):
                    continue
                found[case_id] = (answer, source)
            if len(found) == len(asked):
                break
        return found
