"""What the files of MNIST and of torchvision's sets in its form must hold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import sha256

SETS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST")  # torchvision's names


class DataError(RuntimeError):
    """The files are neither on disk nor available for download, or they are damaged beyond repair."""


@dataclass(frozen=True)
class IdxFile:
    """What one file of a set must hold, extracted, and where it lies.

    Attributes:
        dataset: one of `SETS`; the file lies in `dataset/raw` below a root folder, as torchvision has it.
        name, shape, dtype: its name without ".gz", and the array in it.
        sha256: of the extracted content, where that is known (MNIST's are).
    """

    dataset: str
    name: str
    shape: tuple[int, ...]
    dtype: str = "u1"
    sha256: str | None = None

    @property
    def folder(self) -> Path:
        """Where it lies below a root folder, in torchvision's layout."""
        return Path(self.dataset, "raw")

    @property
    def header(self) -> bytes:
        """The bytes the file starts with: magic number (type, then rank) and each side's length."""
        kind = {"u1": 0x800, ">i4": 0xC00}[self.dtype]
        return np.array([kind + len(self.shape), *self.shape], dtype=">u4").tobytes()

    @property
    def size(self) -> int:
        """Length of the extracted file in bytes."""
        return len(self.header) + int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def array(self, content: bytes) -> np.ndarray:
        """Return the array in the file's extracted content, read-only."""
        return np.frombuffer(content, dtype=self.dtype, offset=len(self.header)).reshape(self.shape)

    def fault(self, content: bytes) -> str | None:
        """Return what is wrong with the file's extracted content in a few words, or None."""
        header = len(self.header)
        if content[:4] != self.header[:4]:
            return f"is no such IDX file: it starts with {content[:4].hex() or 'nothing'}, not {self.header[:4].hex()}"
        if content[:header] != self.header:
            return f"does not announce the shape {self.shape}"
        if len(content) != self.size:
            return f"is {'longer' if len(content) > self.size else 'shorter'} than {self.size:,} bytes"
        if len(self.shape) < 3 and not np.isin(labels_of(self.array(content)), range(10)).all():
            return "holds a label outside 0 to 9"
        if self.sha256 and sha256(content) != self.sha256:
            return f"has another SHA-256 checksum than {self.dataset}'s"
        if self.dataset != "MNIST" and sha256(content) in CHECKSUMS.values():
            return f"is MNIST's, not {self.dataset}'s"
        return None


def labels_of(array: np.ndarray) -> np.ndarray:
    """Return the class numbers in a label file's array (N,) or, for QMNIST, (N, 8) with more about each digit."""
    return array if array.ndim == 1 else array[:, 0]


CHECKSUMS = {  # SHA-256 of MNIST's extracted files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def describe(dataset: str, train: bool) -> tuple[IdxFile, ...]:
    """Return the `IdxFile`s of the images and of the labels in a set's training or test part.

    Raises:
        ValueError: no such set.
    """
    if dataset not in SETS:
        raise ValueError(f"there is no digit set {dataset!r}: choose one of {', '.join(SETS)}")
    if dataset == "QMNIST":
        part = "qmnist-train" if train else "qmnist-test"
        images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx2-int"
        return IdxFile(dataset, images, (60_000, 28, 28)), IdxFile(dataset, labels, (60_000, 8), ">i4")
    part, n = ("train", 60_000) if train else ("t10k", 10_000)
    names = {f"{part}-images-idx3-ubyte": (n, 28, 28), f"{part}-labels-idx1-ubyte": (n,)}
    checksums = CHECKSUMS if dataset == "MNIST" else {}
    return tuple(IdxFile(dataset, name, shape, sha256=checksums.get(name)) for name, shape in names.items())
