"""Where one piece of ink is to be cut into digits that touch: what a small network sees, and paths along it."""

import functools
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from ..environment import seeded
from ..models.saved import load_model
from .boundary import BoundaryNet
from .segmentation import Part, trimmed

WEIGHTS = Path(__file__).with_name("touching.pth")  # of the network that `learn.touching` trains
HEIGHT = 32  # pixels, to which a piece of ink is scaled for the network
MIN_CHANCE = 0.1  # of a cut that is tried
MAX_CUTS = 20  # in one piece
MIN_DISTANCE = 4  # between two cuts, in columns of the scaled piece
MIN_WIDTH = 0.35  # of a piece that is cut, × its height


@functools.cache
def boundary_network() -> nn.Module:
    """Return the trained network that sees boundaries, on the CPU; it is loaded once."""
    with seeded(0):  # whatever it begins with is replaced
        network = BoundaryNet().to(memory_format=torch.channels_last)
    return load_model(WEIGHTS, "cpu", model=network)


def cut(part: Part, tall: float, model: nn.Module) -> tuple[list[Part], list[float]]:
    """Return (parts from left to right, chances) of a part cut wherever two digits may touch.

    The chances, float (number of parts - 1,), say how likely each cut is right.

    Args:
        part: a `segmentation.Part`.
        tall: the usual height of a digit around it.
        model: as `boundary_network` returns it.

    Source: more cuts than are needed, among which a recogniser decides: LeCun, Bottou, Bengio and Haffner,
    "Gradient-based learning applied to document recognition" (1998), section V.
    """
    if part.width < MIN_WIDTH * part.height or part.height < 0.4 * tall or part.height < 5:
        return [part], []
    seams = find_seams(part.mask, model)
    columns = np.arange(part.width)
    edges = [np.zeros(part.height), *(path for path, _ in seams), np.full(part.height, part.width)]
    pieces, chances = [], []
    for left, right, chance in zip(edges, edges[1:], [np.nan, *(chance for _, chance in seams)]):
        inside = part.mask & (columns >= left[:, None]) & (columns < right[:, None])
        if inside.any():
            pieces.append(trimmed(part.left, part.top, inside, part.source))
            chances.append(chance)
    return pieces, chances[1:]


def scaled(mask: np.ndarray) -> np.ndarray:
    """Return a mask, bool (H, W), scaled to a height of 32: float32 (32, w), the share of ink in each point."""
    width = max(1, round(mask.shape[1] * HEIGHT / mask.shape[0]))
    return cv2.resize(mask.astype(np.float32), (width, HEIGHT), interpolation=cv2.INTER_AREA)


@torch.no_grad()
def find_seams(mask: np.ndarray, model: nn.Module) -> list[tuple[np.ndarray, float]]:
    """Return [(path, chance)] of the likely cuts of a mask, bool (H, W), from left to right.

    A path is the column of the cut in each row, float (H,); its chance is the mean of the network's along it.
    """
    ink = scaled(mask)
    padded = np.pad(ink, ((0, 0), (8, 8 + -ink.shape[1] % 8)))
    chances = model(torch.from_numpy(padded)[None, None])[0].sigmoid().numpy()[:, 8 : 8 + ink.shape[1]]
    rows, found = np.arange(HEIGHT), []
    for _ in range(MAX_CUTS):
        path = _likeliest_path(chances)
        chance = chances[rows, path].mean()
        if chance < MIN_CHANCE:
            break
        found.append((path, chance))
        chances = np.where(np.abs(np.arange(chances.shape[1]) - path[:, None]) < MIN_DISTANCE, 0, chances)
    found.sort(key=lambda one: one[0].mean())
    at = (np.arange(mask.shape[0]) + 0.5) * HEIGHT / mask.shape[0] - 0.5
    scale = mask.shape[1] / ink.shape[1]
    return [((np.interp(at, rows, path) + 0.5) * scale, float(chance)) for path, chance in found]


def _likeliest_path(chances):
    """Return the column in each row, int (h,), of the path from top to bottom along the greatest sum of chances.

    From row to row it moves by at most two columns.
    """
    total, steps = chances[0], []
    for row in chances[1:]:
        around = np.pad(total, 2, constant_values=-np.inf)
        ways = np.stack([around[shift : shift + len(total)] - 0.02 * abs(shift - 2) for shift in range(5)])
        steps.append(ways.argmax(axis=0) - 2)
        total = ways.max(axis=0) + row
    path = [int(total.argmax())]
    for step in reversed(steps):
        path.append(path[-1] + int(step[path[-1]]))
    return np.array(path[::-1])
