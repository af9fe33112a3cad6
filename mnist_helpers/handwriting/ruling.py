"""Printed lines and boxes, found in an ink mask and taken out of it, with the strokes that cross them left."""

import math

import cv2
import numpy as np

MIN_LINE_LENGTH = 0.25  # × the picture's side
MIN_SLENDERNESS = 12  # a line's length / the usual width of a stroke; a thick stroke is no line
MIN_COVERAGE = 0.85  # of a line's length that is seen
MIN_COVERAGE_BETWEEN = 0.55  # the same of a line that is missing between evenly spaced others
MIN_DIGIT_HEIGHTS = 2.5  # a line's length / the height of a digit; a 1 is a straight line too
MIN_ANGULARITY = 0.9  # share of a box's hull that its four corners span; those of a round 0 span 0.64
MIN_BOX_FILL = 0.75  # share of its smallest rectangle that a box fills, seen at an angle
SEARCH_SIDE = 1000  # pixels, the longer side of the copy of a large picture in which lines are searched
MAX_DUPLICATE_GAP = 5  # pixels between two lines found that are one
MAX_HOLES = 4  # in a piece of ink that is digits; two of them may touch
FOLLOWED_LENGTH = 31  # pixels over which a line's place is averaged; on bent paper it bends


def usual_width(mask: np.ndarray) -> float:
    """Return the usual width of the strokes in a mask in points: the median over its pieces, by their length."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if n == 1:
        return 0.0
    distances = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    areas = stats[1:, cv2.CC_STAT_AREA]
    widths = np.maximum(1, 4 * np.bincount(labels.ravel(), distances.ravel(), n)[1:] / areas - 2)
    lengths = areas / widths * (areas >= 4)
    order = np.argsort(widths)
    return float(widths[order][np.searchsorted(lengths[order].cumsum(), 0.5 * lengths.sum())])


def without_ruling(mask: np.ndarray, faint: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return an ink mask, bool (H, W), without ruled lines, squared paper and boxes around digits.

    A line is taken out where it is as thin and light as along most of its length. Elsewhere a stroke crosses it.

    Args:
        mask, faint, strength: as in `ink.Ink`; lines are looked for in `faint`, since they may be broken in `mask`.

    Source: the removal of staff lines by the lengths of runs across them: Dalitz, Droettboom, Pranzas and Fujinaga, "A
    comparative study of staff removal algorithms" (2008); lines by the probabilistic Hough transform: Matas, Galambos
    and Kittler (2000).
    """
    width = usual_width(mask)
    boxes = _boxes(mask, width) + _boxes(faint, width)
    lines = [*_long_lines(faint, width), *(line[:, ::-1] for line in _long_lines(faint.T, width))]
    sides = [side for _, sides in boxes for side in sides]
    height = _digit_height(_erase(mask, faint, strength, lines + sides), width)
    if not height:  # nothing else is there: the lines are what is written
        return mask
    tall = max(height, _digit_height(_without_grids(mask), width))  # a thin 7 is little but lines
    lines = [line for line in lines if np.linalg.norm(line[1] - line[0]) > MIN_DIGIT_HEIGHTS * tall]
    lines += [side for size, sides in boxes if size[1] > height and size[0] > 0.6 * height for side in sides]
    bare = _erase(mask, faint, strength, lines)
    return bare if bare.any() else mask


def _long_lines(mask, width):
    """Return the nearly horizontal long lines of a mask as float arrays (2, 2): the (x, y) of both ends."""
    step = math.ceil(max(mask.shape) / SEARCH_SIDE)
    if step > 1:
        small = cv2.dilate(mask.astype(np.uint8), np.ones((step, step)))[::step, ::step] > 0
        return [line * step for line in _long_lines(small, width / step)]
    length = mask.shape[1]
    shortest = max(60, MIN_LINE_LENGTH * length, MIN_SLENDERNESS * width)
    if length < 60:
        return []
    thin = np.ascontiguousarray(mask & (_runs(mask.T).T <= max(3, 1.5 * width)), np.uint8)
    lines, gap, left = [], max(8, 3 * width), thin.copy()
    for _ in range(3):  # what crosses a line may hide a part of it the first time
        found = cv2.HoughLinesP(left, 1, np.pi / 720, int(0.5 * shortest), None, shortest, gap)
        if found is None:
            break
        for line in np.asarray(found).reshape(-1, 2, 2):
            lines.append(line.astype(float))
            cv2.line(left, *line.tolist(), 0, 5)
    level = [line for line in lines if abs(line[1, 0] - line[0, 0]) > 2 * abs(line[1, 1] - line[0, 1])]
    level = [_extended(mask, line) for line in level if _covered(mask, line) > MIN_COVERAGE]
    return level + [_extended(mask, line) for line in _skipped(thin, level)]


