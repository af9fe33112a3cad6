"""How well networks read digits that are not like MNIST's: 15 corruptions, other people's pictures, and no digits.

    python benchmarks/robustness.py [--models any_hand record lenet5] [--pictures FOLDER] [--test]

The corruptions follow the descriptions in Mu and Gilmer, "MNIST-C: A robustness benchmark for computer vision" (2019);
they are implemented anew, for scoring only, and nothing is trained on them. FOLDER holds pictures of one digit and a
`truth.json`: {"file": {"digit": 3, "hand": 1}}. Validation digits are used unless `--test` is given.
"""

import cv2
import numpy as np
from scipy import ndimage

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
                image[max(0, row - 0) : row + 2, column : column + 2] = 255
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
) + (fog, spatter, dotted_line, zigzag, canny_edges)


def corrupted(images: Pictures, seed: int = 0) -> dict[str, Pictures]:
    """Return images, uint8 (N, 28, 28), under each of the 15 corruptions, by name."""
    return {
        corruption.__name__: corruption(images, np.random.default_rng([seed, number]))
        .clip(0, 255)
        .round()
        .astype(np.uint8)
        for number, corruption in enumerate(CORRUPTIONS)
    }
