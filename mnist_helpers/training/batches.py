"""The batches that training is given: which of them is wrong, and how, in one sentence."""

import re
import warnings

import torch

LOWEST, HIGHEST = -1.5, 350  # of pixels, whichever normalisation, and brightened ones
# How PyTorch words what a batch of a wrong type, labels or shape provokes
TYPES = re.compile("same dtype|Input type|scalar type")
OUTSIDE = re.compile("Target -?[0-9]+ is out of bounds")
SHAPES = re.compile(
    "shapes cannot be multiplied|channels, but got|input to conv|actual input size|Output size is too small|"
    "D input .got|is invalid for input of size|expected input with shape|running_mean should contain|unflatten"
)


class BatchError(ValueError):
    """A batch that the network cannot be trained on. `history` holds the epochs finished before."""

    history = None


class Watched:
    """A loader's batches, of which the one in work is remembered. With `look`, the first one's pixels are looked at."""

    def __init__(self, loader, look=False, validation=False):
        self.loader, self.look, self.validation, self.number, self.batch = loader, look, validation, 0, None

    def __iter__(self):
        batch = None
        for batch in self.loader:
            self.number, self.batch = self.number + 1, batch
            if self.look and self.number == 1 and isinstance(batch, (tuple, list)):
                warn_of_odd_pixels(batch[0])
            yield batch
            self.batch = None  # until the next one is there, what goes wrong is the loader's
        self.batch = batch

    def fault(self, error, model):
        """Return in one sentence what is wrong with the batch in work, or None where that is not the cause."""
        found = None if self.batch is None else fault(error, model, self.batch)
        where = "in validation" if self.validation else f"batch {self.number}"  # there, labels are counted at the end
        return found and f"{where}: {found}"


def warn_of_odd_pixels(images):
    """Warn where images (B, ...) have pixels that no normalisation here gives, as when it was applied twice."""
    if not torch.is_tensor(images) or not images.is_floating_point() or not images.numel():
        return
    low, high = (one.item() for one in images.aminmax())
    if low < LOWEST or high > HIGHEST:
        warnings.warn(
            f"the first batch has pixels from {low:.3g} to {high:.3g}, which no normalisation here gives: were the "
            "images normalised twice, or not scaled to 0-1 before?",
            stacklevel=2,
        )


def fault(error, model, batch):
    """Return in one sentence what is wrong with a batch on which `model`, or the loss after it, failed.

    Return None unless the error is one of those that a wrong batch is known to provoke: others speak for themselves.
    """
    try:
        images, labels = batch
    except (TypeError, ValueError):
        images = labels = None
    if not torch.is_tensor(images) or not torch.is_tensor(labels):
        return f"it must be a pair of tensors (images, labels), and is {_kinds(batch)}"
    said = str(error).partition("\n")[0]
    if "more than 1 value per channel" in said:
        return (
            "it has a single image, and batch normalisation needs two: choose a batch size that leaves no remainder "
            "of one"
        )
    weights = next(model.parameters())
    if TYPES.search(said) and images.dtype != weights.dtype:
        return f"its images are {_name(images.dtype)}, and the network's weights {_name(weights.dtype)}: convert them"
    if "target" in said and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
        return f"its labels are {_name(labels.dtype)} {tuple(labels.shape)}, and must be int64 ({len(images)},)"
    if OUTSIDE.search(said):
        return f"a label is none of 0 to 9: {said}"
    if SHAPES.search(said):
        return f"the network does not take its images {tuple(images.shape)}: {said}"
    return None


def _kinds(batch):
    """Return what a batch consists of, in words."""
    kinds = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, (tuple, list)) else ""
    return f"a {type(batch).__name__}{kinds and f' of {kinds}'}"


def _name(dtype):
    return str(dtype).removeprefix("torch.")
