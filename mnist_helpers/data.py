"""MNIST on disk: find it, verify it, repair it, download it; and the sample that needs no network."""

import functools
import gzip
import http.client
import os
import urllib.request
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .environment import data_folder, project_root
from .files import sha256, write_atomically
from .mnist_form import to_mnist_form

RAW = Path("MNIST", "raw")  # torchvision's layout below a root folder
_failed_downloads = {}  # file name -> what each mirror did: this process does not ask them again
TIMEOUT = 7  # seconds a mirror may stay silent; two rounds over two mirrors make half a minute at the worst


class DataError(RuntimeError):
    """MNIST is neither on disk nor to be downloaded, or what is there is damaged beyond repair."""


@dataclass(frozen=True)
class Digits:
    """Digit pictures with their labels, and where they come from.

    Attributes:
        images: uint8 tensor (N, 28, 28), background 0, ink up to 255.
        labels: int64 tensor (N,), 0 to 9.
        source: "mnist", or "sklearn-digits" for the sample.
        folder: where the files were found, as text.
        checksums: SHA-256 of each file's extracted content (for the sample: of the tensors' bytes), by name.
    """

    images: torch.Tensor
    labels: torch.Tensor
    source: str
    folder: str
    checksums: dict

    def __len__(self):
        return len(self.labels)

    def take(self, numbers):
        """Return the digits with these numbers (int64 tensor) in this order; the rest of the description is kept."""
        return replace(self, images=self.images[numbers], labels=self.labels[numbers])


@dataclass(frozen=True)
class IdxFile:
    """What one of the four MNIST files must hold (extracted)."""

    name: str
    shape: tuple
    sha256: str

    @property
    def header(self):
        """The bytes the file starts with: magic number (type 8 = uint8, then the rank) and each side's length."""
        return np.array([0x800 + len(self.shape), *self.shape], dtype=">u4").tobytes()

    @property
    def size(self):
        """Length of the extracted file in bytes."""
        return len(self.header) + int(np.prod(self.shape))


