"""Is it good?  Evaluation sets, scores with their uncertainty, gates, regressions.

Rules
-----
* Everything here is a plain function over frozen values: no clock, no network, no model, no MLflow.
* Labels (``Case.expected``) stay on this side; a kernel is given ``Case.inputs`` and nothing else.
* Every scorer answers yes or no per case.  A case whose agent failed, whose answer is missing, or
  whose answer lacks the scored field counts with the worse of the two, and is shown with its reason.
* A mean is never shown without its 95 % interval and its number of cases.
* No gate, an unknown scorer or a gate without a limit does not pass.
* A set's digest covers what decides the result, so that two evaluations are compared only on cases
  whose inputs and expectations are the same.
"""

from __future__ import annotations

from toolkit.evaluation.comparison import Change, Comparison, PairedTest, compare, regressions
from toolkit.evaluation.gates import GateLike, GateVerdict, gate, passed
from toolkit.evaluation.scorers import Judgement, Scorer, ScorerKind
from toolkit.evaluation.scoring import (
    CaseAnswerLike,
    Evaluation,
    Row,
    Score,
    score,
    wilson_interval,
)
from toolkit.evaluation.sets import Case, EvaluationSet

__all__ = [
    "Case",
    "CaseAnswerLike",
    "Change",
    "Comparison",
    "Evaluation",
    "EvaluationSet",
    "GateLike",
    "GateVerdict",
    "Judgement",
    "PairedTest",
    "Row",
    "Score",
    "Scorer",
    "ScorerKind",
    "compare",
    "gate",
    "passed",
    "regressions",
    "score",
    "wilson_interval",
]
