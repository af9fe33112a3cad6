import numpy as np
import pytest
import torch

from mnist_helpers.data import load_mnist
from mnist_helpers.loaders import ResidentLoader, make_loaders, plain_loader, stratified_split


def test_split_is_disjoint_complete_stratified_and_stable():
    labels = torch.arange(60_000) ** 2 % 10  # classes of unequal size
    training, validation = stratified_split(labels)
    assert (len(training), len(validation)) == (48_000, 12_000)
    assert torch.equal(torch.cat([training, validation]).sort().values, torch.arange(60_000))
    shares = [labels[part].bincount(minlength=10) / len(part) for part in (training, validation)]
    assert torch.allclose(*shares, atol=1e-4)
    again = stratified_split(labels)
    assert torch.equal(training, again[0]) and torch.equal(validation, again[1])


def test_split_is_the_protocols():
    from sklearn.model_selection import train_test_split

    labels = np.arange(1000) % 10
    expected = train_test_split(np.arange(1000), test_size=0.2, stratify=labels, random_state=42)
    for ours, theirs in zip(stratified_split(torch.from_numpy(labels)), expected):
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("normalisation", ["half", "mnist"])
def test_twins_give_the_same_batches_in_the_same_order(digits, normalisation):
    resident = make_loaders(digits, 16, normalisation, seed=3, device="cpu")
    plain = make_loaders(digits, 16, normalisation, seed=3, plain=True)
    for ours, theirs in zip(resident, plain):
        for _ in range(2):  # two passes, hence two orders where shuffled
            batches = list(zip(ours, theirs, strict=True))
            assert len(batches) == len(ours) == len(theirs)
            for (images, labels), (their_images, their_labels) in batches:
                assert images.dtype == torch.float32 and images.shape[1:] == (1, 28, 28)
                torch.testing.assert_close(images, their_images)
                assert torch.equal(labels, their_labels)


def test_normalisation_is_what_it_says(digits):
    for normalisation, mean, std in (("half", 0.5, 0.5), ("mnist", 0.1307, 0.3081)):
        images, _ = next(iter(ResidentLoader(digits, 203, normalisation, device="cpu")))
        torch.testing.assert_close(images[:, 0], (digits.images / 255 - mean) / std)


@pytest.mark.parametrize("make", [lambda *a, **k: ResidentLoader(*a, **k, device="cpu"), plain_loader])
def test_order_is_a_function_of_seed_and_epoch(digits, make):
    def order(loader, epoch=None):
        if epoch is not None:
            loader.sampler.set_epoch(epoch)
        return torch.cat([labels for _, labels in loader]).tolist()

    loader = make(digits, 16, shuffle=True, seed=1)
    first, second = order(loader), order(loader)
    assert first != second, "every epoch has an order of its own"
    assert first != digits.labels.tolist() and sorted(first) == sorted(digits.labels.tolist())
    assert order(loader, epoch=0) == first and order(loader, epoch=1) == second
    assert order(make(digits, 16, shuffle=True, seed=1)) == first
    assert order(make(digits, 16, shuffle=True, seed=2)) != first


def test_validation_is_never_shuffled_and_the_last_batch_is_kept(digits):
    training, validation = make_loaders(digits, 16, device="cpu")
    part = stratified_split(digits.labels)[1]
    sizes = [len(labels) for _, labels in validation]
    assert sizes == [16, 16, 9] and len(validation) == 3
    assert torch.equal(torch.cat([labels for _, labels in validation]), digits.labels[part])
    assert sum(len(labels) for _, labels in training) == 162
    assert torch.cat([labels for _, labels in training]).tolist() != training.labels.tolist()


def test_limit_keeps_a_quarter_as_many_for_validation(digits):
    training, validation = make_loaders(digits, limit=80, device="cpu")
    assert (len(training.labels), len(validation.labels)) == (80, 20)


@pytest.mark.mnist
def test_mnists_own_normalisation_gives_mean_0_and_deviation_1():
    images = torch.cat([images for images, _ in ResidentLoader(load_mnist(), 10_000, "mnist", device="cpu")])
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)
