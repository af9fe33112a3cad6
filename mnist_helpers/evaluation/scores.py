"""What a model answers, its exact loss and accuracy, and the one place where the test set is read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..data.digits import Digits, load_part
from ..data.form import grey_of, warn_of_bright_borders
from ..data.loaders import ResidentLoader
from ..models import device_of, evaluation_mode
from ..models.saved import load_once

# Test images whose label is wrong according to most of several human readers, with the digit that they read, and images
# on which the readers disagree (Northcutt, Athalye and Mueller, "Pervasive label errors in test sets", 2021)
LABEL_ERRORS = {947: 9, 1621: 6, 1901: 4, 2462: 0, 2597: 3, 3558: 0, 5937: 3, 6651: 6, 6783: 6, 9729: 6}
DISPUTED = (2130, 2654, 3520, 8527, 9679)
DEFAULT_MODEL = "any_hand"  # the saved model for digits that are not MNIST's


@dataclass(frozen=True)
class Score:
    """What a finished system reached on the test set.

    Attributes:
        accuracy: percent.
        loss: mean cross-entropy in nats.
        predictions: one character a test image, "0" to "9", in the test set's order.
        digits: the test images and their labels, to look at.
        logits: float32 (N, 10), in the same order.
    """

    accuracy: float
    loss: float
    predictions: str
    digits: Digits
    logits: torch.Tensor


def predict(
    images: Any, model: str | Path | nn.Module = DEFAULT_MODEL
) -> tuple[torch.Tensor, torch.Tensor] | tuple[int, torch.Tensor]:
    """Return (digits int64 (N,), probabilities float32 (N, 10)) that a saved network reads in images in MNIST's form.

    `digit, probabilities = predict(image)` works too: a single image (28, 28) gives an int and (10,). A network with
    eleven answers, as the default one, gives (N, 11), and 10 for what is no digit. `read_digit` takes any picture.

    Args:
        images: uint8 (N, 28, 28) or (28, 28), ink bright on 0: a tensor, an array, a PIL image or a list of them.
            A bright border, such as white paper has, is a warning. `read_digit` reads other pictures.
        model: the name of a saved model, a path to its weights, or what `load_model` returned.

    Raises:
        ValueError: images of another shape or dtype, or a model that did not come from `load_model`.
        CheckpointError: no such model is saved.
    """
    if isinstance(images, (list, tuple)):
        images = [grey_of(image) for image in images]
    if not isinstance(images, torch.Tensor):
        images = np.array(grey_of(images))
    dtype = str(images.dtype).removeprefix("torch.")
    if dtype != "uint8" or images.shape[-2:] != (28, 28) or images.ndim not in (2, 3):
        raise ValueError(
            f"images must be uint8 (N, 28, 28) or (28, 28), not {dtype} {tuple(images.shape)}: read files and pictures "
            "of any other kind, dark on light too, with mnist_helpers.read_digit"
        )
    network = load_once(model) if isinstance(model, (str, Path)) else model
    batch = torch.as_tensor(images).reshape(-1, 28, 28)
    warn_of_bright_borders(batch.cpu().numpy())
    digits = Digits(batch, torch.zeros(len(batch), dtype=torch.int64), "images", "memory", {})
    loader = ResidentLoader(digits, 1000, normalisation_of(network), device=device_of(network))
    probabilities = predict_logits(network, loader).softmax(dim=1)
    answers = probabilities.argmax(dim=1)
    return (answers, probabilities) if images.ndim == 3 else (int(answers), probabilities[0])


def predict_logits(model: nn.Module, loader: Iterable) -> torch.Tensor:
    """Return the model's logits on all of an unshuffled loader, in its order: float32 (N, 10) on the CPU.

    Raises:
        ValueError: the loader gave no batch, or the model no logits.
    """
    return _forward(model, loader)[0].cpu()


def evaluate(
    model: nn.Module, loader: Iterable, loss_function: Callable[..., torch.Tensor] = F.cross_entropy
) -> tuple[float, float]:
    """Return (mean loss, accuracy in percent) over a loader, exact however the batches are cut.

    The model's weights, batch-norm statistics and mode are left as they were.

    Raises:
        ValueError: the loader gave no batch; or the first one's outputs or labels are refused by `check_outputs`.
    """
    logits, labels = _forward(model, loader)
    return loss_function(logits, labels).item(), accuracy(logits, labels)


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the percentage of rows of `logits` (N, 10) whose largest entry stands at the label's place (N,)."""
    return 100 * (logits.argmax(dim=1) == labels).sum().item() / len(labels)


