import numpy as np
import pytest

from mnist_helpers.handwriting.boxes import match_boxes, overlaps


def test_boxes_are_matched_each_once():
    written = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    read = [[19, 0, 30, 11], [0, 0, 10, 9], [1, 0, 11, 10], [45, 0, 70, 10]]
    assert match_boxes(written, read).tolist() == [1, 0, -1]
    assert match_boxes(written, np.zeros((0, 4))).tolist() == [-1, -1, -1]
    assert overlaps([[0, 0, 2, 2]], [[1, 0, 3, 2]])[0, 0] == pytest.approx(1 / 3)
