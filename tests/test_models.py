import pytest
import torch

from mnist_helpers.environment import seeded
from mnist_helpers.models import MODELS, build_model, count_parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("network", 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
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


def test_frozen_parameters_are_not_counted():
    with seeded(0):
        model = build_model("network", widths=(5,))
    model[1].weight.requires_grad_(False)
    assert count_parameters(model) == 5 + 5 * 10 + 10


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match="no model 'resnet': choose one of network, mlp_baseline"):
        build_model("resnet")
