"""The sheet of paper in a photograph, and the table beside it."""

import cv2
import numpy as np

LEAST, MOST = 0.25, 0.97  # of the picture that a sheet covers, seen as a whole
ANGULAR = 0.9  # of a sheet's hull that its four corners span, at least
ALIKE = 0.6  # of the sheet that is as bright as most of it; the rest is ink, or in shadow
BESIDE = 0.05  # of what lies beside the sheet that is as bright, at most
AT_RIM = 0.3  # of the picture's rim that the sheet reaches, at most


def sheet_alone(pixels, small):
    """Return a picture, float32 (H, W, 3), whose sheet reaches its rim: the table shows what the sheet has next to it.

    Where no sheet is seen as a whole, the picture is returned as it is.

    Args:
        pixels: the picture; small: a copy of it of at most a few hundred pixels, on which the sheet is looked for.
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


def find_sheet(small):
    """Return the corners, int32 (4, 2), of the sheet in a picture, float32 (h, w, 3), or None if none is seen.

    Along the colours' principal axis the picture is parted in two: a sheet is a piece of one kind with four corners,
    and all that lies beside it is of the other kind.

    Source: the threshold: Otsu, "A threshold selection method from gray-level histograms" (1979).
    """
    colours = small.reshape(-1, 3) - small.mean(axis=(0, 1))
    value = (colours @ np.linalg.eigh(colours.T @ colours)[1][:, -1]).reshape(small.shape[:2])
    value = cv2.medianBlur(cv2.normalize(value, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U), 5)
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
    if len(corners) != 4 or not LEAST < area / kind.size < MOST or cv2.contourArea(corners) < ANGULAR * area:
        return None
    inside = cv2.fillConvexPoly(np.zeros(kind.shape, np.uint8), hull, 1)
    rim = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if rim.mean() > AT_RIM or kind[inside > 0].mean() < ALIKE or kind[inside == 0].mean() > BESIDE:
        return None
    return corners[:, 0]
