"""The digit sets' files: find them, verify, repair, download."""

import gzip
import io
import math
import os
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..files import read_regular, sha256, write_atomically
from . import mirrors
from .idx_files import DataError, IdxFile

ITEM_SIZES = {0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}  # bytes, by the type in an IDX file's third byte
_failed_downloads: dict[str, list[str]] = {}  # set -> what each mirror did; this process does not ask them again


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
    if not stored.startswith(mirrors.GZIP):
        return _Found(stored, None, file.fault(stored) or _fault_beside(path, file))
    try:
        with gzip.open(io.BytesIO(stored)) as stream:
            content = stream.read(file.size + 1)  # never more: a forged archive may unpack to anything
    except (OSError, EOFError, zlib.error) as error:
        return _Found(None, stored, f"cannot be read: {error}")
    return _Found(content, stored, file.fault(content) or mirrors.fault_packed(stored, file))


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
        urls, _ = mirrors.archive_of(file)
        for url in urls * 2:  # each mirror gets a second chance
            print(f"Downloading {url}", flush=True)
            content, packed, fault = mirrors.fetch(url, file)
            if fault is None:
                return content, packed
            failures.append(f"{url} {fault}")
        _failed_downloads[file.dataset] = failures
    raise DataError(
        f"{file.dataset} cannot be loaded ({'; '.join(dict.fromkeys(reasons + failures))}): put its four files into "
        f"{folders[-1] / file.folder}, or set MNIST_DATA to the folder that holds {file.folder}, "
        "or try again with a network connection."
    )


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
