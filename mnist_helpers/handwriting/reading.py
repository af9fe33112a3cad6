"""A person's own picture of digits, a photograph or a drawing: which digits stand where, in reading order."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..evaluation.scores import DEFAULT_MODEL, predict
from ..models.saved import load_model, load_once
from ..plots import BLUE, RED
from .boxes import boxes_of
from .candidates import Lattice, find_candidates
from .ink import open_picture
from .single import judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WEIGHTS = Path(__file__).with_name("digit_or_not.pth")  # of the network that `learn.digit_or_not` trains
MIN_WHOLE = 0.1  # probability of being one whole digit, of a piece of ink that is read as one
MIN_WHOLE_CUT = 0.03  # the same of a part cut out of a piece: its cuts, too, say that it is a digit
MIN_CONFIDENCE = 0.4  # of the recogniser in a digit; in other shapes it is often less confident
TRAINING_SHARE = 0.6  # of whole digits among the examples that the network of WEIGHTS was trained on
ROUNDS = 4  # of estimating the share of digits in a picture; no page was seen to change after them
MIN_SIZE = 0.5  # of a piece of ink that counts for this share, × the usual height of a digit
OTHER_INK_PRIOR = 0.03  # probability of ink of a digit's size that is no digit; smaller ink costs less to leave out


@dataclass(frozen=True)
class Reading:
    """What was read in a picture: N digits, line by line from top to bottom, each line from left to right.

    Attributes:
        digits: int64 (N,), 0 to 9.
        probabilities: float32 (N, 10), as the model gives them.
        certainty: float32 (N,), the probability that each is one whole digit and nothing else, considering which share
            of the picture is digits.
        boxes: int64 (N, 4): left, top, right and bottom of each digit's ink in pixels of the picture, as it stands
            after EXIF's rotation; right and bottom exclusive.
        lines: int64 (N,): the line in which each digit stands, from 0.
        forms: uint8 (N, 28, 28): each digit in MNIST's form, as the model saw it.
        others: int64 (M, 4): the boxes of ink that was considered and declined. Specks and blots are left out before
            that.
    """

    digits: np.ndarray
    probabilities: np.ndarray
    certainty: np.ndarray
    boxes: np.ndarray
    lines: np.ndarray
    forms: np.ndarray
    others: np.ndarray

    def __len__(self) -> int:
        return len(self.digits)

    @property
    def text(self) -> str:
        """The digits as text, each line on a line of its own."""
        lines = [self.digits[self.lines == line] for line in np.unique(self.lines)]
        return "\n".join("".join(str(digit) for digit in line) for line in lines)

    @property
    def verdicts(self) -> list[str]:
        """Of each digit, "digit" or "unsure"; what is no digit is in `others`."""
        return [judged(one)[2] for one in self.probabilities]

    def as_dict(self) -> dict[str, Any]:
        """Return the text, the digits with boxes, lines, probabilities and certainties, and the others, JSON-ready."""
        columns = zip(self.digits, self.boxes, self.lines, self.certainty, self.probabilities, self.verdicts)
        digits = [
            {
                "digit": int(digit),
                "box": box.tolist(),
                "line": int(line),
                "verdict": verdict,
                "certainty": round(float(certainty), 4),
                "probabilities": [round(float(one), 4) for one in probabilities],
            }
            for digit, box, line, certainty, probabilities, verdict in columns
        ]
        return {"text": self.text, "digits": digits, "others": self.others.tolist()}


def read_digits(image: Any, model: str | Path | nn.Module = DEFAULT_MODEL) -> Reading:
    """Return the `Reading` of a picture with handwritten digits in lines.

    Ink may be dark on light or light on dark, and the light uneven. The paper may be ruled, squared or printed with
    boxes. Digits may touch or be broken. Lines may slope by up to 20 degrees; a picture that lies on its side must say
    so in its EXIF data. Ink that is no digit is left out.

    Args:
        image: a path, a PIL image, or an array or tensor (H, W), (H, W, C) or (C, H, W); see `ink.open_picture`.
        model: as for `predict`.

    Raises:
        ValueError: the file or array cannot be read as a picture.
        CheckpointError: no such model is saved.

    Source: candidates are made in excess, and the best sequence of each line is found by dynamic programming: LeCun,
    Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), section V.
    """
    lattices, matrix, scale = find_candidates(image)
    lattices = [lattice for lattice in lattices if lattice.spans]
    model = load_once(model) if isinstance(model, (str, Path)) else model
    whole = [predict(lattice.forms, _judge())[1][:, 1].double().numpy() for lattice in lattices]
    answers = [_of_digits(predict(lattice.forms, model)[1]) for lattice in lattices]
    sequences, whole = best_sequences(lattices, whole, [answer.max(axis=1).astype(float) for answer in answers])
    read, others = [], []
    for lattice, (digits, rest), answer, certain in zip(lattices, sequences, answers, whole):
        read += [(lattice.parts[one], lattice.forms[one], answer[one], certain[one]) for one in digits]
        others += [lattice.parts[one] for one in rest]
    parts, forms, found, certainty = [list(column) for column in zip(*read)] or [[], [], [], []]
    probabilities = np.array(found, dtype=np.float32).reshape(-1, 10)
    lengths = [len(digits) for digits, _ in sequences if digits]  # a line without digits has no number
    return Reading(
        digits=probabilities.argmax(axis=1),
        probabilities=probabilities,
        certainty=np.array(certainty, dtype=np.float32),
        boxes=boxes_of(parts, matrix, scale),
        lines=np.repeat(np.arange(len(lengths)), lengths),
        forms=np.array(forms, dtype=np.uint8).reshape(-1, 28, 28),
        others=boxes_of(others, matrix, scale),
    )


def _of_digits(probabilities):
    """Return the ten digits' probabilities among each other, float32 (N, 10); whether it is one, `_judge` says."""
    ten = probabilities[:, :10].cpu().numpy()
    return ten / ten.sum(axis=1, keepdims=True)


