"""Digits of many hands, and what is no digit: what MNIST's pictures do not show, to train on beside them.

Everything is drawn here, by a scripted pen and by the fonts that are installed; nothing is taken from other datasets.
On Debian: `apt install fonts-breip fonts-bwht fonts-dkg-handwriting fonts-humor-sans fonts-comic-neue
fonts-dancingscript fonts-femkeklaver fonts-kaushanscript fonts-klee fonts-kristi fonts-rufscript fonts-isabella
fonts-ecolier-court fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-urw-base35`. Only training needs them.
"""

import functools
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .digits import NO_DIGIT, Digits
from .form import to_mnist_form
from .strokes import HAND, SHAPES, smooth

SIDE = 112  # of a drawing, in pixels
FONT_FOLDERS = "/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts", "C:/Windows/Fonts"
HANDWRITTEN = """
BecauseWe* Breip* breip* dkg* Humor* ComicNeue* DancingScript* femkeklaver* Kaushan* Klee* Kristi* Rufscript* Isabella*
Ecolier-court* kiloji* SteveHand* Delphine*
""".split()
PRINTED = """
DejaVuS* Liberation* FreeSans* FreeSerif* FreeMono* Nimbus* P052* C059* URW* Play* Z003* LeckerliOne* Lobster* Yanone*
""".split()
# Letters that look like a digit are left out: I l O o D Q S s Z z B b G g q and their like
LETTERS = "AEFHKLMNPRTUVWXYacdefhkmnprtuvwx%#+=&@*<?!"


def fonts(patterns: list[str]) -> list[str]:
    """Return the files of installed fonts whose names match one of the patterns, sorted by name."""
    found = [
        path for folder in FONT_FOLDERS for pattern in patterns for path in Path(folder).rglob(f"{pattern}.[to]tf")
    ]
    return sorted({path.name: str(path) for path in found}.values())


