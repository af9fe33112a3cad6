import pytest
import torch

from mnist_helpers.environment import seeded
from mnist_helpers.models import (
    CONV_BN_RELU,
    MODELS,
    Dense,
    Residual,
    build_model,
    cnn_dropout,
    cnn_tuned,
    conv_bn_relu,
    count_parameters,
    glorot_initialisation,
    improved_network,
    keras_cnn,
    mlp_baseline,
    network,
    normal_initialisation,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("network", 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        ("improved_network", 784 * 128 + 128 + 2 * 128 + 128 * 64 + 64 + 2 * 64 + 64 * 10 + 10),
        ("lenet5", 25 * 6 + 6 + 6 * 25 * 16 + 16 + 400 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10),
        (
            "cnn_dropout",
            (9 * 8 + 8 + 8 * 9 * 16 + 16) + (3136 * 784 + 784 + 784 * 196 + 196 + 196 * 49 + 49 + 49 * 10 + 10),
        ),
        (
            "cnn_tuned",
            (9 * 8 + 8 + 8 * 9 * 16 + 16) + (784 * 512 + 512 + 512 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        ),
        ("keras_cnn", 9 * 64 + 64 + 64 * 9 * 32 + 32 + 4608 * 10 + 10),
        ("conv_bn_relu", 17_798_506),
        ("mlp_baseline", 784 * 256 + 256 + 2 * 256 + 256 * 256 + 256 + 2 * 256 + 256 * 10 + 10),
    ],
)
def test_parameters_are_what_arithmetic_says(name, expected):
    with seeded(0):
        assert count_parameters(build_model(name)) == expected


def shapes(model, kind):
    """Return the output shapes of a model's layers of one kind, for one picture."""
    found = []
    for layer in model.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda _, __, output: found.append(tuple(output.shape[1:])))
    model.eval()(torch.zeros(1, 1, 28, 28))
    return found


def test_the_published_networks_have_the_published_shapes():
    with seeded(0):
        assert shapes(cnn_dropout(), torch.nn.Flatten) == [(16 * 14 * 14,)]
        assert shapes(cnn_tuned(), torch.nn.Flatten) == [(16 * 7 * 7,)]
        assert shapes(keras_cnn(), torch.nn.Flatten) == [(32 * 12 * 12,)]
        convolutions = shapes(conv_bn_relu(width=1 / 8), torch.nn.Conv2d)
    assert len(convolutions) == 19
    # stride 2 halves, 3x3 keeps, and 1x1 with padding 1 lets the maps grow by 2
    sides = [14, 14, 16, 8, 10, 10, 12, 6, 8, 8, 10, 10, 12, 12, 14, 7, 9, 9, 11]
    assert convolutions == [(width // 8, side, side) for (width, _, _), side in zip(CONV_BN_RELU, sides)]


def test_the_published_dropouts_are_the_published_ones():
    with seeded(0):
        for model, expected in ((cnn_dropout(), [0.4, 0.2, 0.6, 0.3, 0.15]), (cnn_tuned(), [0.4, 0.2, 0.5, 0.3, 0.15])):
            kinds = (torch.nn.Dropout, torch.nn.Dropout2d)
            assert [layer.p for layer in model if isinstance(layer, kinds)] == expected


def test_normal_initialisation_is_n_of_0_and_1_by_the_root_of_n():
    with seeded(0):
        model = cnn_tuned()
        before = model[0].weight.clone()
        normal_initialisation(model)
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    for layer in linear[:2]:
        assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.02)
        assert layer.weight.abs().max() > 3 * layer.in_features**-0.5, "normal, and not even"
    assert all((layer.bias == 0).all() for layer in linear)
    assert torch.equal(model[0].weight, before), "the convolutions are left alone"


def test_glorot_initialisation_is_even_within_its_bounds():
    with seeded(0):
        model = keras_cnn()
        glorot_initialisation(model)
    for layer, inputs, outputs in ((model[2], 64 * 9, 32 * 9), (model[6], 4608, 10)):
        bound = (6 / (inputs + outputs)) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound and (layer.bias == 0).all()


@pytest.mark.parametrize("make", [lambda: Residual(4, 4), lambda: Residual(4, 6, stride=2), lambda: Dense(4, 3, 2)])
def test_blocks_change_what_they_are_given(make):
    with seeded(0):
        block = make()
    images = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = block.eval()(images)
    if isinstance(block, Dense):
        assert outputs.shape == (2, 4 + 2 * 3, 8, 8) and torch.equal(outputs[:, :4], images)
    else:
        assert outputs.shape == ((2, 4, 8, 8) if isinstance(block.shortcut, torch.nn.Identity) else (2, 6, 4, 4))
        torch.testing.assert_close(outputs, torch.relu(block.change(images) + block.shortcut(images)))


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
