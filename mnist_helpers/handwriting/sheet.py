"""The sheet of paper in a photograph, and the table beside it."""

import cv2
import numpy as np

MIN_AREA, MAX_AREA = 0.25, 0.97  # share of the picture that a sheet covers
MIN_ANGULARITY = 0.9  # share of a sheet's hull that its four corners span
MIN_INSIDE = 0.6  # share of the sheet that is of the sheet's brightness; the rest is ink, or in shadow
MAX_OUTSIDE = 0.05  # share of what lies beside the sheet that is of its brightness
MAX_AT_RIM = 0.3  # share of the picture's rim that the sheet reaches


def sheet_alone(pixels: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Return a picture, float32 (H, W, 3), whose sheet is extended to the rim, over the table beside it.

    Where no sheet is seen as a whole, the picture is returned as it is.

    Args:
        pixels: the picture.
        small: a copy with sides of at most a few hundred pixels, on which the sheet is searched.
    """
    corners = find_sheet(small)
    if corners is None:
        return pixels
    sheet = cv2.fillConvexPoly(np.zeros(small.shape[:2], np.uint8), corners, 1)
    sheet = cv2.erode(sheet, np.ones((5, 5)), borderValue=1)  # its edge is soft
    _, labels = cv2.distanceTransformWithLabels(1 - sheet, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros(labels.max() + 1, int)
    nearest[labels[sheet > 0]] = np.flatnonzero(sheet)
    filled = small.reshape(-1, 3)[nearest[labels]]
    size = pixels.shape[1::-1]
    filled, sheet = cv2.resize(filled, size), cv2.resize(sheet, size, interpolation=cv2.INTER_NEAREST)
    return np.where(sheet[:, :, None] > 0, pixels, filled)


def find_sheet(small: np.ndarray) -> np.ndarray | None:
    """Return the corners, int32 (4, 2), of the sheet in a picture, float32 (h, w, 3), or None if none is seen.

    The picture's pixels are divided into two kinds along the colours' principal axis. A sheet is a piece of one kind
    with four corners, with the other kind all around it.

    Source: the threshold: Otsu, "A threshold selection method from gray-level histograms" (1979).
    """
    colours = small.reshape(-1, 3) - small.mean(axis=(0, 1))
    value = (colours @ np.linalg.eigh(colours.T @ colours)[1][:, -1]).reshape(small.shape[:2])
    value = cv2.medianBlur(cv2.normalize(value, np.empty(0), 0, 255, cv2.NORM_MINMAX, cv2.CV_8U), 5)
    _, bright = cv2.threshold(value, 0, 1, cv2.THRESH_OTSU)
    for kind in (bright, 1 - bright):
        corners = _corners(kind)
        if corners is not None:
            return corners
    return None


def _corners(kind):
    """Return the corners, int32 (4, 2), of a sheet of this kind, uint8 (h, w), 1 or 0; None if there is none."""
    contours, _ = cv2.findContours(kind, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    hull = cv2.convexHull(max(contours, key=cv2.contourArea))
    corners, area = cv2.approxPolyDP(hull, 0.05 * cv2.arcLength(hull, True), True), cv2.contourArea(hull)
    if len(corners) != 4 or cv2.contourArea(corners) < MIN_ANGULARITY * area:
        return None
    if not MIN_AREA < area / kind.size < MAX_AREA:
        return None
    inside = cv2.fillConvexPoly(np.zeros(kind.shape, np.uint8), hull, 1)
    rim = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if rim.mean() > MAX_AT_RIM or kind[inside > 0].mean() < MIN_INSIDE or kind[inside == 0].mean() > MAX_OUTSIDE:
        return None
    return corners[:, 0]
