"""What the benchmarks share."""

import argparse
import time
from collections.abc import Callable

import torch


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """Return how long one call of `work` takes, a GPU's part included."""
    start = time.perf_counter()
    work(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def command_line(text: str) -> argparse.ArgumentParser:
    """Return a parser whose --help shows a benchmark's docstring."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
