"""The files of MNIST and of torchvision's sets in its form: find them, verify, repair, download."""

import gzip
import hashlib
import http.client
import io
import math
import os
import textwrap
import time
import urllib.request
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..files import read_regular, sha256, write_atomically

SETS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST")  # torchvision's names
TIMEOUT = 7  # seconds that a mirror may stay silent; two attempts at two mirrors then take half a minute
MIN_RATE = 10_000  # bytes a second that a mirror must send after that
GZIP = b"\x1f\x8b"  # what each archive starts with
ITEM_SIZES = {0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}  # bytes, by the type in an IDX file's third byte
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


def obtain(
    file: IdxFile, folders: Sequence[Path], download: bool, named: Sequence[Path] = ()
) -> tuple[bytes, Path | str]:
    """Return (content, folder) of one file, verified; repair the damaged copies met on the way.

    A copy that is whole but differs, such as one in which a label was corrected, is kept under another name when it is
    replaced. Where its folder was named by the user, it is not replaced at all.

    Args:
        file: an `IdxFile`. If its SHA-256 is not known, it becomes known from an archive with torchvision's MD5.
        folders: the root folders to look in, in order; a download is kept in the first that can be written to.
        download: whether to try the mirrors.
        named: those of the folders that the user named.

    Raises:
        DataError: nothing valid was found and nothing could be downloaded.
    """
    file = _with_checksum(file, folders)
    content, origin, damaged = None, None, []
    for folder in folders:
        for path in _paths(file, folder):
            if content is not None or not os.path.isfile(path):  # Path.is_file raises an error without access
                continue
            found = _read(path, file)
            if found.fault is None:
                content, packed, origin = found.content, found.packed, folder
            else:
                damaged.append((folder, path, found))
    if content is None:
        content, packed = _download(file, folders, [(path, found.fault) for _, path, found in damaged], download)
    untouched, mine = [], {os.path.realpath(folder) for folder in named}
    for folder, path, found in damaged:
        if not _repair(path, found, file, content, packed, os.path.realpath(folder) in mine):
            untouched.append(folder)
    return content, origin or _keep(content, packed, file, folders, untouched)


@dataclass(frozen=True)
class _Found:
    """What was found in a file: what it holds extracted, its bytes if they are an archive, and what is wrong."""

    content: bytes | None = None
    packed: bytes | None = None
    fault: str | None = None


def _paths(file, folder):
    """Return where a file and its archive lie below a root folder."""
    return folder / file.folder / file.name, folder / file.folder / f"{file.name}.gz"


def _with_checksum(file, folders):
    """Return the `IdxFile` with the SHA-256 of what the first archive unpacks to that torchvision could have left."""
    for folder in folders if file.sha256 is None else []:
        found = _read(_paths(file, folder)[1], file)
        if found.packed and found.fault is None:
            return replace(file, sha256=sha256(found.content))
    return file


def _read(path, file):
    """Return what was `_Found` in a file; whether it is packed is told by its bytes, not by its name."""
    try:
        stored = read_regular(path)
    except OSError as error:
        return _Found(fault=str(error).removeprefix(f"{path} "))
    if not stored.startswith(GZIP):
        return _Found(stored, None, file.fault(stored) or _fault_beside(path, file))
    try:
        with gzip.open(io.BytesIO(stored)) as stream:
            content = stream.read(file.size + 1)  # never more: a forged archive may unpack to anything
    except (OSError, EOFError, zlib.error) as error:
        return _Found(None, stored, f"cannot be read: {error}")
    return _Found(content, stored, file.fault(content) or _fault_packed(stored, file))


def _fault_packed(packed, file):
    """Return what is wrong with the archive of a file whose own checksum is not known, or None."""
    if file.sha256 is None and hashlib.md5(packed, usedforsecurity=False).hexdigest() != _archive(file)[1]:
        return f"has another MD5 checksum than {file.dataset}'s archive"
    return None


def _fault_beside(path, file):
    """Return what speaks against an extracted file whose own checksum is not known, or None: its archive is another."""
    archive = path.with_name(f"{file.name}.gz")
    if file.sha256 is None and archive != path and os.path.isfile(archive):
        found = _read(archive, file)
        return f"lies beside an archive that {found.fault}" if found.packed and found.fault else None
    return None


