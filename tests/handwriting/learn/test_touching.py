import json

import numpy as np
import pytest
import torch

from mnist_helpers.data.digits import load_digits_sample, load_mnist
from mnist_helpers.data.loaders import stratified_split
from mnist_helpers.files import sha256
from mnist_helpers.handwriting.cuts import WEIGHTS, boundary_network
from mnist_helpers.handwriting.learn.touching import examples, touching_piece


def test_examples_are_functions_of_their_seed():
    digits = load_digits_sample()
    one, again, other = (examples(digits, 24, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, again)) and not torch.equal(one[0], other[0])
    inks, boundaries = one
    assert inks.shape == boundaries.shape == (24, 32, 64) and inks.max() < 1.001 and inks.min() >= 0
    assert set(boundaries.unique().tolist()) == {0, 1} and boundaries[:2].sum() == 0  # the first are no digits


def test_a_boundary_parts_the_digits_and_one_alone_has_none():
    images = load_digits_sample().images.numpy()
    for seed in range(20):
        ink, boundary = touching_piece(images[seed : seed + 1], seed)
        assert ink.shape == boundary.shape and ink.shape[0] == 32 and not boundary.any()
    pieces = [touching_piece(images[seed : seed + 2], seed) for seed in range(30)]
    crossed = [boundary.any(axis=1).mean() for _, boundary in pieces]
    assert np.mean(np.array(crossed) > 0.95) > 0.6  # some do not touch, or the pen broke


@pytest.mark.mnist
def test_the_committed_network_sees_boundaries():
    digits = load_mnist()
    inks, boundaries = examples(digits.take(stratified_split(digits.labels)[1]), 300, seed=7)
    with torch.no_grad():
        chances = boundary_network()(inks[:, None]).sigmoid()
    seen, bounded = chances.amax(dim=(1, 2)) > 0.5, boundaries.sum(dim=(1, 2)) > 20
    assert (seen == bounded).float().mean() > 0.9


def test_the_committed_network_is_the_one_its_card_describes():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert sha256(WEIGHTS.read_bytes()) == card["sha256"]
    assert sum(one.numel() for one in boundary_network().parameters()) == card["parameters"]
