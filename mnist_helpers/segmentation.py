"""From an ink mask to candidate digits: upright lines of writing, their parts, and where touching digits may be cut."""

from dataclasses import dataclass

import cv2
import numpy as np

from .ruling import stroke_width

MOST_CUTS = 7  # that are tried in one part
SEAM_HEIGHT = 48  # cuts are looked for in a copy of this height
HOLE = 3.0  # the price of paper that ink encloses, ink being 1: a cut does not go through a loop
THROUGH = 3  # points of enclosed paper, of SEAM_HEIGHT, that a cut may cross all the same


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
    def height(self):
        """Points from top to bottom."""
        return self.mask.shape[0]

    @property
    def width(self):
        """Points from left to right."""
        return self.mask.shape[1]

    @property
    def middle(self):
        """The (x, y) of the box's middle."""
        return self.left + self.width / 2, self.top + self.height / 2


def find_parts(mask):
    """Return the connected pieces of a mask, bool (H, W), as `Part`s, without specks, blots and the picture's rim."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    parts = []
    for number in range(1, n):
        left, top, w, h, area = stats[number].tolist()
        if area >= 4:
            parts.append(Part(left, top, labels[top : top + h, left : left + w] == number, number))
    usual = usual_height([part for part in parts if not _at_rim(part, mask.shape)] or parts)
    return [part for part in parts if not _is_no_writing(part, usual, mask.shape)]


def usual_height(parts):
    """Return the usual height of parts, each counted by the length of its strokes; 0 of none."""
    if not parts:
        return 0.0
    heights = np.array([part.height for part in parts])
    lengths = np.array([part.mask.sum() / max(1.0, stroke_width(part.mask)) for part in parts])
    order = np.argsort(heights)
    return float(heights[order][np.searchsorted(lengths[order].cumsum(), 0.6 * lengths.sum())])


def skew(parts):
    """Return the angle in degrees by which lines of writing fall to the right, from -20 to 20; 0 if none is seen.

    It is the one under which the parts' heights, added up along the lines, are the most unevenly distributed; a
    greater angle must be the better by more.

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
    return max(energies, key=energies.get)


def turn(strength, mask, degrees):
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


def lines_of(parts):
    """Return the parts in reading order: a list of lines from top to bottom, each a list of parts from left to right.

    Going from left to right, a part joins the line whose last large part stands at the same height. So lines may
    bend and drift. Small parts join the nearest line.
    """
    usual = usual_height(parts)
    large = sorted((part for part in parts if part.height > 0.5 * usual), key=lambda part: part.left)
    lines = []
    for part in large:
        near = [(abs(part.middle[1] - _height_at_end(line)), line) for line in lines]
        distance, line = min(near, key=lambda pair: pair[0], default=(np.inf, None))
        if distance < 0.6 * max(usual, part.height / 2):
            line.append(part)
        else:
            lines.append([part])
    owners = [(part, line) for line in lines for part in line]
    for part in parts:
        if part.height <= 0.5 * usual and owners:
            min(owners, key=lambda owner: _distance(part, owner[0]))[1].append(part)
    lines.sort(key=lambda line: np.mean([part.middle[1] for part in line]))
    return [sorted(line, key=lambda part: part.left) for line in lines]


def cut(part, tall):
    """Return a part cut wherever two digits may touch, as parts from left to right; itself where none may.

    Args:
        part: a `Part`.
        tall: the usual height of a digit around it.

    A cut is a path from top to bottom that crosses as little ink as a path can near there.

    Source: candidates by seams of least cost, as in Avidan and Shamir, "Seam carving for content-aware image resizing"
    (2007); deciding among more cuts than are needed by the recogniser: LeCun, Bottou, Bengio and Haffner (1998).
    """
    if part.width < 0.55 * min(tall, part.height) or part.height < 0.4 * tall or min(part.mask.shape) < 5:
        return [part]
    seams = _seams(part.mask)
    columns = np.arange(part.width)
    edges = [np.zeros(part.height), *seams, np.full(part.height, part.width)]
    pieces = []
    for left, right in zip(edges, edges[1:]):
        inside = part.mask & (columns >= left[:, None]) & (columns < right[:, None])
        if inside.any():
            pieces.append(trimmed(part.left, part.top, inside, part.source))
    return pieces