def _repair(path, found, file, content, packed, mine):
    """Replace a damaged file by good content, warn, and return whether it was replaced.

    What is whole but differs may be somebody's work: it stays in a folder that they named, and is renamed in others.
    """
    whole = found.content is not None and _is_whole(found.content, file.size)
    if path.suffix == ".gz" and packed is None and file.dataset == "MNIST":
        packed = gzip.compress(content, mtime=0)
    good = packed if path.suffix == ".gz" else content
    kept = path.with_name(f"{path.name}.{sha256(found.packed or found.content)[:8]}") if whole else None
    replaced, outcome = False, "good content from elsewhere is used, but the file stays as it is"
    if not (whole and mine) and good is not None:
        try:
            write_atomically(path, good, previous=kept)
            aside = f", and kept as {kept.name}" if kept else ""
            replaced, outcome = True, f"it has been replaced by good content{aside}"
        except OSError as error:
            outcome += f": {error}"
    warnings.warn(f"{path} {found.fault}; {outcome}.", stacklevel=2)
    return replaced


def _is_whole(content, size):
    """Tell whether this is an IDX file of any type and shape with all that it announces, or with more than `size`."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in ITEM_SIZES:
        return False
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[place : place + 4]) for place in range(4, start, 4)]
    return len(content) >= min(start + math.prod(shape) * ITEM_SIZES[content[2]], size + 1)


def _download(file, folders, damaged, download):
    """Return (content, archive) of one file fetched from a mirror, or raise DataError."""
    reasons = [f"{path} {fault}" for path, fault in damaged]
    if not damaged:
        reasons.append(f"{file.name} is not in {', '.join(str(folder / file.folder) for folder in folders)}")
    failures = _failed_downloads.get(file.dataset, [])
    if not download:
        failures = ["downloading is switched off"]
    elif not failures:
        urls, _ = _archive(file)
        for url in urls * 2:  # each mirror gets a second chance
            print(f"Downloading {url}", flush=True)
            content, packed, fault = _fetch(url, file)
            if fault is None:
                return content, packed
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


def _fetch(url, file):
    """Return (content, its archive, what is wrong with them, or None if nothing is)."""
    try:
        packed = _receive(url, 2 * file.size)
        if not packed.startswith(GZIP):
            return None, None, f"is no archive: it starts with {packed[:20]!r}"
        unpacker = zlib.decompressobj(wbits=31)
        content = unpacker.decompress(packed, file.size + 1)
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        return None, None, f"failed: {textwrap.shorten(str(error), 300)}"  # in one line; servers write what they like
    fault = file.fault(content)
    if fault is None and (unpacker.unused_data or not unpacker.eof):
        fault = "is no whole archive"
    return content, packed, fault or _fault_packed(packed, file)


def _receive(url, limit):
    """Return what a mirror sends, up to `limit` bytes; TimeoutError if it is silent, or slow after the headers."""
    received, start = bytearray(), time.monotonic()
    with urllib.request.build_opener(_KeepsHttps).open(url, timeout=TIMEOUT) as response:
        while len(received) < limit and (piece := response.read1(1 << 16)):
            received += piece
            if time.monotonic() - start > TIMEOUT + len(received) / MIN_RATE:
                raise TimeoutError(f"no more than {len(received):,} bytes came in {TIMEOUT} s")
    return bytes(received)


def _keep(content, packed, file, folders, untouched):
    """Write a download and its archive into the first folder that lets us, and return that folder.

    No file there is replaced: repairs have done that, and what they left `untouched` stays.
    """
    failure: object = "the files that are there stay as they are"
    for folder in folders:
        pairs = zip(reversed(_paths(file, folder)), (packed, content))
        missing = [pair for pair in pairs if not os.path.lexists(pair[0])]
        try:
            for path, good in missing:
                write_atomically(path, good)
        except OSError as error:
            failure = error
        else:
            if missing or folder not in untouched:
                return folder
    warnings.warn(f"{file.dataset} was downloaded but could not be kept: {failure}.", stacklevel=2)
    return "memory"
