"""Pages of digits whose layout is known, made of single digits: what the reading of pages is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ...data.digits import Digits
from ..boxes import match_boxes
from ..reading import Reading

RULINGS = ("none", "lines", "squares", "boxes")
MARGIN = 0.8  # of a page, × a digit's height
MAX_OVERLAP = 0.25  # of touching neighbours' boxes, × a digit's height; nobody writes one digit inside another


@dataclass(frozen=True)
class Page:
    """A picture of a page and what is written on it, digit by digit in reading order.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: int64 (N, 4): left, top, right and bottom of each digit's ink, in pixels, right and bottom exclusive.
        labels: int64 (N,), 0 to 9.
        lines: int64 (N,), the number of the line that each stands in, from 0.
        touching: bool (N,), whether a digit touches its neighbour.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    lines: np.ndarray
    touching: np.ndarray


def compose_page(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    seed: int = 0,
    columns: int = 6,
    size: float = 48,
    touching: float = 0.0,
    stroke: float = 0,
    ruling: str = "none",
    printed: float = 0.4,
    degrees: float = 0.0,
    tilt: float = 0.0,
    shadow: float = 0.0,
    blur: float = 0.0,
    noise: float = 0.0,
    ink: Sequence[float] = (30, 30, 60),
    paper: Sequence[float] = (245, 243, 238),
) -> Page:
    """Return a `Page` with these digits in lines of `columns`: a function of its arguments alone.

    Args:
        images: uint8 (N, 28, 28), ink bright on 0; labels: (N,).
        seed: of the digits' places and sizes, the shadow and the noise.
        size: height of MNIST's 20-pixel box in pixels; digits differ from it by up to 15 %.
        touching: the share of pairs of neighbours in a line that are moved together until their ink touches.
        stroke: pixels by which strokes become wider, or narrower below 0 as far as none breaks.
        ruling: one of RULINGS: lines to write on, squared paper, or a box around each digit.
        printed: how dark these lines are, from 0 (as paper) to 1 (as ink).
        degrees: the page's rotation.
        tilt: perspective: the share by which the page's far side is narrower.
        shadow: the share of light missing in the darkest place, from 0 to 1.
        blur: standard deviation in pixels.
        noise: standard deviation in grey values from 0 to 255.
        ink, paper: colours (3,) from 0 to 255.

    Raises:
        ValueError: no digits, or an unknown ruling.
    """
    if len(images) == 0 or ruling not in RULINGS:
        raise ValueError(f"a page needs digits, and a ruling among {', '.join(RULINGS)}, not {ruling!r}")
    random = np.random.default_rng(seed)
    grown = [_grow(np.asarray(image), size * random.uniform(0.85, 1.15), stroke) for image in images]
    pairs = random.random(len(grown)) < touching
    places, lines, pairs = _layout(grown, pairs, columns, size, ruling, random)
    height = int(max(top + digit.shape[0] for digit, (_, top) in zip(grown, places)) + MARGIN * size)
    width = int(max(left + digit.shape[1] for digit, (left, _) in zip(grown, places)) + MARGIN * size)
    sheet: np.ndarray = np.zeros((height, width), np.float32)
    for digit, (left, top) in zip(grown, places):
        part = sheet[top : top + digit.shape[0], left : left + digit.shape[1]]
        np.maximum(part, digit / 255, out=part)
    rules = _rules(sheet.shape, places, grown, size, ruling)
    bent, out_size = _perspective(width, height, degrees, tilt)
    sheet, rules = (cv2.warpPerspective(layer, bent, out_size, flags=cv2.INTER_LINEAR) for layer in (sheet, rules))
    image = _photograph(sheet, printed * rules, shadow, blur, noise, ink, paper, random)
    boxes = np.array([_box(digit, place, bent) for digit, place in zip(grown, places)], dtype=np.int64)
    return Page(image, boxes, np.asarray(labels, dtype=np.int64), np.array(lines), np.array(pairs))


