"""What `torch.save` wrote, read within bounds: no code runs, and few bytes cannot ask for much memory.

`torch.load(weights_only=True)` runs no code either, but a few bytes can make it take any memory: it inflates what is
compressed, and copies and enlarges whatever the pickle says. What is read here takes its place in the file.
"""

import io
import math
import pickletools
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LARGEST_FILE = 1_000_000_000  # bytes
LARGEST_PICKLE = 1_000_000  # bytes, of which each becomes at most a few hundred in memory: names, sizes, plain values
LARGEST_DIRECTORY = 20_000  # entries
MAX_DIMENSIONS = 16
KINDS = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


class ArchiveError(ValueError):
    """A file that is not what `torch.save` writes of tensors and plain values; the message goes on after "it"."""


def read_archive(content: bytes) -> Any:
    """Return what `torch.save` wrote, tensors on the CPU: dicts, lists and tuples of tensors and plain values.

    Raises:
        ArchiveError: it is damaged or something else, or would take more memory than it has bytes.
    """
    try:
        if content.count(b"PK\1\2") > LARGEST_DIRECTORY:
            raise ArchiveError(f"it has more than {LARGEST_DIRECTORY:,} parts")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _Reader(archive, len(content)).read()
    except ArchiveError:
        raise
    except Exception as error:  # whatever a damaged file provokes
        advice = "it is damaged, or was not written by torch.save of PyTorch 1.6 or later"
        raise ArchiveError(f"{advice} ({type(error).__name__})") from error


class _Reader:
    """Reads the archive whose pickle refers to storages, which are entries of their own."""

    def __init__(self, archive: zipfile.ZipFile, size: int):
        self._archive = archive
        self._entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        self._storages: dict[str, Tensor] = {}
        self._left = 2 * size  # bytes that tensors may take: twice, since two layers may share their weights
        self._known = {
            "collections OrderedDict": _empty_ordered_dict,
            "collections Counter": _counter,
            "torch._utils _rebuild_tensor_v2": self._tensor,
            "torch._utils _rebuild_parameter": lambda data, *_: data,
            **{f"torch{part} {name}": kind for name, kind in KINDS.items() for part in ("", ".cuda")},
        }
        if any(entry.compress_type or entry.compress_size != entry.file_size for entry in archive.infolist()):
            raise ArchiveError("it is compressed, as torch.save never does")
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ArchiveError("its parts lie over one another")

    def read(self) -> Any:
        pickled = self._entries["data.pkl"]
        if pickled.file_size > LARGEST_PICKLE:
            raise ArchiveError(f"it lists names and plain values of more than {LARGEST_PICKLE:,} bytes")
        if "byteorder" in self._entries and self._bytes("byteorder") != sys.byteorder.encode():
            raise ArchiveError("it was written by a machine with the other byte order")
        return self._value(self._bytes("data.pkl"))

    def _bytes(self, name: str) -> bytes:
        return self._archive.read(self._entries[name])

    def _value(self, pickled: bytes) -> Any:
        """Return the value that a pickle describes by the operations that `torch.save` uses; all others are refused."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[Any, Any] = {}

        def since_mark() -> list[Any]:
            start = marks.pop()
            taken = stack[start:]
            del stack[start:]
            return taken

        for operation, argument, _ in pickletools.genops(pickled):
            match operation.name:
                case "PROTO":
                    pass
                case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                    stack.append(argument)
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append(CONSTANTS[operation.name])
                case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                    stack.append(EMPTY[operation.name]())
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    n = int(operation.name[-1])
                    stack[-n:] = [tuple(stack[-n:])]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "APPEND" | "APPENDS":
                    values = [stack.pop()] if operation.name == "APPEND" else since_mark()
                    list.extend(stack[-1], values)
                case "SETITEM" | "SETITEMS":
                    if operation.name == "SETITEM":
                        marks.append(len(stack) - 2)
                    values = since_mark()
                    _fill(stack[-1], values)
                case "GLOBAL":
                    if argument not in self._known:
                        raise ArchiveError(f"it holds more than tensors and plain values: {argument!r:.100}")
                    stack.append(self._known[argument])
                case "BINPERSID":
                    stack.append(self._storage(*stack.pop()))
                case "REDUCE":
                    arguments = stack.pop()
                    stack.append(stack.pop()(*arguments))
                case "BUILD":
                    attributes = stack.pop()
                    if type(stack[-1]) is OrderedDict:  # a state dict, which knows the versions of its modules
                        stack[-1]._metadata = attributes["_metadata"]  # type: ignore[attr-defined]
                case "STOP":
                    return stack.pop()
                case other:
                    raise ArchiveError(f"it holds more than tensors and plain values: {other}")
        raise ArchiveError("it ends too early")

    def _storage(self, kind: str, dtype: torch.dtype, key: str, location: str, n: int) -> Tensor:
        """Return the numbers of a storage, (n,), wherever they lay when they were saved."""
        if key not in self._storages:
            content = bytearray(self._bytes(f"data/{key}"))
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        storage = self._storages[key]
        if kind != "storage" or storage.dtype != dtype or len(storage) != n:
            raise ArchiveError(f"its numbers {key!r:.100} are not {n!r:.100} of {dtype}")
        return storage

    def _tensor(self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        """Return the part of a storage that is a tensor; PyTorch checks that it lies within."""
        n_bytes = math.prod(size) * storage.itemsize
        self._left -= n_bytes
        if len(size) > MAX_DIMENSIONS or n_bytes > storage.nbytes or self._left < 0:
            raise ArchiveError("its tensors are larger than their numbers in the file")
        return storage.as_strided(size, stride, offset)


def _empty_ordered_dict() -> OrderedDict:
    return OrderedDict()  # of nothing: a copy of something long would take its memory again


def _counter(counts: dict) -> Counter:
    """Return the counts as a Counter; `counts` is emptied, so that there are never two copies."""
    found = Counter(counts)
    counts.clear()
    return found


def _fill(target: dict, values: list[Any]) -> None:
    """Put keys and values in turn into a dict. Keys are names and whole numbers: tuples may be too deep to hash."""
    if not isinstance(target, dict) or not all(type(key) in (str, int) for key in values[::2]):
        raise ArchiveError("it holds more than tensors and plain values: keys other than names and numbers")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[key] = value
