import numpy as np
import pytest
from scipy import stats

from mnist_helpers.evaluation.significance import mcnemar_test, paired_difference, wilson_interval


def test_wilson_interval_against_its_formula():
    n, p, z = 10_000, 0.98, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson_interval(9800, n) == pytest.approx((100 * (centre - half), 100 * (centre + half)), abs=1e-6)


def test_figures_that_are_not_paired_or_do_not_vary_are_refused():
    for first, second in (([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([], [])):
        with pytest.raises(ValueError, match="paired figures are needed, at least two"):
            paired_difference(first, second)
    with pytest.raises(ValueError, match="all differences are the same"):
        paired_difference([98.1, 98.2, 98.3], [98.0, 98.1, 98.2])


def test_mcnemar_counts_what_one_alone_got_right():
    first, second = np.array([1, 1, 1, 1, 1, 0, 1, 0], bool), np.array([1, 0, 0, 0, 0, 1, 1, 0], bool)
    assert mcnemar_test(first, second) == (4, 1, pytest.approx(stats.binomtest(4, 5).pvalue))
    assert mcnemar_test(second, first)[:2] == (1, 4)
    assert mcnemar_test(first, first) == (0, 0, 1.0)
