"""A small form of tests/scale/test_scale_numbers.py: how often a gate passes what it must not.

300 promotions each instead of 2,000: enough to see an error that is double what is stated.
"""

from __future__ import annotations

import numpy as np
import pytest
from drawn_world import (
    ALPHA,
    CHANGES,
    COSTS,
    SURE,
    at_most,
    cheap,
    count,
    not_worse,
    passes,
    superior,
    tried,
)

from toolkit.policy import Gate

TIMES = 300


@pytest.mark.parametrize("name", ["3 % change", "20 % change", "costs", "large losses"])
def test_numbers_that_are_no_better_are_rarely_called_better(name):
    """With a true difference of nothing, no more pass than is stated."""
    at_most(count(superior(CHANGES[name], 30), 1, TIMES), TIMES)


@pytest.mark.parametrize("name", ["3 % change", "large losses"])
def test_numbers_worse_by_the_margin_are_rarely_let_through(name):
    """At the margin itself, no more pass than is stated."""
    at_most(count(not_worse(CHANGES[name], 50), 2, TIMES), TIMES)


@pytest.mark.parametrize("name", ["lognormal", "mostly free", "nearly all the same"])
def test_costs_at_the_maximum_are_rarely_called_below(name):
    """With the true mean at the limit, no more pass than is stated."""
    at_most(count(cheap(COSTS[name], 30), 3, TIMES), TIMES)


def test_what_is_better_or_cheaper_is_let_through():
    """The bounds are not safe by saying nothing."""
    assert count(superior(CHANGES["ordinary"], 60, 1.0), 4, 50) >= 45
    assert count(cheap(COSTS["ordinary"], 60, 1.5), 5, 50) >= 45


def test_trials_of_a_case_are_one_case():
    """Ten trials of each case, all good or all bad together: as many cases as there are."""

    def once(random: np.random.Generator) -> bool:
        good = random.random(30) < 0.8
        return passes(tried([[bool(g)] * 10 for g in good]), Gate("right", 0.8, **SURE))

    at_most(count(once, 6, TIMES), TIMES, ALPHA)
