"""Everything on a picture that may be one digit, line by line: more candidates than there are digits."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..data.form import to_mnist_form
from .cuts import boundary_network, cut
from .ink import find_ink, name_of, open_picture
from .ruling import without_ruling
from .segmentation import Part, find_parts, lines_of, skew, stroke_width, turn, union, usual_height

MIN_STROKE_WIDTH = 0.09  # × a digit's size; thinner strokes are thickened to it, since MNIST's are thicker
MAX_WIDTH = 1.7  # of a digit, × the usual height
MAX_GAP = 0.25  # between fragments of one digit, × the usual height
MAX_PARTS = 3000  # pieces of ink on a page; reading time grows with them
MAX_FRAGMENTS = 5  # of one digit
MAX_ATOMS = 8  # smallest pieces in one candidate


@dataclass(frozen=True)
class Lattice:
    """The candidates for digits in one line of writing, which is made of atoms: its smallest pieces, left to right.

    Attributes:
        spans: of each candidate (first, end): it is made of the atoms from `first` up to, not including, `end`.
        parts: the candidates as `segmentation.Part`s.
        forms: uint8 (N, 28, 28), the candidates in MNIST's form.
        chances: float (N,), how likely the cuts at the ends of each are right, and those within it wrong.
        complete: bool (N,), whether each is all of its pieces of ink, and not a part cut out of one.
        sizes: float (N,), the longer side of each in usual heights of a digit, at most 1.
    """

    spans: list[tuple[int, int]]
    parts: list[Part]
    forms: np.ndarray
    chances: np.ndarray
    complete: np.ndarray
    sizes: np.ndarray


def find_candidates(image: Any) -> tuple[list[Lattice], np.ndarray, float]:
    """Return ([`Lattice` of each line, from top to bottom], matrix (2, 3), scale) of a picture.

    The point (x, y) of a part lies at (matrix @ (x, y, 1)) * scale in the picture; see `boxes.boxes_of`.

    Args:
        image: as for `ink.open_picture`, whose ValueError it raises.

    Raises:
        ValueError: there are too many pieces of ink for a page of written digits; a printed page has.
    """
    pixels, scale = open_picture(image)
    ink = find_ink(pixels)
    mask = without_ruling(ink.mask, ink.faint, ink.strength)
    parts = find_parts(mask)
    if len(parts) > MAX_PARTS:
        raise ValueError(
            f"{name_of(image)} has {len(parts):,} separate pieces of ink, too many for written digits: crop it to these"
        )
    strength, mask, back = turn(ink.strength, mask, skew(parts))
    return [_lattice(line, strength, boundary_network()) for line in lines_of(find_parts(mask))], back, scale


def digit_form(strength: np.ndarray, part: Part) -> np.ndarray:
    """Return a part in MNIST's form, uint8 (28, 28), from the ink map, float32 (H, W), that it lies in.

    The soft rim of its strokes comes with it, ink of its neighbours does not, and thin strokes are thickened.
    """
    width, size = stroke_width(part.mask), max(part.mask.shape)
    rim, grow = max(1, round(width / 3)), max(0, round(MIN_STROKE_WIDTH * size - width))
    pad = rim + grow + 1
    mask = np.pad(part.mask, pad).astype(np.uint8)
    left, top = part.left - pad, part.top - pad
    rows = slice(max(0, top), part.top + part.height + pad)
    columns = slice(max(0, left), part.left + part.width + pad)
    around = strength[rows, columns]
    ink: np.ndarray = np.zeros(mask.shape, np.float32)
    ink[rows.start - top :, columns.start - left :][: around.shape[0], : around.shape[1]] = around
    ink *= cv2.dilate(mask, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8))
    ink = (ink / np.percentile(ink[mask > 0], 95)).clip(0, 1)
    ink[ink < 0.08] = 0
    if grow:
        ink = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1)))
    return to_mnist_form(ink)


def _lattice(line, strength, model):
    """Return the `Lattice` of a line of parts."""
    tall = usual_height(line)
    atoms, chances = [], [np.nan]  # of the cut before each atom, and after the last; between pieces of ink is none
    for part in line:
        pieces, between = cut(part, tall, model)
        atoms += pieces
        chances += [*between, np.nan]
    chances = np.array(chances)
    spans = [
        (first, end)
        for first in range(len(atoms))
        for end in range(first + 1, min(first + MAX_ATOMS, len(atoms)) + 1)
        if _may_be_one(atoms[first:end], tall)
    ]
    parts = [union(atoms[first:end]) for first, end in spans]
    forms = np.array([digit_form(strength, part) for part in parts], dtype=np.uint8).reshape(-1, 28, 28)
    ends = np.array([(chances[first], chances[end]) for first, end in spans]).reshape(-1, 2)
    within = np.array([np.nanprod(1 - chances[first + 1 : end]) for first, end in spans])
    right = np.nanprod(np.sqrt(ends), axis=1) * within  # each cut counts half for the digit on either side
    sizes = np.array([max(part.mask.shape) / tall for part in parts]).clip(max=1)
    return Lattice(spans, parts, forms, right, np.isnan(ends).all(axis=1), sizes)


def _may_be_one(group, tall):
    """Tell whether neighbouring atoms may be one digit: of one piece of ink, or fragments that lie close together."""
    sources = dict.fromkeys(atom.source for atom in group)
    right = max(atom.left + atom.width for atom in group)
    if len(group) > 1 and right - min(atom.left for atom in group) > MAX_WIDTH * max(tall, *(a.height for a in group)):
        return False
    if len(sources) == 1:
        return True
    if len(group) > MAX_FRAGMENTS:
        return False
    wholes = [union([atom for atom in group if atom.source == source]) for source in sources]
    return all(_may_belong(one, other, tall) for one, other in zip(wholes, wholes[1:]))


def _may_belong(one, other, tall):
    """Tell whether two pieces of ink may be fragments of one digit: close, and one small or above the other."""
    apart = max(one.left, other.left) - min(one.left + one.width, other.left + other.width)
    above = -apart >= 0.5 * min(one.width, other.width)
    return apart <= MAX_GAP * tall and (above or min(one.height, other.height) <= 0.6 * tall)
