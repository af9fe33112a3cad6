import pytest
import torch

from mnist_helpers.evaluation.calibration import calibration_error, fit_temperature


def test_fit_temperature_finds_how_overconfident_logits_were_made():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).flatten()  # perfectly calibrated
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.02)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, abs=0.06)
    assert fit_temperature(logits / 4, labels) == pytest.approx(0.25, abs=0.005)
    with pytest.raises(ValueError, match="there are no logits"):
        fit_temperature(logits[:0], labels[:0])


def test_calibration_error_by_hand():
    sure, half = [1.0, 0.0], [0.55, 0.45]
    # The bin of the sure: half of them right; the bin of the others: three of four right
    probabilities, labels = [sure] * 2 + [half] * 4, [0, 1, 0, 0, 0, 1]
    assert calibration_error(probabilities, labels) == pytest.approx((2 * 0.5 + 4 * (0.75 - 0.55)) / 6)
    assert calibration_error([sure, [0.0, 1.0]], [0, 1]) == 0
