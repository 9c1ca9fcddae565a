"""A candidate answers the cases of a set: its agent in one kernel, or whole runs of it.

The questions that earlier promotions of the same content answered are not asked again, and an
evaluation that was killed goes on under its own run: what was answered stays.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.document import check_parameters
from toolkit.errors import Busy, ToolkitError
from toolkit.evaluation import EvaluationSet
from toolkit.execution import Runner, RunPlan, RunReport, myself
from toolkit.ledger import CaseAnswer, Ledger
from toolkit.promotion.attempt import Heard
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.early import Early
from toolkit.promotion.measuring import child_name, measures, traces
from toolkit.promotion.recall import DAYS, Memory, Source
from toolkit.promotion.stages import check_not_stopped
from toolkit.values import Digest, Money, RunKind, RunRecord, RunState

__all__ = ["Answered", "Asking", "Outlook", "ask", "foresee"]

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
        anew: Whether a run may be begun that asks; if not, only what is on record or was left
            unfinished counts, because nothing else was announced as an attempt (:mod:`.counting`).
    """

    candidate: Candidate
    chosen: EvaluationSet
    memory: Memory
    heard: Heard = lambda _answered, _all: None
    early: Early | None = None
    anew: bool = True

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
        own: The runs of now, one a kernel; ``report`` is about them together.
    """

    answers: dict[str, list[CaseAnswer | None]]
    measures: dict[str, dict[str, float]]
    report: RunReport | None = None
    sources: tuple[Source, ...] = ()
    cached: int = 0
    traces: dict[str, str] = field(default_factory=dict)
    decided: tuple[str, ...] | None = None
    own: tuple[str, ...] = ()

    @property
    def run_ids(self) -> list[str]:
        """The runs that the answers stand in."""
        return [*self.own, *(source.run.run_id for source in self.sources)]


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
    made: list[RunRecord] = []
    asked_in = {question: source.run.run_id for question, (_, source) in known.items()}
    if open_ and turn.decided({}) is None:
        parts = _parts(asking.chosen, open_)
        made = [_unfinished(asking, ledger, part) or _begun(asking, ledger) for part in parts]
        turn.seed = turn.seed or made[0].run_id
        for run, part in zip(made, parts, strict=True):
            ledger.put_cases(run.run_id, turn.sorted(part))
            asked_in |= {question: run.run_id for question, _ in part}
        if asking.chosen.target == "job":
            report = _ask_job(asking, made[0], runner, ledger, turn)
        else:
            report = _ask_agent(asking, made, runner, ledger, turn)
        for run in made:
            found |= ledger.case_answers(run.run_id)
    decided = turn.decided(found)
    return Answered(
        answers={
            case.id: [found.get(question) for question in asking.chosen.questions(case.id)]
            for case in asking.chosen.cases
        },
        measures=measures(asking.chosen, ledger, asked_in),
        report=report,
        sources=tuple(sources),
        cached=len(known),
        traces=traces(ledger, [run.run_id for run in made]),
        own=tuple(run.run_id for run in made),
        decided=None if decided is None else tuple(decided),
    )


@dataclass(frozen=True)
class Outlook:
    """What asking would come to, before anything is asked.

    Attributes:
        anew: A run would be begun: a question is asked that no answer is on record for.
        sources: Where answers that are on record are from, newest first.
    """

    anew: bool
    sources: tuple[Source, ...] = ()


def foresee(asking: Asking, ledger: Ledger) -> Outlook:
    """Say what :func:`ask` would do now."""
    questions = asking.chosen.inputs()
    known = asking.memory.answers(asking.key, questions)
    sources = tuple({source.run.run_id: source for _, source in known.values()}.values())
    open_ = [each for each in questions if each[0] not in known]
    given = {question: answer for question, (answer, _) in known.items()}
    turn = _Turn(asking.early, sources[-1].run.run_id if sources else None, given)
    if not open_ or turn.decided({}) is not None:
        return Outlook(anew=False, sources=sources)
    parts = _parts(asking.chosen, open_)
    return Outlook(any(_unfinished(asking, ledger, part) is None for part in parts), sources)


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


def _parts(chosen: EvaluationSet, questions: _Questions) -> list[_Questions]:
    """Deal the questions out to kernels: no more of them than this machine has processors."""
    cores = len(os.sched_getaffinity(0))
    count = 1 if chosen.target == "job" else min(chosen.kernels, cores, len(questions))
    return [questions[part::count] for part in range(count)]


@contextmanager
def _heard(asking: Asking, run_ids: Sequence[str], ledger: Ledger, turn: _Turn) -> Iterator[None]:
    """Tell of answers while kernels give them, and ask no more once they decide."""
    over = threading.Event()
    count = len(asking.chosen.inputs())

    def listen() -> None:
        withdrawn = False
        while not over.wait(_LISTEN_S if turn.early is None else _LOOK_S):
            # Neither a display nor a look that comes later must fail an evaluation.
            with suppress(ToolkitError):
                answers: dict[str, CaseAnswer] = {}
                for run_id in run_ids:
                    answers |= ledger.case_answers(run_id)
                asking.heard(len(answers), count)
                if not withdrawn and turn.decided(answers) is not None:
                    for run_id in run_ids:
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


def _begun(asking: Asking, ledger: Ledger) -> RunRecord:
    if not asking.anew:
        raise Busy(
            f"the evaluation of the same content on {asking.chosen.name} that was under way has "
            "come to its end in between",
            next_step="run the command again",
        )
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
        asked = ledger.case_inputs(run.run_id)
        if not over and asked == dict(questions):
            return run
        if asking.chosen.kernels == 1:
            return None  # of several kernels another one may have been asked this part
    return None


# -- by the agent ---------------------------------------------------------------------------------


def _ask_agent(
    asking: Asking, made: Sequence[RunRecord], runner: Runner, ledger: Ledger, turn: _Turn
) -> RunReport:
    """Serve each run's questions in a kernel of its own, all of them at a time."""
    plans = [_plan(asking, run) for run in made]
    with _heard(asking, [run.run_id for run in made], ledger, turn):
        if len(plans) == 1:
            return runner.run(plans[0])
        with ThreadPoolExecutor(len(plans), thread_name_prefix="evaluate") as pool:
            reports = list(pool.map(runner.run, plans))
    return _together(reports)