def trimmed(left, top, mask, source):
    """Return the `Part` of a mask that lies at (left, top), without the empty rows and columns around it."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Part(left + int(columns[0]), top + int(rows[0]), mask, source)


def union(parts):
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
    return _at_rim(part, shape) and (part.height > 1.5 * usual or part.width > 3 * usual)


def _at_rim(part, shape):
    """Tell whether a part reaches the picture's rim: the table beside the sheet does, and writing seldom."""
    right, bottom = part.left + part.width, part.top + part.height
    return part.left == 0 or part.top == 0 or right == shape[1] or bottom == shape[0]


def _height_at_end(line):
    """Return the y at which a line's last parts stand."""
    return np.mean([part.middle[1] for part in line[-2:]])


def _distance(one, other):
    """Return how far two parts stand apart, the gap between them from left to right counted half."""
    gap = max(0, max(one.left, other.left) - min(one.left + one.width, other.left + other.width))
    return abs(one.middle[1] - other.middle[1]) + 0.5 * gap


def _seams(mask):
    """Return the best cuts of a mask as float arrays (h,): the column of the cut in each row, from left to right."""
    height, width = mask.shape
    scale = SEAM_HEIGHT / height
    w = max(4, round(width * scale))
    ink = cv2.resize(mask.astype(np.float32), (w, SEAM_HEIGHT), interpolation=cv2.INTER_AREA) > 0.4
    holes, rows = _holes(ink), np.arange(SEAM_HEIGHT)
    prices, paths = _cheapest_paths(ink + HOLE * holes, np.arange(3, w - 3, 2), reach=SEAM_HEIGHT // 5)
    kept = []
    for path in paths[np.argsort(prices, kind="stable")]:
        apart = all(np.abs(path - other).mean() > 2.5 for other in kept)
        if 2 <= path.mean() <= w - 2 and apart and holes[rows, path].sum() <= THROUGH:
            kept.append(path)
        if len(kept) == MOST_CUTS:
            break
    rows = np.minimum((np.arange(height) * scale).astype(int), SEAM_HEIGHT - 1)
    return [path[rows] / scale for path in sorted(kept, key=lambda path: path.mean())]


def _holes(ink):
    """Return the paper that ink encloses, bool (h, w)."""
    labels = cv2.connectedComponents(np.pad(~ink, 1, constant_values=True).astype(np.uint8), connectivity=4)[1]
    return ~ink & (labels[1:-1, 1:-1] != labels[0, 0])


def _cheapest_paths(ink, middles, reach):
    """Return (prices (M,), columns (M, h)) of the paths from top to bottom that cross the least ink, float (h, w).

    The m-th stays within `reach` columns of middles[m].
    """
    columns = middles[:, None] + np.arange(-reach, reach + 1)  # (M, 2 reach + 1)
    inside = (columns >= 1) & (columns < ink.shape[1])
    price = np.where(inside, ink[:, columns.clip(0, ink.shape[1] - 1)] + 0.02, np.inf)  # (h, M, 2 reach + 1)
    steps = np.zeros(price.shape, int)
    for row in range(1, len(price)):
        above = np.pad(price[row - 1], ((0, 0), (1, 1)), constant_values=np.inf)
        ways = np.stack([above[:, 1:-1], above[:, :-2] + 0.1, above[:, 2:] + 0.1])
        steps[row] = np.array([0, -1, 1])[ways.argmin(axis=0)]
        price[row] += ways.min(axis=0)
    every, place = np.arange(len(middles)), price[-1].argmin(axis=1)
    prices, paths = price[-1][every, place], np.empty((len(middles), len(price)), int)
    for row in range(len(price) - 1, -1, -1):
        paths[:, row] = columns[every, place]
        place = place + steps[row][every, place]
    return prices, paths
