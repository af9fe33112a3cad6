"""The network that sees, for each point of a piece of ink, whether one digit ends there and another begins."""

import torch
from torch import nn

from ..models.residual import conv_block


class BoundaryNet(nn.Module):
    """A small U-Net: for each point of a picture (B, 1, 32, W) the logit of lying on a boundary, (B, 32, W).

    W is a multiple of 8. There are `width` channels at full resolution. Each of the three levels below sees twice as
    far as the one above it.

    Source: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation" (2015).
    """

    def __init__(self, width: int = 8):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.down = nn.ModuleList(
            nn.Sequential(*conv_block(inputs, outputs), *(conv_block(outputs, outputs) if inputs > 1 else []))
            for inputs, outputs in zip([1, *widths], widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(*conv_block(below + beside, beside)) for below, beside in zip(widths[1:], widths)
        )
        self.pool, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = [self.down[0](images)]  # (B, 8, 32, W), then (B, 16, 16, W / 2), (B, 32, 8, W / 4), (B, 48, 4, W / 8)
        for level in self.down[1:]:
            maps.append(level(self.pool(maps[-1])))
        found = maps.pop()
        for level in reversed(self.up):
            found = level(torch.cat([self.enlarge(found), maps.pop()], dim=1))
        return self.last(found)[:, 0]
