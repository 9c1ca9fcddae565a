"""The rule of a canary: better than a person's glance, and never a guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.app.canaries import Arm, difference, judge
from toolkit.policy import CanaryRule


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """His paper's example (a) of method 10: 56/70 against 48/80 gives 0.2 [0.0524, 0.3339]."""
    d, low, high = difference(56, 70, 48, 80)
    assert (d, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_without_runs_nothing_is_known() -> None:
    """No verdict from one arm alone."""
    assert difference(0, 0, 3, 9) == (0.0, -1.0, 1.0)
    assert judge(CanaryRule(runs=1), Arm(50, 0, 0, 0), Arm()).verdict == "undecided"


@pytest.mark.parametrize(
    ("stable", "candidate", "verdict"),
    [
        (Arm(100, 0, 0, 0), Arm(100, 0, 0, 0), "good"),
        (Arm(20, 0, 0, 0), Arm(20, 0, 0, 0), "undecided"),  # 0 of 20 may still be 16 %
        (Arm(40, 0, 0, 0), Arm(5, 5, 0, 0), "worse"),  # at once, without waiting for 20
        (Arm(100, 2, 0, 0), Arm(100, 4, 0, 0), "undecided"),
        (Arm(100, 50, 0, 0), Arm(100, 20, 0, 0), "good"),
    ],
)
def test_failures(stable: Arm, candidate: Arm, verdict: str) -> None:
    """Surely worse by more than the bound; surely within it; or neither."""
    judged = judge(CanaryRule(runs=20, failures=0.05), stable, candidate)
    assert judged.verdict == verdict, judged.sentences


def test_cost_and_denied_count_too() -> None:
    """One bound that is broken is enough; an unknown price decides nothing."""
    rule = CanaryRule(runs=20, failures=0.5, denied=0.1, cost=1.5)
    stable = Arm(100, 0, 0, 100_000)
    assert judge(rule, stable, Arm(100, 0, 0, 140_000)).verdict == "good"
    assert judge(rule, stable, Arm(100, 0, 0, 160_000)).verdict == "worse"
    assert judge(rule, stable, Arm(100, 0, 60, 140_000)).verdict == "worse"
    assert judge(rule, stable, Arm(100, 0, 0, None)).verdict == "undecided"


counts = st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, counts)
def test_a_verdict_never_contradicts_its_interval(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    """The estimate lies in the interval, which turns round with its arms."""
    d, low, high = difference(*one, *other)
    assert low + 1e-9 >= -1
    assert low - 1e-9 <= d <= high + 1e-9
    turned = difference(*other, *one)
    assert (-turned[0], -turned[2], -turned[1]) == pytest.approx((d, low, high))
    judged = judge(CanaryRule(runs=10), Arm(other[1], other[0]), Arm(one[1], one[0]))
    assert judged.verdict != "worse" or low > 0
    assert judged.verdict != "good" or high <= 0.05
