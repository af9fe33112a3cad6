"""Digits as tensors, from MNIST's files or, where there are none, from the sample that needs no network."""

import functools
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..environment import data_folder, project_root
from ..files import sha256, user_path
from .form import to_mnist_form
from .idx_files import SETS, DataError, describe, labels_of
from .verified import obtain

NO_DIGIT = 10  # the label of what is no digit, where a network has eleven answers


@dataclass(frozen=True)
class Digits:
    """Digit pictures with their labels, and where they come from.

    Attributes:
        images: uint8 tensor (N, 28, 28), background 0, ink up to 255.
        labels: int64 tensor (N,), 0 to 9.
        source: "mnist" (or another set's name in small letters), or "sklearn-digits" for the sample.
        folder: where the files were found, as text.
        checksums: SHA-256 of each file's extracted content (for the sample: of the tensors' bytes), by name.

    Raises:
        ValueError: images or labels of another dtype or shape.
    """

    images: torch.Tensor
    labels: torch.Tensor
    source: str
    folder: str
    checksums: dict[str, str]

    def __post_init__(self) -> None:
        _check_tensor("images", self.images, torch.uint8, (len(self.images), 28, 28), "0 to 255 as MNIST stores them")
        _check_tensor("labels", self.labels, torch.int64, (len(self.images),), "one digit for each image")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, numbers: torch.Tensor) -> "Digits":
        """Return the digits with these numbers (int64 tensor) in this order; the rest of the description is kept."""
        return replace(self, images=self.images[numbers], labels=self.labels[numbers])


def _check_tensor(name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless a tensor has this dtype and shape."""
    given = f"a {type(tensor).__name__}"
    if isinstance(tensor, torch.Tensor):
        if (tensor.dtype, tensor.shape) == (dtype, shape):
            return
        given = f"{tensor.dtype} {tuple(tensor.shape)}"
    raise ValueError(f"{name} must be a tensor {dtype} {shape}, {meaning}, not {given}".replace("torch.", ""))


def load_mnist(
    root: str | Path | None = None, *, train: bool = True, download: bool = True, name: str = "MNIST"
) -> Digits:
    """Return MNIST's training or test part, verified byte for byte, as `Digits` with `source == "mnist"`.

    Looks for torchvision's layout (`MNIST/raw/...`, extracted or `.gz`) in `root`, then in the folder that the
    environment variable MNIST_DATA names (relative to the working directory or the project), then in the project's
    `data/`; read-only folders serve too. Else downloads from torchvision's mirrors into the first of these folders
    that can be written to, unless `download` is false or the environment variable MNIST_OFFLINE is set; a download
    that failed is not tried again by the same process. A damaged file is named in a warning and repaired. If it is
    whole but differs, such as by a label that you corrected, it is kept under another name, and in `root` or
    MNIST_DATA it is not touched.

    Args:
        name: "MNIST", or a set in its form: "FashionMNIST" (Xiao et al. 2017), "KMNIST" (Clanuwat et al. 2018) or
            "QMNIST" (Yadav and Bottou 2019). Of these, archives (`.gz`) are verified by the MD5 checksum that
            torchvision knows, and extracted files by the archive beside them. Where there is none, only magic number,
            shape and labels are verified, and MNIST's files are refused; `source` is the name in small letters.

    Returns:
        60,000 (train) or 10,000 (test; of QMNIST 60,000) digits: images uint8 (N, 28, 28), labels int64 (N,).

    Raises:
        DataError: nothing valid was found and nothing could be downloaded.
        ValueError: no such set.
    """
    folders = [user_path(root)] if root else []
    if os.environ.get("MNIST_DATA"):
        named = user_path(os.environ["MNIST_DATA"])
        folders += [named.absolute(), project_root() / named]
    own, folders = folders, list(dict.fromkeys([*folders, data_folder()]))
    download = download and os.environ.get("MNIST_OFFLINE", "") in ("", "0")
    files = describe(name, train)
    (images, folder), (labels, _) = found = [obtain(file, folders, download, own) for file in files]
    return Digits(
        images=torch.from_numpy(files[0].array(images).copy()),  # a copy, since `images` is read-only
        labels=torch.from_numpy(labels_of(files[1].array(labels)).astype(np.int64)),
        source=name.lower(),
        folder=str(folder),
        checksums={file.name: file.sha256 or sha256(content) for file, (content, _) in zip(files, found)},
    )


def load_digits_sample(train: bool = True) -> Digits:
    """Return scikit-learn's 1,797 handwritten digits in MNIST's form, `source == "sklearn-digits"`; needs no network.

    They are split once: 1,437 for training, 360 for testing, stratified. Images uint8 (N, 28, 28), labels int64 (N,).

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998), 8x8 pixels.
    """
    from sklearn.model_selection import train_test_split  # here: slow to import, seldom needed

    images, labels = _sample()
    parts = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=42)
    chosen = parts[0 if train else 1]
    images, labels = images[chosen], labels[chosen]  # copies
    part = "train" if train else "test"
    return Digits(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        source="sklearn-digits",
        folder="scikit-learn",
        checksums={f"{part}-images": sha256(images.tobytes()), f"{part}-labels": sha256(labels.tobytes())},
    )


@functools.cache
def _sample():
    """Return scikit-learn's digits in MNIST's form, uint8 (1797, 28, 28), and labels, int64; it takes half a second."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.stack([to_mnist_form(picture) for picture in digits.images]), digits.target.astype(np.int64)


def load_data(*, train: bool = True, allow_sample: bool = True) -> Digits:
    """Return MNIST, or else the scikit-learn sample with one unmistakable warning; see `load_mnist`.

    Tell them apart by `.source`, which belongs in every title and table row. MNIST is returned only if both its parts
    are available, so that nobody trains on one source and tests on the other.

    Raises:
        DataError: MNIST is not available, and `allow_sample` is false.
    """
    try:
        parts = {part: load_mnist(train=part) for part in (True, False)}
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


def load_part(source: str, *, train: bool) -> Digits:
    """Return the training or test part of the set that `Digits.source` names; errors as for `load_mnist`."""
    if source == "sklearn-digits":
        return load_digits_sample(train)
    names = {name.lower(): name for name in SETS}
    return load_mnist(train=train, name=names.get(source, source))


@functools.cache  # Python's own once-only filter forgets whenever a library touches the filters
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)
