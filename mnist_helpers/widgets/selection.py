"""Which digits to look at and in which order: pure functions of labels and logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

ORDERS = ("index", "loss", "margin", "confidence")


@dataclass(frozen=True)
class Facts:
    """What is known of N digits; without a model's logits all but the labels is None.

    Attributes:
        labels, predictions: int64 (N,).
        probabilities: float32 (N, 10).
        confidence: of the prediction, from 0 to 1, float32 (N,).
        margin: how far the confidence is above the second highest probability, from 0 to 1, float32 (N,).
        loss: cross-entropy in nats, float32 (N,).
    """

    labels: torch.Tensor
    predictions: torch.Tensor | None = None
    probabilities: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    margin: torch.Tensor | None = None
    loss: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


def gather(labels: Any, logits: Any = None) -> Facts:
    """Return the `Facts` of digits with these labels, int64 (N,), and, if given, a model's logits on them, (N, 10).

    Raises:
        ValueError: the logits do not fit the labels, or are not finite.
    """
    labels = torch.as_tensor(labels).cpu()
    if logits is None:
        return Facts(labels)
    logits = torch.as_tensor(logits).detach().cpu().float()
    if logits.shape != (len(labels), 10) or not logits.isfinite().all():
        raise ValueError(f"logits must be finite and ({len(labels)}, 10), one row a digit, not {tuple(logits.shape)}")
    probabilities = logits.softmax(dim=1)
    highest = probabilities.topk(2, dim=1)
    return Facts(
        labels=labels,
        predictions=highest.indices[:, 0],
        probabilities=probabilities,
        confidence=highest.values[:, 0],
        margin=highest.values[:, 0] - highest.values[:, 1],
        loss=F.cross_entropy(logits, labels, reduction="none"),
    )


def choose(
    facts: Facts,
    *,
    label: int | None = None,
    prediction: int | None = None,
    right: bool | None = None,
    confidence: tuple[float, float] | None = None,
    loss: tuple[float, float] | None = None,
    order: str = "index",
    descending: bool = False,
) -> torch.Tensor:
    """Return the numbers of the digits that fit, in order: int64 (M,), where M may be 0.

    Args:
        facts: `Facts` of all N digits.
        label, prediction: 0 to 9. Here, as below, None means any.
        right: whether the prediction is the label.
        confidence, loss: (least, most), both included.
        order: one of `ORDERS`; equal digits stay in the order of their numbers.
        descending: the largest first.

    Raises:
        ValueError: there is no such order, or the choice needs logits.
    """
    if order not in ORDERS:
        raise ValueError(f"there is no order {order!r}: choose one of {', '.join(ORDERS)}")
    asked = prediction is not None or right is not None or confidence is not None or loss is not None
    if facts.predictions is None and (asked or order != "index"):
        raise ValueError("predictions, confidence and loss are known only where logits were given")
    fits = torch.ones(len(facts), dtype=torch.bool)
    if label is not None:
        fits &= facts.labels == label
    if prediction is not None:
        fits &= facts.predictions == prediction
    if right is not None:
        fits &= (facts.predictions == facts.labels) == right
    for values, limits in ((facts.confidence, confidence), (facts.loss, loss)):
        if limits is not None and values is not None:
            fits &= (values >= limits[0]) & (values <= limits[1])
    numbers = fits.nonzero().flatten()
    if order == "index":
        return numbers.flip(0) if descending else numbers
    return numbers[getattr(facts, order)[numbers].argsort(descending=descending, stable=True)]


def clamp(position: Any, n: int) -> int | None:
    """Return the whole number nearest to `position` from 0 to n - 1, or None if n is 0."""
    return min(max(int(position), 0), n - 1) if n else None
