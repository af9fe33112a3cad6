"""Bring any single digit picture into MNIST's form."""

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

BOX, SIDE = 20, 28  # pixels


def to_mnist_form(picture: ArrayLike) -> np.ndarray:
    """Return one digit as MNIST would hold it: fitted into a 20x20 box, centred by its centre of mass in 28x28.

    Args:
        picture: array (H, W) of any real dtype, one digit; the background is its minimum, and ink is larger.

    Returns:
        uint8 array (28, 28), background 0, darkest ink 255. An empty picture gives an empty one.

    Raises:
        ValueError: the picture is not two-dimensional, or holds values that are not finite.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998): size normalised into a
    20x20 box with the aspect ratio kept, anti-aliased, then the centre of mass moved to the centre of the field.
    """
    ink = np.asarray(picture, dtype=np.float32)
    if ink.ndim != 2 or not np.isfinite(ink).all():
        raise ValueError(f"one digit must be a finite array of shape (H, W), not {ink.shape}")
    form = np.zeros((SIDE, SIDE), dtype=np.uint8)
    if ink.size == 0 or ink.min() == ink.max():
        return form
    ink = ink - ink.min()
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


def _place(mass: np.ndarray, length: int) -> int:
    """Return where a side of `length` pixels starts so that its centre of mass lies on pixel 14."""
    centre = np.average(np.arange(length), weights=mass)
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - length))
