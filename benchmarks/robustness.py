"""How well networks read digits that are not like MNIST's: 15 corruptions, other people's pictures, and no digits.

    python benchmarks/robustness.py [--models any_hand record lenet5] [--pictures FOLDER] [--test]

The corruptions follow the descriptions in Mu and Gilmer, "MNIST-C: A robustness benchmark for computer vision" (2019);
they are implemented anew, for scoring only, and nothing is trained on them. FOLDER holds pictures of one digit and a
`truth.json`: {"file": {"digit": 3, "hand": 1}}. Validation digits are used unless `--test` is given.
"""

import argparse
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from mnist_helpers.data import hands
from mnist_helpers.data.digits import NO_DIGIT, load_mnist
from mnist_helpers.data.loaders import stratified_split
from mnist_helpers.evaluation.calibration import calibration_error
from mnist_helpers.evaluation.scores import predict
from mnist_helpers.experiments.tables import markdown_table
from mnist_helpers.handwriting.single import single_form
from mnist_helpers.models.saved import load_model

Pictures = np.ndarray  # uint8 (N, 28, 28)


def shot_noise(images, random):
    """Poisson noise of few photons."""
    return random.poisson(images / 255 * 5) / 5 * 255


def impulse_noise(images, random):
    """Salt and pepper on a fifth of the pixels."""
    draws = random.random(images.shape)
    return np.where(draws < 0.1, 0, np.where(draws > 0.9, 255, images))


def glass_blur(images, random):
    """Pixels change places with neighbours, between two slight Gaussian blurs."""
    result = ndimage.gaussian_filter(images.astype(float), (0, 0.7, 0.7))
    n, height, width = result.shape
    for _ in range(2):
        for row in range(1, height - 1):
            for column in range(1, width - 1):
                down, right = random.integers(-1, 2, (2, n))
                which = np.arange(n)
                other = result[which, row + down, column + right].copy()
                result[which, row + down, column + right] = result[which, row, column]
                result[which, row, column] = other
    return ndimage.gaussian_filter(result, (0, 0.7, 0.7))


def motion_blur(images, random):
    """The mean along a line of nine pixels, at up to 45 degrees."""
    blurred = []
    for image, angle in zip(images, random.uniform(-45, 45, len(images))):
        kernel = np.zeros((11, 11), np.float32)
        kernel[5, 1:10] = 1
        kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((5, 5), angle, 1), (11, 11))
        blurred.append(cv2.filter2D(image.astype(np.float32), -1, kernel / kernel.sum()))
    return np.array(blurred)


def _affine(images, matrices):
    """Return images under maps of places from the centre."""
    centre = np.array([13.5, 13.5])
    moved = []
    for image, matrix in zip(images, matrices):
        shift = centre + matrix[:, 2] - matrix[:, :2] @ centre
        moved.append(cv2.warpAffine(image, np.c_[matrix[:, :2], shift], (28, 28)))
    return np.array(moved)


def shear(images, random):
    """A slant along the rows of 0.4 either way."""
    slants = random.choice([-1, 1], len(images)) * 0.4
    return _affine(images, [np.array([[1, slant, 0], [0, 1, 0]]) for slant in slants])


def scale(images, random):
    """Two thirds of the size."""
    return _affine(images, [np.array([[0.65, 0, 0], [0, 0.65, 0]])] * len(images))


def rotate(images, random):
    """A turn by 20 to 35 degrees either way."""
    angles = np.radians(random.uniform(20, 35, len(images)) * random.choice([-1, 1], len(images)))
    return _affine(images, [np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0]]) for a in angles])


def translate(images, random):
    """A shift of 3 to 5 pixels along both sides."""
    shifts = random.uniform(3, 5, (len(images), 2)) * random.choice([-1, 1], (len(images), 2))
    return _affine(images, [np.array([[1, 0, x], [0, 1, y]]) for x, y in shifts])


def brightness(images, random):
    """The whole picture lighter by half."""
    return images.astype(float) + 128


