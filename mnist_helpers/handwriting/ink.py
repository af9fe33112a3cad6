"""Any picture of writing, opened and turned into an ink map: 0 where there is paper, bright where there is ink."""

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..files import read_regular
from .ruling import usual_width
from .sheet import sheet_alone

MAX_PIXELS = 150_000_000  # of a file that is opened; a telephone's camera has up to 108 megapixels
WORKING_SIDE = 2000  # pixels; larger pictures are worked on with their longer side scaled to this
SMALL_SIDE = 256  # pixels, the longer side of the copy on which paper and light are judged
MAX_STROKE_WIDTH = 4  # × the strokes' usual width; what is wider is paper, such as paper under a narrow shadow
MIN_STRENGTH = 2.0  # of ink, in grey values relative to the light
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")  # no EPS: it would start another program


@dataclass(frozen=True)
class Ink:
    """Where a picture has ink.

    Attributes:
        strength: float32 (H, W): 0 on paper, about 1 in the darkest ink, with the light's unevenness taken out.
        mask: bool (H, W): what counts as ink.
        faint: bool (H, W): the same, and what is half as strong: printed lines too.
    """

    strength: np.ndarray
    mask: np.ndarray
    faint: np.ndarray


def open_picture(image: Any) -> tuple[np.ndarray, float]:
    """Return (pixels float32 (H, W, 3) from 0 to 255, scale) of anything that holds a picture.

    Args:
        image: a path; a PIL image; or an array or tensor (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, of
            truth values, integers or finite floats. A picture is rotated as its EXIF data say. What is transparent
            shows white or black paper, whichever differs more from its ink. Numbers other than uint8 count from their
            least to their greatest. A fourth channel is opaque at 1, 255, 65,535 or its own greatest value: the first
            of these that no number exceeds.

    Returns:
        The pixels, with the longer side at most 2,000, and the scale: how many pixels of the rotated picture, along a
        side, one of these stands for.

    Raises:
        ValueError: the file is missing, empty, damaged, no regular one, not in a known format, or beyond 200 MB or 150
            megapixels, or the array is no picture. The message names the file.
    """
    if hasattr(image, "read"):  # an open file
        image = image_in(image.read(), str(getattr(image, "name", "the picture")))
    if isinstance(image, (str, Path)):
        try:
            content = read_regular(image)
        except OSError as error:
            raise ValueError(str(error)) from error
        image = image_in(content, name_of(image))
        full = max(image.size)
        image.draft(image.mode, (WORKING_SIDE, WORKING_SIDE))  # a large JPEG is decoded at half its size or less
        pixels = _pil_pixels(image)
    elif isinstance(image, Image.Image):
        full = max(image.size)
        pixels = _pil_pixels(image)
    else:
        pixels = _array_pixels(image)
        full = max(pixels.shape[:2])
    side = max(pixels.shape[:2])
    if side > WORKING_SIDE:
        size = [max(1, round(length * WORKING_SIDE / side)) for length in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return _on_paper(pixels.astype(np.float32)), full / max(pixels.shape[:2])


def image_in(content: bytes, name: str) -> Image.Image:
    """Return the PIL image in a file's bytes, with nothing but its head decoded.

    Args:
        content: the file's bytes.
        name: of the file, for error messages.

    Raises:
        ValueError: it is empty, no picture in a known format, or has more than 150 megapixels.
    """
    if not content:
        raise ValueError(f"{name} is empty")
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=[one for one in FORMATS if one in Image.OPEN])
        several = image.format != "MPO" and getattr(image, "is_animated", False)  # an MPO's others are previews
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is no picture that can be read here: save it as PNG or JPEG") from error
    except (Image.DecompressionBombError, ValueError, OSError, RuntimeError, SyntaxError) as error:
        raise ValueError(f"{name} is refused: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{name} is too large, {image.width} x {image.height} pixels: make it smaller than "
            f"{MAX_PIXELS // 1_000_000} megapixels"
        )
    if several:
        warnings.warn(f"{name} holds several pictures: only the first is read.", stacklevel=3)
    image.filename = name
    return image


