"""Answers averaged over shifts of an image, or over the members of a committee."""

import math

import torch
from torch import nn


class ShiftAveraged(nn.Module):
    """A network that, when it is not training, averages its answers to an image and to four shifts of it by a pixel.

    The image itself counts twice. The answers are averaged as logarithms of probabilities, (B, 10). What a shift pushes
    out at one edge comes in at the other: the outermost pixels of digits in MNIST's form are background.
    """

    SHIFTS = (0, 0), (0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        """Return logits (B, 10) while training, and else averaged logarithms of probabilities, which serve as such."""
        if self.training:
            return self.network(images)
        views = [torch.roll(images, shift, (2, 3)) for shift in self.SHIFTS]
        return torch.stack([self.network(view).log_softmax(dim=1) for view in views]).mean(dim=0)


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
