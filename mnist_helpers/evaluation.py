"""Exact loss and accuracy of a model, and the one place where the test set is read."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .data import load_part
from .loaders import ResidentLoader


@dataclass(frozen=True)
class TestScore:
    """What a finished system reached on the test set.

    Attributes:
        accuracy: percent.
        loss: mean cross-entropy in nats.
        predictions: one character a test image, "0" to "9", in the test set's order.
        source: "mnist", say; see `data.Digits`.
        checksums: of the test files.
    """

    __test__ = False  # no test case, whatever pytest makes of the name

    accuracy: float
    loss: float
    predictions: str
    source: str
    checksums: dict


def predict(model, loader):
    """Return the model's logits on all of an unshuffled loader, in its order: float32 (N, 10) on the CPU."""
    return _forward(model, loader)[0].cpu()


def evaluate(model, loader, loss_function=F.cross_entropy):
    """Return (mean loss, accuracy in percent) over a loader, exact however the batches are cut.

    The model's weights, batch-norm statistics and mode are left as they were.
    """
    logits, labels = _forward(model, loader)
    return loss_function(logits, labels).item(), accuracy(logits, labels)


def accuracy(logits, labels):
    """Return the percentage of rows of `logits` (N, 10) whose largest entry stands at the label's place (N,)."""
    return 100 * (logits.argmax(dim=1) == labels).sum().item() / len(labels)


def score_on_test(model, normalisation="half", source="mnist"):
    """Score a finished system on the test set: nothing that is still being chosen may come here.

    `source` is that of the digits it was trained on (`Digits.source`). Raises DataError if the files are not to be had.
    """
    digits = load_part(source, train=False)
    device = next(model.parameters()).device
    loader = ResidentLoader(digits, 1000, normalisation, device=device)
    logits = predict(model, loader)
    return TestScore(
        accuracy=accuracy(logits, digits.labels),
        loss=F.cross_entropy(logits, digits.labels).item(),
        predictions="".join(str(digit) for digit in logits.argmax(dim=1).tolist()),
        source=digits.source,
        checksums=digits.checksums,
    )


@contextmanager
def evaluation_mode(model):
    """Put a model into evaluation mode within the `with` block, then each of its modules back as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def _forward(model, loader):
    """Return (logits float32 (N, 10), labels int64 (N,)) on the model's device."""
    device = next(model.parameters()).device
    logits, labels = [], []
    with evaluation_mode(model):
        for images, targets in loader:
            logits.append(model(images.to(device)).float())  # (B, 10)
            labels.append(targets.to(device))
    if not logits:
        raise ValueError("the loader gave no batch: there is nothing to evaluate")
    return torch.cat(logits), torch.cat(labels)
