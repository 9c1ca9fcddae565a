"""Is it good?  Evaluation sets, scores with their uncertainty, gates, regressions.

Rules
-----
* Everything here is a plain function over frozen values: no clock, no network, no model, no MLflow;
  but for scorers that are programs or MLflow's (``outside``, ``processes``, ``host``).
* Such a scorer sees labels, so it runs in a process of its own: never in the candidate's kernel, with
  no secret, no network but a judge's way to the gateway, limits on time and memory.  What it is
  asked is data.  What it says counts only if it is of the type that the set declares.
* A scorer that fails on an answer has said nothing: no gate passes that would not pass with the worst
  for that answer, and none fails by it.
* Labels (``Case.expected``) stay on this side; a kernel is given ``Case.inputs`` and nothing else.
* Every scorer answers yes or no, or with a number, per case.  A case whose agent failed, whose
  answer is missing, or whose answer lacks the scored field counts with the worst that the scorer
  knows, and is shown with its reason.
* A mean is never shown without its interval and its number of cases.
* No gate, an unknown scorer or a gate without a limit does not pass.
* A gate with a confidence has three verdicts, and only *pass* passes.  Its bound and its p-value are
  one test.  Cases are the unit: trials of one case are never counted as further cases.
* What is too little to say anything, and a limit that nothing contradicts and no case can show, are
  *not enough evidence*: never a pass, and never a fail.  The same as production is not better.
* A method is named with its source where it is written; the same answers give the same verdict.
* A set's digest covers what decides the result.  Two evaluations are compared only on cases whose
  inputs and expectations are the same, and under the same scorers: recorded answers are judged again
  where a scorer was changed in between, and where that cannot be there is not enough evidence.
"""

from __future__ import annotations

from toolkit.evaluation.claims import label_of, pass_hat_k
from toolkit.evaluation.comparison import Change, Comparison, PairedTest, compare, regressions
from toolkit.evaluation.gates import gate, passed, settled
from toolkit.evaluation.importing import (
    REVIEW,
    Imported,
    accept,
    add_case,
    create_set,
    import_cases,
    read_case_file,
)
from toolkit.evaluation.judges import MlflowScorer
from toolkit.evaluation.levels import ATTEMPT_DAYS, attempt_alpha
from toolkit.evaluation.outside import ask_scorers, content_of, outside_rows
from toolkit.evaluation.processes import Asked, Workplace
from toolkit.evaluation.programs import Program
from toolkit.evaluation.restating import restated
from toolkit.evaluation.scorers import Judgement, Scorer, ScorerKind
from toolkit.evaluation.scoring import (
    CaseAnswerLike,
    Evaluation,
    Row,
    Score,
    is_upward,
    score,
    wilson_interval,
)
from toolkit.evaluation.sequential import running_evidence, shuffled
from toolkit.evaluation.sets import MEASURES, Case, EvaluationSet
from toolkit.evaluation.verdicts import GateLike, GateVerdict, Ruling

__all__ = [
    "ATTEMPT_DAYS",
    "MEASURES",
    "REVIEW",
    "Asked",
    "Case",
    "CaseAnswerLike",
    "Change",
    "Comparison",
    "Evaluation",
    "EvaluationSet",
    "GateLike",
    "GateVerdict",
    "Imported",
    "Judgement",
    "MlflowScorer",
    "PairedTest",
    "Program",
    "Row",
    "Ruling",
    "Score",
    "Scorer",
    "ScorerKind",
    "Workplace",
    "accept",
    "add_case",
    "ask_scorers",
    "attempt_alpha",
    "compare",
    "content_of",
    "create_set",
    "gate",
    "import_cases",
    "is_upward",
    "label_of",
    "outside_rows",
    "pass_hat_k",
    "passed",
    "read_case_file",
    "regressions",
    "restated",
    "running_evidence",
    "score",
    "settled",
    "shuffled",
    "wilson_interval",
]
