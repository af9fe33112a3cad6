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


# Further shapes of the ten digits, those among them that MNIST's writers rarely make. A line holds a digit and its
# strokes, a point being two digits each for x and y, in hundredths: "4: 5618 3058 7058 | 5618 5684".
_SHAPES = """
0: 5018 3030 2866 4882 6868 7034 5018
0: 5018 3034 3066 5082 7066 7034 5018 | 6820 3280
0: 5018 4034 4066 5082 6066 6034 5018
0: 6226 4820 3040 3474 5682 7056 6024 | 6024 5022 4430 5634 6624
1: 5018 5050 5082
1: 4032 4626 5318 | 5318 5350 5382 | 3682 7082
1: 2650 4036 5618 | 5618 5650 5682
1: 2648 4034 5618 | 5618 5682 | 3482 7681
1: 4228 5218 | 5218 5282
1: 5020 5080 | 3880 6280 | 3824 5020
2: 3234 4020 6020 6636 5458 3876 3080 3070 4068 5478 7280
2: 3230 4818 6430 5654 3280 | 3280 7080
2: 3222 6622 | 6622 3280 | 3280 7080
2: 3430 4820 6032 4660 3078 4274 6082 8676
3: 3424 5620 6236 4648 | 4648 6658 6080 3478
3: 3420 6620 | 6620 4644 | 4644 6654 6278 3480
3: 3428 5018 6430 5246 4450 5448 6864 5082 3272
4: 6084 6050 6018 | 6018 2862 | 2862 7662
4: 3620 3452 | 3452 6850 | 6620 6550 6384
4: 4618 3056 | 3056 7252 | 5840 5086
4: 3420 3240 4252 6244 6620 | 6620 6650 6484
4: 5618 3058 | 3058 7058 | 5618 5684
4: 5018 2860 | 2860 7460 | 5846 5884
5: 6620 4020 | 4020 3846 | 3846 5642 6858 6078 3480
5: 6818 4424 3644 5648 6464 5280 3278
5: 4024 3848 5646 6662 5480 3476 | 4420 7416
6: 6420 4428 3454 3876 5682 6666 5452 3860
6: 5616 4044 3666 4882 6274 6058 4656 3668
6: 4016 3650 3672 5082 6472 6058 3662
6: 6218 4030 3262 4682 6474 6260 4662 4274
7: 3020 7020 | 7020 5450 4684
7: 3020 7020 | 7020 4684 | 3652 7252
7: 2832 3020 | 3020 7020 | 7020 5054 4484
7: 2832 3020 | 3020 7020 | 7020 4684 | 3454 7048
7: 3026 4218 5624 7018 | 7018 5452 4684
8: 5018 3628 4244 5844 6428 5018 | 5046 3460 3878 6080 6862 5046
8: 6422 4618 3834 6262 5482 3674 4256 6630
8: 6228 4818 3830 5046 6466 5082 3668 5050 6434 6618
9: 6434 5220 3630 4048 5648 6530 6656 5878 4482 3474
9: 6428 4820 3634 4650 6440 | 6422 6450 6484
9: 6230 4820 3634 4648 6240 | 6424 6260 4484
9: 6622 4622 3638 5248 6624 6666 5084 3680 5068 7462
"""


def _parsed(text: str) -> dict[int, list[list[list[tuple[float, float]]]]]:
    """Return {digit: its shapes}, each a list of strokes in coordinates 0 to 1."""
    shapes: dict[int, list[list[list[tuple[float, float]]]]] = {digit: [] for digit in range(10)}
    for line in text.split("\n")[1:-1]:
        digit, _, strokes = line.partition(": ")
        points = [[(int(point[:2]) / 100, int(point[2:]) / 100) for point in one.split()] for one in strokes.split("|")]
        shapes[int(digit)].append(points)
    return shapes


SHAPES = _parsed(_SHAPES)


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