def _skipped(thin, lines):
    """Return the lines missing from a row of nearly horizontal, evenly spaced ones, where most of each is seen.

    Much is written across them, or they would have been found without their neighbours.
    """
    lines = [line for line in lines if np.ptp(line[:, 0]) > 0.5 * thin.shape[1]]
    if len(lines) < 4:
        return []
    left, right = max(line[0, 0] for line in lines), min(line[1, 0] for line in lines)
    heights = np.array([np.interp([left, right], *line.T) for line in lines])  # of each line, at left and right
    heights = heights[np.argsort(heights.sum(axis=1))]
    gaps = np.diff(heights.mean(axis=1))
    once = gaps > MAX_DUPLICATE_GAP
    if once.sum() < 3:
        return []
    found = []
    for above, below, n in zip(heights, heights[1:], np.round(gaps / np.median(gaps[once])).astype(int)):
        for y in np.linspace(above, below, n + 1)[1:-1] if n <= 3 else ():
            line = np.stack([(left, right), y], axis=1)
            if _covered(thin, line) > MIN_COVERAGE_BETWEEN:
                found.append(line)
    return found


def _extended(mask, line):
    """Return a nearly horizontal line, longer to its left and right as far as it is seen there."""
    line = line[np.argsort(line[:, 0])]
    slope = (line[1, 1] - line[0, 1]) / (line[1, 0] - line[0, 0])
    for end, step in ((0, -1), (1, 1)):
        x = np.arange(line[end, 0] + step, -1 if step < 0 else mask.shape[1], step)
        y = line[end, 1] + slope * (x - line[end, 0])
        shares = _is_seen(mask, x, y).cumsum() / np.arange(1, len(x) + 1)
        if (shares > MIN_COVERAGE).any():
            last = np.nonzero(shares > MIN_COVERAGE)[0][-1]
            line[end] = x[last], y[last]
    return line


def _covered(mask, line):
    """Return the share of a line's length that is seen in a mask."""
    return _is_seen(mask, *np.linspace(*line, int(np.linalg.norm(line[1] - line[0]))).T).mean()


def _is_seen(mask, x, y):
    """Tell of each point (x, y) of a nearly horizontal line whether it lies in a mask, give or take two points."""
    x, y = np.round(x).astype(int), np.round(y).astype(int)
    rows = np.stack([y - 2, y - 1, y, y + 1, y + 2]).clip(0, mask.shape[0] - 1)
    return mask[rows, x.clip(0, mask.shape[1] - 1)].any(axis=0)


def _boxes(mask, width):
    """Return [((shorter side, longer side), the four sides as float arrays (2, 2))] of the boxes that frame digits.

    A box is a hole in the ink whose hull has four corners, and that something is written in: an empty one may be a 0,
    unless it is as large as a box that is not empty.
    """
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour, (_, _, _, parent) in zip(contours, tree[0] if tree is not None else []):
        if parent < 0 or len(contour) < 4:
            continue
        hull = cv2.convexHull(contour)
        corners = cv2.approxPolyDP(hull, 0.05 * cv2.arcLength(hull, True), True)[:, 0].astype(float)
        area, (short, long) = cv2.contourArea(hull), sorted(cv2.minAreaRect(contour)[1])
        angular = len(corners) == 4 and cv2.contourArea(corners.astype(np.float32)) > MIN_ANGULARITY * area
        if angular and short > max(12, 5 * width) and area > MIN_BOX_FILL * short * long:
            notched = cv2.contourArea(contour) < 0.93 * area
            found.append((corners, (short, long), notched or _ink_inside(mask, contour) > width**2))
    full = [size for _, size, written in found if written]
    boxes = []
    for corners, size, _ in found:
        if any(np.allclose(size, other, rtol=0.25) for other in full):
            boxes.append((size, [np.array([corners[i], corners[(i + 1) % 4]]) for i in range(4)]))
    return boxes


