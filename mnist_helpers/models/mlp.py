"""Multilayer perceptrons. Images (B, 1, 28, 28) float in, logits (B, 10) out."""

from collections.abc import Sequence

from torch import nn


def network(widths: Sequence[int] = (128, 64), dropout: float = 0.0, batch_norm: bool = False) -> nn.Sequential:
    """Return the plain multilayer perceptron of the source project: linear layers with ReLU between them.

    784-128-64-10 has 784*128+128 + 128*64+64 + 64*10+10 = 109,386 parameters.

    Args:
        widths: neurons in each hidden layer.
        dropout: the share of each hidden layer's outputs that training silences at random (Srivastava et al. 2014).
        batch_norm: bring each hidden neuron's sums to a common scale (Ioffe and Szegedy 2015), 2 parameters a neuron.
    """
    layers: list[nn.Module] = [nn.Flatten()]  # (B, 1, 28, 28) -> (B, 784)
    inputs = 784
    for width in widths:
        layers.append(nn.Linear(inputs, width))  # (B, width)
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU())
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 10))  # (B, 10) logits


def improved_network(widths: Sequence[int] = (128, 64), dropout: float = 0.2, batch_norm: bool = True) -> nn.Sequential:
    """Return `network` with dropout and batch normalisation after each hidden layer: 109,770 parameters."""
    return network(widths, dropout, batch_norm)


def mlp_baseline(width: int = 256, dropout: float = 0.3) -> nn.Sequential:
    """Return the baseline perceptron: two hidden layers of `width`, each with batch normalisation, ReLU and dropout.

    With width 256 it has 784*256+256 + 512 + 256*256+256 + 512 + 256*10+10 = 270,346 parameters.
    """
    return network((width, width), dropout, batch_norm=True)
