import pytest
import torch

from mnist_helpers.environment import seeded
from mnist_helpers.models import MODELS, build_model, count_parameters, improved_network, mlp_baseline, network


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("network", 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        ("improved_network", 784 * 128 + 128 + 2 * 128 + 128 * 64 + 64 + 2 * 64 + 64 * 10 + 10),
        ("mlp_baseline", 784 * 256 + 256 + 2 * 256 + 256 * 256 + 256 + 2 * 256 + 256 * 10 + 10),
    ],
)
def test_parameters_are_what_arithmetic_says(name, expected):
    with seeded(0):
        assert count_parameters(build_model(name)) == expected


@pytest.mark.parametrize("name", MODELS)
def test_images_in_ten_logits_out(name):
    with seeded(0):
        assert build_model(name).eval()(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_dropout_and_batch_normalisation_come_alone_or_together():
    def parts(**arguments):
        with seeded(0):
            return [type(layer).__name__ for layer in network(widths=(8, 8), **arguments)]

    assert parts() == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert parts(dropout=0.2) == ["Flatten"] + 2 * ["Linear", "ReLU", "Dropout"] + ["Linear"]
    assert parts(batch_norm=True) == ["Flatten"] + 2 * ["Linear", "BatchNorm1d", "ReLU"] + ["Linear"]
    with seeded(0):
        improved, baseline = improved_network(), mlp_baseline()
    for model, dropout in ((improved, 0.2), (baseline, 0.3)):
        kinds = [type(layer).__name__ for layer in model]
        assert kinds == ["Flatten"] + 2 * ["Linear", "BatchNorm1d", "ReLU", "Dropout"] + ["Linear"]
        assert {layer.p for layer in model if isinstance(layer, torch.nn.Dropout)} == {dropout}


def test_widths_are_the_callers():
    with seeded(0):
        assert count_parameters(mlp_baseline(width=8)) == 784 * 8 + 8 + 16 + 8 * 8 + 8 + 16 + 8 * 10 + 10
        assert count_parameters(improved_network(widths=(5,))) == 784 * 5 + 5 + 10 + 5 * 10 + 10
        assert count_parameters(network(widths=())) == 784 * 10 + 10, "without a hidden layer"


def test_frozen_parameters_are_not_counted():
    with seeded(0):
        model = build_model("network", widths=(5,))
    model[1].weight.requires_grad_(False)
    assert count_parameters(model) == 5 + 5 * 10 + 10


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match="no model 'resnet': choose one of network, improved_network"):
        build_model("resnet")
