import cv2
import numpy as np
import pytest

from mnist_helpers.handwriting.ruling import without_ruling


def ring(mask, x, y, radius=20, width=5):
    """Draw a round 0 into a mask of uint8."""
    cv2.circle(mask, (x, y), radius, 1, width)
    return mask


def clean(picture):
    """Return the mask without its ruling."""
    mask = picture > 0
    return without_ruling(mask, mask, picture.astype(np.float32))


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


@pytest.mark.parametrize("upright", [False, True])
def test_a_line_that_bends_goes_and_strokes_beside_it_stay(upright):
    strokes = np.zeros((300, 400), np.uint8)
    for x in (80, 200, 320):
        ring(strokes, x, 150)
        cv2.line(strokes, (x - 20, 207), (x + 20, 207), 1, 3)  # as thin as the line, and close to it
    page = strokes.copy()
    x = np.arange(400)
    for shift in (0, 1):
        page[np.round(214 + shift + 2 * np.sin(x / 60)).astype(int), x] = 1
    cleaned = clean(page.T if upright else page)
    cleaned = cleaned.T if upright else cleaned
    assert (cleaned & (strokes > 0)).sum() > 0.97 * strokes.sum()
    assert (cleaned & (strokes == 0)).sum() < 0.05 * (page > strokes).sum()


def test_where_lines_cross_nothing_is_left():
    strokes = ring(np.zeros((300, 300), np.uint8), 150, 150)
    page = strokes.copy()
    for at in range(20, 300, 40):
        page[at : at + 2] = page[:, at : at + 2] = 1
    cleaned = clean(page)
    assert (cleaned & (strokes == 0)).sum() < 30 and (cleaned & (strokes > 0)).sum() > 0.9 * strokes.sum()


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("beside", ["nothing", "a short line", "a broken line"])
def test_a_line_hidden_by_what_is_written_goes_as_its_neighbours_do(upright, beside):
    strokes = np.zeros((300, 300), np.uint8)
    for x in range(20, 300, 30):
        cv2.rectangle(strokes, (x, 95), (x + 10, 125), 1, -1)
    page = strokes.copy()
    for y in range(30, 290, 20):
        page[y : y + 2] = 1
    if beside == "a short line":
        page[60:62, 100:210], page[50:52], page[70:72] = 1, 0, 0
    if beside == "a broken line":
        page[210:212, 100:160] = 0
    cleaned = clean(page.T if upright else page)
    cleaned = cleaned.T if upright else cleaned
    assert (cleaned & (strokes == 0)).sum() < 30 and (cleaned & (strokes > 0)).sum() > 0.9 * strokes.sum()


def test_squares_go_where_they_do_not_reach_the_rim():
    strokes = ring(np.zeros((400, 400), np.uint8), 190, 190)
    page = strokes.copy()
    for at in range(90, 311, 20):
        page[at : at + 2, 90:312] = page[90:312, at : at + 2] = 1
    cleaned = clean(page)
    assert (cleaned & (strokes == 0)).sum() < 40 and (cleaned & (strokes > 0)).sum() > 0.8 * strokes.sum()


@pytest.mark.parametrize(
    "points", [[(60, 60), (160, 50), (100, 180)], [(70, 60), (150, 60), (160, 170), (80, 180), (70, 60)]]
)
def test_straight_thin_strokes_of_a_single_digit_are_no_ruling(points):
    picture = np.zeros((224, 224), np.uint8)
    cv2.polylines(picture, [np.array(points)], False, 1, 5)
    cv2.line(picture, (75, 120), (150, 110), 1, 5)
    assert (clean(picture) == (picture > 0)).all()


def test_boxes_seen_from_aside_and_open_in_the_mask_go_too():
    digits = np.zeros((140, 400), np.uint8)
    for x in (60, 150, 330):
        ring(digits, x, 70)
    faint = digits.copy()
    for x in (60, 150, 330):
        corners = [(x - 36, 36), (x + 33, 26), (x + 40, 104), (x - 29, 112)]
        cv2.polylines(faint, [np.array(corners)], True, 1, 2)
    mask = faint.copy()
    mask[30:34] = 0
    cleaned = without_ruling(mask > 0, faint > 0, faint.astype(np.float32))
    assert (cleaned & (digits > 0)).sum() > 0.99 * digits.sum()
    assert (cleaned & (digits == 0)).sum() < 0.1 * (mask > digits).sum()


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
