"""Networks with connections past their layers. Images (B, 1, 28, 28) float in, logits (B, 10) out."""

import torch
from torch import nn


class Residual(nn.Module):
    """Two 3x3 convolutions whose result is added to their input (He, Zhang, Ren and Sun 2016), or to its projection."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.change = nn.Sequential(*conv_block(inputs, outputs, stride), *conv_block(outputs, outputs)[:-1])
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        return torch.relu(self.change(images) + self.shortcut(images))


def resnet_small(width: int = 16, outputs: int = 10) -> nn.Sequential:
    """Return a small residual network: three stages of `width`, 2 and 4 times as many channels; `outputs` logits."""
    return nn.Sequential(
        *conv_block(1, width),  # (B, 16, 28, 28)
        nn.MaxPool2d(2),  # (B, 16, 14, 14)
        Residual(width, width),
        Residual(width, 2 * width, stride=2),  # (B, 32, 7, 7)
        Residual(2 * width, 4 * width, stride=2),  # (B, 64, 4, 4)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),  # (B, 64)
        nn.Linear(4 * width, outputs),  # (B, 10) logits
    )


class Dense(nn.Module):
    """Convolutions that each see everything before them, concatenated (Huang, Liu, van der Maaten, Weinberger 2017)."""

    def __init__(self, inputs: int, growth: int, n_layers: int):
        super().__init__()
        blocks = [conv_block(inputs + layer * growth, growth) for layer in range(n_layers)]
        self.layers = nn.ModuleList(nn.Sequential(*block) for block in blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, inputs + n_layers * growth, H, W)."""
        for layer in self.layers:
            images = torch.cat([images, layer(images)], dim=1)
        return images


def densenet_small(growth: int = 12) -> nn.Sequential:
    """Return a small densely connected network: two dense blocks with a pooling transition between them."""
    first = 2 * growth + 4 * growth
    second = first // 2 + 4 * growth
    return nn.Sequential(
        *conv_block(1, 2 * growth),  # (B, 24, 28, 28)
        nn.MaxPool2d(2),  # (B, 24, 14, 14)
        Dense(2 * growth, growth, 4),  # (B, 72, 14, 14)
        nn.Conv2d(first, first // 2, 1, bias=False),  # (B, 36, 14, 14)
        nn.BatchNorm2d(first // 2),
        nn.ReLU(),
        nn.AvgPool2d(2),  # (B, 36, 7, 7)
        Dense(first // 2, growth, 4),  # (B, 84, 7, 7)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),  # (B, 84)
        nn.Linear(second, 10),  # (B, 10) logits
    )


def conv_block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """Return a 3x3 convolution, batch normalisation and ReLU; the normalisation makes a bias superfluous."""
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
