import pytest
import torch

from mnist_helpers.data import neighbours
from mnist_helpers.data.neighbours import distances_to, nearest


@pytest.fixture
def points(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 7)  # several chunks, the last one ragged
    return torch.randn(25, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 3])
def test_agrees_with_all_distances_and_none_is_its_own_neighbour(points, k):
    references = points[:12] + 0.1
    others = torch.cdist(points, points).fill_diagonal_(torch.inf)
    for found, everything in (
        (nearest(points, references, k), torch.cdist(points, references)),
        (nearest(points, k=k), others),
    ):
        expected = everything.topk(k, largest=False)
        assert torch.equal(found[1], expected.indices)
        torch.testing.assert_close(found[0], expected.values)


def test_a_copy_has_the_distance_0(points):
    distances, numbers = nearest(torch.cat([points, points[3:4]]))
    assert numbers[3] == 25 and numbers[25] == 3
    torch.testing.assert_close(distances[[3, 25]], torch.zeros(2, 1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("k", [0, 2])
def test_too_few_references_are_refused(points, k):
    with pytest.raises(ValueError, match=f"{k} nearest neighbours of each cannot be found among 2"):
        nearest(points[:2], k=k)


def test_rounding_gives_no_distance_that_is_none():
    far = torch.full((3, 784), 1000.1) + torch.rand(3, 784, generator=torch.Generator().manual_seed(0)) * 1e-3
    distances, _ = nearest(far, far)
    assert distances.isfinite().all() and (distances >= 0).all()


def test_distances_to_many_pictures_are_those_of_their_pixels(points):
    pictures = torch.randint(0, 256, (25, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = pictures.flatten(1).double() / 255
    expected = (pixels - pixels[3]).square().sum(dim=1).sqrt().float()
    for n in (25, 7, 3, 0):
        torch.testing.assert_close(distances_to(pictures[3], pictures[:n]), expected[:n])
    assert pictures.dtype == torch.uint8 and distances_to(pictures[3], pictures)[3] == 0
