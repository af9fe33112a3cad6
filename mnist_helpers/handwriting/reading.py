"""A person's own picture of digits, a photograph or a drawing: which digits stand where, in reading order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..evaluation.scores import DEFAULT_MODEL, predict
from ..models.saved import load_model
from .boxes import boxes_of
from .candidates import find_candidates
from .ink import open_picture

WEIGHTS = Path(__file__).with_name("digit_or_not.pth")  # of the network that `digit_or_not` trains
LEAST = 0.1  # probability of being one whole digit that a piece of ink must have to be taken for one
LEAST_CUT = 0.03  # the same for a part cut out of a piece: its cuts, too, say that it is a digit
SURE = 0.4  # that the recogniser must be of a digit, at least: of other shapes it is often less so
LEARNT = 0.6  # of the examples that the network of WEIGHTS learnt from are whole digits
ROUNDS = 4  # of estimating the share of digits in a picture: no page was seen to change after them
LARGE = 0.5  # of a digit's usual height, that a piece of ink has to count for this share
PRIOR = 0.03  # for ink of a digit's size that is no digit; smaller ink is left out for less


@dataclass(frozen=True)
class Reading:
    """What was read in a picture: N digits, line by line from top to bottom, each line from left to right.

    Attributes:
        digits: int64 (N,), 0 to 9.
        probabilities: float32 (N, 10), as the model gives them.
        certainty: float32 (N,), the probability that each is one whole digit and nothing else, given how much of the
            picture is digits.
        boxes: int64 (N, 4): left, top, right and bottom of each digit's ink in pixels of the picture, as it stands
            after EXIF's rotation; right and bottom exclusive.
        lines: int64 (N,): the line in which each digit stands, from 0.
        forms: uint8 (N, 28, 28): each digit in MNIST's form, as the model saw it.
        others: int64 (M, 4): the boxes of ink that was weighed as a digit and declined; specks and blots are left out
            before that.
    """

    digits: np.ndarray
    probabilities: np.ndarray
    certainty: np.ndarray
    boxes: np.ndarray
    lines: np.ndarray
    forms: np.ndarray
    others: np.ndarray

    def __len__(self):
        return len(self.digits)

    @property
    def text(self):
        """The digits as text, each line on a line of its own."""
        lines = [self.digits[self.lines == line] for line in np.unique(self.lines)]
        return "\n".join("".join(str(digit) for digit in line) for line in lines)

    def as_dict(self):
        """Return the text, and of each digit its box, line, probabilities and certainty, JSON-ready."""
        columns = zip(self.digits, self.boxes, self.lines, self.certainty, self.probabilities)
        digits = [
            {
                "digit": int(digit),
                "box": box.tolist(),
                "line": int(line),
                "certainty": round(float(certainty), 4),
                "probabilities": [round(float(one), 4) for one in probabilities],
            }
            for digit, box, line, certainty, probabilities in columns
        ]
        return {"text": self.text, "digits": digits, "others": self.others.tolist()}


def read_digits(image, model=DEFAULT_MODEL):
    """Return the `Reading` of a picture with handwritten digits in lines.

    Ink may be dark on light or light on dark, the light uneven, the paper ruled, squared or printed with boxes, and
    digits may touch or be broken. Lines may slope by up to 20 degrees; a picture that lies on its side must say so in
    its EXIF data. Ink that is no digit is left out.

    Args:
        image: a path, a PIL image, or an array or tensor (H, W), (H, W, C) or (C, H, W); see `ink.open_picture`.
        model: as for `evaluation.predict`.

    Raises:
        ValueError: the file or array cannot be read as a picture; in one sentence.
        CheckpointError: no such model is saved.

    Source: candidates are made in excess, and the best sequence of each line is found by dynamic programming: LeCun,
    Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), section V.
    """
    lattices, matrix, scale = find_candidates(image)
    lattices = [lattice for lattice in lattices if lattice.spans]
    model = load_model(model) if isinstance(model, (str, Path)) else model  # once, not for every line
    judge = load_model(WEIGHTS, device="cpu")
    whole = [predict(lattice.forms, judge)[1][:, 1].double().numpy() for lattice in lattices]
    answers = [predict(lattice.forms, model)[1].cpu().numpy() for lattice in lattices]
    sequences, whole = best_sequences(lattices, whole, [answer.max(axis=1).astype(float) for answer in answers])
    parts, forms, probabilities, certainty, lines, others = [], [], [], [], [], []
    for lattice, (digits, rest), answer, certain in zip(lattices, sequences, answers, whole):
        parts += [lattice.parts[number] for number in digits]
        forms += [lattice.forms[number] for number in digits]
        probabilities += [answer[number] for number in digits]
        certainty += [certain[number] for number in digits]
        lines += [max(lines, default=-1) + 1] * len(digits)
        others += [lattice.parts[number] for number in rest]
    probabilities = np.array(probabilities, dtype=np.float32).reshape(-1, 10)
    return Reading(
        digits=probabilities.argmax(axis=1),
        probabilities=probabilities,
        certainty=np.array(certainty, dtype=np.float32),
        boxes=boxes_of(parts, matrix, scale),
        lines=np.array(lines, dtype=np.int64),
        forms=np.array(forms, dtype=np.uint8).reshape(-1, 28, 28),
        others=boxes_of(others, matrix, scale),
    )


def best_sequences(lattices, whole, sure):
    """Return ([what `best_sequence` returns for each line], [`whole` of each line, adjusted to the picture]).

    A straight stroke is likelier a 1 among digits than among letters. Which share of a picture's pieces of ink is
    digits is not known beforehand: it is estimated, in turn with the sequences, as the mean of their probabilities. Of
    parts cut out of a piece only a low share changes these: among digits, half a digit is no likelier a whole one.

    Args:
        lattices, whole, sure: lists, line by line, of what `best_sequence` takes.

    Source: Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities: a
    simple procedure" (2002).
    """
    share = LEARNT
    for _ in range(ROUNDS):
        odds = share / (1 - share) * (1 - LEARNT) / LEARNT
        adjusted = [odds * one / (odds * one + 1 - one) for one in whole]
        certain = [
            np.where(lattice.complete, new, np.minimum(new, one))
            for lattice, new, one in zip(lattices, adjusted, whole)
        ]
        sequences = [best_sequence(*line) for line in zip(lattices, certain, sure)]
        pieces = [LEARNT, LEARNT]  # a page of one digit is not all digits
        for lattice, one, sequence in zip(lattices, certain, sequences):
            pieces += [one[number] for number in sum(sequence, []) if lattice.sizes[number] >= LARGE]
        share = np.mean(pieces)
    return sequences, certain


def best_sequence(lattice, whole, sure):
    """Return (numbers of the candidates that are digits, numbers of those that are none) of the likeliest sequence.

    Args:
        lattice: the line's `candidates.Lattice`; each of its atoms comes to lie in one candidate of the sequence.
        whole: float (N,), the probability of each candidate that it is one whole digit.
        sure: float (N,), the probability of the digit that it would be.
    """
    is_digit = (whole >= np.where(lattice.complete, LEAST, LEAST_CUT)) & (sure >= SURE)
    as_none = np.log(1 - whole + 1e-9) + lattice.sizes * np.log(PRIOR)
    values = np.log(lattice.chances + 1e-9) + np.where(is_digit, np.log(whole * sure + 1e-9), as_none)
    best = [(0.0, [])] + [(-np.inf, [])] * max(end for _, end in lattice.spans)
    for number in sorted(range(len(lattice.spans)), key=lambda number: lattice.spans[number][1]):
        first, end = lattice.spans[number]
        value = best[first][0] + values[number]
        if value > best[end][0]:
            best[end] = value, [*best[first][1], number]
    chosen = best[-1][1]
    return [number for number in chosen if is_digit[number]], [number for number in chosen if not is_digit[number]]


def draw_reading(image, reading, ax=None):
    """Draw a picture with a box around each digit read and the digit above it, and return the Axes.

    What was weighed as a digit and declined has a dashed box.

    Args:
        image: the picture that was read, as for `read_digits`, whose ValueError it raises.
        reading: its `Reading`.
        ax: where to draw; a new figure unless given.
    """
    import matplotlib.pyplot as plt  # here: slow to import, and reading needs none

    from ..plots import BLUE, RED

    pixels, scale = open_picture(image)
    height, width = (round(side * scale) for side in pixels.shape[:2])
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 7 * height / width), layout="constrained")
    ax.imshow(pixels / 255, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    ax.set_axis_off()
    for boxes, style in ((reading.boxes, {"color": BLUE}), (reading.others, {"color": RED, "linestyle": "--"})):
        for left, top, right, bottom in boxes:
            ax.add_patch(plt.Rectangle((left, top), right - left, bottom - top, fill=False, **style))
    for digit, (left, top, _, _) in zip(reading.digits, reading.boxes):
        style = {"color": BLUE, "fontsize": 12, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
        ax.annotate(str(digit), (left, top), xytext=(0, 2), textcoords="offset points", **style)
    return ax
