import cv2
import numpy as np
import pytest

from mnist_helpers.handwriting.sheet import find_sheet, sheet_alone

PAPER, TABLE, INK = (235, 230, 220), (90, 60, 50), (30, 30, 60)
CORNERS = np.array([[40, 30], [215, 20], [225, 170], [30, 165]], np.int32)


def photograph(paper=PAPER, table=TABLE, corners=CORNERS, shape=(190, 256)):
    """Return float32 (H, W, 3): a sheet with some writing on a table."""
    picture = np.full((*shape, 3), table, np.uint8)
    cv2.fillConvexPoly(picture, corners, paper)
    for x in (80, 120, 160):
        cv2.circle(picture, (x, 90), 14, INK, 4)
    return picture.astype(np.float32)


@pytest.mark.parametrize(("paper", "table"), [(PAPER, TABLE), ((60, 70, 60), (200, 190, 180)), (PAPER, (90, 140, 230))])
def test_a_sheet_on_a_table_is_found_and_the_table_goes(paper, table):
    picture = photograph(paper, table)
    found = find_sheet(picture)
    assert np.abs(found[:, None] - CORNERS[None]).max(axis=2).min(axis=1).max() <= 3
    alone = sheet_alone(picture, picture)
    assert np.allclose(alone[[0, -1]], paper) and np.allclose(alone[:, [0, -1]], paper)
    assert (alone[70:110, 60:180] == picture[70:110, 60:180]).all()


def test_a_large_picture_keeps_its_pixels_on_the_sheet():
    small = photograph()
    large = cv2.resize(small, (1024, 760))
    alone = sheet_alone(large, small)
    assert alone.shape == large.shape and alone.dtype == np.float32
    assert (alone[280:440, 240:720] == large[280:440, 240:720]).all() and np.abs(alone[0] - PAPER).max() < 2


def test_without_a_table_nothing_changes():
    whole = np.array([[-9, -9], [300, -9], [300, 300], [-9, 300]], np.int32)
    framed = photograph(corners=whole)
    cv2.rectangle(framed, (20, 20), (230, 170), INK, 3)  # printed on the sheet
    ring = photograph(corners=whole)
    cv2.circle(ring, (128, 95), 80, INK, 20)
    for picture in (photograph(corners=whole), framed, ring, np.zeros((1, 1, 3), np.float32), np.zeros((9, 9, 3), "f")):
        assert sheet_alone(picture, picture) is picture