FILES = {  # train -> (images, labels)
    True: (
        IdxFile(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60_000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    False: (
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}


def load_mnist(root=None, train=True, download=True):
    """Return MNIST's training or test part as `Digits` with `source == "mnist"`, every byte verified.

    Looks for torchvision's layout (`MNIST/raw/...`, extracted or `.gz`) in `root`, then in the folder that the
    environment variable MNIST_DATA names (relative to the working directory or the project), then in the project's
    `data/`; read-only folders serve too. Else downloads from torchvision's mirrors into the first of these folders
    that can be written to, unless `download` is false or the environment variable MNIST_OFFLINE is set; a download
    that failed is not tried again by the same process. A damaged file that it meets is named in a warning and repaired.

    Returns:
        60,000 (train) or 10,000 (test) digits: images uint8 (N, 28, 28), labels int64 (N,).

    Raises:
        DataError: nothing valid was found and nothing could be downloaded.
    """
    named = os.environ.get("MNIST_DATA")
    folders = [Path(root)] if root else []
    folders += [Path(named).absolute(), project_root() / named] if named else []
    folders = list(dict.fromkeys([*folders, data_folder()]))
    download = download and os.environ.get("MNIST_OFFLINE", "") in ("", "0")
    (images, images_folder), (labels, _) = (_obtain(file, folders, download) for file in FILES[train])
    return Digits(
        images=_tensor(images, FILES[train][0]),
        labels=_tensor(labels, FILES[train][1]).long(),
        source="mnist",
        folder=str(images_folder),
        checksums={file.name: file.sha256 for file in FILES[train]},
    )


def load_digits_sample(train=True):
    """Return scikit-learn's 1,797 handwritten digits in MNIST's form, `source == "sklearn-digits"`; needs no network.

    They are split once: 1,437 for training, 360 for testing, stratified. Images uint8 (N, 28, 28), labels int64 (N,).

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998), 8x8 pixels.
    """
    from sklearn.datasets import load_digits  # here: slow to import, seldom needed
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=42)
    chosen = parts[0 if train else 1]
    images = np.stack([to_mnist_form(picture) for picture in digits.images[chosen]])
    labels = digits.target[chosen].astype(np.int64)
    part = "train" if train else "test"
    return Digits(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        source="sklearn-digits",
        folder="scikit-learn",
        checksums={f"{part}-images": sha256(images.tobytes()), f"{part}-labels": sha256(labels.tobytes())},
    )


def load_data(train=True, root=None, download=True, allow_sample=True):
    """Return MNIST, or else the scikit-learn sample with one unmistakable warning; see `load_mnist`.

    Tell them apart by `.source`, which belongs into every title and table row. MNIST is given only where both its
    parts are to be had, so that nobody trains on the one source and tests on the other.

    Raises:
        DataError: MNIST is not to be had, and `allow_sample` is false.
    """
    try:
        parts = {part: load_mnist(root, part, download) for part in (True, False)}
    except DataError as error:
        if not allow_sample:
            raise DataError(
                f"{error} The sample of scikit-learn's digits is used only where asked for (--allow-sample)."
            ) from None
        _warn_once(
            f"THIS IS NOT MNIST: 1,797 scikit-learn digits stand in for it, and no figure below is a figure "
            f"about MNIST. The reason: {error}"
        )
        return load_digits_sample(train)
    return parts[train]


@functools.cache  # Python's own once-only filter forgets whenever a library touches the filters
def _warn_once(message):
    warnings.warn(message, stacklevel=3)


def _tensor(content, file):
    pixels = np.frombuffer(content, dtype=np.uint8, offset=len(file.header))
    return torch.from_numpy(pixels.reshape(file.shape).copy())  # a copy, since `content` is read-only


def _obtain(file, folders, download):
    """Return (content, folder) of one file, verified; repair the damaged copies met on the way."""
    content, origin, damaged = None, None, []
    paths = [(folder, folder / RAW / name) for folder in folders for name in (file.name, f"{file.name}.gz")]
    for folder, path in paths:
        if not os.path.isfile(path):  # unlike Path.is_file, this takes a folder that may not be searched for empty
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
    return content, _fault(content, file)


def _fault(content, file):
    """Return what is wrong with a file's extracted content in a few words, or None."""
    header = len(file.header)
    if content[:4] != file.header[:4]:
        return f"is no such IDX file: it starts with {content[:4].hex() or 'nothing'}, not {file.header[:4].hex()}"
    if content[:header] != file.header:
        return f"does not announce the shape {file.shape}"
    if len(content) != file.size:
        return f"is {'longer' if len(content) > file.size else 'shorter'} than {file.size:,} bytes"
    if len(file.shape) == 1 and max(content[header:]) > 9:
        return "holds a label above 9"
    return None if sha256(content) == file.sha256 else "has another SHA-256 checksum than MNIST's"


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
        reasons.append(f"{file.name} is not in {', '.join(str(folder / RAW) for folder in folders)}")
    failures = _failed_downloads.get(file.name, [])
    if not download:
        failures = ["downloading is switched off"]
    elif not failures:
        for url in _urls(file):
            print(f"Downloading {url}", flush=True)
            content, fault = _fetch(url, file)
            if fault is None:
                return content, _keep(content, file, folders)
            failures.append(f"{url} {fault}")
        _failed_downloads[file.name] = failures
    raise DataError(
        f"MNIST cannot be had ({'; '.join(dict.fromkeys(reasons + failures))}): put its four files into "
        f"{folders[-1] / RAW}, or set MNIST_DATA to the folder that holds MNIST{os.sep}raw, "
        "or start again with a network."
    )


def _urls(file):
    from torchvision.datasets import MNIST  # here: slow to import, and needed for its list of mirrors alone

    return [f"{mirror.rstrip('/')}/{file.name}.gz" for _ in range(2) for mirror in MNIST.mirrors]


def _fetch(url, file):
    """Return (content, what is wrong with it, or None if nothing is)."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            packed = response.read(2 * file.size)
        content = zlib.decompressobj(wbits=31).decompress(packed, file.size + 1)
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        return None, f"failed: {error}"
    return content, _fault(content, file)


def _keep(content, file, folders):
    """Write one file, extracted and as `.gz`, into the first folder that takes it, and return that folder."""
    for folder in folders:
        try:
            write_atomically(folder / RAW / f"{file.name}.gz", gzip.compress(content, mtime=0))
            write_atomically(folder / RAW / file.name, content)
            return folder
        except OSError as error:
            failure = error
    warnings.warn(f"MNIST was downloaded but could not be kept: {failure}.", stacklevel=2)
    return "memory"
