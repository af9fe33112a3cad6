import pytest
import torch
from torch import nn

from mnist_helpers.data.digits import load_digits_sample
from mnist_helpers.data.loaders import ResidentLoader
from mnist_helpers.environment import seeded
from mnist_helpers.models import lenet5
from mnist_helpers.training.checks import backward_check
from mnist_helpers.training.lr_find import lr_find


def small():
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture
def loader(digits):
    return ResidentLoader(digits, 20, "mnist", shuffle=True, device="cpu")


def sgd(model, rate=0.05):
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def test_the_range_test_tells_useful_rates_from_useless_ones(loader):
    test = lr_find(model := small(), loader, sgd(model), low=1e-6, high=100.0, n_steps=60)
    assert test.rates[0] == pytest.approx(1e-6) and len(test.rates) == len(test.losses) < 60, "it ends early"
    ratios = [after / before for before, after in zip(test.rates, test.rates[1:])]
    assert all(ratio == pytest.approx(1e8 ** (1 / 59)) for ratio in ratios)
    assert test.suggestion in test.rates and 1e-4 < test.suggestion < 1
    check = backward_check(model, loader, sgd(model, test.suggestion))
    assert check.passed, check


def test_what_falls_after_the_loss_has_risen_is_no_suggestion():
    digits, seed = load_digits_sample(train=True), 1  # with this seed, the loss falls fastest after it has risen
    loader = ResidentLoader(digits, 16, "mnist", shuffle=True, seed=seed, device="cpu")
    with seeded(0):
        model = lenet5()
    test = lr_find(model, loader, torch.optim.Adam(model.parameters()), seed=seed)
    assert 1e-3 < test.suggestion < 0.05 and test.losses.index(min(test.losses)) >= test.rates.index(test.suggestion)


def test_a_loss_that_never_falls_has_no_rate(loader):
    frozen = small()
    frozen.requires_grad_(False)
    frozen[3].bias.requires_grad_(True)
    with torch.no_grad():
        frozen[3].bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="run forward_check first"):
        lr_find(frozen, loader, sgd(frozen))


def test_a_generator_of_a_plain_dataloader_is_put_back(digits):
    data = torch.utils.data.TensorDataset(digits.images[:, None] / 255, digits.labels)
    generator = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(data, 20, shuffle=True, generator=generator)
    before = generator.get_state()
    lr_find(model := small(), loader, sgd(model), n_steps=10)
    assert torch.equal(generator.get_state(), before)


def test_the_range_test_needs_a_range(loader):
    for wrong in ({"low": 1.0, "high": 0.1}, {"low": 0.0}, {"n_steps": 2}):
        with pytest.raises(ValueError, match="a range test needs 0 < low < high"):
            lr_find(model := small(), loader, sgd(model), **wrong)
    with pytest.raises(ValueError, match="no use from a rate of 1e.30 on"):
        lr_find(model := small(), loader, sgd(model), low=1e30, high=1e35)
