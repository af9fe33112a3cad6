import numpy as np
import pytest
import torch

from mnist_helpers.data.augment import Augmentation
from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.loaders import ResidentLoader, make_loaders, plain_loader, stratified_split
from mnist_helpers.environment import combine_seeds, seeded
from mnist_helpers.evaluation.scores import evaluate
from mnist_helpers.models import network


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
    for limit, n_validation in ((80, 20), (4, 1), (3, 1), (1, 1)):
        training, validation = make_loaders(digits, limit=limit, device="cpu")
        assert (len(training.labels), len(validation.labels)) == (limit, n_validation)
    for limit in (0, -5):
        with pytest.raises(ValueError, match=f"limit={limit} leaves no image to train on: give 1 or more"):
            make_loaders(digits, limit=limit, device="cpu")


def test_without_digits_there_is_no_batch(digits):
    with seeded(0):
        model = network()
    empty = ResidentLoader(digits.take(torch.arange(0)), device="cpu")
    assert list(empty) == [] and len(empty) == 0
    with pytest.raises(ValueError, match="the loader gave no batch: there is nothing to evaluate"):
        evaluate(model, empty)


def test_what_plain_loaders_cannot_do_is_refused(digits):
    for options in ({"augmentation": Augmentation(degrees=15)}, {"shard": (0, 2)}):
        with pytest.raises(
            ValueError,
            match="^plain loaders neither augment nor share batches, nor add to the digits: leave out plain$",
        ):
            make_loaders(digits, plain=True, **options)


@pytest.mark.parametrize(("n", "batch_size"), [(203, 16), (193, 64), (203, 7), (60, 64)])
@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_shares_put_together_are_the_batches_of_one_process(digits, n, batch_size, n_processes):
    def make(**options):
        return ResidentLoader(digits.take(torch.arange(n)), batch_size, shuffle=True, seed=3, device="cpu", **options)

    whole, shares = make(), [make(shard=(number, n_processes)) for number in range(n_processes)]
    for _ in range(2):  # two epochs, hence two orders
        for (images, labels), *parts in zip(whole, *shares, strict=True):
            together = torch.full_like(images, torch.nan), torch.full_like(labels, -1)
            for number, part in enumerate(parts):
                for target, found in zip(together, part, strict=True):
                    target[number::n_processes] = found
            assert torch.equal(together[0], images) and torch.equal(together[1], labels)
    given = [sum(len(labels) for _, labels in share) for share in shares]
    assert [share.n_examples_here for share in shares] == given and sum(given) == n
    assert {share.n_examples for share in shares} == {n} and {len(share) for share in shares} == {len(whole)}


def test_both_parts_are_shared(digits):
    for parts in zip(*(make_loaders(digits, 16, device="cpu", shard=(number, 2)) for number in (0, 1))):
        assert parts[0].n_examples_here + parts[1].n_examples_here == parts[0].n_examples
    assert parts[0].n_examples == 41


def test_too_few_examples_for_so_many_processes_are_refused(digits):
    few = digits.take(torch.arange(2))
    assert ResidentLoader(few, 64, device="cpu", shard=(1, 3)).n_examples_here == 1
    with pytest.raises(ValueError, match="2 examples in batches of 64 cannot be shared by 3 processes: take fewer"):
        ResidentLoader(few, 64, device="cpu", shard=(2, 3))
    with pytest.raises(ValueError, match="203 examples in batches of 1 cannot be shared by 2 processes"):
        ResidentLoader(digits, 1, device="cpu", shard=(1, 2))


def test_each_process_distorts_its_share_in_its_own_way(digits):
    alike = digits.take(torch.zeros(203, dtype=torch.int64))
    shaken = Augmentation(degrees=20, elastic=20)

    def images(shard, seed=3):
        loader = ResidentLoader(alike, 16, seed=seed, device="cpu", augmentation=shaken, shard=shard)
        return torch.cat([images for images, _ in loader])

    first, second = (images((number, 2)) for number in (0, 1))
    assert not (first[: len(second)] == second).flatten(1).all(dim=1).any(), "no picture is distorted alike"
    assert torch.equal(images((1, 2)), second)


def test_augmentation_in_a_single_process_is_what_the_records_were_made_with(digits):
    shaken = Augmentation(degrees=20, elastic=20)
    loader = ResidentLoader(digits, 16, seed=3, device="cpu", augmentation=shaken)
    for epoch in (0, 1):
        generator = torch.Generator().manual_seed(combine_seeds(3, epoch, 2))
        pixels = digits.images[:, None] * (1 / (255 * 0.5))
        expected = [shaken(part, 0.0, generator) - 1 for part in pixels.split(128)]  # eight batches at a time
        torch.testing.assert_close(torch.cat([images for images, _ in loader]), torch.cat(expected), rtol=0, atol=1e-6)


@pytest.mark.mnist
def test_mnists_own_normalisation_gives_mean_0_and_deviation_1():
    images = torch.cat([images for images, _ in ResidentLoader(load_mnist(), 10_000, "mnist", device="cpu")])
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("plain", [False, True])
def test_all_images_are_trained_on_where_nothing_is_held_back(digits, plain):
    loader, validation = make_loaders(digits, 50, "raw", device="cpu", plain=plain, all_images=True)
    assert validation is None
    labels = torch.cat([labels for _, labels in loader])
    assert torch.equal(labels.bincount(), digits.labels.bincount())
    few, _ = make_loaders(digits, 50, device="cpu", all_images=True, limit=60)
    assert few.n_examples == 60


def test_raw_pixels_come_as_they_are(digits):
    images, _ = next(iter(ResidentLoader(digits, 203, "raw", device="cpu")))
    assert images.dtype == torch.float32 and torch.equal(images[:, 0], digits.images.float())


@pytest.mark.parametrize("make", [lambda *a, **k: ResidentLoader(*a, **k, device="cpu"), plain_loader, make_loaders])
def test_a_batch_size_or_seed_that_is_none_is_refused_where_the_loader_is_made(digits, make):
    for wrong in (0, -1, 2.5, None, "64"):
        with pytest.raises(ValueError, match=f"^batch_size must be a whole number of 1 or more, not {wrong!r}$"):
            make(digits, wrong)
    for wrong in (-1, 1.5, None):
        with pytest.raises(ValueError, match=f"^seed must be a whole number of 0 or more, not {wrong!r}$"):
            make(digits, 64, seed=wrong)
    make(digits, np.int64(64), seed=np.int64(3))
