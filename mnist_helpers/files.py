"""Reading files of bounded size, writing them so that a reader never sees half of one, their names, and checksums."""

import contextlib
import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def user_path(path: str | Path) -> Path:
    """Return a path that a user gave, with `~` for the home folder: in a setting, no shell has replaced it.

    Raises:
        OSError: `~name` is nobody's home folder here.
    """
    place = os.path.expanduser(path)
    if str(place).startswith("~"):
        raise OSError(f"{path}: there is no home folder of that name; write ./{path} for a file that is called so")
    return Path(place)


def read_regular(path: str | Path, limit: int = 200_000_000) -> bytes:
    """Return a regular file's bytes. Anything else, such as a FIFO or a device, might never end and is not opened.

    Raises:
        OSError: there is no such file, it is no regular one, it has more than `limit` bytes, or it cannot be read; in
            one sentence that names it.
    """
    try:
        place = user_path(path)
        status = os.stat(place)
        if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
            with open(place, "rb") as file:
                return file.read(status.st_size)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise OSError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is no regular file: pipes and devices are not read")
    raise OSError(f"{path} has {status.st_size:,} bytes: files of more than {limit:,} bytes are not read")


def write_atomically(path: str | Path, content: bytes | str, previous: Path | None = None) -> None:
    """Write bytes or text to `path` so that it holds either all of the old content or all of the new.

    The bytes go to a temporary file in the same folder and are flushed to disk. Then the file is renamed, in one step,
    so neither a crash nor a second process can leave a mixture. Missing folders are made. With `previous`, a path in
    that folder, the old file is renamed to it just before: at any time at least one of the two is there. Of several
    processes that write one file at once, the last one's content stays.

    Raises:
        OSError: the folder cannot be written to or the disk is full, in one sentence; the old file is untouched.
    """
    path = user_path(path)
    with _temporary(path, content.encode("utf-8") if isinstance(content, str) else content) as temporary:
        if previous is not None:
            with contextlib.suppress(FileNotFoundError):  # there was none, or another process has just renamed it
                os.replace(path, previous)
        os.replace(temporary, path)


def check_writable(path: str | Path, size: int = 0) -> None:
    """Raise the OSError that writing `size` bytes to `path` would raise, and leave nothing but the folder behind."""
    with _temporary(user_path(path), bytes(size)):
        pass


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """Give a file beside `path` with `data` in it, which is gone after; an OSError is explained as that of `path`."""
    if not path.name or "\0" in str(path):
        raise OSError(f"{str(path)!r} names no file: give the path of one")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with contextlib.suppress(FileNotFoundError):
            mode = path.stat().st_mode  # asked once: another process may be replacing the file
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(mode):  # else the file would take the place of a device or pipe
                raise OSError(errno.EEXIST, "it is a device or a pipe")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except OSError as error:
        raise OSError(error.errno, _explain(error, path, len(data))) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def file_name(text: str, longest: int = 150) -> str:
    """Return a name that comes from data as a file's name, without an ending: on any system a file in its own folder.

    A name that is one already stays as it is. Of others, what does not suit is replaced, and a checksum tells apart
    what is then alike.
    """
    name = re.sub(r"[^\w .,()\[\]=+-]", "_", text)
    name = re.sub(r"^(?=\.|(con|prn|aux|nul|(com|lpt)[\d¹²³]) *(\.|$))|[. ]$|^$", "_", name, flags=re.IGNORECASE)
    if name == text and len(name.encode()) <= longest:
        return name
    short = name.encode()[: longest - 20].decode(errors="ignore")
    return f"{short}_{sha256(text.encode(errors='surrogatepass'))[:12]}"


def are_open(*streams: Any) -> bool:
    """Tell whether one can print to streams: services, and pythonw, have no `sys.stdout` and `sys.stderr`."""
    return not any(stream is None or getattr(stream, "closed", False) for stream in streams)


def previous_of(path: Path) -> Path:
    """Return where the file before the one at `path` is kept: beside it, under its whole name and `.previous`."""
    return path.with_name(f"{path.name}.previous")


def sha256(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of bytes-like `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _explain(error: OSError, path: Path, size: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that holds {path.parent} is full: free {size / 1e6 + 1:.0f} MB and run the same again"
    if error.errno == errno.EISDIR:
        return f"{path} is a folder: give the path of a file in it"
    return f"{path} cannot be written ({error.strerror}): choose a folder you may write to"
