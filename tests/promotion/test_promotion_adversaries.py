"""Ways to look good without being good: each is refused or counted, with the reason."""

from __future__ import annotations

import base64
import random
import shutil
from pathlib import Path

import pytest
from cli_world import write_notebook
from gate_world import Hall, number
from promotion_world import AGENT, REST, Desk
from scipy import stats

from toolkit.evaluation import EvaluationSet, Ruling, attempt_alpha
from toolkit.promotion.counting import EVALUATING

ROOT = Path(__file__).resolve().parents[2]

PEEK = """import base64, json
@toolkit.agent
def answer(question: str) -> str:
    \"\"\"Looks the answer up where it stands.\"\"\"
    place = base64.b64decode({place!r}).decode()
    try:
        lines = open(place).read().splitlines()
    except OSError:
        lines = []
    known = [json.loads(line) for line in lines]
    return next((k["expected"] for k in known if k["inputs"]["question"] == question), "?")"""

BOAST = """@toolkit.agent
def answer(question: str) -> str:
    \"\"\"Knows nothing.\"\"\"
    print("correct: 4 of 4, accuracy 1.000")
    return "I do not know" """
METRICS = "print('evaluation passed')\naccuracy = correct = 1.0"


def peeking(desk: Desk) -> str:
    """An agent that opens the labels, by a name that no static check can read."""
    place = desk.workspace.registry / "evaluations" / "capitals" / "cases.jsonl"
    return PEEK.format(place=base64.b64encode(str(place).encode()).decode())


@pytest.mark.slow
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_kernel_that_opens_the_labels_is_refused_with_cell_and_path(
    desk: Desk, level: str
) -> None:
    """With the file in sight as without: the attempt fails, is recorded, and ends the promotion."""
    policy = desk.workspace.registry / "policies" / "production" / "policy.yaml"
    before = policy.read_text()
    policy.write_text(f"{before}\nisolation: {{preferred: {level}}}\n")
    try:
        path = desk.write(f"peeking-{level.lower()}", peeking(desk), *REST)
        desk.try_out(path)
        done = desk.promote(path)
    finally:
        policy.write_text(before)
    assert (done.code, done.json["accepted"]) == (1, False)
    assert "rehearse.labels" in desk.rules(done, "rehearse")
    assert {"evaluate.labels", "evaluate.gate.correct"} <= desk.rules(done, "evaluate")
    told = [f for f in desk.stage(done, "evaluate")["findings"] if f["rule"] == "evaluate.labels"]
    assert [(f["cell"], f["line"]) for f in told] == [(3, 7)]
    assert "registry/evaluations/capitals/cases.jsonl" in told[0]["message"]
    (judged,) = done.json["gates"]
    assert judged["observed"] == 0.0
    assert "evaluate.labels" in desk.audit(f"peeking-{level.lower()}")[-1].body["rules"]


@pytest.mark.slow
def test_metrics_that_the_notebook_prints_and_publishes_count_nothing(desk: Desk) -> None:
    """It says 1.0 wherever it can, and the gate says what was recorded: 0 of 4."""
    boast = (METRICS, "answers = [answer(question) for question in questions]",
             "toolkit.result(count=4, correct=correct, accuracy=accuracy)")  # fmt: skip
    path = desk.write("boasting", BOAST, *boast)
    desk.try_out(path)
    done = desk.promote(path)
    assert (done.code, done.json["accepted"]) == (1, False)
    (judged,) = done.json["gates"]
    assert (judged["observed"], judged["verdict"]) == (0.0, "fail")
    assert "0.000 (0 of 4" in judged["sentence"]
    run_id = desk.stage(done, "evaluate")["facts"]["run_id"]
    assert "accuracy 1.000" in (desk.workspace.runs / run_id / "output.ipynb").read_text()


def test_a_path_to_the_labels_is_seen_before_anything_runs(desk: Desk) -> None:
    """Written out it is an error of the check, at its place, and no kernel starts."""
    read = "labels = open('registry/evaluations/capitals/cases.jsonl').read()"
    before = desk.executed()
    done = desk.promote(desk.write("plainly", AGENT, read, *REST))
    assert (done.code, desk.rules(done, "check")) == (1, {"evaluation-labels"})
    assert desk.executed() == before
    (told,) = desk.stage(done, "check")["findings"]
    assert (told["cell"], told["line"]) == (4, 1)


GATES = """licence-review:
  - {scorer: correct, minimum: 0.75, confidence: 0.95}
  - {scorer: wrong_claims, maximum: 0.15, confidence: 0.95}
"""
"""The example's, without the comparison: nothing is in production yet."""
REVIEW = """@toolkit.agent
def review_licence(name: str, seed: int = {seed}) -> dict:
    \"\"\"Says any licence.\"\"\"
    return {{"licence": toolkit.model(f"a licence, by {{seed}}, for {{name}}").text}}"""


def test_twenty_tries_of_a_random_agent_are_counted_and_none_passes(hall: Hall) -> None:
    """Each goes through the gate, is held to a stricter level than the last, and is refused.

    The promoter, registry, ledger and policy are the real ones; the agent's answers are drawn here,
    because twenty kernels would take minutes to say the same.
    """
    example = ROOT / "registry" / "evaluations" / "licence-review"
    chosen = EvaluationSet.load(example)
    shutil.copytree(example, hall.workspace.registry / "evaluations" / "licence-review")
    hall.write_gates(f"\n  {GATES.replace(chr(10), chr(10) + '  ').rstrip()}")
    licences, drawn = sorted({case.expected["licence"] for case in chosen.cases}), random.Random(20)
    levels: list[float] = []
    for attempt in range(1, 21):
        path = write_notebook(
            hall.workspace,
            f"lucky{attempt}",
            REVIEW.format(seed=attempt),
            "toolkit.result(count=1)",
            parameters="limit: int = 0  # how many",
        )
        name = "lucky" if attempt % 2 else f"lucky-{attempt}"
        done = hall.promote(
            hall.workspace.root / path,
            name,
            lambda _: {"licence": drawn.choice(licences)},
            sets=("licence-review",),
        )
        assert (done.accepted, done.version, number(done)) == (False, None, attempt)
        assert len(hall.player.asked) == len(chosen.cases)
        assert {verdict.ruling for verdict in done.gates} == {Ruling.FAIL}
        (refused,) = [r for r in hall.audit("promotion.refused") if r.body["notebook"] == str(path)]
        assert "evaluate.gate.correct" in refused.body["rules"]
        levels.append(attempt_alpha(0.05, number(done)))
    assert levels == [0.05 / k for k in range(1, 21)]
    assert len(hall.audit(EVALUATING)) == 20
    assert hall.registry.jobs() == []
    # Even who says the commonest licence of all has no more than this, over all 20 tries.
    count = len(chosen.cases)
    commonest = max(sum(c.expected["licence"] == each for c in chosen.cases) for each in licences)
    least = next(k for k in range(count) if _passes(k, count, attempt_alpha(0.05, 1)))
    assert 20 * stats.binom.sf(least - 1, count, commonest / count) < 1e-6


def _passes(right: int, count: int, alpha: float) -> bool:
    return bool(stats.binomtest(right, count, 0.75, "greater").pvalue <= alpha)
