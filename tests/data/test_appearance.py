import pytest
import torch
from torch.nn import functional as F

from mnist_helpers.data import appearance
from mnist_helpers.data.appearance import DIRT, GROUND, INK, vary_appearance

ALL = list(dict.fromkeys(INK + GROUND + DIRT))


def digits(n=64):
    """Return bars and rings, float (n, 1, 28, 28) from 0 to 1."""
    images = torch.zeros(n, 1, 28, 28)
    images[::2, :, 5:23, 12:16] = 1
    images[1::2, :, 6:22, 8:20] = 1
    images[1::2, :, 9:19, 11:17] = 0
    return 0.9 * F.avg_pool2d(images, 3, stride=1, padding=1)


@pytest.mark.parametrize("distortion", ALL, ids=lambda one: one.__name__)
def test_each_changes_images_and_keeps_their_range(distortion):
    images = digits()
    before = images.clone()
    changed = distortion(images, torch.Generator().manual_seed(0))
    assert torch.equal(images, before), "the caller's images stay as they are"
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert changed.isfinite().all() and changed.min() >= -1e-6 and changed.max() <= 1 + 1e-6
    assert (changed - images).abs().mean() > 0.003
    assert torch.equal(changed, distortion(images, torch.Generator().manual_seed(0)))
    other = distortion(images, torch.Generator().manual_seed(1))
    assert distortion is appearance.invert or not torch.equal(changed, other)


def test_strokes_become_broader_and_thinner():
    images, generator = digits(), torch.Generator().manual_seed(0)
    assert (appearance.thicken(images, generator).sum((1, 2, 3)) > images.sum((1, 2, 3))).all()
    assert appearance.thin(images, generator).sum() < 0.97 * images.sum()
    assert appearance.thin(images, generator).amax((1, 2, 3)).min() > 0.85, "what is left is as dark as before"


def test_dilation_is_that_of_max_pooling():
    images = torch.rand(3, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(appearance._dilated(images), F.max_pool2d(images, 3, stride=1, padding=1))


def test_filters_belong_to_their_images():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    kernels = torch.zeros(4, 1, 3, 3)
    kernels[:, 0, 1, 1] = torch.arange(4.0)
    assert torch.allclose(appearance._filtered(images, kernels), images * torch.arange(4.0)[:, None, None, None])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_each_stage_reaches_its_share_of_the_images(share, monkeypatch):
    for stage in ("INK", "GROUND", "DIRT"):
        monkeypatch.setattr(appearance, stage, (lambda images, generator: images + 1,) * 2)
    touched = vary_appearance(torch.zeros(4000, 1, 1, 1), share, torch.Generator().manual_seed(0)).flatten()
    assert touched.mean() / 3 == pytest.approx(share, abs=0.02)
    assert (touched == 0).float().mean() == pytest.approx((1 - share) ** 3, abs=0.03)
