"""A factory of runs and calls for the tracing tests and benchmarks of this room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toolkit.values import (
    Attempt,
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Environment,
    Intent,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Usage,
    Verdict,
)

START_US = 1_790_000_000_000_000


@dataclass
class Factory:
    """Makes runs and calls that differ in what a test says, one millisecond apart."""

    seq: int = 0
    runs: dict[str, RunRecord] = field(default_factory=dict)

    def run(self, run_id: str = "session-1", **facts: Any) -> RunRecord:
        values: dict[str, Any] = {
            "run_id": run_id,
            "kind": RunKind.SESSION,
            "environment": Environment.SANDBOX,
            "user": "ana",
            "team": "licences",
            "notebook": "notebooks/review.ipynb",
            "state": RunState.RUNNING,
            "created_us": START_US,
            "started_us": START_US,
        }
        return RunRecord(**(values | facts))

    def call(
        self,
        kind: CallKind = CallKind.MODEL,
        name: str = "default",
        arguments: Any = None,
        *,
        run_id: str = "session-1",
        parent: CallRecord | None = None,
        trace_key: str | None = None,
        generation: int = 0,
        occurrence: int | None = None,
        outcome: Outcome | None = None,
        finished: bool = True,
        started_us: int | None = None,
        decision: Decision | None = None,
        case_id: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> CallRecord:
        self.seq += 1
        if arguments is None:
            arguments = {"messages": [{"role": "user", "content": f"question {self.seq}"}]}
        intent = Intent(
            run_id,
            kind,
            name,
            arguments,
            parent=parent.key if parent else None,
            occurrence=self.seq if occurrence is None else occurrence,
            request_id=f"r{self.seq}",
            cell="cell-1",
            case_id=case_id,
        )
        if trace_key is None:
            trace_key = f"loose:{(self.seq - 1) // 100}"
            if parent is not None:
                trace_key = parent.trace_key
            elif kind is CallKind.AGENT:
                trace_key = f"{intent.key}:{generation}"
        start = START_US + self.seq * 1000 if started_us is None else started_us
        return CallRecord(
            seq=self.seq,
            key=intent.key,
            generation=generation,
            intent=intent,
            # A decision that is not "allow" is false.
            decision=Decision(Verdict.ALLOW, ("p1",), policy_digest="sha256:aa")
            if decision is None
            else decision,
            trace_key=trace_key,
            started_us=start,
            ended_us=start + 700 if finished else None,
            outcome=(outcome or self.answer(kind)) if finished else None,
            tags=tags or {},
        )

    @staticmethod
    def answer(kind: CallKind = CallKind.MODEL, **facts: Any) -> Outcome:
        if kind is not CallKind.MODEL:
            return Outcome(**({"state": CallState.OK, "answer": {"ok": True}} | facts))
        values: dict[str, Any] = {
            "state": CallState.OK,
            "answer": {"text": "an answer", "tool_calls": [], "finish_reason": "stop"},
            "usage": Usage(1000, 100),
            "cost": Money.of_usd("0.0123"),
            "provider": "openai",
            "model": "gpt-4o",
            "attempts": (Attempt("openai/gpt-4o", START_US, START_US + 500),),
        }
        return Outcome(**(values | facts))
