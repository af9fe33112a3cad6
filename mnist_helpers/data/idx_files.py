"""The files of MNIST and of torchvision's sets in its form: find them, verify, repair, download."""

import gzip
import hashlib
import http.client
import os
import time
import urllib.request
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import sha256, write_atomically

SETS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST")  # torchvision's names
TIMEOUT = 7  # seconds that a mirror may stay silent; two attempts at two mirrors then take half a minute
MIN_RATE = 10_000  # bytes a second that a mirror must send after that
_failed_downloads: dict[str, list[str]] = {}  # set -> what each mirror did; this process does not ask them again


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


def obtain(file: IdxFile, folders: Sequence[Path], download: bool) -> tuple[bytes, Path | str]:
    """Return (content, folder) of one file, verified; repair the damaged copies met on the way.

    Args:
        file: an `IdxFile`.
        folders: the root folders to look in, in order; a download is kept in the first that can be written to.
        download: whether to try the mirrors.

    Raises:
        DataError: nothing valid was found and nothing could be downloaded.
    """
    content: bytes | None = None
    origin: Path | str = ""
    damaged: list[tuple[Path, str]] = []
    paths = [(folder, folder / file.folder / name) for folder in folders for name in (file.name, f"{file.name}.gz")]
    for folder, path in paths:
        if not os.path.isfile(path):  # Path.is_file raises an error in a folder that may not be searched
            continue
        found, fault = _read(path, file)
        if fault is None:
            content, origin = found, folder
            break
        damaged.append((path, fault))
    if content is None:
        content, origin = _download(file, folders, damaged, download)
    for path, fault in damaged:
        _repair(path, fault, content)
    return content, origin


def _read(path, file):
    """Return (content, what is wrong with it, or None if nothing is)."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            content = stream.read(file.size + 1)  # never more: a forged archive may unpack to anything
    except (OSError, EOFError, zlib.error) as error:
        return None, f"cannot be read: {error}"
    return content, file.fault(content)


def _repair(path, fault, content):
    try:
        write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        outcome = "it has been replaced by good content"
    except OSError as error:
        outcome = f"good content from elsewhere is used, but the file stays as it is: {error}"
    warnings.warn(f"{path} {fault}; {outcome}.", stacklevel=2)


def _download(file, folders, damaged, download):
    """Return (content, folder) of one file fetched from a mirror and kept, or raise DataError."""
    reasons = [f"{path} {fault}" for path, fault in damaged]
    if not damaged:
        reasons.append(f"{file.name} is not in {', '.join(str(folder / file.folder) for folder in folders)}")
    failures = _failed_downloads.get(file.dataset, [])
    if not download:
        failures = ["downloading is switched off"]
    elif not failures:
        urls, md5 = _archive(file)
        for url in urls * 2:  # each mirror gets a second chance
            print(f"Downloading {url}", flush=True)
            content, packed, fault = _fetch(url, file, md5)
            if fault is None:
                return content, _keep(content, packed, file, folders)
            failures.append(f"{url} {fault}")
        _failed_downloads[file.dataset] = failures
    raise DataError(
        f"{file.dataset} cannot be loaded ({'; '.join(dict.fromkeys(reasons + failures))}): put its four files into "
        f"{folders[-1] / file.folder}, or set MNIST_DATA to the folder that holds {file.folder}, "
        "or try again with a network connection."
    )


def _archive(file):
    """Return (addresses, MD5 checksum) of a file's archive, as torchvision knows them."""
    from torchvision import datasets

    known = getattr(datasets, file.dataset)
    resources = sum(known.resources.values(), []) if file.dataset == "QMNIST" else known.resources
    ((address, md5),) = [one for one in resources if one[0].endswith(f"{file.name}.gz")]
    if "/" in address:  # QMNIST's are complete, the others' stand below each mirror's
        return [address], md5
    return [f"{mirror.rstrip('/')}/{address}" for mirror in known.mirrors], md5


class _KeepsHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http."""

    def redirect_request(self, request, answer, code, message, headers, url):
        if request.type == "https" and not url.startswith("https:"):
            raise OSError(f"it redirects to {url}, and from https to http is refused")
        return super().redirect_request(request, answer, code, message, headers, url)


def _fetch(url, file, md5):
    """Return (content, its archive, what is wrong with them, or None if nothing is)."""
    try:
        packed = _receive(url, 2 * file.size)
        if packed[:2] != b"\x1f\x8b":
            return None, None, f"is no archive: it starts with {packed[:20]!r}"
        unpacker = zlib.decompressobj(wbits=31)
        content = unpacker.decompress(packed, file.size + 1)
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        return None, None, f"failed: {error}"
    fault = file.fault(content)
    if fault is None and (unpacker.unused_data or not unpacker.eof):
        fault = "is no whole archive"
    if fault is None and file.sha256 is None and hashlib.md5(packed, usedforsecurity=False).hexdigest() != md5:
        fault = f"has another MD5 checksum than {file.dataset}'s archive"
    return content, packed, fault


def _receive(url, limit):
    """Return what a mirror sends, up to `limit` bytes; TimeoutError if it is silent, or slow after the headers."""
    received, start = bytearray(), time.monotonic()
    with urllib.request.build_opener(_KeepsHttps).open(url, timeout=TIMEOUT) as response:
        while len(received) < limit and (piece := response.read1(1 << 16)):
            received += piece
            if time.monotonic() - start > TIMEOUT + len(received) / MIN_RATE:
                raise TimeoutError(f"no more than {len(received):,} bytes came in {TIMEOUT} s")
    return bytes(received)


def _keep(content, packed, file, folders):
    """Write one file and its archive into the first folder that can be written to, and return that folder."""
    for folder in folders:
        try:
            write_atomically(folder / file.folder / f"{file.name}.gz", packed)
            write_atomically(folder / file.folder / file.name, content)
            return folder
        except OSError as error:
            failure = error
    warnings.warn(f"{file.dataset} was downloaded but could not be kept: {failure}.", stacklevel=2)
    return "memory"
