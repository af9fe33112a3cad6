import numpy as np
import pytest
from pages import drawing

from mnist_helpers.data.form import to_mnist_form
from mnist_helpers.handwriting.boxes import boxes_of, match_boxes
from mnist_helpers.handwriting.candidates import digit_form, find_candidates
from mnist_helpers.handwriting.learn.pages import compose_page
from mnist_helpers.handwriting.segmentation import find_parts


def test_every_written_digit_is_among_the_likely_candidates():
    forms = [to_mnist_form(drawing(digit)) for digit in (3, 0, 7, 2, 5, 9)]
    page = compose_page(np.array(forms), [3, 0, 7, 2, 5, 9], columns=3, degrees=6, size=70)
    lattices, matrix, scale = find_candidates(page.image)
    assert len(lattices) == 2
    complete = [part for one in lattices for part, chance in zip(one.parts, one.chances) if chance > 0.5]
    assert (match_boxes(page.boxes, boxes_of(complete, matrix, scale)) >= 0).all()
    for one in lattices:
        assert len(one.parts) == len(one.spans) == len(one.forms) == len(one.chances)
        last = max(end for _, end in one.spans)
        assert {(place, place + 1) for place in range(last)} <= set(one.spans), "each smallest piece is a candidate"


def test_a_form_is_that_of_the_part_alone():
    digit = drawing(6, 24)
    strength = digit.astype(np.float32) / 255
    (part,) = find_parts(digit > 128)
    alone = digit_form(strength, part)
    assert np.abs(alone.astype(int) - to_mnist_form(digit)).mean() < 2
    crowded = strength.copy()
    crowded[:, part.left + part.width + 12 :] = 1  # a neighbour
    assert np.array_equal(digit_form(crowded, part), alone)


def test_thin_strokes_become_as_thick_as_mnists():
    for width in (2, 4, 8, 24):
        digit = drawing(3, width)
        (part,) = find_parts(digit > 128)
        form = digit_form(digit.astype(np.float32) / 255, part)
        assert form.max() == 255 and 50 < (form > 128).sum() < 200, width


def test_a_page_of_print_is_refused_instead_of_taking_minutes():
    page = np.full((1400, 1400), 255, np.uint8)
    for row in range(10, 1390, 20):
        for column in range(10, 1390, 20):
            page[row : row + 10, column : column + 3] = 0
    with pytest.raises(ValueError, match="too many for written digits"):
        find_candidates(page)
