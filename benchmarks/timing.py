"""What the benchmarks share."""

import time

import torch


def seconds(work, *arguments):
    """Return how long one call of `work` takes, a GPU's part included."""
    start = time.perf_counter()
    work(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
