"""How sure a figure is."""

from scipy.stats import binomtest


def wilson_interval(correct, n, confidence=0.95):
    """Return the interval (low, high) in percent for the accuracy behind `correct` right answers out of `n`.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927), by way of
    `scipy.stats`.
    """
    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return 100 * interval.low, 100 * interval.high
