import numpy as np
import pytest
from pages import drawing

from mnist_helpers.data.form import to_mnist_form
from mnist_helpers.handwriting.boxes import overlaps
from mnist_helpers.handwriting.learn.pages import RULINGS, compose_page, random_page


@pytest.fixture
def forms():
    return np.array([to_mnist_form(drawing(digit, 24)) for digit in range(10)])


def darkest(page, box):
    left, top, right, bottom = box
    return page.image[top:bottom, left:right].mean(axis=2).min()


@pytest.mark.parametrize("ruling", RULINGS)
def test_boxes_are_where_the_ink_is(forms, ruling):
    page = compose_page(forms, range(10), columns=5, ruling=ruling, printed=0.2, degrees=7, tilt=0.1)
    assert page.image.dtype == np.uint8 and page.labels.tolist() == list(range(10))
    assert page.lines.tolist() == [0] * 5 + [1] * 5 and not page.touching.any()
    assert all(darkest(page, box) < 60 for box in page.boxes)
    covered = np.zeros(page.image.shape[:2], bool)
    for left, top, right, bottom in page.boxes:
        covered[top:bottom, left:right] = True
    assert page.image[~covered].mean(axis=1).min() > 100
    assert (page.boxes[:, :2] >= 0).all() and (page.boxes[:, 2:] <= page.image.shape[1::-1]).all()


def test_touching_pairs_touch_and_do_not_lie_on_each_other(forms):
    page = compose_page(forms, range(10), columns=10, touching=1.0)
    assert page.touching.sum() == 10
    for one, other in zip(page.boxes[::2], page.boxes[1::2]):
        assert other[0] - one[2] <= 2 and overlaps([one], [other])[0, 0] < 0.6


def test_a_page_is_a_function_of_its_seed(digits):
    one, again, other = random_page(digits, 3), random_page(digits, 3), random_page(digits, 4)
    assert np.array_equal(one.image, again.image) and np.array_equal(one.boxes, again.boxes)
    assert one.image.shape != other.image.shape or not np.array_equal(one.image, other.image)


def test_a_page_without_digits_or_with_unknown_ruling_is_refused(forms):
    with pytest.raises(ValueError, match="a page needs digits"):
        compose_page(forms[:0], [])
    with pytest.raises(ValueError, match="not 'dots'"):
        compose_page(forms, range(10), ruling="dots")
