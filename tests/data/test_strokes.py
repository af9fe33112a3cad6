import numpy as np
import pytest
import torch

from mnist_helpers import load_model, predict
from mnist_helpers.data.strokes import HAND, draw, fitted, forms, smooth, write


def test_a_stroke_is_a_line_of_the_pens_width():
    picture = draw([[(0.5, 0.2), (0.5, 0.8)]], side=100, pen=0.1)
    assert picture.shape == (100, 100) and picture.dtype == np.uint8 and set(np.unique(picture)) == {0, 255}
    rows, columns = np.nonzero(picture.max(axis=1))[0], np.nonzero(picture.max(axis=0))[0]
    assert len(columns) == pytest.approx(10, abs=1) and len(rows) == pytest.approx(70, abs=1)  # with round ends


def test_a_point_is_a_dot_and_nothing_is_an_empty_picture():
    assert 50 < (draw([[(0.5, 0.5)]], side=100, pen=0.1) > 0).sum() < 120
    assert not draw([]).any() and not draw([[(-3, 7), (5, 7)]]).any()


@pytest.mark.parametrize("wrong", [[[1, 2]], [[(1, 2, 3)]], [["ab"]], [[(np.nan, 0)]], [[]], [3]])
def test_what_is_no_stroke_is_refused(wrong):
    with pytest.raises(ValueError, match="a stroke is a list of pairs"):
        draw(wrong)


def test_the_smooth_curve_goes_through_the_points():
    points = [(0.1, 0.2), (0.5, 0.9), (0.8, 0.3)]
    curve = smooth(points, steps=4)
    assert np.allclose(curve[::4], points) and len(curve) == 9
    assert smooth(points[:2]) == [list(point) for point in points[:2]]


def test_the_two_forms_differ_in_place_and_size():
    raw, form = forms(draw([[(0.1, 0.1), (0.1, 0.3)]]))
    assert raw.shape == form.shape == (28, 28)
    assert np.nonzero(raw.max(axis=1))[0].max() < 10
    assert np.ptp(np.nonzero(form.max(axis=1))[0]) == 19


def test_writing_varies_with_the_generator_alone():
    assert write(4) == write(4)
    one, two = write(4, torch.Generator().manual_seed(1)), write(4, torch.Generator().manual_seed(1))
    assert one == two != write(4, torch.Generator().manual_seed(2))


def test_the_written_digits_are_read_as_what_they_are():
    pictures = np.stack([forms(draw(write(digit)))[1] for digit in HAND])
    assert predict(pictures, load_model("densenet_small", "cpu"))[0].tolist() == list(range(10))


def test_strokes_are_scaled_and_centred():
    small = [[(0.1, 0.1), (0.2, 0.3)], [(0.15, 0.2), (0.2, 0.2)]]
    (first, second) = fitted(small)
    assert np.allclose(first, [(0.325, 0.15), (0.675, 0.85)]) and np.allclose(second, [(0.5, 0.5), (0.675, 0.5)])
    assert fitted([[(0.3, 0.4)]]) == [[[0.3, 0.4]]] and fitted([]) == []
