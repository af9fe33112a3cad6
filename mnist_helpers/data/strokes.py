"""Digits as strokes of a pen: drawing strokes into pictures, and a scripted hand that writes the ten digits."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from .form import to_mnist_form

SIDE = 224  # pixels of a drawing: eight times MNIST's
PEN = 0.085  # width / side; a digit that fills two thirds of the pad then has strokes as broad as MNIST's
Stroke = Sequence[Sequence[float]]  # points (x, y) from 0 (left, top) to 1
TURN = 8.0  # degrees
WOBBLE = 0.015  # standard deviation of each point's place / side

# A European hand: the 1 has a long upstroke, the 7 a bar, the 4 is open and the 9 ends in a straight line.
HAND = {
    0: [
        [(0.55, 0.2), (0.36, 0.26), (0.29, 0.5), (0.36, 0.76), (0.5, 0.82)]
        + [(0.65, 0.74), (0.7, 0.5), (0.64, 0.26), (0.52, 0.2)]
    ],
    1: [[(0.27, 0.5), (0.42, 0.36), (0.56, 0.18), (0.55, 0.5), (0.54, 0.82)]],
    2: [[(0.32, 0.33), (0.42, 0.2), (0.58, 0.2), (0.66, 0.34), (0.58, 0.52), (0.42, 0.68), (0.3, 0.8), (0.72, 0.79)]],
    3: [[(0.34, 0.22), (0.55, 0.19), (0.64, 0.32), (0.45, 0.47), (0.65, 0.6), (0.6, 0.77), (0.42, 0.83), (0.31, 0.75)]],
    4: [[(0.42, 0.2), (0.3, 0.55), (0.73, 0.56)], [(0.61, 0.38), (0.57, 0.84)]],
    5: [[(0.4, 0.2), (0.37, 0.48), (0.56, 0.45), (0.68, 0.6), (0.58, 0.78), (0.36, 0.8)], [(0.4, 0.2), (0.68, 0.19)]],
    6: [[(0.6, 0.18), (0.42, 0.34), (0.34, 0.6), (0.42, 0.79), (0.58, 0.78), (0.64, 0.64), (0.52, 0.54), (0.37, 0.63)]],
    7: [[(0.3, 0.22), (0.7, 0.21), (0.56, 0.5), (0.44, 0.84)], [(0.36, 0.54), (0.66, 0.5)]],
    8: [
        [(0.6, 0.26), (0.45, 0.2), (0.36, 0.32), (0.5, 0.47), (0.63, 0.64), (0.55, 0.8)]
        + [(0.4, 0.76), (0.38, 0.62), (0.52, 0.46), (0.63, 0.34), (0.6, 0.26)]
    ],
    9: [[(0.64, 0.32), (0.5, 0.2), (0.36, 0.32), (0.42, 0.48), (0.56, 0.46), (0.64, 0.32), (0.62, 0.56), (0.58, 0.84)]],
}


# Further shapes of the ten digits, those among them that MNIST's writers rarely make
SHAPES: dict[int, list[list[list[tuple[float, float]]]]] = {
    0: [
        [[(0.5, 0.18), (0.3, 0.3), (0.28, 0.66), (0.48, 0.82), (0.68, 0.68), (0.7, 0.34), (0.5, 0.18)]],
        [[(0.5, 0.18), (0.3, 0.34), (0.3, 0.66), (0.5, 0.82), (0.7, 0.66), (0.7, 0.34), (0.5, 0.18)]]  # slashed
        + [[(0.68, 0.2), (0.32, 0.8)]],
        [[(0.5, 0.18), (0.4, 0.34), (0.4, 0.66), (0.5, 0.82), (0.6, 0.66), (0.6, 0.34), (0.5, 0.18)]],  # narrow
        [[(0.62, 0.26), (0.48, 0.2), (0.3, 0.4), (0.34, 0.74), (0.56, 0.82), (0.7, 0.56), (0.6, 0.24)]]  # a loop on top
        + [[(0.6, 0.24), (0.5, 0.22), (0.44, 0.3), (0.56, 0.34), (0.66, 0.24)]],
    ],
    1: [
        [[(0.5, 0.18), (0.5, 0.5), (0.5, 0.82)]],
        [
            [(0.4, 0.32), (0.46, 0.26), (0.53, 0.18)],
            [(0.53, 0.18), (0.53, 0.5), (0.53, 0.82)],
            [(0.36, 0.82), (0.7, 0.82)],
        ],
        [[(0.26, 0.5), (0.4, 0.36), (0.56, 0.18)], [(0.56, 0.18), (0.56, 0.5), (0.56, 0.82)]],
        [[(0.26, 0.48), (0.4, 0.34), (0.56, 0.18)], [(0.56, 0.18), (0.56, 0.82)], [(0.34, 0.82), (0.76, 0.81)]],
        [[(0.42, 0.28), (0.52, 0.18)], [(0.52, 0.18), (0.52, 0.82)]],
        [[(0.5, 0.2), (0.5, 0.8)], [(0.38, 0.8), (0.62, 0.8)], [(0.38, 0.24), (0.5, 0.2)]],
    ],
    2: [
        [
            [
                (0.32, 0.34),
                (0.4, 0.2),
                (0.6, 0.2),
                (0.66, 0.36),
                (0.54, 0.58),
                (0.38, 0.76),
                (0.3, 0.8),
                (0.3, 0.7),
            ]  # looped
            + [(0.4, 0.68), (0.54, 0.78), (0.72, 0.8)]
        ],
        [[(0.32, 0.3), (0.48, 0.18), (0.64, 0.3), (0.56, 0.54), (0.32, 0.8)], [(0.32, 0.8), (0.7, 0.8)]],
        [[(0.32, 0.22), (0.66, 0.22)], [(0.66, 0.22), (0.32, 0.8)], [(0.32, 0.8), (0.7, 0.8)]],  # angular
        [[(0.34, 0.3), (0.48, 0.2), (0.6, 0.32), (0.46, 0.6), (0.3, 0.78), (0.42, 0.74), (0.6, 0.82), (0.86, 0.76)]],
    ],
    3: [
        [
            [(0.34, 0.24), (0.56, 0.2), (0.62, 0.36), (0.46, 0.48)],
            [(0.46, 0.48), (0.66, 0.58), (0.6, 0.8), (0.34, 0.78)],
        ],
        [
            [(0.34, 0.2), (0.66, 0.2)],
            [(0.66, 0.2), (0.46, 0.44)],
            [(0.46, 0.44), (0.66, 0.54), (0.62, 0.78), (0.34, 0.8)],
        ],
        [
            [(0.34, 0.28), (0.5, 0.18), (0.64, 0.3), (0.52, 0.46), (0.44, 0.5), (0.54, 0.48), (0.68, 0.64), (0.5, 0.82)]
            + [(0.32, 0.72)]
        ],
    ],
    4: [
        [[(0.6, 0.84), (0.6, 0.5), (0.6, 0.18)], [(0.6, 0.18), (0.28, 0.62)], [(0.28, 0.62), (0.76, 0.62)]],  # closed
        [
            [(0.36, 0.2), (0.34, 0.52)],
            [(0.34, 0.52), (0.68, 0.5)],
            [(0.66, 0.2), (0.65, 0.5), (0.63, 0.84)],
        ],  # open, upright
        [[(0.46, 0.18), (0.3, 0.56)], [(0.3, 0.56), (0.72, 0.52)], [(0.58, 0.4), (0.5, 0.86)]],  # like an N
        [
            [(0.34, 0.2), (0.32, 0.4), (0.42, 0.52), (0.62, 0.44), (0.66, 0.2)],
            [(0.66, 0.2), (0.66, 0.5), (0.64, 0.84)],
        ],  # like a y
        [[(0.56, 0.18), (0.3, 0.58)], [(0.3, 0.58), (0.7, 0.58)], [(0.56, 0.18), (0.56, 0.84)]],
        [[(0.5, 0.18), (0.28, 0.6)], [(0.28, 0.6), (0.74, 0.6)], [(0.58, 0.46), (0.58, 0.84)]],
    ],
    5: [
        [
            [(0.66, 0.2), (0.4, 0.2)],
            [(0.4, 0.2), (0.38, 0.46)],
            [(0.38, 0.46), (0.56, 0.42), (0.68, 0.58), (0.6, 0.78), (0.34, 0.8)],
        ],
        [
            [(0.68, 0.18), (0.44, 0.24), (0.36, 0.44), (0.56, 0.48), (0.64, 0.64), (0.52, 0.8), (0.32, 0.78)]
        ],  # one stroke
        [
            [(0.4, 0.24), (0.38, 0.48), (0.56, 0.46), (0.66, 0.62), (0.54, 0.8), (0.34, 0.76)],
            [(0.44, 0.2), (0.74, 0.16)],
        ],
    ],
    6: [
        [
            [
                (0.64, 0.2),
                (0.44, 0.28),
                (0.34, 0.54),
                (0.38, 0.76),
                (0.56, 0.82),
                (0.66, 0.66),
                (0.54, 0.52),
                (0.38, 0.6),
            ]
        ],
        [
            [
                (0.56, 0.16),
                (0.4, 0.44),
                (0.36, 0.66),
                (0.48, 0.82),
                (0.62, 0.74),
                (0.6, 0.58),
                (0.46, 0.56),
                (0.36, 0.68),
            ]
        ],
        [
            [(0.4, 0.16), (0.36, 0.5), (0.36, 0.72), (0.5, 0.82), (0.64, 0.72), (0.6, 0.58), (0.36, 0.62)]
        ],  # straight back
        [
            [
                (0.62, 0.18),
                (0.4, 0.3),
                (0.32, 0.62),
                (0.46, 0.82),
                (0.64, 0.74),
                (0.62, 0.6),
                (0.46, 0.62),
                (0.42, 0.74),
            ]
        ],  # one curl
    ],
    7: [
        [[(0.3, 0.2), (0.7, 0.2)], [(0.7, 0.2), (0.54, 0.5), (0.46, 0.84)]],
        [[(0.3, 0.2), (0.7, 0.2)], [(0.7, 0.2), (0.46, 0.84)], [(0.36, 0.52), (0.72, 0.52)]],
        [[(0.28, 0.32), (0.3, 0.2)], [(0.3, 0.2), (0.7, 0.2)], [(0.7, 0.2), (0.5, 0.54), (0.44, 0.84)]],
        [[(0.28, 0.32), (0.3, 0.2)], [(0.3, 0.2), (0.7, 0.2)], [(0.7, 0.2), (0.46, 0.84)], [(0.34, 0.54), (0.7, 0.48)]],
        [[(0.3, 0.26), (0.42, 0.18), (0.56, 0.24), (0.7, 0.18)], [(0.7, 0.18), (0.54, 0.52), (0.46, 0.84)]],
    ],
    8: [
        [[(0.5, 0.18), (0.36, 0.28), (0.42, 0.44), (0.58, 0.44), (0.64, 0.28), (0.5, 0.18)]]  # two rings
        + [[(0.5, 0.46), (0.34, 0.6), (0.38, 0.78), (0.6, 0.8), (0.68, 0.62), (0.5, 0.46)]],
        [
            [
                (0.64, 0.22),
                (0.46, 0.18),
                (0.38, 0.34),
                (0.62, 0.62),
                (0.54, 0.82),
                (0.36, 0.74),
                (0.42, 0.56),
                (0.66, 0.3),
            ]
        ],
        [
            [
                (0.62, 0.28),
                (0.48, 0.18),
                (0.38, 0.3),
                (0.5, 0.46),
                (0.64, 0.66),
                (0.5, 0.82),
                (0.36, 0.68),
                (0.5, 0.5),
            ]  # one stroke
            + [(0.64, 0.34), (0.66, 0.18)]
        ],
    ],
    9: [
        [
            [(0.64, 0.34), (0.52, 0.2), (0.36, 0.3), (0.4, 0.48), (0.56, 0.48), (0.65, 0.3)]  # curled tail
            + [(0.66, 0.56), (0.58, 0.78), (0.44, 0.82), (0.34, 0.74)]
        ],
        [
            [(0.64, 0.28), (0.48, 0.2), (0.36, 0.34), (0.46, 0.5), (0.64, 0.4)],
            [(0.64, 0.22), (0.64, 0.5), (0.64, 0.84)],
        ],  # straight
        [
            [(0.62, 0.3), (0.48, 0.2), (0.36, 0.34), (0.46, 0.48), (0.62, 0.4)],
            [(0.64, 0.24), (0.62, 0.6), (0.44, 0.84)],
        ],
        [
            [
                (0.66, 0.22),
                (0.46, 0.22),
                (0.36, 0.38),
                (0.52, 0.48),
                (0.66, 0.24),
                (0.66, 0.66),
                (0.5, 0.84),
                (0.36, 0.8),
            ]  # a g
            + [(0.5, 0.68), (0.74, 0.62)]
        ],
    ],
}


def draw(strokes: Sequence[Stroke], side: int = SIDE, pen: float = PEN) -> np.ndarray:
    """Return strokes as a picture: uint8 array (side, side), paper 0, ink 255.

    Args:
        strokes: each a list of points (x, y) from 0 (left, top) to 1; a single point is a dot.
        side: of the picture in pixels.
        pen: width of the line as a share of the side.

    Raises:
        ValueError: a stroke is not a list of pairs of finite numbers.
    """
    picture = Image.new("L", (side, side))
    pencil, radius = ImageDraw.Draw(picture), pen * side / 2
    for stroke in strokes:
        points = [(x * side, y * side) for x, y in _points(stroke)]
        pencil.line(points, fill=255, width=max(1, round(2 * radius)))
        for x, y in points:  # round ends and corners
            pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(picture)


def forms(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a drawing uint8 (H, W) in two forms, uint8 (28, 28) each: (shrunk as it is, brought into MNIST's form)."""
    raw = Image.fromarray(picture).resize((28, 28), Image.Resampling.BOX)  # each pixel the mean of those it covers
    return np.asarray(raw), to_mnist_form(picture)


