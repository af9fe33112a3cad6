"""Drawings as a data set of your own: made from pictures, kept in a file, uploaded."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.digits import Digits
from ..files import read_regular, sha256, write_atomically

MAX_ARRAY = 200_000_000  # bytes of an array in a file of drawings, which is a quarter of a million


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
        ValueError: the file holds something else, or cannot be read.
    """
    try:
        content = io.BytesIO(read_regular(path))
        with zipfile.ZipFile(content) as archive:
            images, labels = (_array(archive, f"{name}.npy") for name in ("images", "labels"))
    except FileNotFoundError:
        return as_digits([], [])
    except OSError as error:
        raise ValueError(str(error)) from error
    except Exception:  # zipfile and numpy have many ways to refuse what is no archive of arrays
        raise ValueError(f"{path} holds no drawings: move it away, or name another file") from None
    fits = images.dtype == np.uint8 and labels.dtype.kind in "iu" and labels.ndim == 1
    if not fits or images.shape != (len(labels), 28, 28) or not np.isin(labels, range(10)).all():
        raise ValueError(f"{path} holds no drawings of digits: move it away, or name another file")
    return as_digits(images, labels.tolist())


def uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Return the files in the value of an ipywidgets `FileUpload` as a list of (name, bytes).

    ipywidgets 7 holds a dict from names to dicts, ipywidgets 8 a tuple of dicts.
    """
    if isinstance(value, dict):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def _array(archive, name):
    """Return the array that `np.savez_compressed` wrote into an archive; it takes no memory for what is only declared.

    `np.load` would make an array of the declared shape before it reads the numbers.
    """
    entry = archive.getinfo(name)
    if entry.file_size > MAX_ARRAY or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is too large, or packed by other means")
    with archive.open(entry) as packed:
        content = io.BytesIO(packed.read(entry.file_size))  # no further, whatever it unpacks to
    if np.lib.format.read_magic(content) != (1, 0):
        raise ValueError(f"{name} has another version")
    shape, by_column, dtype = np.lib.format.read_array_header_1_0(content)
    return np.frombuffer(content.read(), dtype).reshape(shape, order="F" if by_column else "C")