def check_outputs(outputs: Any, labels: torch.Tensor) -> None:
    """Raise ValueError where a model's outputs for a batch are no logits (B, C), or its labels none of C classes.

    It looks at the labels' values, for which a GPU has to wait: enough for the first batch.
    """
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(
            f"the model returns a {type(outputs).__name__}, not one tensor: let its forward return the logits alone"
        )
    found, shape = str(labels.dtype).removeprefix("torch."), tuple(labels.shape)
    if labels.ndim != 1 or labels.dtype not in (torch.int64, torch.uint8):
        made = "argmax(dim=1)" if labels.ndim == 2 and shape[1] > 1 else "flatten().long()"
        raise ValueError(f"the labels are {found} {shape}, and must be int64 (B,), a class each: give labels.{made}")
    if outputs.ndim != 2 or len(outputs) != len(labels):
        raise ValueError(
            f"the model's outputs have the shape {tuple(outputs.shape)}, and must be logits (B, classes) for the "
            f"{len(labels)} labels of the batch"
        )
    low, high = (int(one) for one in labels.aminmax()) if len(labels) else (0, 0)
    if low < 0 or high >= outputs.shape[1] or outputs.shape[1] < 2:
        raise ValueError(
            f"the model's outputs have the shape {tuple(outputs.shape)}, and the labels go from {low} to {high}: they "
            "must count from 0, and the model needs one output for each class, two at least"
        )


def score_on_test(model: nn.Module, normalisation: str | None = None, source: str = "mnist") -> Score:
    """Score a finished system on the test set. Never choose between systems by this score.

    Args:
        normalisation: as in `loaders.NORMALISATIONS`; a model that `load_model` returned has it in its card.
        source: that of the digits it was trained on (`Digits.source`).

    Raises:
        DataError: the test set's files are not available.
        ValueError: the normalisation is neither given nor in a card.
    """
    digits = load_part(source, train=False)
    device = device_of(model)
    loader = ResidentLoader(digits, 1000, normalisation or normalisation_of(model), device=device)
    logits = predict_logits(model, loader)
    return Score(
        accuracy=accuracy(logits, digits.labels),
        loss=F.cross_entropy(logits, digits.labels).item(),
        predictions="".join("0123456789x"[digit] for digit in logits.argmax(dim=1).tolist()),
        digits=digits,
        logits=logits,
    )


def normalisation_of(model: Any) -> str:
    """Return the name of the normalisation that a saved model was trained with, from its card.

    Raises:
        ValueError: the model has no card, or one without it.
    """
    try:
        return model.card["settings"]["normalisation"]
    except (AttributeError, KeyError, TypeError):
        raise ValueError("this model has no card that tells its normalisation: take one from load_model") from None


@torch.no_grad()
def _forward(model, loader):
    """Return (logits float32 (N, 10), labels int64 (N,)) on the model's device."""
    device = device_of(model)
    logits, labels = [], []
    with evaluation_mode(model):
        for images, targets in loader:
            outputs, targets = model(images.to(device)), targets.to(device)  # (B, 10), (B,)
            if not logits:
                check_outputs(outputs, targets)
            logits.append(outputs.float())
            labels.append(targets)
    if not logits:
        raise ValueError("the loader gave no batch: there is nothing to evaluate")
    return torch.cat(logits), torch.cat(labels)
