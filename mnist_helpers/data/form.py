"""Bring any single digit picture into MNIST's form."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

BOX, SIDE = 20, 28  # pixels
MAX_BORDER = 0.6  # mean of a picture's border, × its brightest pixel, that may be ink on 0


def to_mnist_form(picture: ArrayLike) -> np.ndarray:
    """Return one digit as MNIST would hold it: fitted into a 20x20 box, centred by its centre of mass in 28x28.

    Args:
        picture: array (H, W) of any real dtype, or PIL image, one digit; the background is its minimum, and ink is
            larger. A bright border, such as white paper has, is a warning.

    Returns:
        uint8 array (28, 28), background 0, darkest ink 255. An empty picture gives an empty one.

    Raises:
        ValueError: the picture is not two-dimensional, holds values that are not finite, or has transparent parts.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998): size normalised into a
    20x20 box with the aspect ratio kept, anti-aliased, then the centre of mass moved to the centre of the field.
    """
    ink = np.asarray(grey_of(picture), dtype=np.float32)
    if ink.ndim != 2 or not np.isfinite(ink).all():
        raise ValueError(f"one digit must be a finite array of shape (H, W), not {ink.shape}")
    form = np.zeros((SIDE, SIDE), dtype=np.uint8)
    if ink.size == 0 or ink.min() == ink.max():
        return form
    ink = ink - ink.min()
    warn_of_bright_borders(ink[None])
    ink *= 255 / ink.max()
    rows, columns = np.nonzero(ink.max(axis=1) >= 1)[0], np.nonzero(ink.max(axis=0) >= 1)[0]
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if max(ink.shape) != BOX:
        scale = BOX / max(ink.shape)
        size = [max(1, round(side * scale)) for side in reversed(ink.shape)]  # (width, height)
        ink = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)).clip(0, None)
        ink = ink * (255 / ink.max())
    top, left = (_place(ink.sum(axis=1 - axis), ink.shape[axis]) for axis in (0, 1))
    form[top : top + ink.shape[0], left : left + ink.shape[1]] = np.round(ink)
    return form


def grey_of(picture: Any) -> Any:
    """Return a PIL image's grey values, uint8 (H, W), as its EXIF data turn it; with more than 8 bits, its numbers.

    Anything else is returned as it is. `np.asarray` alone would give a palette's indices.

    Raises:
        ValueError: the image has transparent parts, so nobody knows whether its paper is dark or light.
    """
    if not isinstance(picture, Image.Image):
        return picture
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data and picture.convert("RGBA").getextrema()[3] != (255, 255):
        raise ValueError("the picture has transparent parts: put it on black paper, or use handwriting.read_digits")
    return np.asarray(picture if picture.mode.startswith(("I", "F")) else picture.convert("L"))


def warn_of_bright_borders(images: np.ndarray) -> None:
    """Warn of images (N, H, W) that look like ink on bright paper: paper is 0 here, and ink is bright."""
    border = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    n = int((np.concatenate(border, axis=1).mean(axis=1) > MAX_BORDER * images.max(axis=(1, 2))).sum())
    if n:
        which = "the picture has" if len(images) == 1 else f"{n:,} of {len(images):,} pictures have"
        warnings.warn(
            f"{which} a bright border, like ink on light paper, but ink must be bright and paper 0: "
            "invert it (255 - picture), or use handwriting.read_digits.",
            stacklevel=3,
        )


def _place(mass: np.ndarray, length: int) -> int:
    """Return where a side of `length` pixels starts so that its centre of mass lies on pixel 14."""
    centre = np.average(np.arange(length), weights=mass)
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - length))
