import math
from dataclasses import replace

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from mnist_helpers.data.augment import Augmentation, affine_matrices, elastic_field, warp
from mnist_helpers.data.loaders import ResidentLoader

N = 12
EVERYTHING = Augmentation(degrees=15, translate=3, scale=0.2, shear=10, elastic=30, flip=True, brightness=0.3)


def seed(number=0):
    return torch.Generator().manual_seed(number)


@pytest.fixture
def images():
    return torch.rand(N, 1, 28, 28, generator=seed())


def between(low, high, *shape, number=1):
    return low + (high - low) * torch.rand(*shape, generator=seed(number))


@pytest.mark.parametrize("background", [0.0, -1.0, -0.42])
@pytest.mark.parametrize("shape", [(28, 28), (20, 31)])
def test_affine_agrees_with_torchvision_image_by_image(background, shape):
    images = torch.rand(N, 1, *shape, generator=seed())
    degrees, shears = between(-180, 180, N, number=1), between(-30, 30, N, number=2)
    shifts, scales = between(-4, 4, N, 2, number=3), between(0.6, 1.5, N, number=4)
    ours = warp(images, affine_matrices(degrees, shifts, scales, shears), background=background)
    for index in range(N):
        theirs = TF.affine(
            images[index] - background,
            degrees[index].item(),
            shifts[index].tolist(),
            scales[index].item(),
            [shears[index].item(), 0.0],
            InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(ours[index], theirs + background, atol=1e-4, rtol=0)


def test_elastic_distortion_agrees_with_torchvision_image_by_image(images):
    field = elastic_field(N, (28, 28), alpha=34, sigma=4, generator=seed())
    nothing = affine_matrices(torch.zeros(N), torch.zeros(N, 2), torch.ones(N), torch.zeros(N))
    ours = warp(images, nothing, field)
    for index in range(N):
        theirs = TF.elastic_transform(images[index], field[index : index + 1] * 2 / 28, InterpolationMode.BILINEAR)
        torch.testing.assert_close(ours[index], theirs, atol=1e-4, rtol=0)


def test_displacements_have_the_strength_that_simard_describes():
    field = elastic_field(2000, (28, 28), alpha=34, sigma=4, generator=seed())
    # The variance of an even draw is 1/3; smoothing leaves the sum of the squared weights of it
    kernel = torch.exp(-0.5 * (torch.arange(-12, 13) / 4) ** 2)
    kernel /= kernel.sum()
    expected = 34 * (kernel**2).sum() / math.sqrt(3)
    assert field[:, 13:15, 13:15].std().item() == pytest.approx(expected.item(), rel=0.03)
    assert field.mean().abs() < 0.05
    assert elastic_field(1, (28, 28), alpha=68, sigma=4, generator=seed()).allclose(
        2 * elastic_field(1, (28, 28), 34, 4, seed())
    )


@pytest.mark.parametrize("background", [-1.0, 0.5])
def test_background_comes_in_without_a_border(background):
    images = torch.full((50, 1, 28, 28), background)
    distorted = replace(EVERYTHING, degrees=180)(images, background, seed())
    torch.testing.assert_close(distorted, images)


def test_same_generator_same_images_and_nothing_else_matters(images):
    first, again, other = (EVERYTHING(images, 0.0, seed(number)) for number in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == images.shape and first.dtype == images.dtype
    assert not torch.equal(first[0], EVERYTHING(images[:1].repeat(2, 1, 1, 1), 0.0, seed(5))[1])


def test_without_strength_nothing_changes(images):
    torch.testing.assert_close(Augmentation()(images, 0.0, seed()), images, atol=1e-5, rtol=0)


def test_strengths_are_the_ranges_of_what_is_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mnist_helpers.data.augment.affine_matrices", lambda *given: drawn.append(given) or affine_matrices(*given)
    )
    images = torch.zeros(4000, 1, 4, 4)
    Augmentation(degrees=15, translate=2, scale=0.1, shear=5)(images, 0.0, seed())
    ((degrees, shifts, scales, shears),) = drawn
    for values, low, high in ((degrees, -15, 15), (shifts, -2, 2), (scales, 0.9, 1.1), (shears, -5, 5)):
        assert low <= values.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < values.max() <= high
    assert abs(torch.corrcoef(shifts.T)[0, 1]) < 0.05, "the two sides are drawn apart"


def test_flip_mirrors_half_of_the_images():
    image = torch.zeros(1, 1, 28, 28)
    image[..., :5] = 1
    flipped = Augmentation(flip=True)(image.repeat(1000, 1, 1, 1), 0.0, seed())[..., -1].amax(dim=(1, 2)) > 0.5
    assert 450 < flipped.sum() < 550


def test_the_loader_distorts_anew_in_each_epoch_and_reproducibly(digits):
    loader = ResidentLoader(digits, 16, "mnist", seed=3, device="cpu", augmentation=Augmentation(degrees=15))
    plain = ResidentLoader(digits, 16, "mnist", seed=3, device="cpu")
    passes = []
    for epoch in (1, 2, 1):
        loader.sampler.set_epoch(epoch)
        passes.append(torch.cat([images for images, _ in loader]))
    assert torch.equal(passes[0], passes[2]) and not torch.equal(passes[0], passes[1])
    assert passes[0].shape == torch.cat([images for images, _ in plain]).shape
    assert passes[0].amin() >= -0.1307 / 0.3081 - 1e-5, "background is the normalised 0, and nothing is darker"


def test_brightness_multiplies_the_ink_and_leaves_the_background_and_the_rest_as_they_are(images):
    plain = Augmentation(degrees=15, elastic=34)(images - 0.5, -0.5, seed())
    bright = Augmentation(degrees=15, elastic=34, brightness=0.4)(images - 0.5, -0.5, seed())
    plain, bright = plain + 0.5, bright + 0.5
    factors = bright.sum(dim=(1, 2, 3)) / plain.sum(dim=(1, 2, 3))
    torch.testing.assert_close(bright, plain * factors[:, None, None, None])
    assert factors.min() >= 0.6 and factors.max() <= 1.4 and factors.std() > 0.1