def stripe(images, random):
    """The outer thirds inverted."""
    result = images.copy()
    result[:, :, :7], result[:, :, 21:] = 255 - images[:, :, :7], 255 - images[:, :, 21:]
    return result


def fog(images, random):
    """A fractal haze, bright as ink, over a picture of less contrast."""
    haze = sum(
        ndimage.zoom(random.random((len(images), 2**k + 1, 2**k + 1)), (1, 28 / (2**k + 1), 28 / (2**k + 1)), order=1)
        / 2**k
        for k in range(5)
    )
    haze = (haze - haze.min((1, 2), keepdims=True)) / np.ptp(haze, axis=(1, 2), keepdims=True)
    foggy = images / 255 + 1.5 * haze
    return foggy / 2.5 * 255


def spatter(images, random):
    """Drops of ink where smoothed noise is high."""
    noise = ndimage.gaussian_filter(random.normal(0, 1, images.shape), (0, 1.2, 1.2))
    drops = noise > np.quantile(noise, 0.88, axis=(1, 2), keepdims=True)
    return np.where(ndimage.gaussian_filter(drops.astype(float), (0, 0.5, 0.5)) > 0.5, 200, images)


def _polyline(images, random, dotted):
    drawn = []
    for image in images:
        image = image.copy()
        if dotted:
            start, end = np.array([random.integers(0, 28), 0]), np.array([random.integers(0, 28), 27])
            for share in np.linspace(0, 1, 10):
                row, column = np.round(start + (end - start) * share).astype(int)
                image[row : row + 2, column : column + 2] = 255
        else:
            columns = np.linspace(0, 27, 9)
            middle = np.linspace(random.integers(4, 24), random.integers(4, 24), 9)
            rows = middle + np.where(np.arange(9) % 2, 3, -3)
            points = np.round(np.stack([columns, rows], 1) * 8).astype(np.int32)
            cv2.polylines(image, [points], False, 255, 1, cv2.LINE_AA, 3)
        drawn.append(image)
    return np.array(drawn)


def dotted_line(images, random):
    """A dotted line of ink across the picture."""
    return _polyline(images, random, dotted=True)


def zigzag(images, random):
    """A zigzag of ink across the picture."""
    return _polyline(images, random, dotted=False)


def canny_edges(images, random):
    """The edges that Canny's detector finds."""
    return np.array([cv2.Canny(image, 100, 200) for image in images])


CORRUPTIONS = (
    shot_noise,
    impulse_noise,
    glass_blur,
    motion_blur,
    shear,
    scale,
    rotate,
    brightness,
    translate,
    stripe,
    fog,
    spatter,
    dotted_line,
    zigzag,
    canny_edges,
)


def corrupted(images: Pictures, seed: int = 0) -> dict[str, Pictures]:
    """Return images, uint8 (N, 28, 28), under each of the 15 corruptions, by name."""
    return {
        corruption.__name__: corruption(images, np.random.default_rng([seed, number]))
        .clip(0, 255)
        .round()
        .astype(np.uint8)
        for number, corruption in enumerate(CORRUPTIONS)
    }


def no_digits(n: int, random: np.random.Generator) -> dict[str, Pictures]:
    """Return pictures of no digit, uint8 (N, 28, 28), by kind."""
    letters, _ = hands.typed(n, hands.LETTERS, hands.fonts(hands.HANDWRITTEN + hands.PRINTED), random)
    grey = np.stack([np.full((28, 28), value, np.uint8) for value in range(1, 256, 8)])
    noise = random.integers(0, 256, (n, 28, 28)).astype(np.uint8)
    return {"blank": np.zeros((1, 28, 28), np.uint8), "grey": grey, "noise": noise, "letters": letters}


