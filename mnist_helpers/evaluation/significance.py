"""How sure a figure is, and a difference between two."""

from dataclasses import dataclass

import numpy as np
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


def mcnemar_test(first_right, second_right):
    """Return (first alone, second alone, p-value) for two systems' answers to the same questions.

    Args:
        first_right, second_right: bool (N,), whether each answer was right.

    Only the questions that one system alone got right tell the two apart; if neither is better, each falls to either
    side like a coin. Source: McNemar (1947), in its exact form, by way of `scipy.stats`.
    """
    first_right, second_right = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    first_alone, second_alone = int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    if first_alone + second_alone == 0:
        return 0, 0, 1.0
    return first_alone, second_alone, float(binomtest(first_alone, first_alone + second_alone).pvalue)


def confidence_bins(probabilities, labels, bins=15):
    """Sort answers by their confidence and return (mean confidence, accuracy, number of answers) of each bin in use.

    Args:
        probabilities: float (N, 10), rows that add up to 1.
        labels: int (N,).
        bins: equal steps from 0 to 1 of the confidence, the largest probability of a row.

    Returns:
        Three arrays, confidence and accuracy from 0 to 1.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    used = counts > 0
    sums = [np.bincount(places, weights=values, minlength=bins) for values in (confidence, right)]
    return sums[0][used] / counts[used], sums[1][used] / counts[used], counts[used]


def calibration_error(probabilities, labels, bins=15):
    """Return the expected calibration error: how far confidence and accuracy lie apart, weighted over the bins.

    The arguments are those of `confidence_bins`. Source: Naeini, Cooper and Hauskrecht (2015); Guo, Pleiss, Sun and
    Weinberger (2017).
    """
    confidence, accuracy, counts = confidence_bins(probabilities, labels, bins)
    return float(np.abs(confidence - accuracy) @ counts / counts.sum())
