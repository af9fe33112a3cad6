"""Initial weights other than PyTorch's own."""

import torch
from torch import nn


@torch.no_grad()
def normal_initialisation(model: nn.Module) -> None:
    """Draw each linear layer's weights from N(0, 1 / sqrt(n)), n its number of inputs, and set its biases to 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def glorot_initialisation(model: nn.Module) -> None:
    """Draw all weights evenly from Glorot and Bengio's range (2010) and set biases to 0, as Keras does by default."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
