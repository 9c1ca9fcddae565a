"""Runs that other runs start: their ids, and what they have from those above them.

A child's id follows from the call that starts it, so however often the call is made, there is one
child.  What it has from above is in its tags, which only the gateway and runners write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolkit.values.canonical import digest_json
from toolkit.values.labels import Labels
from toolkit.values.runs import Environment, RunRecord

__all__ = [
    "Ancestor",
    "argument_labels",
    "child_run_id",
    "child_tags",
    "inherited_agent",
    "inherited_purpose",
    "lineage_of",
]

_LINEAGE = "lineage"
_LABELS = "argument_labels"
_PURPOSE = "purpose"
_ID_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A run above another one.

    Attributes:
        run_id: Which.
        environment: Whose policies it is under.
        job: The job it is a run of, if it is one of a registered version.
        agent: The innermost agent that made the call which led to the child.
    """

    run_id: str
    environment: Environment
    job: str | None = None
    agent: str | None = None


def child_run_id(call_id: str) -> str:
    """Return the id of the run that a call (``CallRecord.call_id``) starts."""
    digits = digest_json({"child of": call_id}).rpartition(":")[2]
    return f"run-{digits[:_ID_DIGITS]}"


def lineage_of(run: RunRecord) -> tuple[Ancestor, ...]:
    """Return the runs above a run, its parent first; ``()`` for a run that none has started."""
    text = run.tags.get(_LINEAGE)
    return () if text is None else _lineage(text)


def child_tags(
    parent: RunRecord,
    *,
    agent: str | None = None,
    purpose: str | None = None,
    labels: Mapping[str, Labels] | None = None,
) -> dict[str, str]:
    """Return the tags that tell a child where it comes from.

    Args:
        parent: Who starts it.
        agent: The innermost agent that the call is made in.
        purpose: Why the call is made, in its words.
        labels: Where the child's parameters came from, by their names.
    """
    me = Ancestor(parent.run_id, parent.environment, parent.job, agent)
    above = [
        [each.run_id, each.environment.value, each.job, each.agent]
        for each in (me, *lineage_of(parent))
    ]
    known = {name: value.to_json() for name, value in (labels or {}).items()}
    why = purpose or inherited_purpose(parent)
    return {
        _LINEAGE: json.dumps(above, separators=(",", ":")),
        **({_LABELS: json.dumps(known, separators=(",", ":"))} if known else {}),
        **({_PURPOSE: why} if why else {}),
    }


def argument_labels(run: RunRecord) -> dict[str, Labels]:
    """Return where a child's parameters came from, by name; ``{}`` where a person gave them."""
    text = run.tags.get(_LABELS)
    found: dict[str, Any] = {} if text is None else json.loads(text)
    return {name: Labels.from_json(value) for name, value in found.items()}


def inherited_agent(run: RunRecord) -> str | None:
    """Return the nearest agent above a run, for calls that are made in none of its own."""
    return next((each.agent for each in lineage_of(run) if each.agent is not None), None)


def inherited_purpose(run: RunRecord) -> str | None:
    """Return why a child was started, for its calls that say nothing themselves."""
    return run.tags.get(_PURPOSE) if _LINEAGE in run.tags else None


@lru_cache(1024)
def _lineage(text: str) -> tuple[Ancestor, ...]:
    return tuple(
        Ancestor(run_id, Environment(environment), job, agent)
        for run_id, environment, job, agent in json.loads(text)
    )
