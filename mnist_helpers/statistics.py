"""How sure a figure is, and a difference between two."""

from dataclasses import dataclass

from scipy.stats import binomtest, ttest_rel


def wilson_interval(correct, n, confidence=0.95):
    """Return the interval (low, high) in percent for the accuracy behind `correct` right answers out of `n`.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927), by way of
    `scipy.stats`.
    """
    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return 100 * interval.low, 100 * interval.high


@dataclass(frozen=True)
class PairedDifference:
    """The mean of paired differences, its confidence interval from `low` to `high`, and the test's p-value."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(first, second, confidence=0.95):
    """Return how far `first` lies above `second` on average, both lists of n figures in the same order of seeds.

    The test is the paired t-test (Student 1908, by way of `scipy.stats`): it takes the differences, seed by seed, for
    draws from a normal distribution, and asks whether that may have the mean 0.

    Raises:
        ValueError: fewer than two pairs, lists of different lengths, or differences that are all the same.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"paired figures are needed, at least two, and not {len(first)} and {len(second)}")
    if len({round(one - other, 9) for one, other in zip(first, second)}) == 1:
        raise ValueError("all differences are the same: a t-test needs some that vary")
    test = ttest_rel(first, second)
    interval = test.confidence_interval(confidence)
    mean = sum(first) / len(first) - sum(second) / len(second)
    return PairedDifference(mean, float(interval.low), float(interval.high), float(test.pvalue))
