import pytest

from mnist_helpers import predict
from mnist_helpers.data.digits import load_digits_sample, load_mnist
from mnist_helpers.data.loaders import stratified_split
from mnist_helpers.handwriting.learn.digit_or_not import examples, page_examples, single_digits, written_digits
from mnist_helpers.handwriting.learn.oddities import odd_shapes
from mnist_helpers.handwriting.reading import WEIGHTS


def test_examples_are_functions_of_their_seed():
    digits = load_digits_sample()
    one, again = (examples(digits, pages=1, n_digits=15, n_written=5, n_odd=10, seed=1) for _ in range(2))
    assert (one.images == again.images).all() and (one.labels == again.labels).all()
    assert one.images.shape[1:] == (28, 28) and one.labels[-10:].sum() == 0 and one.labels[-30:-10].sum() == 20


def test_on_pages_whole_digits_and_parts_are_told_apart():
    forms, labels = page_examples(load_digits_sample(), range(2))
    assert len(forms) == len(labels) and 10 < labels.sum() < len(labels) - 10


def certainty(forms):
    return predict(forms, WEIGHTS)[1][:, 1].numpy()


@pytest.mark.mnist
def test_the_committed_network_tells_digits_from_other_shapes():
    digits = load_mnist()
    digits = digits.take(stratified_split(digits.labels)[1])
    assert (certainty(digits.images[:500]) > 0.5).mean() > 0.9
    assert (certainty(single_digits(digits, 200, seed=7)) > 0.5).mean() > 0.9
    assert (certainty(odd_shapes(200, seed=7)) < 0.5).mean() > 0.9


@pytest.mark.parametrize("digit", [1, 7])
def test_a_1_with_an_upstroke_and_a_7_with_a_bar_are_digits(digit):
    assert (certainty(written_digits(200, seed=7)[digit::10]) > 0.5).all()
