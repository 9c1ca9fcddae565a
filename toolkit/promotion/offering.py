"""Announces an attempt in the audit log before the first case of any set is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.evaluation import EvaluationSet
from toolkit.ledger import Ledger
from toolkit.promotion.asking import Asking, foresee
from toolkit.promotion.attempt import Heard
from toolkit.promotion.before import Before, look_back
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.counting import EVALUATING, Tries, code_digest, last_asked
from toolkit.promotion.early import Early
from toolkit.promotion.production import Predecessor
from toolkit.promotion.recall import Memory
from toolkit.registry import AuditRecord, Registry
from toolkit.values import digest_json

__all__ = ["Offer", "Offered"]


@dataclass(frozen=True)
class Offered:
    """One set that a candidate is put before: who is asked what, and what it is held against."""

    asking: Asking
    before: Before


@dataclass(frozen=True)
class Offer:
    """Puts a candidate before its sets.

    Attributes:
        candidate: Who answers.
        memory: What was measured before.
        registry, ledger: Where attempts and answers are recorded.
        predecessor: What it is held against.
        heard: Progress, for people.
    """

    candidate: Candidate
    memory: Memory
    registry: Registry
    ledger: Ledger
    predecessor: Predecessor
    heard: Heard = lambda _answered, _all: None

    def announce(self, sets: Sequence[EvaluationSet]) -> tuple[int | None, list[Offered]]:
        """Record the attempt; return the record's number, and each set with its number of the try.

        A set whose agent the notebook does not define asks nothing, and is no attempt.

        Raises:
            IntegrityError, InfrastructureError: It could not be recorded, so nothing may be asked.
        """
        agents = self.candidate.notebook.agents
        asked = [each for each in sets if each.target != "agent" or each.agent in agents]
        records = list(self.registry.audit())
        plans = {each.name: self._plan(each, records) for each in asked}
        n = self._record(asked, plans) if asked else None
        after = [each for each in self.registry.audit() if each.n <= (n or 0)]
        found = []
        for chosen in sets:
            tries = Tries(after, self.candidate.job, chosen.name)
            number = tries.number(n) if n is not None and chosen in asked else 1
            anew = plans.get(chosen.name, {}).get("anew", True)
            asking = Asking(self.candidate, chosen, self.memory, self.heard, anew=anew)
            found.append(Offered(asking, look_back(self.predecessor, chosen, number)))
        return n, found

    def _record(self, asked: Sequence[EvaluationSet], plans: dict[str, dict[str, Any]]) -> int:
        candidate = self.candidate
        code = code_digest(candidate.notebook)
        content = {"code": candidate.notebook.digest, "environment": candidate.surroundings.facts}
        body = {
            "job": candidate.job,
            "notebook": candidate.name,
            "notebook_digest": candidate.notebook.digest,
            "code": code,
            "content": digest_json(content),
            "policy_digest": candidate.bundle.digest,
            "evaluation_sets": {each.name: each.digest for each in asked},
            "asked": {
                name: {member: plan[member] for member in ("key", "new", "earlier")}
                for name, plan in plans.items()
            },
        }
        return self.registry.record(EVALUATING, body, by=candidate.user).n

    def _plan(self, chosen: EvaluationSet, records: Sequence[AuditRecord]) -> dict[str, Any]:
        """Return whether this is a new attempt at a set, and whose answers it rests on."""
        asking = Asking(self.candidate, chosen, self.memory, self.heard)
        outlook = foresee(asking, self.ledger)
        if outlook.anew and not outlook.sources:
            return {"key": asking.key, "new": True, "earlier": None, "anew": True}
        last = last_asked(records, chosen.name, asking.key, chosen.digest)
        if last is None:  # answers from before attempts had records of their own
            source = max(outlook.sources, key=lambda each: each.record, default=None)
            sets = source.body.get("evaluation_sets") or {} if source else {}
            same = sets.get(chosen.name) == chosen.digest
            last = (source.record, same) if source else (0, False)
        earlier, same = last
        gates = self.candidate.bundle.gates.get(chosen.name, ())
        before = look_back(self.predecessor, chosen)
        if outlook.anew and Early.of(chosen, gates, before) is not None:
            # An evaluation that ended early is decided by what was answered, at its own level.
            number = Tries(records, self.candidate.job, chosen.name).number(earlier)
            early = Early.of(chosen, gates, replace(before, attempt=number))
            outlook = foresee(replace(asking, early=early), self.ledger)
        new = outlook.anew or not same
        return {
            "key": asking.key,
            "new": new,
            "earlier": earlier or None,
            "anew": new,
        }
