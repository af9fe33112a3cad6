"""A picture of one digit, of any kind: what digit it is, and whether it is one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import nn

from ..data.digits import NO_DIGIT
from ..evaluation.scores import DEFAULT_MODEL, predict
from .candidates import digit_form
from .ink import find_ink, open_picture
from .ruling import without_ruling
from .segmentation import Part, at_rim, find_parts, union

SMALL = 140  # pixels of the longer side; smaller pictures are enlarged to it, so that strokes have a shape
SURE = 0.8  # probability of the likeliest digit, from which on it is said without reserve
MAX_NONE = 0.5  # probability of "no digit", beyond which none is said


@dataclass(frozen=True)
class DigitReading:
    """What was read in a picture of one digit.

    Attributes:
        digit: 0 to 9; None where it is no digit.
        probability: of that digit, or of there being none.
        probabilities: float32 (11,), of 0 to 9 and of "no digit"; (10,) by a network with ten answers.
        verdict: "digit", "unsure" or "no digit".
        form: uint8 (28, 28), as the network saw it: in MNIST's form, empty where no ink was found.
        several: whether there is more ink beside the digit, of its size: `read_digits` reads several.
    """

    digit: int | None
    probability: float
    probabilities: np.ndarray
    verdict: str
    form: np.ndarray
    several: bool = False

    @property
    def text(self) -> str:
        """The answer in words: "3", or "unsure, perhaps 3 (51.0 %)", or "no digit (99.0 %)"."""
        if self.verdict == "digit":
            return str(self.digit)
        doubt = self.verdict if self.digit is None else f"unsure, perhaps {self.digit}"
        return f"{doubt} ({100 * self.probability:.1f} %)"

    def as_dict(self) -> dict[str, Any]:
        """Return all but the form, JSON-ready."""
        probabilities = [round(float(one), 4) for one in self.probabilities]
        answer = {"digit": self.digit, "probability": round(self.probability, 4), "verdict": self.verdict}
        return {**answer, "several": self.several, "probabilities": probabilities}


def read_digit(picture: Any, model: str | Path | nn.Module = DEFAULT_MODEL) -> DigitReading:
    """Return the `DigitReading` of a picture that shows one digit, dark on light or light on dark, on any ground.

    Args:
        picture: a path, a PIL image, or an array or tensor, see `ink.open_picture`.
        model: as for `predict`; one with eleven answers, as the default, can say that it is no digit.

    Raises:
        ValueError: the file or array cannot be read as a picture.
        CheckpointError: no such model is saved.
    """
    form, several = single_form(picture)
    probabilities = np.zeros(11, np.float32)
    probabilities[NO_DIGIT] = 1.0
    if form.any():
        probabilities = predict(form, model)[1].cpu().numpy()
    digit, probability, verdict = judged(probabilities)
    return DigitReading(digit, probability, probabilities, verdict, form, several)


def judged(probabilities: np.ndarray) -> tuple[int | None, float, str]:
    """Return (digit, its probability, verdict) of a network's answer, float (10,) or (11,); see `DigitReading`."""
    none = float(probabilities[NO_DIGIT]) if len(probabilities) > NO_DIGIT else 0.0
    if none > MAX_NONE:
        return None, none, "no digit"
    best = int(probabilities[:NO_DIGIT].argmax())
    return best, float(probabilities[best]), "digit" if probabilities[best] >= SURE else "unsure"


def single_form(picture: Any) -> tuple[np.ndarray, bool]:
    """Return (the digit in a picture in MNIST's form, uint8 (28, 28), whether there are several).

    The picture's main piece of ink counts, with what lies close by it. Without any ink the form is empty.
    """
    pixels, _ = open_picture(picture)
    side = max(pixels.shape[:2])
    if side < SMALL:
        pad = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
        size = [max(1, round(length * SMALL / side)) for length in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC).clip(0, 255)
        margin = SMALL // 8  # a drawing may fill its picture to the rim
        around = [margin, margin], [margin, margin]
        pixels = np.stack(
            [np.pad(one, around, constant_values=pad[place]) for place, one in enumerate(cv2.split(pixels))], 2
        )
    ink = find_ink(pixels)
    main, parts = _main_part(ink.mask)
    if main is not None and at_rim(main, ink.mask.shape):  # lines that are printed on paper run out of the picture
        main, parts = _main_part(without_ruling(ink.mask, ink.faint, ink.strength))
    if main is None:
        return np.zeros((28, 28), np.uint8), False
    chosen, several = [main], False
    for part in sorted(parts, key=lambda part: _gap(main, part)):
        if part is main:
            continue
        beside = part.left >= main.left + main.width or part.left + part.width <= main.left
        if part.height > 0.6 * main.height and beside:
            several = True
        elif _gap(union(chosen), part) < 0.25 * max(main.height, main.width):
            chosen += [part] if part.mask.sum() > 0.02 * main.mask.sum() else []
    return digit_form(ink.strength, union(chosen)), several


def _main_part(mask: np.ndarray) -> tuple[Part | None, list[Part]]:
    """Return (the part of an ink mask that is likeliest the digit, all of its parts)."""
    parts = find_parts(mask)
    return max(parts, key=lambda part: _weight(part, mask.shape), default=None), parts


def _weight(part: Part, shape: tuple[int, ...]) -> float:
    """Return how likely a part is the digit: large, and near the middle of the picture."""
    x, y = part.left + part.width / 2, part.top + part.height / 2
    away = np.hypot(x / shape[1] - 0.5, y / shape[0] - 0.5)
    return max(part.height, part.width) * np.exp(-2 * away)


def _gap(one: Part, other: Part) -> float:
    """Return how far the boxes of two parts stand apart; 0 where they overlap."""
    across = max(one.left, other.left) - min(one.left + one.width, other.left + other.width)
    along = max(one.top, other.top) - min(one.top + one.height, other.top + other.height)
    return float(np.hypot(max(0, across), max(0, along)))
