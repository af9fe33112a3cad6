"""The learning rate range test: at what rate does the loss fall fastest?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from ..evaluation.scores import check_outputs
from ..models import device_of
from .arguments import check_loss
from .checks import copies
from .loop import Batches

SMOOTHING = 0.9  # weight of the losses before in the running average
RISE = 4.0  # times the least smoothed loss: there the test ends


@dataclass(frozen=True)
class RateTest:
    """What `lr_find` saw: `rates` and the smoothed `losses` at them, and the `suggestion`, a learning rate."""

    rates: list[float]
    losses: list[float]
    suggestion: float


def lr_find(
    model: nn.Module,
    loader: Batches,
    optimizer: Optimizer,
    low: float = 1e-6,
    high: float = 10.0,
    n_steps: int = 100,
    seed: int = 0,
) -> RateTest:
    """Raise the learning rate from batch to batch and return the `RateTest`; see `plots.rate_test`.

    The rate grows by the same factor with each of `n_steps` batches, from `low` to `high`. The test ends early when
    the loss has risen to four times its least value. Suggested is the rate at which the smoothed loss falls fastest.
    It works on copies: model, optimizer, loader and random state are left as they were, bit for bit.

    Args:
        model, loader, optimizer: as for training; the loader begins anew where it has fewer batches.
        seed: of dropout.

    Raises:
        ValueError: the range is empty; the loss cannot be computed at the lowest rate or never falls; or the loader is
            empty or can be read only once.

    Source: Smith, "Cyclical learning rates for training neural networks" (2017).
    """
    if not 0 < low < high or n_steps < 10:
        raise ValueError(f"a range test needs 0 < low < high and 10 steps or more, not {low:g}, {high:g} and {n_steps}")
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    with copies(model, optimizer, loader, seed) as (model, optimizer):
        model.train()
        device = device_of(model)
        for step, (images, labels) in zip(range(n_steps), _endless(loader)):
            rate = low * (high / low) ** (step / (n_steps - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits, labels = model(images.to(device)), labels.to(device)
            if step == 0:
                check_outputs(logits, labels)
            loss = F.cross_entropy(logits, labels)
            if step == 0:
                check_loss(loss)
            average = SMOOTHING * average + (1 - SMOOTHING) * loss.item()
            smooth = average / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(smooth) or (losses and smooth > RISE * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return RateTest(rates, losses, _steepest(rates, losses, low))


def _steepest(rates: list[float], losses: list[float], low: float) -> float:
    """Return the rate at which the loss falls fastest on the logarithmic scale, before it reaches its least value."""
    if len(losses) < 3:
        raise ValueError(f"the loss is no use from a rate of {low:g} on: run forward_check first, or begin lower")
    slopes = np.gradient(np.array(losses), np.log(rates))
    slopes = slopes[: np.argmin(losses) + 1]  # what falls after a rise is no guide
    if slopes.min() >= 0:
        raise ValueError("the loss falls at no learning rate: run backward_check, which says what may be wrong")
    return rates[int(slopes.argmin())]


def _endless(loader: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise ValueError("the loader gave no batch: there is nothing to test")
