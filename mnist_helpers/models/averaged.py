"""Answers averaged over shifts of an image, or over the members of a committee."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn


class ShiftAveraged(nn.Module):
    """A network that, when it is not training, averages its answers to an image and to shifts of it by a pixel.

    The answers are averaged as logarithms of probabilities, (B, 10). Pixels that leave at one edge return at the other,
    which does no harm: the outermost pixels of digits in MNIST's form are background.

    Args:
        network: images (B, 1, 28, 28) -> logits (B, 10).
        diagonals: average over shifts in eight directions. The image itself then has weight 4, a shift along a row or
            column weight 2, and a diagonal one weight 1. Without: four directions of weight 1, the image of weight 2.
    """

    EDGES = (0, 1), (0, -1), (1, 0), (-1, 0)
    CORNERS = (1, 1), (1, -1), (-1, 1), (-1, -1)

    def __init__(self, network: nn.Module, diagonals: bool = False):
        super().__init__()
        self.network = network
        self.shifts: tuple[tuple[int, int], ...] = 2 * ((0, 0),) + self.EDGES
        if diagonals:
            self.shifts = 2 * self.shifts + self.CORNERS

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 10) in training, otherwise averaged logarithms of probabilities, which serve as logits."""
        if self.training:
            return self.network(images)
        answers = {shift: self._answer(images, shift) for shift in dict.fromkeys(self.shifts)}
        return torch.stack([answers[shift] for shift in self.shifts]).mean(dim=0)

    def _answer(self, images: torch.Tensor, shift: tuple[int, int]) -> torch.Tensor:
        return self.network(torch.roll(images, shift, (2, 3))).log_softmax(dim=1)


def committee(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the logarithms of a committee's probabilities (N, 10), the mean of its members'; they serve as logits.

    `logits` is a list of the members', each (N, 10), for the same images in the same order; at least one.
    """
    logarithms = torch.stack([one.log_softmax(dim=1) for one in logits])  # (members, N, 10)
    return logarithms.logsumexp(dim=0) - math.log(len(logits))


class Committee(nn.Module):
    """Networks that answer together, see `committee`."""

    def __init__(self, members: Iterable[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        if not len(self.members):
            raise ValueError("a committee has at least one member")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logarithms of the mean probabilities (B, 10); they serve as logits."""
        return committee([member(images) for member in self.members])
