"""Calibration: whether a model that is 80 % confident is right 80 % of the time."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn import functional as F

BINS = 15


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the number T for which the probabilities softmax(logits / T) have the smallest cross-entropy.

    Args:
        logits: (N, 10), of validation images: fitting on the test set would be training on it.
        labels: int64 (N,).

    Returns:
        A float from 0.05 to 20.

    Raises:
        ValueError: there are no logits.

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (2017).
    """
    from scipy.optimize import minimize_scalar

    if not len(logits):
        raise ValueError("there are no logits to fit a temperature to")

    def loss(log_temperature):
        return F.cross_entropy(logits / math.exp(log_temperature), labels).item()

    bounds = math.log(0.05), math.log(20)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def confidence_bins(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (mean confidence, accuracy, number of answers) of each bin of confidence that has answers.

    There are 15 bins of equal width. An answer's confidence is the largest probability of its row.

    Args:
        probabilities: float (N, 10), rows that add up to 1.
        labels: int (N,).

    Returns:
        Three arrays, confidence and accuracy from 0 to 1.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == np.asarray(labels)
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(places)
    used = counts > 0
    sums = [np.bincount(places, weights=values) for values in (confidence, right)]
    return sums[0][used] / counts[used], sums[1][used] / counts[used], counts[used]


def calibration_error(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the expected calibration error, from 0 to 1: the mean gap between confidence and accuracy over the bins.

    Bins count by their number of answers.

    The arguments are those of `confidence_bins`.

    Source: Naeini, Cooper and Hauskrecht (2015); Guo, Pleiss, Sun and
    Weinberger (2017).
    """
    confidence, accuracy, counts = confidence_bins(probabilities, labels)
    return float(np.abs(confidence - accuracy) @ counts / counts.sum())
