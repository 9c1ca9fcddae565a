"""The evidence of a promotion: one JSON document, sealed with the version.

Format ``evidence/1``: job, notebook and its digest, who and when, the policy and evaluation-set
digests, every stage with its findings and facts, every gate with its numbers, every case with its
answer and scores, and how often this notebook was offered.  ``evaluation`` is the last set's;
``evaluations`` has every set's by name, ``changes`` what differs from the version in production
(both missing in older evidence, like a gate's ``set`` and its members from ``verdict`` on).

``measurements`` are the runs that this attempt rests on, each with a key and the head of its hash
chain, and ``standing`` is the digest of all that the version depends on (:mod:`.recall`; both
missing in older evidence).  A stage with the fact ``cached`` was measured by an earlier attempt.

``standards`` says of each set what it asked: scorers and limits (:mod:`.standards`); ``set_changes``
what of that was otherwise for the version before; ``evaluating`` is the audit record that announced the
attempt and ``code`` the digest of the code (:mod:`.counting`); all missing in older evidence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolkit.evaluation import (
    Change,
    Comparison,
    Evaluation,
    EvaluationSet,
    GateLike,
    GateVerdict,
    Ruling,
)
from toolkit.promotion.asking import Answered
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.stages import Promotion, Stage
from toolkit.tracing import EvaluatedCase, EvaluationLog
from toolkit.values import Digest, digest_json, iso_utc

__all__ = [
    "SHOWN",
    "collect",
    "evaluation_digest",
    "evaluation_log",
    "manifest",
    "stage_json",
    "stages_of",
    "summary",
    "summary_of",
    "to_bytes",
]


_OWN = {
    *("schema", "job", "notebook", "notebook_digest", "promoted_by", "at", "git_commit"),
    *("attempt", "policy_digest", "evaluation_sets", "stages", "gates"),
    *("evaluation", "evaluations", "changes", "standards", "distributions"),
}
"""Members of the evidence that the attempt's record has in another form, or not."""
SHOWN = ("evaluation_mlflow_run_id", "evaluation_mlflow_runs")
"""Members that say where MLflow shows what a version was judged by."""
_WORDS = {Ruling.PASS: "passed", Ruling.FAIL: "failed", Ruling.NOT_ENOUGH: "not enough evidence"}


def collect(
    promotion: Promotion,
    sets: list[EvaluationSet],
    *,
    policy_digest: str,
    by: str,
    git_commit: str | None,
    at_us: int,
) -> dict[str, Any]:
    """Return the whole evidence as JSON values."""
    return {
        "schema": "evidence/1",
        "job": promotion.job,
        "notebook": promotion.notebook,
        "notebook_digest": promotion.notebook_digest,
        "promoted_by": by,
        "at": iso_utc(at_us),
        "git_commit": git_commit,
        "attempt": promotion.attempt,
        "policy_digest": policy_digest,
        "evaluation_sets": {each.name: each.digest for each in sets},
        "stages": [stage_json(stage) for stage in promotion.stages],
        "gates": _gates_json(promotion),
        "evaluation": promotion.evaluation.to_json() if promotion.evaluation else None,
        "evaluations": {each.set_name: each.to_json() for each in promotion.evaluations},
        "changes": {name: _changes_json(each) for name, each in promotion.changes.items()},
        "standards": promotion.standards,
        **promotion.facts,
    }


def _changes_json(changes: Comparison) -> dict[str, Any]:
    def named(found: tuple[Change, ...]) -> list[dict[str, Any]]:
        return [{"case_id": c.case_id, "scorer": c.scorer, "note": c.note} for c in found]

    return {
        "compared": changes.compared,
        "regressions": named(changes.regressions),
        "improvements": named(changes.improvements),
        "added": list(changes.added),
        "removed": list(changes.removed),
        "changed": list(changes.changed),
        "moved": list(changes.moved),
    }


