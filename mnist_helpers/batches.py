"""The batches that training is given: which of them is wrong, and how, in one sentence."""

import warnings

import torch

LOWEST, HIGHEST = -1.5, 350  # of pixels, whichever normalisation, and brightened ones


class BatchError(ValueError):
    """A batch that the network cannot be trained on. `history` holds the epochs finished before."""

    history = None


class Watched:
    """A loader's batches, of which the last is remembered. With `look`, the first one's pixels are looked at."""

    def __init__(self, loader, look=False, validation=False):
        self.loader, self.look, self.validation, self.number, self.batch = loader, look, validation, 0, None

    def __iter__(self):
        for batch in self.loader:
            self.number, self.batch = self.number + 1, batch
            if self.look and self.number == 1:
                warn_of_odd_pixels(batch[0])
            yield batch

    def fault(self, error, model):
        """Return in one sentence what is wrong with the last batch, on which `model` failed with this error."""
        where = "in validation" if self.validation else f"batch {self.number}"  # there, labels are counted at the end
        return f"{where}: {fault(error, model, *self.batch)}"


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


def fault(error, model, images, labels):
    """Return in one sentence what is wrong with a batch on which `model`, or the loss after it, failed."""
    weights = next(model.parameters())
    if "more than 1 value per channel" in str(error):
        return (
            "it has a single image, and batch normalisation needs two: choose a batch size that leaves no remainder "
            "of one"
        )
    if images.dtype != weights.dtype:
        return f"its images are {_name(images.dtype)}, and the network's weights {_name(weights.dtype)}: convert them"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        return f"its labels are {_name(labels.dtype)} {tuple(labels.shape)}, and must be int64 ({len(images)},)"
    if "out of bounds" in str(error):
        return f"a label is none of 0 to 9: {str(error).splitlines()[0]}"
    return f"the network does not take its images {tuple(images.shape)}: {str(error).splitlines()[0]}"


def _name(dtype):
    return str(dtype).removeprefix("torch.")
