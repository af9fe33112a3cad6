import cv2
import numpy as np
import pytest

from mnist_helpers.handwriting.ink import find_ink, open_picture
from mnist_helpers.handwriting.ruling import usual_width


def picture(ink=(30, 30, 60), paper=(240, 240, 230), width=6, shape=(200, 300)):
    """Return (float32 (H, W, 3), bool (H, W)) of rings and strokes, and where their ink is."""
    mask = np.zeros(shape, np.uint8)
    for x in (60, 150, 240):
        cv2.circle(mask, (x, 100), 30, 1, width)
        cv2.line(mask, (x - 20, 30), (x + 25, 50), 1, width)
    colours = np.where(mask[:, :, None] > 0, np.array(ink, np.float32), np.array(paper, np.float32))
    return colours.astype(np.float32), mask > 0


def agreement(found, mask):
    return (found & mask).sum() / (found | mask).sum()


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((30, 30, 60), (240, 240, 230)),
        ((250, 250, 250), (0, 0, 0)),
        ((225, 225, 225), (240, 240, 240)),
        ((200, 70, 60), (90, 130, 90)),
        ((250, 240, 90), (250, 250, 250)),
        ((180, 180, 60), (40, 70, 110)),
    ],
)
def test_ink_is_found_whatever_its_colour(ink, paper):
    pixels, mask = picture(ink, paper)
    found = find_ink(pixels)
    assert agreement(found.mask, mask) > 0.9
    assert np.median(found.strength[mask]) == pytest.approx(1, abs=0.1)
    assert np.median(found.strength[~mask]) == pytest.approx(0, abs=0.05)
    assert (found.faint >= found.mask).all()


@pytest.mark.parametrize("light", ["slope", "edge", "spot", "pen"])
@pytest.mark.parametrize("inverted", [False, True])
def test_shadows_are_no_ink(light, inverted):
    pixels, mask = picture(*([(230, 230, 230), (70, 75, 70)] if inverted else []), width=5)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] / np.array([[[200]], [[300]]])
    pen = np.zeros(mask.shape, np.float32)
    cv2.line(pen, (0, 150), (299, 60), 1, 26)
    factor = {
        "slope": 1 - 0.6 * x,
        "edge": 1 - 0.5 / (1 + np.exp((y + x - 0.9) / 0.02)),
        "spot": 1 - 0.6 * np.hypot(x - 0.3, y - 0.4).clip(0, 1),
        "pen": 1 - 0.4 * cv2.GaussianBlur(pen, (0, 0), 5),
    }[light]
    found = find_ink(pixels * factor[:, :, None].astype(np.float32))
    assert agreement(found.mask, mask) > 0.85


@pytest.mark.parametrize("width", [1, 3, 8, 16])
def test_strokes_of_any_width_are_found(width):
    pixels, mask = picture(width=width)
    found = find_ink(pixels)
    assert agreement(found.mask, mask) > 0.9
    if width > 1:
        assert usual_width(found.mask) == pytest.approx(width, abs=2)


def test_noise_is_no_ink():
    pixels, mask = picture()
    noisy = pixels + np.random.default_rng(0).normal(0, 15, pixels.shape).astype(np.float32)
    assert agreement(find_ink(noisy).mask, mask) > 0.85
    blank = 200 + np.random.default_rng(0).normal(0, 15, pixels.shape).astype(np.float32)
    assert find_ink(blank).mask.mean() < 1e-4


def test_without_ink_nothing_is_found():
    for pixels in (np.full((50, 60, 3), 255, np.float32), np.zeros((1, 1, 3), np.float32)):
        found = find_ink(pixels)
        assert not found.mask.any() and not found.strength.any()


def test_a_picture_keeps_its_pixels_and_large_ones_are_made_smaller():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    pixels, scale = open_picture(grey)
    assert scale == 1 and pixels.shape == (3, 4, 3) and (pixels[:, :, 1] == grey).all()
    pixels, scale = open_picture(np.zeros((300, 8000), np.uint8))
    assert scale == 4 and pixels.shape == (75, 2000, 3)
    pixels, _ = open_picture(np.array([[0.25, 0.75]]))
    assert pixels[0, :, 0].tolist() == [0, 255]
