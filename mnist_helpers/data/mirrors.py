"""Where the digit sets' archives are downloaded from, and how."""

import hashlib
import http.client
import textwrap
import time
import urllib.request
import zlib

from .idx_files import IdxFile

TIMEOUT = 7  # seconds that a mirror may stay silent; two attempts at two mirrors then take half a minute
MIN_RATE = 10_000  # bytes a second that a mirror must send after that
GZIP = b"\x1f\x8b"  # what each archive starts with


def fault_packed(packed: bytes, file: IdxFile) -> str | None:
    """Return what is wrong with the archive of a file whose own checksum is not known, or None."""
    if file.sha256 is None and hashlib.md5(packed, usedforsecurity=False).hexdigest() != archive_of(file)[1]:
        return f"has another MD5 checksum than {file.dataset}'s archive"
    return None


def archive_of(file: IdxFile) -> tuple[list[str], str]:
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


def fetch(url: str, file: IdxFile) -> tuple[bytes | None, bytes | None, str | None]:
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
    return content, packed, fault or fault_packed(packed, file)


def _receive(url: str, limit: int) -> bytes:
    """Return what a mirror sends, up to `limit` bytes; TimeoutError if it is silent, or slow after the headers."""
    received, start = bytearray(), time.monotonic()
    with urllib.request.build_opener(_KeepsHttps).open(url, timeout=TIMEOUT) as response:
        while len(received) < limit and (piece := response.read1(1 << 16)):
            received += piece
            if time.monotonic() - start > TIMEOUT + len(received) / MIN_RATE:
                raise TimeoutError(f"no more than {len(received):,} bytes came in {TIMEOUT} s")
    return bytes(received)