def pen_digits(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return n digits by the scripted pen in all its shapes, uint8 (n, 28, 28) in MNIST's form, and labels (n,)."""
    labels = np.arange(n) % 10
    pictures = [pen_drawing(_any_shape(int(digit), random), random) for digit in labels]
    return _forms(pictures), labels


def pen_drawing(strokes: list, random: np.random.Generator) -> np.ndarray:
    """Return strokes in coordinates 0 to 1 as a picture, uint8 (112, 112), by a pen of any width and a shaky hand."""
    wobble, turn = random.uniform(0, 0.02), np.radians(random.normal(0, 8))
    slant, aspect = random.normal(0, 0.15), np.exp(random.normal(0, 0.15))
    bend = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ [[aspect, -slant], [0, 1 / aspect]]
    drift = random.normal(0, 0.015, (len(strokes), 2))  # strokes that do not quite meet
    picture, pen = np.zeros((SIDE, SIDE), np.uint8), int(random.integers(2, 15))
    for stroke, shift in zip(strokes, drift):
        points = np.array(stroke) - 0.5 + random.normal(0, wobble, np.shape(stroke)) + shift
        points = np.array(smooth(points.tolist())) @ bend.T * 0.8 + 0.5
        cv2.polylines(picture, [np.round(points * SIDE * 16).astype(np.int32)], False, 255, pen, cv2.LINE_AA, 4)
    return picture


def typed(n: int, characters: str, files: list[str], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return n characters of fonts, uint8 (n, 28, 28) in MNIST's form, and their places in `characters` (n,)."""
    opened = functools.cache(ImageFont.truetype)
    numbers = random.integers(0, len(characters), n if files else 0)
    pictures = []
    for number in numbers:
        file = files[random.integers(len(files))]
        font = opened(file, 72)
        picture = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(picture).text((SIDE // 2, SIDE // 2), characters[number], 255, font, anchor="mm")
        pictures.append(_shaken(np.asarray(picture), random))
    return _forms(pictures), numbers


def restyled(digits: Digits, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return n of MNIST's 0s, 1s and 7s with a stroke that its writers rarely make, uint8 (n, 28, 28), and labels.

    The 0 gets a slash, the 1 an upstroke or a foot or both, the 7 a bar.
    """
    of_kind = [(digits.labels == label).nonzero()[:, 0].numpy() for label in (0, 1, 1, 7)]
    of_kind = [numbers for numbers in of_kind if len(numbers)]
    pictures, labels = [], []
    for number in range(n if of_kind else 0):
        candidates = of_kind[number % len(of_kind)]
        place = candidates[random.integers(len(candidates))]
        label = int(digits.labels[place])
        pictures.append(_restyled(digits.images[place].numpy(), label, random))
        labels.append(label)
    return _forms(pictures), np.array(labels, dtype=np.int64)


def no_digits(digits: Digits, n: int, random: np.random.Generator) -> np.ndarray:
    """Return n pictures of no digit, uint8 (n, 28, 28): shapes, pairs of digits, textures."""
    letters, _ = typed(n // 3, LETTERS, fonts(HANDWRITTEN) * 3 + fonts(PRINTED), random)
    makers = [_scribble, _curl, _crossing, _outline, _silhouette, _dashes, _pair, _crossed_out]
    makers += [_texture] * 5
    rest = [makers[number % len(makers)](digits, random) for number in range(n - len(letters))]
    return np.concatenate([letters, np.array(rest, dtype=np.uint8).reshape(-1, 28, 28)])


def many_hands(digits: Digits, n: int, n_others: int, seed: int) -> Digits:
    """Return digits with n more of other hands and `n_others` that are none, labelled `NO_DIGIT`, in a fixed order."""
    random = np.random.default_rng(seed)
    parts = [pen_digits(n // 2, random), restyled(digits, n // 6, random)]
    parts += [
        typed(n // 4, "0123456789", fonts(HANDWRITTEN), random),
        typed(n // 12, "0123456789", fonts(PRINTED), random),
    ]
    others = no_digits(digits, n_others, random)
    parts += [(others, np.full(len(others), NO_DIGIT))]
    images = torch.cat([digits.images, *(torch.from_numpy(images) for images, _ in parts)])
    labels = torch.cat([digits.labels, *(torch.from_numpy(labels).long() for _, labels in parts)])
    return Digits(images, labels, digits.source, digits.folder, digits.checksums)


def _any_shape(digit: int, random: np.random.Generator) -> list:
    shapes = [HAND[digit], *SHAPES[digit]]
    return shapes[random.integers(len(shapes))]


def _forms(pictures: list[np.ndarray]) -> np.ndarray:
    return np.array([to_mnist_form(picture) for picture in pictures], dtype=np.uint8).reshape(-1, 28, 28)


def _shaken(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a drawing slanted, stretched, and with strokes of another width."""
    bend = np.eye(2, 3) + np.pad(random.normal(0, 0.1, (2, 2)), ((0, 0), (0, 1)))
    bend[:, 2] = SIDE / 2 - bend[:, :2] @ (SIDE / 2, SIDE / 2)
    picture = cv2.warpAffine(picture, bend, (SIDE, SIDE))
    size = int(random.integers(1, 6))
    return cv2.dilate(picture, np.ones((size, size), np.uint8))


def _restyled(image: np.ndarray, label: int, random: np.random.Generator) -> np.ndarray:
    """Return one of MNIST's images, enlarged fourfold, with its stroke more."""
    picture = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    rows, columns = (np.nonzero((picture > 90).any(axis=axis))[0] for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    pen = int(np.clip((picture > 90).sum() / max(1, bottom - top) * (0.8 if label == 1 else 0.4), 3, 14))
    height, jitter = bottom - top, lambda: int(random.normal(0, 3))

    def line(*points: tuple[float, float]) -> None:
        cv2.polylines(picture, [np.round(points).astype(np.int32)], False, 255, pen, cv2.LINE_AA)

    if label == 0:
        line((right + jitter() - 8, top + jitter() + 6), (left + jitter() + 8, bottom + jitter() - 6))
    elif label == 7:
        middle = top + int(height * random.uniform(0.45, 0.6))
        stem = int(np.nonzero(picture[middle] > 90)[0].mean()) if (picture[middle] > 90).any() else (left + right) // 2
        reach = height * random.uniform(0.12, 0.22)
        line((stem - reach, middle + jitter()), (stem + reach, middle + jitter()))
    else:
        head, foot = (int(np.nonzero(picture[row] > 90)[0].mean()) for row in (top, bottom))
        kind = random.integers(3)
        if kind != 1:  # an upstroke
            length = height * random.uniform(0.15, 0.5)
            line((head, top + pen // 2), (head - length * random.uniform(0.6, 1.1), top + length))
        if kind != 0:  # a foot
            reach = height * random.uniform(0.15, 0.35)
            line((foot - reach, bottom - pen // 2 + jitter() // 2), (foot + reach, bottom - pen // 2 + jitter() // 2))
    return picture


def _scribble(digits: Digits, random: np.random.Generator) -> np.ndarray:
    picture = np.zeros((SIDE, SIDE), np.uint8)
    points = random.integers(15, 97, (int(random.integers(5, 14)), 2)).astype(np.int32)
    cv2.polylines(picture, [points], False, 255, int(random.integers(2, 12)), cv2.LINE_AA)
    return to_mnist_form(picture)


def _curl(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """A long smooth line that comes back on itself and crosses itself."""
    time, turns = np.linspace(0, random.uniform(4, 6.3), 80), np.arange(3, 6)[:, None]
    waves = random.normal(0, 1, (2, 3, 1)) * np.sin(turns * time + random.uniform(0, 6.3, (2, 3, 1)))
    points = waves.sum(axis=1).T  # (80, 2)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    points = SIDE / 2 + points * (42 / np.abs(points).max(axis=0)) * random.uniform(0.6, 1, 2)
    picture = np.zeros((SIDE, SIDE), np.uint8)
    cv2.polylines(picture, [np.round(points).astype(np.int32)], False, 255, int(random.integers(2, 12)), cv2.LINE_AA)
    return to_mnist_form(picture)


def _crossing(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """Four to seven straight strokes that cross, or two parallel ones."""
    picture, pen = np.zeros((SIDE, SIDE), np.uint8), int(random.integers(2, 12))
    n = int(random.choice([2, 4, 5, 6, 7]))
    ends = random.integers(14, 98, (n, 2, 2))
    if n == 2:
        ends = np.array([[(30, 14), (30, 98)], [(75, 14), (75, 98)]]) + random.integers(-12, 12, (2, 2, 2))
    for start, end in ends.tolist():
        cv2.line(picture, start, end, 255, pen, cv2.LINE_AA)
    return to_mnist_form(picture)


def _outline(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """A polygon of three to eight corners, a star, or an ellipse with something in it; an empty one would be a 0."""
    picture, pen, n = np.zeros((SIDE, SIDE), np.uint8), int(random.integers(2, 10)), int(random.integers(3, 9))
    angles = np.arange(n) * 2 * np.pi / n + random.uniform(0, 6)
    radius = 42 * random.uniform(0.35 if n > 4 else 0.75, 1, (n, 1)) * [1, random.uniform(0.5, 1)]
    points = SIDE / 2 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if random.random() < 0.3:
        cv2.ellipse(picture, (56, 56), (40, int(random.integers(20, 42))), 0, 0, 360, 255, pen, cv2.LINE_AA)
        for x, y in random.integers(35, 78, (int(random.integers(2, 5)), 2)).tolist():
            cv2.circle(picture, (x, y), int(random.integers(3, 9)), 255, -1, cv2.LINE_AA)
    elif random.random() < 0.3:
        cv2.fillPoly(picture, [np.round(points).astype(np.int32)], 255, cv2.LINE_AA)
    else:
        cv2.polylines(picture, [np.round(points).astype(np.int32)], True, 255, pen, cv2.LINE_AA)
    return to_mnist_form(picture)


def _silhouette(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """A filled shape, mostly the same left and right, of uneven grey: what things look like that are not written."""
    heights = np.linspace(8, 104, int(random.integers(4, 9)))
    half = random.uniform(6, 48, len(heights))
    left = 56 - half if random.random() < 0.7 else 56 - random.uniform(6, 48, len(heights))
    points = np.concatenate([np.stack([56 + half, heights], 1), np.stack([left, heights], 1)[::-1]])
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 255, cv2.LINE_AA)
    if random.random() < 0.3:  # a gap, as between legs or in a handle
        cv2.rectangle(mask, (int(random.integers(44, 60)), int(random.integers(30, 60))), (66, 110), 0, -1)
    sides = random.integers(2, 15, 2)
    shade = cv2.resize(random.uniform(random.uniform(0.1, 0.9), 1, sides).astype(np.float32), (SIDE, SIDE))
    size = (28, 28) if random.random() < 0.3 else (int(random.integers(14, 25)), int(random.integers(14, 25)))
    small = cv2.resize(mask * shade, size, interpolation=cv2.INTER_AREA).round().astype(np.uint8)
    pad = [28 - small.shape[0], 28 - small.shape[1]]
    return np.pad(small, [(side // 2, side - side // 2) for side in pad])


def _dashes(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """A dash, a dot, a comma, a bracket, a check mark or dots in a row."""
    picture, pen, kind = np.zeros((SIDE, SIDE), np.uint8), int(random.integers(4, 16)), int(random.integers(6))
    if kind == 0:
        cv2.line(picture, (20, 56 + int(random.integers(-8, 8))), (92, 56), 255, pen, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(picture, (56, 56), int(random.integers(6, 40)), 255, -1, cv2.LINE_AA)
    elif kind == 2:
        cv2.line(picture, (30, 60), (50, 90), 255, pen, cv2.LINE_AA)
        cv2.line(picture, (50, 90), (90, 20), 255, pen, cv2.LINE_AA)
    elif kind == 3:
        cv2.ellipse(picture, (56, 56), (24, 44), 0, 60, 300, 255, pen, cv2.LINE_AA)
        cv2.line(picture, (56, 10), (56, 102), 255, pen, cv2.LINE_AA)
    else:
        for x in range(15, 100, int(random.integers(18, 30))):
            cv2.circle(
                picture, (x, 56 + int(random.integers(-20, 20))), int(random.integers(4, 9)), 255, -1, cv2.LINE_AA
            )
    return to_mnist_form(picture)


def _pair(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """Two or three digits side by side, some one above the other."""
    chosen = digits.images[random.integers(0, len(digits), int(random.integers(2, 4)))].numpy()
    cut = [image[:, np.nonzero(image.any(axis=0))[0]] for image in chosen]
    gap = np.zeros((28, int(random.integers(0, 4))), np.uint8)
    row = np.concatenate([piece for image in cut for piece in (image, gap)], axis=1)
    return to_mnist_form(row if random.random() < 0.8 else np.concatenate([chosen[0], chosen[1]], axis=0))


def _crossed_out(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """A digit that was crossed out."""
    image = digits.images[random.integers(len(digits))].numpy()
    picture: np.ndarray = cv2.resize(image, (SIDE, SIDE))
    for _ in range(int(random.integers(4, 8))):
        start, end = random.integers(8, 104, (2, 2)).tolist()
        cv2.line(picture, start, end, 255, int(random.integers(4, 16)), cv2.LINE_AA)
    return to_mnist_form(picture)


def _texture(digits: Digits, random: np.random.Generator) -> np.ndarray:
    """Nothing but grey, noise of any grain, a slope, stripes or a checkerboard."""
    kind, base = int(random.integers(6)), random.uniform(0, 255)
    down, right = np.mgrid[:28, :28]
    if kind == 0:
        return np.full((28, 28), 0 if random.random() < 0.1 else base, np.uint8)
    if kind < 3:
        sides = random.integers(2, 29, 2) if kind == 1 else (28, 28)
        even = random.random() < 0.5
        grains = random.uniform(0, 255, sides) if even else random.normal(0, random.uniform(2, 120), sides)
        noise: np.ndarray = cv2.resize(grains.astype(np.float32), (28, 28), interpolation=cv2.INTER_CUBIC)
        return (noise + random.uniform(0, 128)).clip(0, 255).astype(np.uint8)
    angle, period = random.uniform(0, np.pi), random.uniform(2, 60)
    wave = np.sin((down * np.cos(angle) + right * np.sin(angle)) * 2 * np.pi / period + random.uniform(0, 6))
    if kind == 3:
        wave = wave * np.sin((right * np.cos(angle) - down * np.sin(angle)) * 2 * np.pi / period)
    if random.random() < 0.5:
        wave = np.sign(wave)
    wave = base + wave * random.uniform(10, 128) + random.normal(0, random.uniform(0, 30), (28, 28))
    return wave.clip(0, 255).astype(np.uint8)
