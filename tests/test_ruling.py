import cv2
import numpy as np
import pytest

from mnist_helpers.ruling import stroke_width, without_ruling


def ring(mask, x, y, radius=20, width=5):
    """Draw a round 0 into a mask of uint8."""
    cv2.circle(mask, (x, y), radius, 1, width)
    return mask


def clean(picture):
    """Return the mask without its ruling."""
    mask = picture > 0
    return without_ruling(mask, mask, picture.astype(np.float32))


@pytest.mark.parametrize("width", [3, 7, 15])
def test_the_width_of_a_stroke_is_measured(width):
    mask = np.zeros((100, 200), bool)
    mask[40 : 40 + width, 10:190] = True
    assert stroke_width(mask) == pytest.approx(width, abs=0.3, rel=0.1)
    assert stroke_width(np.ones((50, 50), bool)) > 10 and stroke_width(np.zeros((5, 5), bool)) == 0


@pytest.mark.parametrize("slope", [0.0, 0.05, -0.08])
@pytest.mark.parametrize("upright", [False, True])
def test_long_lines_go_and_strokes_that_cross_them_stay(slope, upright):
    strokes = np.zeros((300, 400), np.uint8)
    for x in (80, 200, 320):
        ring(strokes, x, 150)
    page = strokes.copy()
    for y in (100, 145, 240):
        cv2.line(page, (0, y), (399, round(y + 400 * slope)), 1, 2)
    cleaned = clean(page.T if upright else page)
    cleaned = cleaned.T if upright else cleaned
    assert (cleaned & (strokes > 0)).sum() > 0.9 * strokes.sum()
    assert (cleaned & (strokes == 0)).sum() < 0.15 * (page > strokes).sum()


def test_boxes_go_and_the_digits_in_them_stay():
    digits = np.zeros((140, 400), np.uint8)
    for x in (60, 150, 330):
        ring(digits, x, 70)
    page = digits.copy()
    for x in (60, 150, 240, 330):  # one is empty
        cv2.rectangle(page, (x - 38, 30), (x + 38, 110), 1, 2)
    cleaned = clean(page)
    assert (cleaned & (digits > 0)).sum() == digits.sum()
    assert (cleaned & (digits == 0)).sum() < 0.1 * (page > digits).sum()


@pytest.mark.parametrize("ends", [((60, 20), (60, 260)), ((30, 140), (250, 135))])
def test_a_line_that_stands_alone_may_be_a_1(ends):
    page = np.zeros((280, 280), np.uint8)
    cv2.line(page, *ends, 1, 4)
    assert (clean(page) == (page > 0)).all()


def test_a_tall_1_among_digits_is_no_ruling():
    page = np.zeros((200, 300), np.uint8)
    ring(page, 60, 100, radius=60), ring(page, 240, 100, radius=55)
    cv2.line(page, (150, 30), (150, 170), 1, 5)
    assert (clean(page) == (page > 0)).all()


def test_nothing_stays_nothing():
    assert not clean(np.zeros((50, 60), np.uint8)).any()
