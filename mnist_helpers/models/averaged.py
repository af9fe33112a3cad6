"""Answers averaged over shifts of an image, or over the members of a committee."""

import math

import torch
from torch import nn


class ShiftAveraged(nn.Module):
    """A network that, when it is not training, averages its answers to an image and to shifts of it by a pixel.

    The answers are averaged as logarithms of probabilities, (B, 10). What a shift pushes out at one edge comes in at
    the other: the outermost pixels of digits in MNIST's form are background.

    Args:
        network: images (B, 1, 28, 28) -> logits (B, 10).
        diagonals: average over all eight neighbouring places, an edge's counting twice and the image itself four
            times; else over four of them, the image itself counting twice.
    """

    EDGES = (0, 1), (0, -1), (1, 0), (-1, 0)
    CORNERS = (1, 1), (1, -1), (-1, 1), (-1, -1)

    def __init__(self, network, diagonals=False):
        super().__init__()
        self.network = network
        self.shifts = 2 * ((0, 0),) + self.EDGES
        if diagonals:
            self.shifts = 2 * self.shifts + self.CORNERS

    def forward(self, images):
        """Return logits (B, 10) while training, and else averaged logarithms of probabilities, which serve as such."""
        if self.training:
            return self.network(images)
        answers = {shift: self._answer(images, shift) for shift in dict.fromkeys(self.shifts)}
        return torch.stack([answers[shift] for shift in self.shifts]).mean(dim=0)

    def _answer(self, images, shift):
        return self.network(torch.roll(images, shift, (2, 3))).log_softmax(dim=1)


def committee(logits):
    """Return the logarithms of a committee's probabilities (N, 10), the mean of its members'; they serve as logits.

    `logits` is a list of the members', each (N, 10), for the same images in the same order; at least one.
    """
    logarithms = torch.stack([one.log_softmax(dim=1) for one in logits])  # (members, N, 10)
    return logarithms.logsumexp(dim=0) - math.log(len(logits))


class Committee(nn.Module):
    """Networks that answer together, see `committee`."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images):
        """Return the logarithms of the mean probabilities (B, 10); they serve as logits."""
        return committee([member(images) for member in self.members])
