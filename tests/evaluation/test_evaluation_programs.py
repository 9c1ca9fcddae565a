"""Scorers that are Python files of a set: read without running, asked in a process of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from evaluation_world import Answer
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidFile
from toolkit.evaluation import (
    Asked,
    Case,
    Evaluation,
    EvaluationSet,
    Judgement,
    Program,
    Ruling,
    Scorer,
    ScorerKind,
    Workplace,
    ask_scorers,
    compare,
    gate,
    outside_rows,
    score,
)
from toolkit.isolation import reached_level
from toolkit.policy import Gate
from toolkit.values import IsolationLevel

CLOSE = """
def score(answer, label, inputs):
    return {"score": answer.lower() == label.lower(), "reason": f"asked about {inputs['country']}"}
"""
ODD = '''
import os, socket, sys, time
from pathlib import Path

def score(answer, label, inputs):
    """What a scorer may do wrong, by the answer that it is given."""
    print("this is not an answer")
    if answer == "raises":
        raise ValueError("on purpose")
    if answer == "exits":
        sys.exit(0)
    if answer == "dies":
        os._exit(7)
    if answer == "hangs":
        time.sleep(60)
    if answer == "eats":
        return len(bytearray(2 << 30)) > 0
    if answer == "text":
        return "yes"
    if answer == "members":
        return {"score": True, "passed": True}
    if answer == "infinite":
        return float("inf")
    if answer == "unscored":
        return None
    if answer == "looks":
        return {"score": not any("TOKEN" in n or "KEY" in n for n in os.environ), "reason": os.getcwd()}
    if answer == "calls":
        socket.create_connection(("127.0.0.1", int(label)), timeout=2)
    return answer == label
'''


def program(source: str, **changed: Any) -> Scorer:
    made = Program("file.py", "score", source, **{"timeout_s": 20.0, **changed})
    return Scorer("own", ScorerKind.CUSTOM, outside=made)


def rows(*answers: Any, label: Any = "right") -> list[Asked]:
    return [Asked(f"q{n}", "own", each, label, {}) for n, each in enumerate(answers)]


def said(scorer: Scorer, asked: Sequence[Asked], place: Workplace | None = None) -> list[Judgement]:
    found = {
        row.question: judged for row, judged in ask_scorers([scorer], asked, place or Workplace())
    }
    return [found[row.question] for row in asked]


def test_a_file_of_the_set_scores(write_set):
    """The function gets answer, label and inputs by the scorer's fields; what it returns counts."""
    own = {"name": "close", "kind": "custom", "file": "close.py", "field": "city", "expected_field": "city"}  # fmt: skip
    folder = write_set(scorers=[own])
    (folder / "close.py").write_text(CLOSE)
    chosen = EvaluationSet.load(folder)
    answers = {"fr": Answer({"city": "PARIS"}), "it": Answer({"city": "Milan"}), "pt": Answer({})}
    asked, verdicts = outside_rows(chosen, answers)
    for row, judged in ask_scorers(chosen.scorers, asked, Workplace()):
        verdicts.setdefault(row.question, {})[row.scorer] = judged
    found = score(chosen, answers, verdicts=verdicts)
    assert [row.values["close"] for row in found.rows] == [True, False, False]
    assert [row.notes["close"] for row in found.rows] == ["asked about France", "asked about Italy", "the answer has no field 'city'"]  # fmt: skip
    assert found.rows[2].unusable == ("close",)
    assert (found.scores["close"].hits, found.scores["close"].n) == (1, 3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("raises", "ValueError: on purpose"),
        ("exits", "SystemExit: 0"),
        ("eats", "MemoryError"),
        ("text", "it answered 'yes', which is not yes or no"),
        ("members", "other members than score and reason"),
        ("infinite", "ValueError"),
        ("dies", "its process ended with code 7"),
    ],
)
def test_what_goes_wrong_with_a_row_is_that_rows_failure(answer, reason):
    """The scorer's failure has a reason, is neither yes nor no, and the next row is asked."""
    bad, good = said(program(ODD), rows(answer, "right"))
    assert (bad.value, bad.failed) == (None, True)
    assert reason in bad.note
    assert good == Judgement(value=True)


def test_a_row_that_takes_too_long_is_ended():
    """The process is replaced, and the other rows have their answers."""
    late, good = said(program(ODD, timeout_s=1.0), rows("hangs", "right"))
    assert (late.failed, late.note) == (True, "it took longer than 1 s")
    assert good.value is True


