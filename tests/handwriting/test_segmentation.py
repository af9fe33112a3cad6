import cv2
import numpy as np
import pytest

from mnist_helpers.handwriting.segmentation import find_parts, lines_of, skew, stroke_width, turn, union, usual_height


def page(places, size=30, shape=(300, 400)):
    """Return a mask with a round 0 at each (x, y)."""
    mask = np.zeros(shape, np.uint8)
    for x, y in places:
        cv2.ellipse(mask, (round(x), round(y)), (size // 3, size // 2), 0, 0, 360, 1, 4)
    return mask > 0


GRID = [(x, y) for y in (60, 130, 200) for x in (60, 130, 200, 270, 340)]


def test_the_width_of_a_stroke_is_measured():
    for width in (3, 7, 15):
        mask = np.zeros((100, 200), bool)
        mask[40 : 40 + width, 10:190] = True
        assert stroke_width(mask) == pytest.approx(width, abs=0.3, rel=0.1)
    assert stroke_width(np.ones((50, 50), bool)) > 10 and stroke_width(np.zeros((5, 5), bool)) == 0


def test_pieces_of_ink_are_found_without_specks_and_blots():
    mask = page(GRID)
    mask[10:12, 10:12] = True  # a speck
    cv2.circle(blot := mask.astype(np.uint8), (370, 30), 18, 1, -1)
    parts = find_parts(blot > 0)
    assert len(parts) == 15 and usual_height(parts) == pytest.approx(34, abs=2)
    assert find_parts(np.zeros((9, 9), bool)) == [] and usual_height([]) == 0


def test_the_table_beside_the_sheet_is_no_writing():
    mask = page(GRID)
    mask[:, :8] = True
    mask[250:, :] = True
    assert len(find_parts(mask)) == 15


@pytest.mark.parametrize("degrees", [-12, -4, 0, 3, 10])
def test_the_slope_of_lines_is_found_and_undone(degrees):
    angle = np.radians(degrees)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    places = (np.array(GRID) - (200, 130)) @ turned + (220, 150)
    mask = page(places, shape=(360, 460))
    found = skew(find_parts(mask))
    assert found == pytest.approx(degrees, abs=1)
    strength, upright, back = turn(mask.astype(np.float32), mask, found)
    lines = lines_of(find_parts(upright))
    assert [len(line) for line in lines] == [5, 5, 5] and strength.shape == upright.shape
    middles = np.array([part.middle for line in lines for part in line])
    assert np.allclose(middles @ back[:, :2].T + back[:, 2], places, atol=2)


def test_few_parts_have_no_slope():
    assert skew(find_parts(page([(60, 60), (200, 120)]))) == 0 and skew([]) == 0


def test_lines_may_bend():
    places = [(x, y + 25 * np.sin(x / 80)) for y in (70, 150) for x in range(40, 380, 45)]
    lines = lines_of(find_parts(page(places)))
    assert [len(line) for line in lines] == [8, 8]
    assert all(a.left < b.left for line in lines for a, b in zip(line, line[1:]))


def test_halves_with_a_narrow_gap_stand_on_one_line_and_lines_close_together_on_two():
    mask = page([(60, 100), (130, 100)], size=60)
    mask[99:102] = False
    assert [len(line) for line in lines_of(find_parts(mask))] == [4]
    close = page([(x, y) for y in (60, 104) for x in (60, 130, 200)])  # 10 points between them, and a pen of 4
    assert [len(line) for line in lines_of(find_parts(close))] == [3, 3]


def test_parts_are_joined_again():
    one, other = find_parts(page([(100, 100), (160, 110)]))
    joined = union([one, other])
    assert (joined.left, joined.top) == (one.left, one.top) and joined.mask.sum() == one.mask.sum() + other.mask.sum()
