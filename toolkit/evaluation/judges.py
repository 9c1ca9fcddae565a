"""MLflow's own scorers and judges, as a set names them: which there are, and what each needs.

The table is written down so that reading a set does not import MLflow (a second, 160 MB).  A contract
test holds it against the installed version.  Left out are scorers that need a trace or a whole
conversation, which an evaluation set does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.values import canonical_bytes

__all__ = ["JUDGE_S", "KNOWN", "Known", "MlflowScorer", "argument_faults", "expectations"]

JUDGE_S = 120.0
"""Seconds that a judge may take for one answer unless the set says otherwise."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Known:
    """What one of MLflow's scorers needs.

    Attributes:
        asks: Whether it asks a model, and so needs a route.
        required, optional: Arguments of its constructor that a set may give.
        expects: Members of the expectation of which a case must have one; empty: it needs none.
    """

    asks: bool = True
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    expects: tuple[str, ...] = ()


KNOWN: Mapping[str, Known] = {
    "Completeness": Known(),
    "Correctness": Known(expects=("expected_response", "expected_facts")),
    "Equivalence": Known(expects=("expected_response",)),
    "ExpectationsGuidelines": Known(expects=("guidelines",)),
    "Fluency": Known(),
    "Guidelines": Known(required=("guidelines",)),
    "PIIDetection": Known(asks=False, optional=("pii_types",)),
    "RegexMatch": Known(
        asks=False, required=("pattern",), optional=("match_type", "case_insensitive")
    ),
    "RelevanceToQuery": Known(),
    "ResponseLength": Known(asks=False, optional=("min_length", "max_length", "unit")),
    "Safety": Known(),
    "Summarization": Known(),
    "make_judge": Known(required=("instructions",), optional=("inference_params",)),
}
"""By MLflow's name; ``make_judge`` is a judge with instructions of your own."""


@dataclass(frozen=True, slots=True)
class MlflowScorer:
    """One of MLflow's scorers, with its arguments and the route of its model calls.

    Attributes:
        mlflow: A name of :data:`KNOWN`.
        route: The route that its model calls take through the gateway; empty where it asks no model.
        arguments: JSON values by the name of the constructor's argument.
        timeout_s: Seconds that one answer may take, retries included.
        memory_bytes: Memory of the process that all of a set's MLflow scorers share.
    """

    mlflow: str
    route: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = JUDGE_S
    memory_bytes: int = 2048 * _MIB

    def to_json(self) -> dict[str, Any]:
        """Return what of it decides a result, as JSON values."""
        return {
            "mlflow": self.mlflow,
            "route": self.route,
            "arguments": self.arguments,
            "timeout_s": self.timeout_s,
            "memory_bytes": self.memory_bytes,
        }


def argument_faults(name: str, route: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a scorer as a set names it, one sentence each."""
    known = KNOWN.get(name)
    if known is None:
        yield f"MLflow has no scorer {name!r} that a set can use; there are {', '.join(KNOWN)}"
        return
    if known.asks and not route:
        yield f"{name} asks a model, so it needs a route: the judge's, in registry/models.yaml"
    if route and not known.asks:
        yield f"{name} asks no model; take the route out"
    missing = [each for each in known.required if each not in arguments]
    if missing:
        yield f"{name} needs the argument {', '.join(missing)}"
    unknown = sorted(set(arguments) - {*known.required, *known.optional})
    if unknown:
        takes = ", ".join((*known.required, *known.optional)) or "none"
        yield f"{name} does not take the argument {', '.join(unknown)} (it takes {takes})"
    try:
        canonical_bytes(dict(arguments))
    except ValueError as error:
        yield f"arguments: {error}"


def expectations(label: Any) -> dict[str, Any]:
    """Return an expectation as MLflow's scorers know it: a text is the expected response."""
    if label is None:
        return {}
    return label if isinstance(label, dict) else {"expected_response": label}