@functools.cache
def _judge():
    """Return the network that tells one whole digit from anything else; it is loaded once."""
    return load_model(WEIGHTS, device="cpu")


def best_sequences(
    lattices: list[Lattice], whole: list[np.ndarray], sure: list[np.ndarray]
) -> tuple[list[tuple[list[int], list[int]]], list[np.ndarray]]:
    """Return ([what `best_sequence` returns for each line], [`whole` of each line, adjusted to the picture]).

    A straight stroke is likelier to be a 1 among digits than among letters. The share of digits among a picture's
    pieces of ink is estimated, in turn with the sequences, as the mean of their probabilities. For parts cut out of a
    piece, only a low share counts: among digits, half a digit is no likelier to be a whole one.

    Args:
        lattices, whole, sure: lists, line by line, of what `best_sequence` takes.

    Source: Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities: a
    simple procedure" (2002).
    """
    share = TRAINING_SHARE
    for _ in range(ROUNDS):
        odds = share / (1 - share) * (1 - TRAINING_SHARE) / TRAINING_SHARE
        adjusted = [odds * one / (odds * one + 1 - one) for one in whole]
        certain = [
            np.where(lattice.complete, new, np.minimum(new, one))
            for lattice, new, one in zip(lattices, adjusted, whole)
        ]
        sequences = [best_sequence(*line) for line in zip(lattices, certain, sure)]
        pieces = [TRAINING_SHARE, TRAINING_SHARE]  # so that a page of one digit does not count as all digits
        for lattice, one, sequence in zip(lattices, certain, sequences):
            pieces += [one[number] for number in sum(sequence, []) if lattice.sizes[number] >= MIN_SIZE]
        share = float(np.mean(pieces))
    return sequences, certain


def best_sequence(lattice: Lattice, whole: np.ndarray, sure: np.ndarray) -> tuple[list[int], list[int]]:
    """Return (numbers of the candidates that are digits, numbers of those that are none) of the likeliest sequence.

    Args:
        lattice: of the line; each of its atoms belongs to one candidate of the sequence.
        whole: float (N,), the probability of each candidate that it is one whole digit.
        sure: float (N,), the probability of the digit that it would be.
    """
    is_digit = (whole >= np.where(lattice.complete, MIN_WHOLE, MIN_WHOLE_CUT)) & (sure >= MIN_CONFIDENCE)
    as_none = np.log(1 - whole + 1e-9) + lattice.sizes * np.log(OTHER_INK_PRIOR)
    values = np.log(lattice.chances + 1e-9) + np.where(is_digit, np.log(whole * sure + 1e-9), as_none)
    best: list[tuple[float, list[int]]] = [(0.0, []), *[(-np.inf, [])] * max(end for _, end in lattice.spans)]
    for number in sorted(range(len(lattice.spans)), key=lambda number: lattice.spans[number][1]):
        first, end = lattice.spans[number]
        value = best[first][0] + values[number]
        if value > best[end][0]:
            best[end] = value, [*best[first][1], number]
    chosen = best[-1][1]
    return [number for number in chosen if is_digit[number]], [number for number in chosen if not is_digit[number]]


def draw_reading(image: Any, reading: Reading, ax: Axes | None = None) -> Axes:
    """Draw a picture with a box around each digit read and the digit above it, and return the Axes.

    Ink that was considered and declined has a dashed box.

    Args:
        image: the picture that was read, as for `read_digits`, whose ValueError it raises.
        reading: its `Reading`.
        ax: where to draw; a new figure unless given.
    """
    import matplotlib.pyplot as plt  # here: slow to import, and reading needs none
    from matplotlib.patches import Rectangle

    pixels, scale = open_picture(image)
    height, width = (round(side * scale) for side in pixels.shape[:2])
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 7 * height / width), layout="constrained")
    ax.imshow(pixels / 255, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    ax.set_axis_off()
    for boxes, color, line in ((reading.boxes, BLUE, "-"), (reading.others, RED, "--")):
        for left, top, right, bottom in boxes:
            size = right - left, bottom - top
            ax.add_patch(Rectangle((left, top), *size, fill=False, color=color, linestyle=line))
    label: dict[str, Any] = {"color": BLUE, "fontsize": 12, "textcoords": "offset points"}
    label["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for digit, (left, top, _, _) in zip(reading.digits, reading.boxes):
        ax.annotate(str(digit), (left, top), xytext=(0, 2), **label)
    return ax
