import cv2
import numpy as np
import pytest
import torch

from mnist_helpers.environment import seeded
from mnist_helpers.handwriting.boundary import BoundaryNet
from mnist_helpers.handwriting.cuts import boundary_network, cut, find_seams
from mnist_helpers.handwriting.segmentation import find_parts, union


@pytest.fixture
def model():
    return boundary_network()


def rings(*middles, size=40, width=6):
    """Return the one part that round 0s at these x make."""
    mask = np.zeros((200, 400), np.uint8)
    for x in middles:
        cv2.ellipse(mask, (x, 100), (size // 3, size // 2), 0, 0, 360, 1, width)
    (part,) = find_parts(mask > 0)
    return part


@pytest.mark.parametrize("size", [20, 40, 100])
def test_digits_that_touch_are_cut_where_they_touch(model, size):
    apart = 2 * (size // 3) + 4
    part = rings(100, 100 + apart, 100 + 2 * apart, size=size)
    pieces, chances = cut(part, part.height, model)
    assert sum(piece.mask.sum() for piece in pieces) == part.mask.sum()
    joined = union(pieces)
    assert (joined.left, joined.top) == (part.left, part.top) and (joined.mask == part.mask).all()
    likely = [piece.left for piece, chance in zip(pieces[1:], chances) if chance > 0.5]
    assert likely == pytest.approx([100 + apart / 2, 100 + 1.5 * apart], abs=size / 8)


def test_one_digit_is_not_cut(model):
    part = rings(100)
    pieces, chances = cut(part, part.height, model)
    assert len(pieces) == 1 or max(chances) < 0.5
    mask = np.zeros((60, 60), bool)
    mask[10:50, 28:32] = True
    (narrow,) = find_parts(mask)
    pieces, chances = cut(narrow, 40, model)
    assert len(pieces) == 1 and pieces[0] is narrow and chances == []


def test_a_seam_runs_from_top_to_bottom_within_the_ink(model):
    part = rings(100, 130)
    for path, chance in find_seams(part.mask, model):
        assert path.shape == (part.height,) and 0 < chance <= 1
        assert 0 <= path.min() and path.max() <= part.width and np.abs(np.diff(path)).max() <= 3


def test_pieces_of_ink_in_a_logit_for_each_point_out():
    with seeded(0):
        network = BoundaryNet()
    assert network(torch.zeros(2, 1, 32, 72)).shape == (2, 32, 72)
