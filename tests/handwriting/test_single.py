import numpy as np
import pytest
import torch
from PIL import Image

from mnist_helpers.data.strokes import draw, write
from mnist_helpers.handwriting.single import DigitReading, judged, read_digit, single_form


def photographed(digit, side=200, pen=0.05, ground=(150, 220), ink=40, seed=0):
    """Return a digit of the scripted hand on unevenly lit paper, uint8 (side, side)."""
    strokes = draw(write(digit, torch.Generator().manual_seed(seed)), side, pen) / 255
    light = np.linspace(*ground, side) * np.ones((side, 1))
    noise = np.random.default_rng(seed).normal(0, 3, strokes.shape)
    return (light * (1 - strokes) + ink * strokes + noise).clip(0, 255).astype(np.uint8)


def test_digits_are_read_on_any_ground_and_at_any_size():
    for seed, change in enumerate(
        [
            lambda picture: picture,
            lambda picture: 255 - picture,
            lambda picture: picture / 255.0,
            lambda picture: torch.from_numpy(picture),
            lambda picture: Image.fromarray(picture).resize((28, 28), Image.Resampling.BOX),
            lambda picture: Image.fromarray(picture).resize((900, 900)).convert("P"),
            lambda picture: np.pad(picture, ((0, 200), (300, 0)), mode="edge"),
            lambda picture: np.stack([picture, picture // 2, picture // 3], axis=2),
        ]
    ):
        readings = [read_digit(change(photographed(digit, seed=seed))) for digit in (0, 2, 3, 4, 5, 6, 8)]
        assert [reading.digit for reading in readings] == [0, 2, 3, 4, 5, 6, 8], seed
        assert all(reading.form.shape == (28, 28) and reading.probabilities.shape == (11,) for reading in readings)


def test_squared_paper_is_not_part_of_the_digit():
    picture = photographed(3, side=300, ground=(200, 200))
    picture[20::60] = np.minimum(picture[20::60], 150)
    picture[:, 20::60] = np.minimum(picture[:, 20::60], 150)
    assert read_digit(picture).digit == 3


def test_thin_strokes_are_thickened_after_they_are_scaled():
    forms = [single_form(255 - draw(write(5), side, 2 / side))[0] for side in (60, 600)]
    assert all((form > 128).sum() > 40 for form in forms)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((50, 50), np.uint8),
        np.full((28, 28), 128, np.uint8),
        np.random.default_rng(0).integers(0, 256, (100, 100)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8),
    ],
    ids=["blank", "grey", "noise", "small noise"],
)
def test_what_is_no_digit_is_told(picture):
    reading = read_digit(picture)
    assert reading.verdict == "no digit" and reading.digit is None and reading.probability > 0.5


@pytest.mark.parametrize("gap", [8, 20, 60])
def test_two_digits_are_said(gap):
    drawings = [255 - draw(write(digit), 200, 0.05) for digit in (3, 5)]
    cut = [drawing[:, (drawing < 128).any(axis=0)] for drawing in drawings]
    space = [np.full((200, side), 255, np.uint8) for side in (40, gap, 40)]
    assert read_digit(np.hstack([space[0], cut[0], space[1], cut[1], space[2]])).several


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_of_several_strokes_is_one(digit):
    assert not read_digit(photographed(digit)).several


def test_the_answer_in_words():
    assert read_digit(photographed(3)).text == "3"
    doubtful = DigitReading(7, 0.514, np.zeros(11), "unsure", np.zeros((28, 28)))
    assert doubtful.text == "unsure, perhaps 7 (51.4 %)" and doubtful.as_dict()["verdict"] == "unsure"
    assert read_digit(np.zeros((50, 50))).text == "no digit (100.0 %)"
    assert judged(np.eye(10)[4]) == (4, 1.0, "digit"), "a network with ten answers"
