import pytest
import torch

from mnist_helpers.environment import seeded
from mnist_helpers.models import (
    MODELS,
    build_model,
    cnn_dropout,
    cnn_tuned,
    conv_bn_relu,
    count_parameters,
    fast_cnn,
    glorot_initialisation,
    improved_network,
    keras_cnn,
    mlp_baseline,
    network,
    normal_initialisation,
)
from mnist_helpers.models.averaged import committee
from mnist_helpers.models.cnn import CONV_BN_RELU
from mnist_helpers.models.fast import FirstConv
from mnist_helpers.models.residual import Dense, Residual


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
        ("fast_cnn", 36 * 16 + 32 + 16 * 9 * 32 + 64 + 32 * 9 * 32 + 64 + 9 * 32 * 10 + 10),
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


@pytest.mark.parametrize("name", sorted(MODELS))
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


def test_pooling_before_the_activation_gives_what_pooling_after_it_does():
    with seeded(0):
        model = fast_cnn((4, 6, 8)).eval()
        images = torch.rand(3, 1, 28, 28)
    first, pool, norm, relu, *middle, last_pool, last_norm, last_relu, flatten, dropout, linear = model
    later = torch.nn.Sequential(first, norm, relu, pool, *middle, last_norm, last_relu, last_pool, flatten, linear)
    assert later(images).shape == (3, 10)
    torch.testing.assert_close(later(images), model(images))
    with torch.no_grad():
        norm.weight[0] = -1
    assert not torch.allclose(later(images), model(images)), "but not where a factor is negative, as documented"


def test_a_first_convolution_keeps_float32_and_hands_on_the_precision_around_it():
    with seeded(0):
        conv, images = FirstConv(1, 4, 5), torch.rand(2, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        shortened = conv(images)
    assert shortened.dtype == torch.bfloat16 and conv(images).dtype == torch.float32
    assert torch.equal(shortened, conv(images).bfloat16())


@pytest.mark.parametrize("diagonals", [False, True])
def test_answers_are_averaged_over_shifts_only_after_training(diagonals):
    arguments = {"model": "fast_cnn", "model_arguments": {"widths": (4, 4)}, "diagonals": diagonals}
    with seeded(0):
        model = build_model("shift_averaged", **arguments)
        images = torch.rand(2, 1, 28, 28)
    model.network.eval()
    assert torch.equal(model(images), model.network(images)), "while it trains: the network itself"
    weights = {(0, 0): 2, (0, 1): 1, (0, -1): 1, (1, 0): 1, (-1, 0): 1}
    if diagonals:
        weights = {(down, right): (2 - abs(down)) * (2 - abs(right)) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    answers = sum(
        weight * model.network(images.roll(shift, (2, 3))).log_softmax(1) for shift, weight in weights.items()
    )
    torch.testing.assert_close(model.eval()(images), answers / sum(weights.values()))


def test_a_committees_members_differ_and_answer_with_their_mean_probabilities():
    with seeded(0):
        model = build_model("committee_of", members=[("fast_cnn", {"widths": (4, 4)})] * 3).eval()
        images, one = torch.rand(2, 1, 28, 28), fast_cnn((4, 4))
    answers = [member(images) for member in model.members]
    assert not torch.equal(answers[0], answers[1])
    torch.testing.assert_close(model(images).exp(), torch.stack(answers).softmax(2).mean(0))
    torch.testing.assert_close(model(images), committee(answers))
    assert count_parameters(model) == 3 * count_parameters(one)
