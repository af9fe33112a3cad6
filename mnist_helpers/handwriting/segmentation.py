"""From an ink mask to upright lines of writing, and the connected pieces of ink in them."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Part:
    """A piece of ink: a digit, several that touch, a fragment, or something else.

    Attributes:
        left, top: where its mask lies, in points.
        mask: bool (h, w).
        source: the number of the connected piece of ink that it is, or was cut from.
    """

    left: int
    top: int
    mask: np.ndarray
    source: int

    @property
    def height(self) -> int:
        """Points from top to bottom."""
        return self.mask.shape[0]

    @property
    def width(self) -> int:
        """Points from left to right."""
        return self.mask.shape[1]

    @property
    def middle(self) -> tuple[float, float]:
        """The (x, y) of the box's middle."""
        return self.left + self.width / 2, self.top + self.height / 2


def stroke_width(mask: np.ndarray) -> float:
    """Return the mean width of the strokes in a mask, bool (H, W), in pixels; 0 for an empty one.

    Across a stroke of width w the distance to the nearest point of paper is (w + 2) / 4 on average.
    """
    mask = np.pad(mask, 1)  # beyond the picture's rim is paper
    distances = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    return max(1.0, 4 * float(distances[mask].mean()) - 2) if mask.any() else 0.0


def find_parts(mask: np.ndarray) -> list[Part]:
    """Return the connected pieces of a mask, bool (H, W), as `Part`s, without specks, blots and the picture's rim."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    parts = []
    for number in range(1, n):
        left, top, w, h, area = stats[number].tolist()
        if area >= 4:
            parts.append(Part(left, top, labels[top : top + h, left : left + w] == number, number))
    usual = usual_height([part for part in parts if not at_rim(part, mask.shape)] or parts)
    return [part for part in parts if not _is_no_writing(part, usual, mask.shape)]


def usual_height(parts: list[Part]) -> float:
    """Return the usual height of parts, each counted by the length of its strokes; 0 of none."""
    if not parts:
        return 0.0
    heights = np.array([part.height for part in parts])
    lengths = np.array([part.mask.sum() / max(1.0, stroke_width(part.mask)) for part in parts])
    order = np.argsort(heights)
    return float(heights[order][np.searchsorted(lengths[order].cumsum(), 0.6 * lengths.sum())])


def skew(parts: list[Part]) -> float:
    """Return the angle in degrees by which lines of writing fall to the right, from -20 to 20; 0 if none is seen.

    At this angle the parts' heights, added up along the lines, are the most unevenly distributed. A greater angle must
    win by more.

    Source: Postl, "Detection of linear oblique structures and skew scan in digitized documents" (1986).
    """
    usual = usual_height(parts)
    parts = [part for part in parts if part.height > 0.5 * usual]
    if len(parts) < 3:
        return 0.0
    middles = np.array([part.middle for part in parts])
    halves = np.array([part.height for part in parts]) / 2 / max(usual, 1) * 0.7
    energies = {}
    for degrees in np.arange(-20, 20.5, 0.5):
        angle = np.radians(degrees)
        y = (middles[:, 1] * np.cos(angle) - middles[:, 0] * np.sin(angle)) / max(usual, 1)
        rows = np.arange(y.min() - 1, y.max() + 1, 0.1)
        profile = (np.abs(rows[:, None] - y) < halves).sum(axis=1)
        energies[float(degrees)] = (profile.astype(float) ** 2).sum() * (1 - 0.006 * abs(degrees))
    return max(energies, key=lambda degrees: energies[degrees])


def turn(strength: np.ndarray, mask: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (strength, mask, matrix (2, 3)) turned back by `degrees`, all of it kept; the matrix undoes it."""
    if abs(degrees) < 1:
        return strength, mask, np.eye(2, 3)
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = int(width * cosine + height * sine) + 1, int(height * cosine + width * sine) + 1
    matrix[:, 2] += np.array(size) / 2 - (width / 2, height / 2)
    turned = cv2.warpAffine(strength, matrix, size)
    inside = cv2.warpAffine(mask.astype(np.float32), matrix, size) > 0.5
    return turned, inside, cv2.invertAffineTransform(matrix)


def lines_of(parts: list[Part]) -> list[list[Part]]:
    """Return the parts in reading order: a list of lines from top to bottom, each a list of parts from left to right.

    Going from left to right, a part joins the line whose last large part stands at the same height, or that has a
    part of which it is broken off. So lines may bend and drift. Small parts join the nearest line.
    """
    usual = usual_height(parts)
    large = sorted((part for part in parts if part.height > 0.5 * usual), key=lambda part: part.left)
    lines: list[list[Part]] = []
    for part in large:
        near = [(_height_apart(part, line), line) for line in lines]
        distance, line = min(near, key=lambda pair: pair[0], default=(np.inf, []))
        if distance >= 0.6 * max(usual, part.height / 2):
            lines.append(line := [])
        line.append(part)
    owners = [(part, line) for line in lines for part in line]
    for part in parts:
        if part.height <= 0.5 * usual and owners:
            min(owners, key=lambda owner: _distance(part, owner[0]))[1].append(part)
    lines.sort(key=lambda line: np.mean([part.middle[1] for part in line]))
    return [sorted(line, key=lambda part: part.left) for line in lines]


def trimmed(left: int, top: int, mask: np.ndarray, source: int) -> Part:
    """Return the `Part` of a mask that lies at (left, top), without the empty rows and columns around it."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Part(left + int(columns[0]), top + int(rows[0]), mask, source)


def union(parts: list[Part]) -> Part:
    """Return several parts as one."""
    if len(parts) == 1:
        return parts[0]
    left, top = min(part.left for part in parts), min(part.top for part in parts)
    right = max(part.left + part.width for part in parts)
    bottom = max(part.top + part.height for part in parts)
    mask = np.zeros((bottom - top, right - left), bool)
    for part in parts:
        rows, columns = part.top - top, part.left - left
        mask[rows : rows + part.height, columns : columns + part.width] |= part.mask
    return Part(left, top, mask, parts[0].source)


def _is_no_writing(part, usual, shape):
    """Tell a speck, a blot and what comes in from the picture's rim from writing of the usual height."""
    if max(part.height, part.width) < 0.2 * usual:
        return True
    if stroke_width(part.mask) > 0.5 * max(part.height, part.width):
        return True
    return at_rim(part, shape) and (part.height > 1.5 * usual or part.width > 3 * usual)


def at_rim(part, shape):
    """Tell whether a part reaches the picture's rim: the table beside the sheet does, and writing seldom."""
    right, bottom = part.left + part.width, part.top + part.height
    return part.left == 0 or part.top == 0 or right == shape[1] or bottom == shape[0]


def _height_apart(part, line):
    """Return how much higher or lower a part stands than the last of a line; 0 if it is broken off from one of them."""
    if any(_is_broken_off(part, other) for other in line[-2:]):
        return 0
    return abs(part.middle[1] - np.mean([other.middle[1] for other in line[-2:]]))


def _is_broken_off(one, other):
    """Tell whether two parts stand one above the other, with no more between them than the pen is wide."""
    shared = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    gap = max(one.top, other.top) - min(one.top + one.height, other.top + other.height)
    pen = min(stroke_width(one.mask), stroke_width(other.mask))
    return shared > 0.5 * min(one.width, other.width) and abs(gap) <= pen


def _distance(one, other):
    """Return how far two parts stand apart, the gap between them from left to right counted half."""
    gap = max(0, max(one.left, other.left) - min(one.left + one.width, other.left + other.width))
    return abs(one.middle[1] - other.middle[1]) + 0.5 * gap