def _ink_inside(mask, contour):
    """Return how many points of ink lie inside a contour, away from its rim."""
    x, y, wide, high = cv2.boundingRect(contour)
    inside = np.zeros((high + 2, wide + 2), np.uint8)
    cv2.drawContours(inside, [contour], -1, 1, -1, offset=(1 - x, 1 - y))
    inside = cv2.erode(inside, np.ones((5, 5)))[1:-1, 1:-1] > 0
    return (inside & mask[y : y + high, x : x + wide]).sum()


def _erase(mask, faint, strength, lines):
    """Return the mask without these lines, each taken out where it is about as thick and dark as it mostly is."""
    level = [line for line in lines if np.ptp(line[:, 0]) >= np.ptp(line[:, 1])]
    upright = [line[:, ::-1] for line in lines if np.ptp(line[:, 0]) < np.ptp(line[:, 1])]
    bare = _erase_level(mask, faint, strength, level)
    return _erase_level(bare.T, faint.T, strength.T, upright).T  # where lines cross, their rest is short by now


def _erase_level(mask, faint, strength, lines):
    """Return the mask without these nearly horizontal lines."""
    if not lines:
        return mask
    runs, faint_runs, bare = _runs(mask.T).T, _runs(faint.T).T, mask.copy()
    for line in lines:
        (x1, y1), (x2, y2) = line[np.argsort(line[:, 0])]
        x = np.arange(max(0, round(x1) - 2), min(mask.shape[1], round(x2) + 3))
        y = np.round(y1 + (y2 - y1) / max(1, x2 - x1) * (x - x1)).astype(int)
        core = (y + np.arange(-2, 3)[:, None]).clip(0, len(mask) - 1)
        seen = faint[core, x]
        if not seen.any():
            continue
        thickness, dark = np.percentile(faint_runs[core, x][seen], 35), np.percentile(strength[core, x][seen], 40)
        around = np.arange(-int(thickness) - 3, int(thickness) + 4)[:, None]
        rows = (y + around).clip(0, len(mask) - 1)
        shown = (np.minimum(strength[rows, x], dark) * faint[rows, x]).astype(np.float32)
        middle = cv2.blur(shown, (FOLLOWED_LENGTH, round(thickness) | 1)).argmax(axis=0) + around[0]
        like = (runs[rows, x] <= 1.3 * thickness + 1) & (strength[rows, x] <= 1.7 * dark)
        like &= np.abs(around - middle) <= thickness / 2 + 1
        bare[rows[like], np.broadcast_to(x, rows.shape)[like]] = False
    return bare


def _runs(mask):
    """Return for each point of a mask the length of the row of points, from left to right, that it belongs to."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    lengths = np.nonzero(steps == -1)[1] - np.nonzero(steps == 1)[1]
    runs = np.zeros(mask.shape, np.int32)
    runs[mask] = np.repeat(lengths, lengths)
    return runs


def _without_grids(mask):
    """Return a mask without the pieces of ink that have more holes than digits: squares, and what is on them."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = np.zeros(labels.max() + 1, int)
    for *_, parent in tree[0] if tree is not None else []:
        if parent >= 0:
            x, y = contours[parent][0, 0]
            holes[labels[y, x]] += 1
    return mask & (holes <= MAX_HOLES)[labels]


def _digit_height(mask, width):
    """Return the usual height of what is written, each part counted as often as it has points; 0 if nothing is."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    heights, widths, areas = (stats[1:, column] for column in (cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH, cv2.CC_STAT_AREA))
    written = (heights > 2.5 * width) & (heights < 6 * widths)  # neither dots nor pieces of upright lines
    if not written.any():
        return 0
    return float(np.median(np.repeat(heights[written], areas[written])))
