import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mnist_helpers.data.loaders import ResidentLoader
from mnist_helpers.environment import seeded
from mnist_helpers.models import build_model, count_parameters, network
from mnist_helpers.training.checks import backward_check, forward_check
from mnist_helpers.training.lr_find import lr_find


def small(seed=0, *middle):
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), *middle, nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture
def loader(digits):
    return ResidentLoader(digits, 20, "mnist", shuffle=True, device="cpu")


def named(name):
    with seeded(0):
        return build_model(name)


def sgd(model, rate=0.05):
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def test_layers_shapes_and_parameters_are_told_in_order(loader):
    check = forward_check(named("lenet5"), loader)
    assert [layer.kind for layer in check.layers[:4]] == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d"]
    assert [layer.shape[1:] for layer in check.layers if layer.n_parameters] == [
        *((6, 28, 28), (16, 10, 10), (120,), (84,), (10,)),
    ]
    assert sum(layer.n_parameters for layer in check.layers) == check.n_parameters == 61_706
    assert check.passed and check.loss == pytest.approx(math.log(10), abs=0.3)
    assert "(B, 6, 28, 28)" in str(check) and "61,706 parameters" in str(check) and "2.303" in str(check)


def test_a_network_of_nested_modules_is_told_by_its_innermost_layers(loader):
    model = named("resnet_small")
    check = forward_check(model, loader)
    assert sum(layer.n_parameters for layer in check.layers) == count_parameters(model)
    assert all("." in layer.name or layer.name.isdigit() for layer in check.layers)


def test_what_is_wrong_with_the_forward_pass_is_said(digits):
    softmax = nn.Sequential(small(), nn.Softmax(dim=1))
    for model, normalisation, finding in (
        (small(), "raw", "far above chance"),
        (softmax, "mnist", "without a softmax"),
    ):
        check = forward_check(model, ResidentLoader(digits, 64, normalisation, device="cpu"))
        assert not check.passed and any(finding in one for one in check.findings) and finding in str(check)


def test_a_trained_network_is_no_untrained_one(loader):
    model = small()
    optimizer = sgd(model)
    for _ in range(5):
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    assert "far below chance" in forward_check(model, loader).findings[0]


def test_infinite_weights_are_found(loader):
    model = small()
    with torch.no_grad():
        model[1].weight[0, 0] = torch.inf
    assert "The loss is nan" in str(forward_check(model, loader))


def test_where_the_forward_pass_breaks_off_is_said_in_one_sentence(loader):
    with seeded(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.Linear(9, 10))
    with pytest.raises(ValueError, match=r"breaks off at layer 2 \(Linear\): .*20x8 and 9x10"):
        forward_check(model, loader)


def test_output_of_another_shape_is_named(loader):
    with pytest.raises(ValueError, match=r"output is \(20, 32\), and not \(B, 10\) = \(20, 10\)"):
        forward_check(small()[:3], loader)


def test_a_network_in_order_learns_by_heart(loader):
    check = backward_check(model := small(), loader, sgd(model))
    assert check.passed and check.verdict == ""
    reached = check.history["validation_accuracy"]
    assert reached[-1] >= 99 > max([0, *reached[:-1]]) and len(reached) <= 10, "it ends once that is reached"
    assert "learns these images by heart" in str(check)


@pytest.mark.parametrize(
    ("rate", "verdict"),
    [(1e-6, "the learning rate is too low"), (30.0, "the learning rate is too high"), (1e30, "no number any more")],
)
def test_a_wrong_rate_is_recognised(loader, rate, verdict):
    check = backward_check(model := small(), loader, sgd(model, rate))
    assert verdict in check.verdict and not check.passed


def test_shuffled_labels_are_recognised(digits):
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(1))
    loader = ResidentLoader(replace(digits, labels=digits.labels[order]), 20, "mnist", device="cpu")
    check = backward_check(model := small(), loader, sgd(model))
    assert "the labels do not belong to the images" in check.verdict


def test_layers_without_gradient_are_named(loader):
    model = small(0, nn.BatchNorm1d(32))
    model[1].weight.requires_grad_(False)
    check = backward_check(model, loader, sgd(model, 0.05))
    assert "No gradient reaches 1.weight: is that part frozen" in check.verdict
    dead = small()
    with torch.no_grad():
        dead[1].bias.fill_(-1000.0)
    assert "No gradient reaches 1.weight, 1.bias, 3.weight" in backward_check(dead, loader, sgd(dead)).verdict


def test_a_network_too_small_is_told_so(loader):
    with seeded(0):
        tiny = nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Linear(1, 10))
    assert "a larger network" in backward_check(tiny, loader, sgd(tiny, 0.01)).verdict


def test_a_few_images_are_no_evidence_against_their_labels(digits):
    check = backward_check(model := small(), ResidentLoader(digits.take(torch.arange(10)), 5, device="cpu"), sgd(model))
    assert "labels" not in check.verdict


def test_layers_with_several_outputs_are_told_by_the_first(loader):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(28, 16, batch_first=True), nn.Linear(16, 10)

        def forward(self, images):
            return self.head(self.lstm(images[:, 0])[0][:, -1])

    with seeded(0):
        rows = Rows()
    assert [layer.shape[1:] for layer in forward_check(rows, loader).layers] == [(28, 16), (10,)]


CHECKS = [lr_find, backward_check, lambda model, loader, _: forward_check(model, loader)]


class Empty:
    """A loader without a batch, whose readers must give up."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        assert self.passes < 10, "it is read again and again"
        return iter(())


def test_a_loader_that_is_empty_or_can_be_read_only_once_is_one_sentence(loader):
    model = small()
    for check in CHECKS:
        with pytest.raises(ValueError, match="^the loader gave no batch: there is nothing to (check|test)$"):
            check(model, Empty(), sgd(model))
        once = iter(loader)
        with pytest.raises(ValueError, match="^the loader is a generator, which gives its batches only once: give"):
            check(model, once, sgd(model))
        assert len(list(once)) == len(loader), "it is left as it was"


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_changed_bit_for_bit(loader, check):
    with seeded(0):
        model = network((16,), dropout=0.5, batch_norm=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with seeded(1):
        for images, labels in loader:  # so that optimizer and batch norm have a state, and the loader an epoch
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    model.eval()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), loader.sampler.epoch, torch.get_rng_state()))
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    check(model, loader, optimizer)
    after = (model.state_dict(), optimizer.state_dict(), loader.sampler.epoch, torch.get_rng_state())
    flat = [torch.utils._pytree.tree_leaves(one) for one in (before, after)]
    assert len(flat[0]) == len(flat[1]) > 20
    for old, new in zip(*flat):
        assert torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
    assert all(torch.equal(old, one.grad) for old, one in zip(gradients, model.parameters()))
    assert not any(module.training for module in model.modules())
