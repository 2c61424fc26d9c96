import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.statistics import bootstrap_interval, mcnemar, mean_interval, pass_at_k, permutation_test, wilson_interval


def test_intervals_hold_the_share_and_stay_within_0_and_1():
    for successes in range(11):
        low, high = wilson_interval(successes, 10)
        assert 0 <= low <= successes / 10 <= high <= 1
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(1, 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_of_a_mean_holds_it_and_is_the_same_every_time(values):
    low, high = mean_interval(values)
    mean = sum(values) / len(values)
    assert low - 1e-9 <= mean <= high + 1e-9
    assert mean_interval(values) == (low, high)


def test_a_bootstrap_interval_is_about_as_wide_as_theory_says():
    values = [n / 99 for n in range(100)]
    low, high = bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 100), rel=0.15)


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(10, 2) == mcnemar(2, 10) == pytest.approx(0.03857, abs=1e-4)


def test_a_permutation_test_finds_what_is_there_and_nothing_else():
    first = [1.0] * 20 + [0.0] * 20
    assert permutation_test(first, first) == pytest.approx(1.0)
    assert permutation_test(first, [0.0] * 40) < 0.001
    with pytest.raises(ValueError, match="no pairs"):
        permutation_test([], [])


@given(st.integers(1, 12), st.data())
def test_pass_at_k_counts_draws_without_a_right_one(n, data):
    correct = data.draw(st.integers(0, n))
    shares = [pass_at_k(n, correct, k) for k in range(1, n + 1)]
    assert shares[0] == pytest.approx(correct / n)
    assert shares == sorted(shares)
    assert shares[-1] == float(correct > 0)
    with pytest.raises(ValueError, match="needs at least"):
        pass_at_k(n, correct, n + 1)
