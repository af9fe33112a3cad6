"""Drawings as a data set of your own: made from pictures, kept in a file, read from an uploaded picture."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..data.digits import Digits
from ..files import sha256, write_atomically

MAX_PIXELS = 40_000_000  # of an uploaded picture


def as_digits(images: Sequence[np.ndarray], labels: Iterable[int]) -> Digits:
    """Return `Digits` with `source == "drawings"` from images, uint8 (28, 28), and as many labels, or from none."""
    pixels = np.stack(list(images)) if len(images) else np.zeros((0, 28, 28), dtype=np.uint8)
    return Digits(
        images=torch.from_numpy(pixels.copy()),
        labels=torch.tensor(list(labels), dtype=torch.int64),
        source="drawings",
        folder="drawing pad",
        checksums={"images": sha256(pixels.tobytes())},
    )


def save_drawings(digits: Digits, path: str | Path) -> None:
    """Write `Digits` into one file (`.npz`), atomically; `load_drawings` reads it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=digits.images.numpy(), labels=digits.labels.numpy())
    write_atomically(Path(path), buffer.getvalue())


def load_drawings(path: str | Path) -> Digits:
    """Return the `Digits` in a file that `save_drawings` wrote, or empty `Digits` if there is no such file.

    Raises:
        ValueError: the file holds something else.
    """
    path = Path(path)
    if not path.exists():
        return as_digits([], [])
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        raise ValueError(f"{path} holds no drawings: move it away, or name another file") from None
    if images.dtype != np.uint8 or images.shape != (len(labels), 28, 28) or not np.isin(labels, range(10)).all():
        raise ValueError(f"{path} holds no drawings of digits: move it away, or name another file")
    return as_digits(images, labels.tolist())


def read_picture(content: bytes, name: str = "the file") -> np.ndarray:
    """Return the one digit in a picture file as ink: uint8 array (H, W), paper about 0, at most 400 pixels a side.

    The paper is the median of the border. A photograph is rotated as its EXIF data say. For pages, and for photographs
    in uneven light, use `read_digits`.

    Args:
        content: the file's bytes.
        name: of the file, for error messages.

    Raises:
        ValueError: it is no picture, or has more than 40 million pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{name} has {image.width} x {image.height} pixels: take a smaller picture")
            turned = ImageOps.exif_transpose(image)
            turned.thumbnail((400, 400))
            grey = np.asarray(_on_white(turned).convert("L"))
    except (OSError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for files of other kinds
        raise ValueError(f"{name} is no picture that can be read: take a PNG or JPEG file") from None
    border = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    ink = grey.astype(np.float32) - border
    ink = ink if ink.max() > -ink.min() else -ink
    return np.round(np.where(ink > 0.25 * ink.max(), ink, 0)).clip(0, 255).astype(np.uint8)  # grain is not ink


def uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Return the files in the value of an ipywidgets `FileUpload` as a list of (name, bytes).

    ipywidgets 7 holds a dict from names to dicts, ipywidgets 8 a tuple of dicts.
    """
    if isinstance(value, dict):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def _on_white(image):
    """Return a picture with what is transparent in it made white."""
    if "transparency" not in image.info and "A" not in image.getbands():
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
