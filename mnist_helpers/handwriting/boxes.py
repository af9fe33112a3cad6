"""Boxes around digits: of parts of a picture, and which of two sets of boxes belong together."""

import numpy as np
from numpy.typing import ArrayLike

from .segmentation import Part


def boxes_of(parts: list[Part], matrix: np.ndarray, scale: float) -> np.ndarray:
    """Return the boxes of parts in the picture, int64 (N, 4); matrix and scale as `find_candidates` returns them."""
    boxes = []
    for part in parts:
        y, x = np.nonzero(part.mask)
        points = np.stack([x + part.left, y + part.top], axis=1)
        seen = np.concatenate([points, points + 1]) @ matrix[:, :2].T + matrix[:, 2]
        boxes.append([*np.floor(seen.min(axis=0) * scale), *np.ceil(seen.max(axis=0) * scale)])
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def overlaps(boxes: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Return the area that boxes (N, 4) share with others (M, 4), over the area that both cover: float (N, M)."""
    first, second = np.asarray(boxes, dtype=float), np.asarray(others, dtype=float)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas = [(part[:, 2:] - part[:, :2]).prod(axis=1) for part in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def match_boxes(written: ArrayLike, read: ArrayLike) -> np.ndarray:
    """Return for each written box (N, 4) the number of the read box (M, 4) that belongs to it, or -1: int64 (N,).

    The pairs that share most, by `overlaps`, are matched first, each box once, and none that shares less than half.
    """
    shares = overlaps(written, read)
    matches = np.full(len(shares), -1)
    for place in np.argsort(-shares, axis=None, kind="stable"):
        one, other = np.unravel_index(place, shares.shape)
        if shares[one, other] < 0.5:
            break
        if matches[one] < 0 and other not in matches:
            matches[one] = other
    return matches