def fitted(strokes: Sequence[Stroke], share: float = 0.7) -> list[list[list[float]]]:
    """Return strokes moved to the middle and scaled to this share of the side, so that a pen suits their size.

    A small drawing that is enlarged after it was drawn would have strokes too broad. A dot stays where it is.
    """
    lines = [_points(stroke) for stroke in strokes]
    points = np.array([point for line in lines for point in line]).reshape(-1, 2)
    if not len(points) or (size := float(np.ptp(points, axis=0).max())) < 0.02:
        return lines
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    return [((np.array(line) - middle) * (share / size) + 0.5).tolist() for line in lines]


def smooth(stroke: Stroke, steps: int = 6) -> list[list[float]]:
    """Return a stroke with `steps` points for each of its own, on a curve through them (Catmull and Rom 1974)."""
    points = np.array(_points(stroke))
    if len(points) < 3:
        return points.tolist()
    before, after = 2 * points[0] - points[1], 2 * points[-1] - points[-2]
    p0, p1, p2, p3 = (np.vstack([before, points, after])[i : len(points) - 1 + i, None] for i in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    return [*(curve / 2).reshape(-1, 2).tolist(), points[-1].tolist()]


def write(digit: int, generator: torch.Generator | None = None) -> list[list[list[float]]]:
    """Return the strokes of a digit of `HAND`: exactly as there, or with a generator a little different each time.

    Then the digit is turned by up to `TURN`, its width and height vary by a tenth, and its points by `WOBBLE`.
    """
    strokes = [np.array(stroke) for stroke in HAND[digit]]
    if generator is not None:
        draws = torch.rand(3, generator=generator).numpy() * 2 - 1
        angle, sizes = math.radians(TURN) * draws[0], 1 + 0.1 * draws[1:]
        turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * sizes
        noise = [WOBBLE * torch.randn(stroke.shape, generator=generator).numpy() for stroke in strokes]
        strokes = [(stroke - 0.5 + shift) @ turned.T + 0.5 for stroke, shift in zip(strokes, noise)]
    return [smooth(stroke.tolist()) for stroke in strokes]


def _points(stroke: Stroke) -> list[list[float]]:
    """Return a stroke's points as a list of pairs of floats, or raise ValueError."""
    try:
        points = np.array(stroke, dtype=float)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"a stroke is a list of pairs (x, y) of numbers, from 0 (left, top) to 1, not {stroke!r:.60}")
    return points.tolist()
