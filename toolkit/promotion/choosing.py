"""Which sets a job is evaluated on: its own always, and what the promoter adds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from toolkit.errors import NotFound
from toolkit.evaluation import EvaluationSet
from toolkit.policy import PolicyBundle
from toolkit.promotion.attempt import Attempt
from toolkit.promotion.production import Predecessor
from toolkit.promotion.stages import finding

__all__ = ["chosen_sets", "tell_choice"]


def chosen_sets(
    folder: Path, job: str, added: Iterable[str], bundle: PolicyBundle, before: Predecessor
) -> list[EvaluationSet]:
    """Return the sets of a promotion, each once.

    A job's own are the set with its name, if there is one or the policy has gates for it, and each
    that the version in production was evaluated on and the policy has gates for.  Whoever promotes
    can add others, and take none away.

    Args:
        folder: ``registry/evaluations``.
        job: The job.
        added: Names that the promoter adds.
        bundle: The production policy.
        before: The version that this one is held against.

    Raises:
        NotFound: There is no such set.
        InvalidFile: A set has faults.
    """
    own = [job] if _is_there(folder, job) or job in bundle.gates else []
    own += [name for name in before.sets if name in bundle.gates]
    found = []
    for name in dict.fromkeys([*own, *added]):
        if not _is_there(folder, name):
            raise NotFound(
                f"there is no evaluation set {name!r}",
                where=str(folder),
                next_step=f"put it back: the gates of the production policy name it for {job}"
                if name in own
                else "name one with --evaluate",
            )
        found.append(EvaluationSet.load(folder / name))
    return found


def tell_choice(found: list[EvaluationSet], before: Predecessor, attempt: Attempt) -> None:
    """Tell that there is no set, or which ones the version before was evaluated on and this one is not."""
    job = attempt.job
    if not found:
        attempt.hold(
            finding(
                "evaluate.no-set",
                f"the job {job!r} has no evaluation set",
                fix=f"make registry/evaluations/{job}/ with set.yaml and cases.jsonl, and a "
                "gate for it in registry/policies/production/policy.yaml",
                why="what was not measured is not promoted",
            )
        )
    gone = sorted(set(before.sets) - {each.name for each in found})
    if gone:
        attempt.facts["sets_gone"] = gone
        attempt.warnings.append(
            f"version {before.version} was evaluated on {', '.join(gone)} too, which the "
            "production policy has no gates for any more"
        )


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name / "set.yaml").is_file()