def random_page(digits: Digits, seed: int, touching: float | None = None) -> Page:
    """Return a `Page` of 24 digits drawn from `Digits`, all else drawn at random too: a function of digits and seed.

    `touching` is as for `compose_page`; unless given, it is 0.25 on every other page.
    """
    random = np.random.default_rng([seed, 8])
    chosen = random.choice(len(digits), 24)
    images, labels = digits.images.numpy()[chosen], digits.labels.numpy()[chosen]
    size = float(random.choice([28, 40, 56, 90]))
    dark = random.random() < 0.12
    ink, paper = ((235, 235, 225), (35, 60, 50)) if dark else ((random.uniform(10, 110),) * 3, (246, 243, 236))
    if not dark and random.random() < 0.35:
        ink, paper = (25, 45, random.uniform(120, 190)), tuple(random.uniform(200, 250, 3))
    return compose_page(
        images,
        labels,
        seed=seed,
        columns=int(random.integers(3, 9)),
        size=size,
        touching=float(random.choice([0.0, 0.25])) if touching is None else touching,
        stroke=float(random.choice([-0.06, -0.03, 0.0, 0.0, 0.04])) * size,
        ruling=str(random.choice(RULINGS, p=[0.4, 0.2, 0.2, 0.2])),
        printed=random.uniform(0.2, 1.0),
        degrees=random.uniform(-8, 8),
        tilt=random.uniform(0, 0.1),
        shadow=float(random.choice([0.0, random.uniform(0.2, 0.6)])),
        blur=random.uniform(0, 0.025) * size,
        noise=float(random.choice([0.0, random.uniform(2, 9)])),
        ink=ink,
        paper=paper,
    )


def found_and_right(page: Page, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Return which digits of a `Page` a `Reading` has found, and which it has read right: bool (N,) each."""
    matches = match_boxes(page.boxes, reading.boxes)
    found = matches >= 0
    right = found.copy()
    right[found] = reading.digits[matches[found]] == page.labels[found]
    return found, right


def _grow(image, size, stroke):
    """Return one digit enlarged to `size` pixels for MNIST's box of 20, its strokes changed, and cut to its ink."""
    side = max(4, round(28 * size / 20))
    large = cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    large = _change_strokes(large, round(stroke))
    rows, columns = np.nonzero(large.max(axis=1) > 50)[0], np.nonzero(large.max(axis=0) > 50)[0]
    return large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else large


def _change_strokes(large, by):
    """Return a digit with strokes `by` pixels wider, or narrower below 0, but never so narrow that they break."""
    if by >= 0:
        return cv2.dilate(large, _disc(by + 1)) if by else large
    pieces = cv2.connectedComponents((large > 128).astype(np.uint8))[0]
    for width in range(-by, 0, -1):
        thin = cv2.erode(large, _disc(width + 1))
        thin *= 255 / max(thin.max(), 1)
        if cv2.connectedComponents((thin > 128).astype(np.uint8))[0] == pieces:
            return thin
    return large


def _disc(width):
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))


def _layout(digits, pairs, columns, size, ruling, random):
    """Return ([(left, top)], [line], [whether it touches]) of digits (h, w) set in lines from left to right."""
    places, lines, touches = [], [], []
    pitch = round(1.75 * size)
    for number, digit in enumerate(digits):
        line, column = divmod(number, columns)
        top = round(MARGIN * size + line * pitch + (1.15 * size - digit.shape[0]) * random.uniform(0.3, 0.9))
        if column == 0:
            x = MARGIN * size
        joined = bool(column and pairs[number] and not touches[-1] and ruling != "boxes")
        if joined:
            before = digits[number - 1]
            shift = _joining(before, digit, top - places[-1][1], max(1, round(size / 24)))
            joined = shift >= before.shape[1] - MAX_OVERLAP * size
        if ruling == "boxes":
            left = round(MARGIN * size + (column + 0.5) * 1.6 * size - digit.shape[1] / 2)
        elif joined:
            left = places[-1][0] + shift
            touches[-1] = True
        else:
            left = round(x + size * random.uniform(0.25, 0.7))
        places.append((left, top))
        lines.append(line)
        touches.append(joined)
        x = max(x, left + digit.shape[1])
    return places, lines, touches


