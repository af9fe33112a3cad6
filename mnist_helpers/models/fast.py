"""Networks made for speed. Images (B, 1, 28, 28) float in, logits (B, 10) out."""

from collections.abc import Sequence

import torch
from torch import nn


class FirstConv(nn.Conv2d):
    """A convolution of a single channel, always computed in float32.

    With one input channel there is little to multiply, and CPUs are several times slower at it in bfloat16.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the feature maps in the precision of the surrounding autocast."""
        device = images.device.type
        with torch.autocast(device, enabled=False):
            maps = super().forward(images)
        return maps.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else maps


def fast_cnn(
    widths: Sequence[int] = (16, 32, 32),
    pool_after: int = 0,
    dropout: float = 0.0,
    depthwise_head: bool = False,
    classes: int = 10,
) -> nn.Sequential:
    """Return a network made for speed: maps shrink early, and are pooled before they are activated.

    The first convolution takes every second place; maps are 12x12, then 6x6, at the end 3x3. Where the factors of
    batch normalisation are positive, pooling before it and the activation gives what pooling after them does, for a
    quarter of the work.

    Args:
        widths: channels of the first convolution (6x6), and of each 3x3 convolution after it.
        pool_after: the convolution (0 is the first) after which maps are pooled to 6x6; after the last, to 3x3.
        dropout: the share of the last layer's inputs that training silences at random.
        depthwise_head: weight the places of each channel's 3x3 map by a 3x3 filter of its own, instead of giving all
            of them to the last layer: far fewer parameters.
        classes: logits; an eleventh is for what is no digit.
    """
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(zip((1, *widths), widths)):
        if place == 0:
            layers.append(FirstConv(1, outputs, 6, stride=2, bias=False))  # (B, 16, 12, 12)
        else:
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        if place in (pool_after, len(widths) - 1):
            layers.append(nn.MaxPool2d(2))  # (B, 16, 6, 6), at last (B, 32, 3, 3)
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    features = 9 * widths[-1]
    if depthwise_head:
        features = widths[-1]
        layers += [nn.Conv2d(features, features, 3, groups=features, bias=False), nn.BatchNorm2d(features)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, classes))  # (B, 10) logits
