"""How certain an accuracy is, and a difference between two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval (low, high) in percent for the accuracy behind `correct` right answers out of `n`.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927), by way of
    `scipy.stats`.
    """
    from scipy.stats import binomtest  # here, as below: slow to import

    interval = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return 100 * interval.low, 100 * interval.high


@dataclass(frozen=True)
class PairedDifference:
    """The mean of paired differences, its 95 % confidence interval from `low` to `high`, and the test's p-value."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Return how far `first` lies above `second` on average, both lists of n figures in the same order of seeds.

    The test is the paired t-test (Student 1908, by way of `scipy.stats`). It assumes that the differences are drawn
    from a normal distribution, and asks whether its mean could be 0.

    Raises:
        ValueError: fewer than two pairs, lists of different lengths, or differences that are all the same.
    """
    from scipy.stats import ttest_rel

    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"paired figures are needed, at least two, not {len(first)} and {len(second)}")
    if len({round(one - other, 9) for one, other in zip(first, second)}) == 1:
        raise ValueError("all differences are the same: a t-test needs some that vary")
    test = ttest_rel(first, second)
    interval = test.confidence_interval(0.95)
    mean = sum(first) / len(first) - sum(second) / len(second)
    return PairedDifference(mean, float(interval.low), float(interval.high), float(test.pvalue))


def mcnemar_test(first_right: ArrayLike, second_right: ArrayLike) -> tuple[int, int, float]:
    """Return (first alone, second alone, p-value) for two systems' answers to the same questions.

    Only the questions that one system alone got right tell the two apart. If neither is better, each of these is a
    toss of a coin.

    Args:
        first_right, second_right: bool (N,), whether each answer was right.

    Source: McNemar (1947), in its exact form, by way of `scipy.stats`.
    """
    from scipy.stats import binomtest

    first_right, second_right = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    first_alone, second_alone = int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    if first_alone + second_alone == 0:
        return 0, 0, 1.0
    return first_alone, second_alone, float(binomtest(first_alone, first_alone + second_alone).pvalue)
