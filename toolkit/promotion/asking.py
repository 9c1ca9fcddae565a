"""A candidate answers the cases of a set: its agent in one kernel, or whole runs of it.

The questions that earlier promotions of the same content answered are not asked again, and an
evaluation that was killed goes on under its own run: what was answered stays.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.document import check_parameters
from toolkit.errors import ToolkitError
from toolkit.evaluation import EvaluationSet
from toolkit.execution import Runner, RunPlan, RunReport, myself
from toolkit.ledger import CaseAnswer, Ledger
from toolkit.promotion.attempt import Heard
from toolkit.promotion.before import case_measures
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.early import Early
from toolkit.promotion.recall import DAYS, Memory, Source
from toolkit.values import CallKind, Digest, RunKind, RunRecord, RunState

__all__ = ["Answered", "Asking", "ask"]

KEY_TAG = "evaluation_key"
SET_TAG = "evaluation"
_RECENT = 50
_LISTEN_S, _LOOK_S = 1.0, 0.2
_Questions = Sequence[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Asking:
    """Who is asked what.

    Attributes:
        candidate: Who answers.
        chosen: The set.
        memory: What was measured before.
        heard: Progress, for people.
        early: Says when the answers decide; ``None``: every question is asked.
    """

    candidate: Candidate
    chosen: EvaluationSet
    memory: Memory
    heard: Heard = lambda _answered, _all: None
    early: Early | None = None

    @property
    def key(self) -> Digest:
        """What an answer depends on, beside its question."""
        chosen = self.chosen
        facts = {"agent": chosen.agent, "target": chosen.target, "parameters": chosen.parameters}
        return self.memory.key("evaluate", **facts)


@dataclass(frozen=True)
class Answered:
    """What came of it.

    Attributes:
        answers: By case id: one per trial, ``None`` where there is none, which counts as wrong.
        measures: By case id, over its trials: ``usd`` and ``seconds``.
        report: How the run of now ended; ``None`` if nothing had to be asked.
        sources: Where the other answers are from, newest first.
        cached: How many answers these are.
        traces: Trace of each case's agent call in the run of now.
        decided: The cases that decided, in their order, where not all were asked.
    """

    answers: dict[str, list[CaseAnswer | None]]
    measures: dict[str, dict[str, float]]
    report: RunReport | None = None
    sources: tuple[Source, ...] = ()
    cached: int = 0
    traces: dict[str, str] = field(default_factory=dict)
    decided: tuple[str, ...] | None = None

    @property
    def run_ids(self) -> list[str]:
        """The runs that the answers stand in."""
        made = [self.report.run.run_id] if self.report else []
        return [*made, *(source.run.run_id for source in self.sources)]


def ask(asking: Asking, runner: Runner, ledger: Ledger) -> Answered:
    """Get an answer to every question of the set, or to as many as decide.

    Raises:
        InfrastructureError: The run of now could not be made; what was answered stays, and the
            next attempt goes on with it.
    """
    questions = asking.chosen.inputs()
    known = asking.memory.answers(asking.key, questions)
    open_ = [(question, inputs) for question, inputs in questions if question not in known]
    report, found = None, {question: answer for question, (answer, _) in known.items()}
    sources = list({source.run.run_id: source for _, source in known.values()}.values())
    # The first evaluation's order holds: another one would be another look at the same answers.
    turn = _Turn(asking.early, sources[-1].run.run_id if sources else None, dict(found))
    if open_ and turn.decided({}) is None:
        run = _unfinished(asking, ledger, open_) or _fresh(asking, ledger)
        turn.seed = turn.seed or run.run_id
        ledger.put_cases(run.run_id, turn.sorted(open_))
        one = _ask_job if asking.chosen.target == "job" else _ask_agent
        report = one(asking, run, runner, ledger, turn)
        found |= ledger.case_answers(run.run_id)
    decided = turn.decided(found)
    own = report.run.run_id if report else None
    return Answered(
        answers={
            case.id: [found.get(question) for question in asking.chosen.questions(case.id)]
            for case in asking.chosen.cases
        },
        measures=_measures(asking.chosen, ledger, known, own),
        report=report,
        sources=tuple(sources),
        cached=len(known),
        traces=_traces(ledger, own) if own else {},
        decided=None if decided is None else tuple(decided),
    )


@dataclass
class _Turn:
    """In which order questions are asked, and whether the answers decide by now.

    Attributes:
        early: ``None``: in the order of the set, and only all of them decide.
        seed: What the order is made of, once it is known.
        known: What was answered before.
    """

    early: Early | None
    seed: str | None
    known: dict[str, CaseAnswer]

    def decided(self, answers: Mapping[str, CaseAnswer]) -> list[str] | None:
        if self.early is None or self.seed is None:
            return None
        return self.early.decided(self.early.order(self.seed), {**self.known, **answers})

    def sorted(self, questions: _Questions) -> _Questions:
        if self.early is None or self.seed is None:
            return questions
        place = {case_id: n for n, case_id in enumerate(self.early.order(self.seed))}
        return sorted(questions, key=lambda each: place[each[0]])


@contextmanager
def _heard(asking: Asking, run_id: str, ledger: Ledger, turn: _Turn) -> Iterator[None]:
    """Tell of answers while a kernel gives them, and ask no more once they decide."""
    over = threading.Event()
    count = len(asking.chosen.inputs())

    def listen() -> None:
        withdrawn = False
        while not over.wait(_LISTEN_S if turn.early is None else _LOOK_S):
            # Neither a display nor a look that comes later must fail an evaluation.
            with suppress(ToolkitError):
                answers = ledger.case_answers(run_id)
                asking.heard(len(answers), count)
                if not withdrawn and turn.decided(answers) is not None:
                    ledger.withdraw_cases(run_id)
                    withdrawn = True

    thread = threading.Thread(target=listen, name="evaluation-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# -- which run ------------------------------------------------------------------------------------


def _fresh(asking: Asking, ledger: Ledger) -> RunRecord:
    tags = {KEY_TAG: asking.key, SET_TAG: asking.chosen.name}
    parameters = dict(asking.chosen.parameters)
    run = asking.candidate.run(RunKind.EVALUATION, parameters, tags=tags)
    return ledger.create_run(run)


def _unfinished(asking: Asking, ledger: Ledger, questions: _Questions) -> RunRecord | None:
    """Return an evaluation of the same content that was killed, if it asked the same."""
    if not asking.memory.used:
        return None
    oldest_us = asking.memory.clock.now_us() - DAYS * 86_400_000_000
    recent = ledger.runs(job=asking.candidate.job, kind=RunKind.EVALUATION, limit=_RECENT)
    for run in recent:
        if run.tags.get(KEY_TAG) != asking.key or run.created_us < oldest_us:
            continue
        over = run.state.terminal and not run.resumable
        if over or ledger.case_inputs(run.run_id) != dict(questions):
            return None
        return run
    return None


# -- by the agent ---------------------------------------------------------------------------------


def _ask_agent(
    asking: Asking, run: RunRecord, runner: Runner, ledger: Ledger, turn: _Turn
) -> RunReport:
    chosen = asking.chosen
    many = f", concurrency={chosen.concurrency}" if chosen.concurrency > 1 else ""
    plan = RunPlan(
        run,
        asking.candidate.data,
        dict(chosen.parameters),
        extra_cells=(f"import toolkit as _toolkit\n_toolkit.serve_cases({chosen.agent}{many})",),
        timeout_s=asking.candidate.bundle.budget.seconds,
        python=asking.candidate.surroundings.python,
    )
    with _heard(asking, run.run_id, ledger, turn):
        return runner.run(plan)


# -- by whole runs --------------------------------------------------------------------------------


def _ask_job(
    asking: Asking, run: RunRecord, runner: Runner, ledger: Ledger, turn: _Turn
) -> RunReport:
    """Run the notebook once per question, several at a time, under one run of the ledger.

    That one has no kernel: it keeps the questions, and its budget is the sum's.
    """
    chosen = asking.chosen
    run = _opened(run, ledger, asking.memory.clock.now_us())
    order = {question: n for n, question in enumerate(ledger.case_inputs(run.run_id), 1)}
    done = ledger.case_answers(run.run_id)

    def one(question: str, inputs: dict[str, Any]) -> float:
        child = f"{run.run_id}-{order[question]}"
        output, error, seconds = _run_once(asking, run, child, inputs, runner)
        ledger.answer_case(run.run_id, question, output, error)
        return seconds

    left = [each for each in ledger.case_inputs(run.run_id).items() if each[0] not in done]
    seconds = 0.0
    with ThreadPoolExecutor(chosen.concurrency, thread_name_prefix="evaluate") as pool:
        made = [pool.submit(one, question, inputs) for question, inputs in left]
        try:
            for number, each in enumerate(made, len(done) + 1):
                seconds += each.result()
                asking.heard(number, len(order))
                if turn.early and turn.decided(ledger.case_answers(run.run_id)) is not None:
                    pool.shutdown(wait=True, cancel_futures=True)
                    break
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    run = ledger.update_run(run.run_id, state=RunState.SUCCEEDED)
    return RunReport(run, ledger.totals(run.run_id), {}, seconds=seconds)


def _opened(run: RunRecord, ledger: Ledger, now_us: int) -> RunRecord:
    if run.state is RunState.QUEUED:
        return ledger.update_run(
            run.run_id, state=RunState.RUNNING, runner=myself(), started_us=now_us
        )
    # An evaluation that was killed: whoever takes it goes on with it.
    return ledger.take(
        run, state=RunState.RUNNING, cause=None, message=None, ended_us=None, runner=myself()
    )


def _run_once(
    asking: Asking, run: RunRecord, child: str, inputs: dict[str, Any], runner: Runner
) -> tuple[Any, dict[str, Any] | None, float]:
    candidate = asking.candidate
    try:
        values = check_parameters(candidate.notebook.schema, {**asking.chosen.parameters, **inputs})
    except ToolkitError as error:
        return None, error.to_json(), 0.0
    record = replace(
        candidate.run(
            RunKind.EVALUATION,
            values,
            parent_run_id=run.run_id,
            results_expected=candidate.notebook.results,
        ),
        run_id=child,
    )
    plan = RunPlan(
        record,
        candidate.data,
        values,
        timeout_s=candidate.bundle.budget.seconds,
        python=candidate.surroundings.python,
    )
    report = runner.run(plan)
    if report.run.state is RunState.SUCCEEDED:
        return report.results, None, report.seconds
    cause = f" ({report.run.cause.value})" if report.run.cause else ""
    message = f"the run {child} ended {report.run.state.value}{cause}: {report.run.message or '-'}"
    return None, {"code": "run", "message": message}, report.seconds


# -- what it cost ---------------------------------------------------------------------------------


def _measures(
    chosen: EvaluationSet,
    ledger: Ledger,
    known: dict[str, tuple[CaseAnswer, Source]],
    own: str | None,
) -> dict[str, dict[str, float]]:
    """Return costs and times by case: those of its trials together, wherever they were asked."""
    measure = _job_measures if chosen.target == "job" else case_measures
    by_run: dict[str, dict[str, dict[str, float]]] = {}
    found: dict[str, dict[str, float]] = {}
    for case in chosen.cases:
        parts: list[dict[str, float]] = []
        for question in chosen.questions(case.id):
            run_id = known[question][1].run.run_id if question in known else own
            if run_id is None:
                continue
            if run_id not in by_run:
                by_run[run_id] = measure(ledger, run_id, list(ledger.case_inputs(run_id)))
            parts.append(by_run[run_id].get(question, {}))
        # A trial without a known price leaves the case without one.
        found[case.id] = {
            name: sum(part[name] for part in parts)
            for name in ("seconds", "usd")
            if parts and all(name in part for part in parts)
        }
    return found


def _job_measures(
    ledger: Ledger, run_id: str, questions: Sequence[str]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for number, question in enumerate(questions, 1):
        try:
            child = ledger.get_run(f"{run_id}-{number}")
        except ToolkitError:
            continue  # its parameters did not fit: it never ran
        totals = ledger.totals(child.run_id)
        found[question] = {"usd": float(totals.cost.usd)} if not totals.unknown_cost_calls else {}
        if child.started_us is not None and child.ended_us is not None:
            found[question]["seconds"] = (child.ended_us - child.started_us) / 1e6
    return found


def _traces(ledger: Ledger, run_id: str) -> dict[str, str]:
    """Return the trace of each case's first agent call."""
    found: dict[str, str] = {}
    after = 0
    while calls := ledger.calls(run_id, after_seq=after, limit=1000):
        after = calls[-1].seq
        for call in calls:
            if call.intent.case_id and call.intent.kind is CallKind.AGENT:
                found.setdefault(call.intent.case_id, call.trace_key)
    return found