def probabilities(images: Pictures, model: torch.nn.Module) -> np.ndarray:
    """Return float (N, 11): of the ten digits, and of there being none; 0 for a network that knows only digits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bright borders, which are meant here
        answers = predict(images, model)[1].cpu().numpy()
    return np.pad(answers, ((0, 0), (0, NO_DIGIT + 1 - answers.shape[1])))


def row(model: torch.nn.Module, sets: dict[str, Pictures], labels: np.ndarray, others: dict[str, Pictures]) -> dict:
    """Return a network's figures: accuracies in percent, calibration, and what it says of no digits."""
    answers = {name: probabilities(images, model) for name, images in sets.items()}
    right = {name: answer.argmax(axis=1) == labels for name, answer in answers.items()}
    accuracies = {name: 100 * float(one.mean()) for name, one in right.items()}
    clean, everywhere = answers["as they are"], np.concatenate(list(answers.values()))
    correct = np.concatenate(list(right.values()))
    threshold = np.quantile(_doubt(clean), 0.99)  # at which one in a hundred digits is refused
    doubts = {kind: _doubt(probabilities(images, model)) for kind, images in others.items()}
    figures = {**accuracies, "mean of 15": float(np.mean([accuracies[one.__name__] for one in CORRUPTIONS]))}
    figures["calibration error"] = calibration_error(everywhere, np.tile(labels, len(sets)))
    figures["AUROC right"] = float(roc_auc_score(correct, everywhere[:, :NO_DIGIT].max(axis=1)))
    strange = np.concatenate(list(doubts.values()))
    is_digit = np.concatenate([np.ones(len(clean)), np.zeros(len(strange))])
    figures["AUROC digit"] = float(roc_auc_score(is_digit, -np.concatenate([_doubt(clean), strange])))
    return figures | {f"{kind} refused": 100 * float((doubt > threshold).mean()) for kind, doubt in doubts.items()}


def _doubt(answers: np.ndarray) -> np.ndarray:
    """Return how little a picture looks like a digit: the probability of none, or else of no digit in particular."""
    return answers[:, NO_DIGIT] if answers[:, NO_DIGIT].any() else 1 - answers.max(axis=1)


def of_pictures(folder: Path, model: torch.nn.Module) -> dict[str, float]:
    """Return the share of a folder's pictures that is read right, and its interval by a bootstrap over hands."""
    truth = json.loads((folder / "truth.json").read_text())
    forms = np.array([single_form(folder / name)[0] for name in truth])
    right = probabilities(forms, model).argmax(axis=1) == np.array([one["digit"] for one in truth.values()])
    who = np.array([one["hand"] for one in truth.values()])
    by_hand, random = [right[who == hand] for hand in np.unique(who)], np.random.default_rng(0)
    draws = [random.integers(0, len(by_hand), len(by_hand)) for _ in range(2000)]
    low, high = np.quantile([np.concatenate([by_hand[one] for one in draw]).mean() for draw in draws], [0.025, 0.975])
    return {"pictures": 100 * float(right.mean()), "from": 100 * float(low), "to": 100 * float(high)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["any_hand", "record", "lenet5"])
    parser.add_argument("--pictures", type=Path, help="a folder of pictures of one digit, with its truth.json")
    parser.add_argument("--test", action="store_true", help="test digits, once a network is finished")
    parser.add_argument("--limit", type=int, default=12_000, help="so many digits (default %(default)s)")
    options = parser.parse_args()
    digits = load_mnist(train=not options.test)
    if not options.test:
        digits = digits.take(stratified_split(digits.labels)[1])
    images, labels = digits.images[: options.limit].numpy(), digits.labels[: options.limit].numpy()
    sets, others = {"as they are": images, **corrupted(images)}, no_digits(500, np.random.default_rng(1))
    rows = {name: row(load_model(name), sets, labels, others) for name in options.models}
    if options.pictures:
        for name in rows:
            rows[name] |= of_pictures(options.pictures, load_model(name))
    lines = []
    for figure in rows[options.models[0]]:
        form = "{:.4f}" if figure.startswith(("AUROC", "calibration")) else "{:.2f}"
        lines.append([figure, *(form.format(one[figure]) for one in rows.values())])
    print(markdown_table(["", *options.models], lines))


if __name__ == "__main__":
    main()
