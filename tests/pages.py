"""Drawings and pages of digits written by the scripted hand, for the tests of the reader."""

import numpy as np
import torch

from mnist_helpers.data.form import to_mnist_form
from mnist_helpers.data.strokes import draw, write
from mnist_helpers.handwriting.learn.pages import compose_page

DIGITS = [3, 0, 7, 2, 5, 9, 4, 8]


def drawing(digit, width=26, seed=None, side=280):
    """Return a digit as drawn with a round pen: uint8 (side, side), ink 255 on 0."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return draw(write(digit, generator), side, width / side).copy()


def written(digits=DIGITS, **options):
    """Return a `Page` with these digits in lines of four."""
    forms = [to_mnist_form(drawing(digit, seed=10 + place)) for place, digit in enumerate(digits)]
    return compose_page(np.array(forms), digits, **{"columns": 4, **options})
