import numpy as np

from mnist_helpers.handwriting.learn.oddities import DRAW, KINDS, odd_drawing, odd_page, odd_shapes


def test_every_kind_leaves_ink_on_its_field():
    assert set(KINDS) == set(DRAW)
    for kind, draw in DRAW.items():
        for seed in range(20):
            picture = np.zeros((96, 96), np.uint8)
            draw(picture, 4, np.random.default_rng(seed))
            assert 30 < (picture > 128).sum() < 0.6 * picture.size, kind


def test_shapes_and_pages_are_functions_of_their_seed():
    assert np.array_equal(odd_shapes(9, 1), odd_shapes(9, 1)) and not np.array_equal(odd_shapes(9, 1), odd_shapes(9, 2))
    assert odd_shapes(9, 1).shape == (9, 28, 28) and odd_shapes(9, 1).max(axis=(1, 2)).min() > 200
    assert np.array_equal(odd_page(3), odd_page(3)) and odd_page(3).shape != odd_page(4).shape
    assert odd_drawing(np.random.default_rng(0)).max() > 200


def test_a_page_is_dark_on_light():
    for seed in range(4):
        page = odd_page(seed)
        assert page.dtype == np.uint8 and page.ndim == 2
        assert np.median(page) > 100 and page.min() < 0.8 * np.median(page)