def _joining(first, second, lower, overlap):
    """Return how far right of `first` the digit `second`, which lies `lower`, starts where they overlap so far."""
    reach = -np.inf
    for row in range(first.shape[0]):
        left, right = np.nonzero(first[row] > 128)[0], None
        if 0 <= row - lower < second.shape[0]:
            right = np.nonzero(second[row - lower] > 128)[0]
        if right is not None and len(left) and len(right):
            reach = max(reach, left[-1] - right[0])
    return int(reach) + 1 - overlap if np.isfinite(reach) else first.shape[1]


def _rules(shape, places, digits, size, ruling):
    """Return the printed lines of a page: float32 (H, W), 1 on a line."""
    rules = np.zeros(shape, np.float32)
    width = max(1, round(size / 30))
    if ruling == "lines":
        for y in np.arange(MARGIN * size + 1.2 * size, shape[0], 1.75 * size):
            cv2.line(rules, (0, round(y)), (shape[1], round(y)), 1, width)
    if ruling == "squares":
        for at in np.arange(size / 3, max(shape), size / 2):
            cv2.line(rules, (0, round(at)), (shape[1], round(at)), 1, max(1, width // 2))
            cv2.line(rules, (round(at), 0), (round(at), shape[0]), 1, max(1, width // 2))
    if ruling == "boxes":
        for (left, top), digit in zip(places, digits):
            x, y = left + digit.shape[1] / 2, top + digit.shape[0] / 2
            corners = [(round(x + a * 0.7 * size), round(y + a * 0.78 * size)) for a in (-1, 1)]
            cv2.rectangle(rules, *corners, 1, width)
    return rules


def _perspective(width, height, degrees, tilt):
    """Return (matrix (3, 3), (width, height)) of a page turned about its middle and tilted, which loses no corner."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    far = corners.copy()
    far[:2, 0] += np.array([tilt, -tilt]) * width / 2
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    seen = (np.c_[far, np.ones(4)] @ turn.T).astype(np.float32)
    seen -= seen.min(axis=0)
    return cv2.getPerspectiveTransform(corners, seen), tuple(int(np.ceil(side)) for side in seen.max(axis=0))


def _photograph(sheet, rules, shadow, blur, noise, ink, paper, random):
    """Return uint8 (H, W, 3): ink and lines on paper, under uneven light, seen by a camera."""
    ink, paper = np.array(ink, np.float32), np.array(paper, np.float32)
    printed = 0.5 * ink + (60, 80, 100) if paper.mean() > ink.mean() else ink
    image = paper + (printed - paper) * rules[:, :, None]
    image = image + (ink - image) * sheet[:, :, None].clip(0, 1)
    if shadow:
        height, width = sheet.shape
        angle, offset = random.uniform(0, 2 * np.pi), random.uniform(-0.2, 0.2)
        x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
        edge = np.cos(angle) * x + np.sin(angle) * y + offset
        light = 1 - shadow * (0.6 / (1 + np.exp(-edge / 0.03)) + 0.4 * (edge + 0.7) / 1.4)
        image = image * light[:, :, None]
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    if noise:
        image = image + noise * random.standard_normal(image.shape)
    return np.round(image).clip(0, 255).astype(np.uint8)


def _box(digit, place, bent):
    """Return (left, top, right, bottom) of a digit's ink after the page is bent."""
    rows, columns = np.nonzero(digit > 100)
    points = np.stack([columns + place[0], rows + place[1]], axis=1).astype(np.float32)
    seen = cv2.perspectiveTransform(points[None] + 0.5, bent)[0]
    return (*np.floor(seen.min(axis=0) - 0.5), *np.ceil(seen.max(axis=0) + 0.5))
