"""The corruptions that benchmarks/robustness.py scores networks with."""

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_helpers.data.strokes import draw, forms, write
from mnist_helpers.models.saved import load_model

SPEC = importlib.util.spec_from_file_location(
    "robustness", Path(__file__).parent.parent / "benchmarks" / "robustness.py"
)
robustness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(robustness)


def test_each_corruption_changes_every_image_and_is_repeatable():
    images = np.stack([forms(draw(write(digit)))[1] for digit in range(10)])
    found = robustness.corrupted(images)
    assert len(found) == 15
    for name, changed in found.items():
        assert changed.dtype == np.uint8 and changed.shape == images.shape
        difference = abs(changed.astype(int) - images).mean(axis=(1, 2))
        assert difference.min() > 2, name
    again = robustness.corrupted(images)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_pictures_are_scored_with_an_interval_over_hands(tmp_path):
    truth = {}
    for digit in range(10):
        Image.fromarray(255 - draw(write(digit))).save(tmp_path / f"{digit}.png")
        truth[f"{digit}.png"] = {"digit": digit if digit < 5 else (digit + 1) % 10, "hand": digit // 5}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert robustness.of_pictures(tmp_path, load_model("any_hand", "cpu")) == {"pictures": 50, "from": 0, "to": 100}
