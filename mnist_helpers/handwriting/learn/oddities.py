"""Shapes that are no digits, single and in pages: letters, scribbles, strokes, blots and dashes."""

import cv2
import numpy as np

from ...data.form import to_mnist_form

LETTERS = {  # their strokes on a field of 4 by 4; no D, O, S, Z and the like, which look like digits
    "A": ["04 20 44", "12 32"],
    "E": ["40 00 04 44", "02 32"],
    "F": ["40 00 04", "02 32"],
    "H": ["00 04", "40 44", "02 42"],
    "K": ["00 04", "40 02 44"],
    "M": ["04 10 23 30 44"],
    "N": ["04 00 44 40"],
    "P": ["04 00 30 41 32 02"],
    "R": ["04 00 30 41 32 02 44"],
    "T": ["00 40", "20 24"],
    "V": ["00 24 40"],
    "W": ["00 14 21 34 40"],
    "X": ["00 44", "40 04"],
    "k": ["10 14", "32 13 34"],
    "m": ["04 01 11 14 14 21 31 34"],
    "n": ["14 11 31 34"],
    "h": ["10 14 12 32 34"],
    "r": ["14 11 12 31"],
    "t": ["20 23 34", "11 31"],
    "w": ["01 14 22 34 41"],
    "plus": ["20 24", "02 42"],
    "equals": ["01 41", "03 43"],
    "percent": ["40 04", "00 10 11 01 00", "33 43 44 34 33"],
    "hash": ["10 14", "30 34", "01 41", "03 43"],
    "question": ["01 10 30 31 22 23", "24 24"],
    "less": ["40 02 44"],
    "star": ["20 24", "01 43", "41 03"],
}
PRINTED = "AEFHKMNPRTVWXaefhkmnprtuvwx%#+=&@*<"  # none that looks like a digit
FONTS = [
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
]
KINDS = ["letter", "letter", "printed", "printed", "scribble", "curl", "strokes", "blot", "dashes"]
SIDE = 96  # of a drawing, in pixels


def odd_drawing(random: np.random.Generator) -> np.ndarray:
    """Return a shape that is no digit, ink on 0: uint8 (96, 96)."""
    picture = np.zeros((SIDE, SIDE), np.uint8)
    width = int(random.integers(2, 11))
    DRAW[random.choice(KINDS)](picture, width, random)
    bend = np.eye(2, 3) + random.uniform(-0.2, 0.2, (2, 3))
    bend[:, 2] = np.array((48, 48)) - bend[:, :2] @ (48, 48)
    return cv2.warpAffine(picture, bend, (SIDE, SIDE))


def odd_shapes(n: int, seed: int) -> np.ndarray:
    """Return n shapes that are no digits, uint8 (n, 28, 28), in MNIST's form."""
    random = np.random.default_rng(seed)
    shapes = [to_mnist_form(odd_drawing(random)) for _ in range(n)]
    return np.array(shapes, dtype=np.uint8).reshape(-1, 28, 28)


def odd_page(seed: int) -> np.ndarray:
    """Return a picture without any digit, uint8 (H, W), dark on light, with odd shapes in lines: uneven and soft."""
    random = np.random.default_rng([seed, 9])
    drawings = [[odd_drawing(random) for _ in range(8)] for _ in range(4)]
    page: np.ndarray = np.block(drawings)
    scale = random.uniform(0.4, 1.0)
    page = cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    light = np.linspace(250, random.uniform(120, 250), page.shape[1])
    picture = light * (1 - page / 255 * random.uniform(0.4, 0.9)) + random.normal(0, random.uniform(0, 6), page.shape)
    return cv2.GaussianBlur(picture.clip(0, 255).astype(np.uint8), (0, 0), random.uniform(0.2, 1.2))


def _letter(picture, width, random):
    for stroke in LETTERS[random.choice(list(LETTERS))]:
        points = np.array([(int(point[0]), int(point[1])) for point in stroke.split()], dtype=float)
        points = 24 + 12 * (points + random.normal(0, 0.2, points.shape))
        cv2.polylines(picture, [np.round(points).astype(np.int32)], False, 255, width, cv2.LINE_AA)


def _printed(picture, width, random):
    letter, font = random.choice(list(PRINTED)), int(random.choice(FONTS))
    scale = random.uniform(1.2, 2.4)
    (wide, high), _ = cv2.getTextSize(letter, font, scale, width)
    cv2.putText(picture, letter, ((SIDE - wide) // 2, (SIDE + high) // 2), font, scale, 255, width, cv2.LINE_AA)


def _scribble(picture, width, random):
    points = random.integers(15, 80, (int(random.integers(4, 12)), 2)).astype(np.int32)
    cv2.polylines(picture, [points], False, 255, width, cv2.LINE_AA)


def _curl(picture, width, random):
    """Draw a long smooth line that turns at random and crosses itself."""
    points = random.normal(0, 1, (int(random.integers(40, 90)), 2)).cumsum(axis=0).cumsum(axis=0)
    points -= np.linspace(points[0], points[-1], len(points)) + points.mean(axis=0)
    points = SIDE / 2 + points * (36 / max(1, np.abs(points).max()))
    cv2.polylines(picture, [np.round(points).astype(np.int32)], False, 255, width, cv2.LINE_AA)


def _strokes(picture, width, random):
    """Draw three to six straight strokes that cross."""
    for _ in range(int(random.integers(3, 7))):
        ends = random.integers(14, 82, (2, 2)).tolist()
        cv2.line(picture, *ends, 255, width, cv2.LINE_AA)


def _blot(picture, _, random):
    for _ in range(int(random.integers(1, 4))):
        axes = random.integers(10, 30, 2).tolist()
        cv2.ellipse(picture, random.integers(35, 60, 2).tolist(), axes, random.uniform(0, 180), 0, 360, 255, -1)


def _dashes(picture, width, random):
    for _ in range(int(random.integers(1, 3))):
        (x, y), slope = random.integers(20, 70, 2).tolist(), random.uniform(-0.4, 0.4)
        reach = int(random.integers(8, 40))
        cv2.line(picture, (x - reach, int(y - reach * slope)), (x + reach, int(y + reach * slope)), 255, width)


DRAW = {
    "letter": _letter,
    "printed": _printed,
    "scribble": _scribble,
    "curl": _curl,
    "strokes": _strokes,
    "blot": _blot,
    "dashes": _dashes,
}
