import pytest
import torch
from torch import nn

from mnist_helpers.evaluation.saliency import occlusion, saliency
from mnist_helpers.models import lenet5, mlp_baseline


@pytest.fixture
def linear():
    """A model whose logit of class 3 is the sum of the left half's pixels, and whose other logits are 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False))
    weights = torch.zeros(10, 28, 28)
    weights[3, :, :14] = 0.1
    model[1].weight.data = weights.flatten(1)
    return model


@pytest.fixture(autouse=True)
def own_random_state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_saliency_is_the_gradients_size(linear):
    found = saliency(linear, torch.rand(2, 1, 28, 28), torch.tensor([3, 3]))
    assert found.shape == (2, 28, 28) and torch.allclose(found[:, :, :14], torch.tensor(0.1))
    assert not found[:, :, 14:].any()
    assert not saliency(linear, torch.rand(1, 1, 28, 28), torch.tensor([4])).any()


def test_occlusion_finds_the_ink_that_counts(linear):
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 10:16, 4:8] = 1.0  # this makes it a 3
    image[0, 0, 10:16, 20:24] = 1.0  # this does nothing
    found = occlusion(linear, image)[0]
    assert found.shape == (28, 28) and found[12, 5] > 0.2
    assert found[:, 20:].abs().max() < 1e-6 and found[22:].abs().max() < 1e-6


def test_occlusion_of_a_square_is_the_probability_that_goes(linear):
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 2, 2] = 20.0
    gone = linear(image).softmax(dim=1)[0, 3] - 0.1
    assert torch.allclose(occlusion(linear, image, torch.tensor([3]))[0, 2, 2], gone)
    assert not occlusion(linear, torch.zeros(1, 1, 28, 28)).any(), "a blank picture has nothing to erase"


@pytest.mark.parametrize("look", [saliency, occlusion])
def test_nothing_is_changed_by_looking(look):
    model = mlp_baseline().train()  # batch norm in training mode would fail on a single image
    images, before = torch.rand(1, 1, 28, 28), {name: value.clone() for name, value in model.state_dict().items()}
    look(model, images)
    assert model.training and not images.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_classes_the_answers_are_looked_at():
    model, images = lenet5().eval(), torch.rand(3, 1, 28, 28)
    answers = model(images).argmax(dim=1)
    for look in (saliency, occlusion):
        assert torch.allclose(look(model, images), look(model, images, answers))