def _plan(asking: Asking, run: RunRecord) -> RunPlan:
    chosen = asking.chosen
    many = f", concurrency={chosen.concurrency}" if chosen.concurrency > 1 else ""
    return RunPlan(
        run,
        asking.candidate.data,
        dict(chosen.parameters),
        extra_cells=(f"import toolkit as _toolkit\n_toolkit.serve_cases({chosen.agent}{many})",),
        timeout_s=asking.candidate.bundle.budget.seconds,
        python=asking.candidate.surroundings.python,
    )


def _together(reports: Sequence[RunReport]) -> RunReport:
    """Return the first that failed, or the first, with the sums of all; times of calls are its own."""
    failed = (each for each in reports if each.run.state is not RunState.SUCCEEDED)
    shown = next(failed, reports[0])
    names = ("calls", "errors", "denied", "unfinished", "input_tokens", "output_tokens")
    sums = {
        name: sum(getattr(each.totals, name) for each in reports)
        for name in (*names, "unknown_cost_calls", "spent_seconds")
    }
    cost = Money(sum(each.totals.cost.nanos for each in reports))
    totals = replace(shown.totals, cost=cost, **sums)
    return replace(shown, totals=totals, seconds=max(each.seconds for each in reports))


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
        child = child_name(run.run_id, order[question])
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
    check_not_stopped("evaluate", report.run)
    if report.run.state is RunState.SUCCEEDED:
        return report.results, None, report.seconds
    cause = f" ({report.run.cause.value})" if report.run.cause else ""
    message = f"the run {child} ended {report.run.state.value}{cause}: {report.run.message or '-'}"
    return None, {"code": "run", "message": message}, report.seconds
