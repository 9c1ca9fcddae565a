"""Which sets a job is evaluated on: its own always, what the promoter adds, and none that cannot fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from toolkit.document import Notebook
from toolkit.errors import NotFound
from toolkit.evaluation import EvaluationSet
from toolkit.policy import PolicyBundle
from toolkit.promotion.attempt import Attempt
from toolkit.promotion.check import Finding
from toolkit.promotion.production import Predecessor
from toolkit.promotion.stages import finding

__all__ = ["chosen_sets", "fitting_sets", "tell_choice"]

_NAMED = 5


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


def fitting_sets(
    notebook: Notebook, sets: Iterable[EvaluationSet], attempt: Attempt
) -> list[EvaluationSet]:
    """Return the sets that the notebook could answer, and tell why not the others.

    A set whose agent the notebook does not define, or whose cases give that agent other arguments
    than it takes, would cost a kernel and as many errors as it has cases.
    """
    fitting = []
    for chosen in sets:
        faults = list(_unfit(notebook, chosen)) if chosen.target == "agent" else []
        for fault in faults:
            attempt.hold(fault)
        if not faults:
            fitting.append(chosen)
    return fitting


def _unfit(notebook: Notebook, chosen: EvaluationSet) -> Iterator[Finding]:
    agents = [one for one in notebook.definitions if one.kind == "agent"]
    asked = [one for one in agents if one.name == chosen.agent]
    if not asked:
        yield finding(
            "evaluate.agent",
            f"the set {chosen.name!r} evaluates the agent {chosen.agent!r}, which the notebook "
            f"does not define (it defines {', '.join(notebook.agents) or 'none'})",
            fix=f"define it with @toolkit.agent, or name another in {chosen.name}/set.yaml",
        )
        return
    agent = asked[-1]  # a later definition takes the place of one before
    if agent.signature is None:
        return
    cases: dict[str, list[str]] = {}
    for case in chosen.cases:
        missing, unknown = (
            agent.signature.missing(case.inputs),
            agent.signature.unknown(case.inputs),
        )
        said = [f"without {', '.join(missing)}"] if missing else []
        said += [f"with {', '.join(unknown)}, which it does not take"] if unknown else []
        if said:
            cases.setdefault(" and ".join(said), []).append(case.id)
    takes = ", ".join(agent.signature.names) or "nothing"
    for said_of, ids in cases.items():
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        yield finding(
            "evaluate.arguments",
            f"cases of {chosen.name!r} do not fit the agent {agent.name!r} (it takes {takes}): "
            f"{', '.join(ids[:_NAMED])}{more}, {said_of}",
            fix=f"rename the inputs in {chosen.name}/cases.jsonl, or the arguments of the agent",
            why="every one of these cases would be answered with an error",
            cell=agent.cell,
        )


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name / "set.yaml").is_file()
