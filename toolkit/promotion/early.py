"""When the answers so far decide: an evaluation whose gates all look early ends as soon as they do.

The cases are asked in an order by chance, the evaluation's own (:func:`toolkit.evaluation.shuffled`),
and what counts is the first part of that order that is answered without a gap.  An early end spends
no more error than the policy allows: see :mod:`toolkit.evaluation.sequential`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.evaluation import (
    Evaluation,
    EvaluationSet,
    GateLike,
    GateVerdict,
    gate,
    score,
    settled,
    shuffled,
)
from toolkit.ledger import CaseAnswer
from toolkit.promotion.before import Before

__all__ = ["Early"]


@dataclass(frozen=True)
class Early:
    """Says of answers whether they decide.

    Attributes:
        chosen: The set.
        gates: The policy's gates for it, all of them sequential.
        before: What it is held against: the number of the attempt tightens the levels.
    """

    chosen: EvaluationSet
    gates: tuple[GateLike, ...]
    before: Before

    @classmethod
    def of(cls, chosen: EvaluationSet, gates: Sequence[GateLike], before: Before) -> Early | None:
        """Return it where the policy lets every gate of the set end early, ``None`` elsewhere.

        Trials of a case belong together, and scorers outside of this process are asked when all
        answers are there: with either every case is asked.
        """
        outside = any(scorer.outside is not None for scorer in chosen.scorers)
        if not gates or not all(each.sequential for each in gates) or chosen.trials > 1 or outside:
            return None
        return cls(chosen, tuple(gates), before)

    def order(self, seed: str) -> list[str]:
        """Return the cases in the order of an evaluation.

        Args:
            seed: The id of its run.
        """
        return shuffled([case.id for case in self.chosen.cases], seed)

    def decided(self, order: Sequence[str], answers: Mapping[str, CaseAnswer]) -> list[str] | None:
        """Return the cases that decide, ``None`` while they do not, or where every case is answered."""
        part: list[str] = []
        for case_id in order:
            if case_id not in answers:
                break
            part.append(case_id)
        if not part or len(part) == len(order):
            return None
        return part if settled(self.judged(part, answers)[1]) else None

    def judged(
        self,
        part: Sequence[str],
        answers: Mapping[str, CaseAnswer],
        measures: Mapping[str, Mapping[str, float]] | None = None,
    ) -> tuple[Evaluation, list[GateVerdict]]:
        """Score the first cases of the order, and say what the gates say of them."""
        cases = {case.id: case for case in self.chosen.cases}
        asked = replace(self.chosen, cases=tuple(cases[case_id] for case_id in part))
        given = {case_id: answers[case_id] for case_id in part}
        known = {case_id: each for case_id, each in (measures or {}).items() if case_id in given}
        # The digest is the whole set's: that is what was promised to be asked.
        evaluation = replace(score(asked, given, measures=known), set_digest=self.chosen.digest)
        verdicts = gate(
            evaluation,
            self.gates,
            baseline=self.before.evaluation,
            first=self.before.first,
            attempt=self.before.attempt,
            stopped=True,
        )
        return evaluation, verdicts
