"""Random distortions of whole batches, on the device where the batch lies, in one resampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .appearance import vary_appearance


@dataclass(frozen=True)
class Augmentation:
    """How far training images may be distorted; each image gets its own distortion, drawn evenly from the ranges.

    Attributes:
        degrees: rotation, from -degrees to degrees.
        translate: shift in pixels, along each side from -translate to translate.
        scale: enlargement, from 1 - scale to 1 + scale.
        shear: slant along the rows in degrees, from -shear to shear.
        elastic, smoothness: alpha and sigma of the elastic distortion in pixels, see `elastic_field`.
        flip: mirror half of the images left to right. Digits are not symmetric: this is here to be seen hurting.
        brightness: the ink is multiplied by 1 - brightness to 1 + brightness.
        appearance: each image's chance of other ink, of another ground, and of dirt, see `appearance.vary_appearance`;
            for images from 0 to 1.
        undistorted: the share of images that stay as they are.
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    smoothness: float = 4.0
    flip: bool = False
    brightness: float = 0.0
    appearance: float = 0.0
    undistorted: float = 0.0

    def __call__(
        self, images: torch.Tensor, background: float, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return distorted images of the same shape and dtype.

        Args:
            images: float tensor (B, C, H, W).
            background: the value of places outside the image.
            generator: draws everything, on any device; torch's global one unless given.
        """
        if self.undistorted:
            draws = torch.rand(len(images), generator=generator, device=_device(generator)).to(images.device)
            chosen = (draws >= self.undistorted).nonzero()[:, 0]
            return images.index_copy(0, chosen, self._distorted(images[chosen], background, generator))
        return self._distorted(images, background, generator)

    def _distorted(self, images: torch.Tensor, background: float, generator: torch.Generator | None) -> torch.Tensor:
        """Return images all of which are distorted."""
        n = len(images)
        uniform = torch.rand(6, n, generator=generator, device=_device(generator)).to(images.device) * 2 - 1
        matrices = affine_matrices(
            self.degrees * uniform[0],
            self.translate * uniform[1:3].T,
            1 + self.scale * uniform[3],
            self.shear * uniform[4],
        )
        if self.flip:
            matrices[:, :, 0] *= torch.where(uniform[5] < 0, -1.0, 1.0)[:, None]
        field = None
        if self.elastic:
            field = elastic_field(n, images.shape[-2:], self.elastic, self.smoothness, generator).to(images.device)
        images = warp(images, matrices, field, background)
        if self.brightness:  # drawn last, so that the other distortions are the same with it and without
            draws = torch.rand(n, 1, 1, 1, generator=generator, device=_device(generator)).to(images.device)
            images = background + (images - background) * (1 + self.brightness * (2 * draws - 1))
        if self.appearance:
            images = vary_appearance(images, self.appearance, generator or torch.default_generator)
        return images


def affine_matrices(
    degrees: torch.Tensor, shifts: torch.Tensor, scales: torch.Tensor, shears: torch.Tensor
) -> torch.Tensor:
    """Return the maps from output to input places, in pixels from the centre: float (B, 2, 3).

    Args:
        degrees: clockwise rotation, (B,).
        shifts: to the right and down in pixels, (B, 2).
        scales: enlargement, (B,).
        shears: slant along the rows in degrees, (B,).
    """
    angle, slant = torch.deg2rad(degrees), torch.deg2rad(shears).tan()
    cos, sin = angle.cos(), angle.sin()
    # The inverse of rotation @ shear, over the scale; the signs are torchvision's
    rows = [cos - sin * slant, sin + cos * slant, -sin, cos]
    linear = torch.stack(rows, dim=1).view(-1, 2, 2) / scales[:, None, None]
    return torch.cat([linear, -linear @ shifts[:, :, None]], dim=2)


def elastic_field(
    n: int, size: Sequence[int], alpha: float, sigma: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Return n smooth random displacement fields in pixels: float (n, H, W, 2), the last axis being (right, down).

    Noise drawn evenly from -1 to 1 for each pixel is smoothed with a Gaussian of `sigma` pixels and multiplied by
    `alpha` (Simard, Steinkraus and Platt, "Best practices for convolutional neural networks", 2003).
    """
    noise = torch.rand(n, 2, *size, generator=generator, device=_device(generator)) * 2 - 1
    down, right = (_smoothing(side, sigma).to(noise.device) for side in size)
    return (alpha * down @ noise @ right.T).permute(0, 2, 3, 1)  # two small matrix products an image


def _smoothing(side: int, sigma: float) -> torch.Tensor:
    """Return the matrix (side, side) that smooths a line of pixels with a Gaussian, reflected at its ends."""
    reach = min(math.ceil(3 * sigma), side - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    lines = F.pad(torch.eye(side)[:, None], (reach, reach), mode="reflect")  # (side, 1, side + 2 reach)
    return F.conv1d(lines, (kernel / kernel.sum()).view(1, 1, -1))[:, 0].T


def warp(
    images: torch.Tensor, matrices: torch.Tensor, field: torch.Tensor | None = None, background: float = 0.0
) -> torch.Tensor:
    """Return images (B, C, H, W) sampled once, bilinearly, at the places that the maps and the field give.

    Places outside the image have the value `background`, so there is no border of another grey.
    """
    height, width = images.shape[-2:]
    places = [torch.arange(side, device=images.device) + (1 - side) / 2 for side in (width, height)]  # from the centre
    half = torch.tensor([width / 2, height / 2], device=images.device)
    matrices = (matrices / half[:, None]).to(images.dtype)  # to grid_sample's coordinates, from -1 to 1
    along = matrices[:, :, :1] * places[0]  # (B, 2, W)
    across = matrices[:, :, 1:2] * places[1] + matrices[:, :, 2:]  # (B, 2, H)
    grid = (along[:, :, None, :] + across[:, :, :, None]).permute(0, 2, 3, 1)  # (B, H, W, 2)
    if field is not None:
        grid = grid + field / half
    if not background:
        return F.grid_sample(images, grid, align_corners=False)
    return F.grid_sample(images - background, grid, align_corners=False).add_(background)


def _device(generator: torch.Generator | None) -> torch.device | None:
    return generator.device if generator is not None else None
