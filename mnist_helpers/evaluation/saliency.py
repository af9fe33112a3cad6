"""Where a network looks: which pixels its answer depends on."""

import torch
from torch import nn

from ..models import evaluation_mode

SIZE, STRIDE = 6, 2  # pixels, of the squares that are erased; together they cover all 28


def saliency(model: nn.Module, images: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
    """Return how strongly each pixel moves a class's logit: absolute gradients, float (N, 28, 28), at least 0.

    Args:
        model: from images to logits (N, 10); its weights, gradients and mode are left as they are.
        images: float (N, 1, 28, 28), normalised as the model was trained, on its device.
        classes: int64 (N,), whose logits to look at; the model's answers unless given.

    Source: Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks" (2013).
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad(), evaluation_mode(model):
        logits = model(images)  # (N, 10)
        classes = logits.argmax(dim=1) if classes is None else classes
        (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), images)
    return gradients[:, 0].abs()


@torch.no_grad()
def occlusion(model: nn.Module, images: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
    """Return how much of a class's probability is lost when a square of ink is erased: float (N, 28, 28), from -1 to 1.

    Each pixel has the mean over all squares that cover it. It is negative where erasing makes the class likelier.

    Args:
        model: from images to logits (N, 10); its mode is left as it is.
        images: float (N, 1, 28, 28), normalised, on the model's device. An image's least value counts as paper.
        classes: int64 (N,); the model's answers unless given.

    Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014), with grey squares.
    """
    masks = _squares().to(images.device)  # (S, 28, 28)
    with evaluation_mode(model):
        whole = model(images).softmax(dim=1)  # (N, 10)
        classes = whole.argmax(dim=1) if classes is None else classes
        maps = [
            _losses(model, image, masks, whole[number, wanted], wanted)
            for number, (image, wanted) in enumerate(zip(images, classes))
        ]
    return torch.stack(maps)


def _losses(model, image, masks, whole, wanted):
    """Return one image's map (28, 28): the probability `whole` of class `wanted` less what is left of it, averaged."""
    paper = image.min()
    inked = (masks & (image > paper)).any(dim=(1, 2))  # elsewhere there is nothing to erase: the loss is 0
    lost = torch.zeros(len(masks), device=image.device)
    if inked.any():
        erased = torch.where(masks[inked][:, None], paper, image)  # (S, 1, 28, 28)
        lost[inked] = whole - model(erased).softmax(dim=1)[:, wanted]
    return (lost[:, None, None] * masks).sum(dim=0) / masks.sum(dim=0)


def _squares():
    """Return the squares that are erased as bool (S, 28, 28): True inside."""
    starts, places = torch.arange(0, 28 - SIZE + 1, STRIDE), torch.arange(28)
    lines = (places >= starts[:, None]) & (places < starts[:, None] + SIZE)  # (s, 28)
    return (lines[:, None, :, None] & lines[None, :, None, :]).flatten(0, 1)
