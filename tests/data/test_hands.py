from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from mnist_helpers.data import hands
from mnist_helpers.data.digits import Digits
from mnist_helpers.data.strokes import SHAPES

DEJAVU = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def test_other_hands_and_no_digits_follow_the_digits(digits):
    more = hands.many_hands(digits, 48, 60, seed=1)
    n = len(digits)
    assert torch.equal(more.images[:n], digits.images) and torch.equal(more.labels[:n], digits.labels)
    assert more.images.dtype == torch.uint8 and more.images.shape[1:] == (28, 28)
    labels = more.labels[n:]
    assert (labels == hands.NO_DIGIT).sum() == 60 and set(labels.tolist()) == set(range(11))
    assert torch.equal(more.images, hands.many_hands(digits, 48, 60, seed=1).images)
    assert not torch.equal(more.images, hands.many_hands(digits, 48, 60, seed=2).images)


def test_the_pen_knows_what_is_often_misread():
    assert sorted(SHAPES) == list(range(10))
    strokes = {digit: {len(shape) for shape in shapes} for digit, shapes in SHAPES.items()}
    assert 2 in strokes[0], "a 0 with a slash"
    assert {1, 2, 3} <= strokes[1] | strokes[7], "a 1 with upstroke and foot, a 7 with a bar"
    assert max(strokes[7]) == 4 and max(strokes[1]) == 3 and strokes[4] == {2, 3}
    points = np.concatenate([np.array(stroke) for shapes in SHAPES.values() for shape in shapes for stroke in shape])
    assert points.min() > 0.1 and points.max() < 0.95
    pictures, labels = hands.pen_digits(20, np.random.default_rng(0))
    assert labels.tolist() == list(range(10)) * 2 and pictures.max(axis=(1, 2)).min() > 200


@pytest.mark.parametrize("digit", [0, 1, 7])
def test_restyling_adds_ink_to_the_digits_that_have_another_style(digit, digits):
    image = digits.images[digits.labels == digit][0].numpy()
    restyled = hands._restyled(image, digit, np.random.default_rng(0))
    assert restyled.sum(dtype=float) > 1.05 * 16 * image.sum(dtype=float)


def test_without_fonts_the_rest_is_drawn(digits, monkeypatch):
    monkeypatch.setattr(hands, "FONT_FOLDERS", ())
    assert hands.fonts(hands.PRINTED) == []
    more = hands.many_hands(digits, 48, 60, seed=1)
    assert (more.labels == hands.NO_DIGIT).sum() == 60 and isinstance(more, Digits)


def test_characters_are_drawn_by_fonts(tmp_path, monkeypatch):
    (tmp_path / "sans").mkdir()
    (tmp_path / "sans" / "DejaVuSans.ttf").write_bytes(DEJAVU.read_bytes())
    monkeypatch.setattr(hands, "FONT_FOLDERS", [str(tmp_path)])
    found = hands.fonts(hands.PRINTED)
    assert found == [str(tmp_path / "sans" / "DejaVuSans.ttf")] and hands.fonts(hands.HANDWRITTEN) == []
    pictures, numbers = hands.typed(40, "01", found, np.random.default_rng(0))
    assert set(numbers) == {0, 1}
    widths = (pictures > 128).any(axis=1).sum(axis=1)
    assert widths[numbers == 0].mean() > widths[numbers == 1].mean() and pictures.max(axis=(1, 2)).min() == 255


def test_few_digits_have_hands_too(digits):
    few = hands.many_hands(digits.take(torch.tensor([2, 3])), 24, 12, seed=0)
    assert len(few) > 30