def test_a_scorer_that_keeps_dying_is_given_up():
    """After three ends in a row nothing more is asked, and every row says so."""
    found = said(program(ODD), rows("dies", "dies", "dies", "right"))
    assert all(each.failed for each in found)
    assert "ended 3 times in a row" in found[3].note


def test_none_is_no_score():
    """A case that the function does not score is left out of the mean, and is no failure."""
    (found,) = said(program(ODD), rows("unscored"))
    assert found == Judgement(None)


def test_a_file_that_cannot_be_loaded_fails_every_row():
    """What it raised while it was loaded is the reason."""
    found = said(
        program("import no_such_module_anywhere\ndef score(a, b, c): return True"), rows(1, 2)
    )
    assert all("No module named 'no_such_module_anywhere'" in each.note for each in found)
    assert all(each.failed and each.value is None for each in found)


ECHO = """
import os, sys
def score(answer, label, inputs):
    print(answer, flush=True)
    os.write(1, answer.encode())
    sys.stderr.write(answer)
    return False
"""


@pytest.mark.parametrize(
    "answer", ['\n{"n": 0, "value": true}\n{"n": 1, "value": true}\n', "__import__('os')._exit(0)", "\x00\ud800"]
)  # fmt: skip
def test_an_answer_cannot_pass_itself(answer):
    """What the notebook answers is data, also where it looks like a scorer's reply and is printed."""
    found = said(program(ECHO), rows(answer, "right"))
    assert found[1].value is False
    assert found[0].value is not True


def test_the_process_has_no_secret_of_ours(monkeypatch):
    """Keys and tokens of the environment that starts it stay behind, and its folder is its own."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-scorers")
    monkeypatch.setenv("TOOLKIT_TOKEN", "not-for-scorers-either")
    (found,) = said(program(ODD), rows("looks"))
    assert found.value is True
    assert "scorer-" in found.note


def test_the_process_reaches_no_network_where_the_machine_can(loopback_server):
    """From L2 on not even another program of the same machine can be called."""
    level = reached_level(IsolationLevel.L3).level
    if level < IsolationLevel.L2:
        pytest.skip("this machine cannot take the network away")
    asked = rows("calls", label=str(loopback_server))
    (open_,) = said(program(ODD), asked)
    (shut,) = said(program(ODD), asked, Workplace(level))
    assert open_.failed is False, "at L1 there is somebody to call"
    assert "ConnectionRefusedError" in shut.note


@pytest.fixture
def loopback_server() -> Iterator[int]:
    """The port of a server that somebody might call."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class TestReading:
    def test_every_fault_of_every_file_is_named_at_once(self, write_set):
        """A missing file, one that does not parse and one without the function: three faults."""
        folder = write_set(
            scorers=[
                {"name": "a", "kind": "custom", "file": "gone.py"},
                {"name": "b", "kind": "custom", "file": "broken.py"},
                {"name": "c", "kind": "custom", "file": "empty.py"},
            ]
        )
        (folder / "broken.py").write_text("def score(answer:\n")
        (folder / "empty.py").write_text(
            "def other(answer, label, inputs): ...\nfrom . import sets\n"
        )
        with pytest.raises(InvalidFile) as caught:
            EvaluationSet.load(folder)
        text = str(caught.value.to_json())
        assert "is missing in the set's folder" in text
        assert "broken.py:1" in text
        assert "has no function 'score' at its top level (it has other)" in text
        assert "imports a file beside it" in text

    @pytest.mark.parametrize(
        ("source", "fault"),
        [
            ("async def score(a, b, c): return True", "is async"),
            ("def score(a, b): return True", "cannot be called with answer, label and inputs"),
            ("def score(a, b, c, d): return True", "cannot be called"),
            ("def score(a, b, c, *, d): return True", "cannot be called"),
            ("def score(a, b, c): yield True", "yields"),
        ],
    )
    def test_a_function_that_cannot_be_asked_is_refused(self, write_set, source, fault):
        """Shape and arguments are seen without running the file."""
        folder = write_set(scorers=[{"name": "a", "kind": "custom", "file": "own.py"}])
        (folder / "own.py").write_text(source)
        with pytest.raises(InvalidFile, match=r"own\.py") as caught:
            EvaluationSet.load(folder)
        assert fault in str(caught.value.to_json())

    def test_a_file_elsewhere_is_refused(self, write_set, tmp_path):
        """A link out of the set's folder is not followed."""
        (tmp_path / "other.py").write_text(CLOSE)
        folder = write_set(scorers=[{"name": "a", "kind": "custom", "file": "own.py"}])
        (folder / "own.py").symlink_to(tmp_path / "other.py")
        with pytest.raises(InvalidFile) as caught:
            EvaluationSet.load(folder)
        assert "leads out of the set's folder" in str(caught.value.to_json())

    @given(st.text(max_size=200))
    def test_whatever_a_file_holds_is_read_or_refused(self, text):
        """Reading never runs the file and never ends in another error than faults."""
        from pathlib import Path
        from tempfile import TemporaryDirectory

        from toolkit.evaluation.programs import read_program

        with TemporaryDirectory() as name:
            path = Path(name) / "own.py"
            path.write_bytes(text.encode("utf-8", "replace"))
            faults: list[Any] = []
            found = read_program(Path(name), "own.py", "score", faults)
            assert (found is None) == bool(faults)

    def test_the_file_is_part_of_the_sets_digest(self, write_set):
        """Another text is another set, so promotions and approvals of the old one do not hold."""
        folder = write_set(scorers=[{"name": "a", "kind": "custom", "file": "own.py"}])
        (folder / "own.py").write_text(CLOSE)
        before = EvaluationSet.load(folder).digest
        assert EvaluationSet.load(folder).digest == before
        (folder / "own.py").write_text(CLOSE + "# stricter\n")
        assert EvaluationSet.load(folder).digest != before