def name_of(image: Any) -> str:
    """Return what messages call a picture: the path of its file, or "the picture" where there is none."""
    return str(image if isinstance(image, (str, Path)) else getattr(image, "filename", "") or "the picture")


def find_ink(pixels: np.ndarray) -> Ink:
    """Return the `Ink` of a picture, float32 (H, W, 3) from 0 to 255.

    Ink may be darker or lighter than the paper, or of another colour. Its direction in colour space is the one in
    which the picture departs most from its surroundings; the paper along it, under shadows and uneven light, is what
    a morphological opening leaves; and a point is ink where it reaches a share of the strongest ink around it. Once
    the strokes' usual width is known, this is done again with an opening that just passes over them, which also
    takes narrow shadows, such as a pen's, for paper.

    Source: the paper by opening (top-hat transform): Serra, "Image analysis and mathematical morphology" (1982).
    """
    pixels = sheet_alone(pixels, _shrink(pixels))
    across = _ink_direction(small := _shrink(pixels))
    if across is None:
        nothing = np.zeros(pixels.shape[:2], bool)
        return Ink(nothing.astype(np.float32), nothing, nothing)
    widest = SMALL_SIDE // 5
    ink = _above_paper(pixels, small, across, widest)
    width = usual_width(ink.mask) * max(small.shape) / max(pixels.shape)
    finer = max(9, round(MAX_STROKE_WIDTH * width))
    return _above_paper(pixels, small, across, finer) if finer < 0.7 * widest else ink


def _above_paper(pixels, small, across, widest):
    """Return the `Ink`, taking for paper whatever is wider than `widest` points of the small copy."""
    paper = cv2.morphologyEx(small @ across, cv2.MORPH_OPEN, _disc(widest))
    passing = cv2.MORPH_OPEN if across.sum() > 0 else cv2.MORPH_CLOSE
    light = cv2.morphologyEx(small.mean(axis=2), passing, _disc(widest))  # of the paper
    if min(small.shape[:2]) > 100:
        paper, light = (cv2.GaussianBlur(one, (0, 0), min(3, widest / 6)) for one in (paper, light))
    paper, light = (cv2.resize(one, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR) for one in (paper, light))
    strength = (pixels @ across - paper) / (1 + light / 40)  # light scales paper and ink alike
    strength -= np.median(strength)  # with noise, an opening lies below the paper
    strength = _without_noise(strength, _noise(strength))
    level = _level_around(strength)
    threshold = np.maximum(0.42 * level, max(6 * _noise(strength), 0.15 * float(level.max()), MIN_STRENGTH))
    mask = strength > threshold
    top = float(np.percentile(strength[mask], 95)) if mask.any() else 1.0
    return Ink((strength / top).clip(0, None).astype(np.float32), mask, strength > 0.5 * threshold)


def _pil_pixels(image):
    """Return a PIL image's pixels, rotated as EXIF says: (H, W), (H, W, 3) or, with transparency, (H, W, 4)."""
    name = name_of(image)
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, RuntimeError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _array_pixels(np.asarray(image), name)
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _array_pixels(image, name="a picture"):
    """Return an array's or tensor's pixels from 0 to 255: (H, W), (H, W, 3) or (H, W, 4)."""
    if hasattr(image, "detach"):  # a tensor; NumPy has no bfloat16
        image = image.detach().cpu().float() if image.is_floating_point() else image.detach().cpu()
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)  # as PyTorch has them
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not fits or pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise ValueError(
            f"a picture must be an array of numbers (H, W), or with 3 or 4 channels, not {pixels.dtype} {pixels.shape}"
        )
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return _stretched(pixels)
    colour, cover = pixels[:, :, :3], pixels[:, :, 3:]
    top = float(cover.max())
    opaque = next((value for value in (1, 255, 65535) if top <= value), top)
    return np.concatenate([_stretched(colour), 255 / opaque * cover.clip(0)], axis=2)