def to_bytes(facts: dict[str, Any]) -> bytes:
    """Return the evidence as it is written: readable, ending in a newline."""
    return (json.dumps(facts, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def summary(promotion: Promotion, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what the audit log keeps of a promotion or refusal."""
    return {
        "job": promotion.job,
        "notebook": promotion.notebook,
        "notebook_digest": promotion.notebook_digest,
        "attempt": promotion.attempt,
        "policy_digest": facts["policy_digest"],
        "evaluation_sets": facts["evaluation_sets"],
        "stages": {stage.name: stage.passed for stage in promotion.stages},
        "rules": sorted({f.rule for f in promotion.findings if f.severity == "error"}),
        "gates": [verdict.sentence for verdict in promotion.gates],
        **promotion.facts,
    }


def summary_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what :func:`summary` returns of an attempt that passed, from its evidence alone."""
    stages = facts.get("stages") or []
    told = {
        name: facts.get(name)
        for name in (
            "job",
            "notebook",
            "notebook_digest",
            "attempt",
            "policy_digest",
            "evaluation_sets",
        )
    }
    errors = {
        finding["rule"]
        for stage in stages
        for finding in stage["findings"]
        if finding["severity"] == "error"
    }
    return {
        **told,
        "stages": {stage["name"]: stage["passed"] for stage in stages},
        "rules": sorted(errors),
        "gates": [gate["sentence"] for gate in facts.get("gates") or []],
        **{name: value for name, value in facts.items() if name not in _OWN},
    }


def manifest(
    candidate: Candidate,
    sets: list[EvaluationSet],
    promotion: Promotion,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Return what ``job.yaml`` says about the version beside its files."""
    return {
        "parameters": candidate.notebook.schema,
        "results": list(candidate.notebook.results),
        "notebook_digest": promotion.notebook_digest,
        "policy_digest": facts["policy_digest"],
        "evaluation_digest": evaluation_digest(sets),
        "git_commit": facts["git_commit"],
        "environment": candidate.surroundings.facts,
        "extra": {"source": promotion.notebook, "attempt": promotion.attempt},
    }


def evaluation_digest(sets: Sequence[EvaluationSet]) -> Digest | None:
    """Return the one digest of all sets, which an approval binds.

    Of one set it is the set's own, as in versions of before there could be several; of several it
    is the digest of the JSON object of their digests by name, whatever their order.
    """
    if len(sets) == 1:
        return sets[0].digest
    return digest_json({each.name: each.digest for each in sets}) if sets else None


def stage_json(stage: Stage) -> dict[str, Any]:
    """Return one stage as JSON values."""
    return {
        "name": stage.name,
        "passed": stage.passed,
        "summary": stage.summary,
        "seconds": round(stage.seconds, 3),
        "findings": [f.to_json() for f in stage.findings],
        "facts": stage.facts,
    }


def stages_of(facts: dict[str, Any]) -> list[Stage]:
    """Return the stages of a sealed version; their findings are in its report."""
    return [
        Stage(
            each["name"],
            each["passed"],
            str(each.get("summary", "")),
            seconds=float(each.get("seconds", 0)),
            facts=dict(each.get("facts", {})),
        )
        for each in facts.get("stages") or []
    ]


def evaluation_log(
    chosen: EvaluationSet,
    evaluation: Evaluation,
    verdicts: tuple[GateVerdict, ...],
    answered: Answered,
) -> EvaluationLog:
    """Return what MLflow's evaluation pages show: a row per question, tied to its trace."""
    cases = {case.id: case for case in chosen.cases}
    rows = [
        EvaluatedCase(
            case_id=chosen.questions(row.case_id)[row.trial - 1],
            inputs=dict(cases[row.case_id].inputs),
            output=row.output,
            expected=cases[row.case_id].expected,
            scores={**row.values, **dict.fromkeys(row.errors)},
            rationales={**row.notes, **row.errors},
            error=row.error,
            trace_key=answered.traces.get(chosen.questions(row.case_id)[row.trial - 1]),
            slice=row.slice or None,
        )
        for row in evaluation.rows
    ]
    gates = {
        f"gate.{verdict.gate.scorer}": _WORDS[verdict.ruling]
        for verdict in verdicts
        if verdict.gate is not None
    }
    means = {name: score.mean for name, score in evaluation.scores.items()}
    return EvaluationLog(chosen.name, chosen.digest, rows, means=means, tags=gates)


def _gates_json(promotion: Promotion) -> list[dict[str, Any]]:
    named = [(name, v) for name, of in promotion.gates_by_set.items() for v in of]
    return [{"set": name, **_gate_json(verdict)} for name, verdict in named]


def _gate_json(verdict: GateVerdict) -> dict[str, Any]:
    asked = verdict.gate
    return {
        "scorer": asked.scorer if asked else None,
        "minimum": asked.minimum if asked else None,
        "maximum": asked.maximum if asked else None,
        "observed": verdict.observed,
        "n": verdict.n,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "passed": verdict.passed,
        "sentence": verdict.sentence,
        "verdict": str(verdict.ruling),
        "label": verdict.label,
        "level": verdict.level,
        "p_value": verdict.p_value,
        "more_cases": verdict.more,
        "method": verdict.method,
        **({"asked": _asked_json(asked)} if asked else {}),
    }


def _asked_json(asked: GateLike) -> dict[str, Any]:
    names = ("confidence", "method", "statistic", "slice", "pass_hat_k", "non_inferior_to")
    more = ("superior_to", "margin", "sequential")
    return {name: getattr(asked, name) for name in (*names, *more)}