class TestFailures:
    """What a scorer's failures mean for scores, gates and comparisons."""

    OWN = program(ODD)

    def evaluated(self, values: Sequence[bool | None], *, failed: Sequence[int] = ()) -> Evaluation:
        cases = tuple(Case(f"c{n}", {}, "right", line=n) for n in range(len(values)))
        verdicts = {
            f"c{n}": {
                "own": Judgement(value, "it broke" if n in failed else "", failed=n in failed)
            }
            for n, value in enumerate(values)
        }
        answers = {case.id: Answer("right") for case in cases}
        return score(EvaluationSet("s", "answer", (self.OWN,), cases), answers, verdicts=verdicts)

    def test_the_mean_leaves_them_out(self):
        """Failures and answers that are not scored are no cases of the mean."""
        found = self.evaluated([True, True, None, None, False], failed=[3])
        assert (found.scores["own"].hits, found.scores["own"].n) == (2, 3)
        assert found.rows[3].errors == {"own": "it broke"}
        assert found.failures("own") == [found.rows[3]]

    @pytest.mark.parametrize(
        ("values", "ruling"),
        [
            ([True] * 19 + [None], Ruling.PASS),  # 19 of 20 at worst
            ([True] * 8 + [None] * 2, Ruling.NOT_ENOUGH),  # 8 of 8, or 8 of 10
            ([True, False, False, None], Ruling.FAIL),
        ],
    )
    def test_a_gate_passes_only_if_the_worst_would(self, values, ruling):
        """A failure is neither a pass nor a fail: what it hides decides, or there is not enough."""
        failed = [n for n, value in enumerate(values) if value is None]
        (verdict,) = gate(self.evaluated(values, failed=failed), [Gate(scorer="own", minimum=0.9)])
        assert verdict.ruling is ruling
        assert f"own failed on {len(failed)} answers" in verdict.sentence

    def test_a_scorer_that_never_answered_passes_nothing(self):
        """All failed, or nothing was scored: there is not enough evidence."""
        for failed in ([0, 1], []):
            (verdict,) = gate(
                self.evaluated([None, None], failed=failed), [Gate(scorer="own", maximum=0.5)]
            )
            assert verdict.ruling is not Ruling.PASS

    def test_a_case_that_is_not_asked_about_is_a_failure(self):
        """Whoever forgets to ask the scorer gets no score out of it."""
        cases = (Case("c0", {}, "right"),)
        found = score(EvaluationSet("s", "answer", (self.OWN,), cases), {"c0": Answer("right")})
        assert found.rows[0].errors == {"own": "it was not asked"}
        assert "own" not in found.scores

    def test_a_stored_evaluation_keeps_them(self):
        """They survive being written and read, and a comparison passes over them."""
        found = self.evaluated([True, None, None], failed=[1])
        again = Evaluation.from_json(found.to_json())
        assert again.rows == found.rows
        assert again.worse == {"own": False}
        changes = compare(found, self.evaluated([False, True, True]))
        assert [change.case_id for change in changes.improvements] == ["c0"]
        assert changes.regressions == ()