def _stretched(pixels):
    """Return float pixels from their least, 0, to their greatest, 255; all 0 where they are the same."""
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels - low) * (255 / (high - low)) if high > low else np.zeros_like(pixels)


def _on_paper(pixels):
    """Return (H, W, 3) of grey, coloured or partly transparent pixels; behind these lies white or black paper."""
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[2] == 3:
        return pixels
    colour, cover = pixels[:, :, :3], pixels[:, :, 3:] / 255
    brightness = (colour * cover).sum() / (3 * max(cover.sum(), 1e-6))
    return colour * cover + (255.0 if brightness < 128 else 0.0) * (1 - cover)


def _shrink(pixels):
    """Return a copy whose longer side is at most SMALL_SIDE, each pixel the mean of those that it stands for."""
    factor = min(1.0, SMALL_SIDE / max(pixels.shape[:2]))
    size = [max(1, round(length * factor)) for length in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if factor < 1 else pixels


def _disc(width):
    """Return a disc as structuring element, `width` pixels across, made odd."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width | 1, width | 1))


def _ink_direction(small):
    """Return the unit vector (3,) along which ink is brighter than paper, or None without ink.

    The direction is the principal axis of the strongest departures from the median around; of its two senses, ink is
    the one with the long tail, since it covers less than paper.
    """
    window = min(255, max(15, max(small.shape[:2]) // 4) | 1)
    around = [cv2.medianBlur(np.round(small[:, :, channel]).astype(np.uint8), window) for channel in range(3)]
    around = np.stack(around, axis=2).astype(np.float32)
    departure = (small - around).reshape(-1, 3)
    strength = np.linalg.norm(departure, axis=1)
    strong = departure[strength >= max(3.0, float(np.quantile(strength, 0.9)))]
    if len(strong) == 0:
        return None
    across = np.linalg.eigh(strong.T @ strong)[1][:, -1].astype(np.float32)
    across *= 1 if ((strong @ across) ** 3).sum() >= 0 else -1
    return across


def _noise(strength):
    """Return the standard deviation of a picture's noise, from the differences between neighbours along both axes.

    Source: Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage" (1994): the median of the finest
    diagonal details.
    """
    if min(strength.shape) < 2:
        return 0.0
    details = strength[1:, 1:] - strength[:-1, 1:] - strength[1:, :-1] + strength[:-1, :-1]
    return float(np.median(np.abs(details))) / 2 / 0.6745


def _without_noise(strength, noise):
    """Return the ink map smoothed as much as its noise, beside its ink, asks for."""
    contrast = float(np.percentile(strength, 99.5))
    if noise < 0.02 * contrast or min(strength.shape) < 60:
        return strength
    strength = cv2.medianBlur(strength.astype(np.float32), 3)
    sigma = min(2.0, 10 * noise / max(contrast, 1e-6))
    return cv2.GaussianBlur(strength, (0, 0), sigma) if sigma > 0.5 else strength


def _level_around(strength):
    """Return the strongest ink around each point, (H, W): a small copy's maximum over a neighbourhood, smoothed."""
    step = max(1, math.ceil(max(strength.shape) / SMALL_SIDE))
    calm = cv2.blur(strength, (3, 3)) if min(strength.shape) > 60 else strength
    highest = cv2.dilate(calm, np.ones((step, step)))[::step, ::step]
    level = cv2.dilate(highest, _disc(SMALL_SIDE // 5))
    level = cv2.blur(level, (SMALL_SIDE // 5 | 1,) * 2) if min(level.shape) > 3 else level
    return cv2.resize(level, strength.shape[::-1], interpolation=cv2.INTER_LINEAR)
