"""Faults to inject: misbehaving mirrors, processes killed at a chosen moment, files that rot."""

import contextlib
import gzip
import http.server
import os
import pickle
import random
import signal
import socket
import struct
import threading
import traceback
from pathlib import Path

RAW = Path("MNIST", "raw")


def lay(folder, contents, packed=False):
    """Write the files below `folder` in torchvision's layout."""
    raw = folder / RAW
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(content)) if packed else (raw / name).write_bytes(content)
    return folder


class Malicious:
    """Unpickled, it makes the file "pwned" in the working directory."""

    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('pwned').touch()",)


def start(work):
    """Do `work()` in a forked process; return (its number, the pipe that its outcome comes through)."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    try:  # the child, which must never return into pytest
        outcome = work()
    except BaseException:
        outcome = traceback.format_exc()
    with contextlib.suppress(BaseException), open(writing, "wb") as pipe:
        pickle.dump(outcome, pipe)
    os._exit(0)


def wait(pid, reading):
    """Return what the process's work returned, or its traceback as text, or Signals.SIGKILL if that ended it."""
    with open(reading, "rb") as pipe:
        outcome = pipe.read()
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else pickle.loads(outcome)


def in_child(work):
    """Do `work()` in a forked process and wait for its outcome, see `wait`."""
    return wait(*start(work))


def die():
    """End this process at once, in whatever it does; what it gave to the system to write is still written."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(n, module, *names):
    """Let this process die at the n-th call, counted from 0, of the module's functions of these names."""
    calls = []

    def counted(function):
        def call(*given, **options):
            calls.append(function)
            if len(calls) > n:
                die()
            return function(*given, **options)

        return call

    for name in names:
        setattr(module, name, counted(getattr(module, name)))


def mutations(content, n, seed=0):
    """Yield `n` damaged versions of some bytes: flipped, overwritten, cut out, doubled, cut short, grown."""
    chance = random.Random(seed)
    for _ in range(n):
        data = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 2, 8, 40))):
            place = chance.randrange(len(data) + 1)
            length = min(chance.choice((1, 1, 2, 4, 16, 200)), len(data) - place)
            kind = chance.randrange(6)
            if kind == 0 and length:
                data[place] ^= 1 << chance.randrange(8)
            elif kind == 1:
                data[place : place + length] = chance.randbytes(length)
            elif kind == 2:
                del data[place : place + length]
            elif kind == 3:
                data[place:place] = data[place : place + length] * chance.choice((1, 2, 50))
            elif kind == 4:
                data[place : place + length] = chance.choice((b"\xff", b"\0", b"\x7f", b"9")) * length
            elif chance.random() < 0.1:
                del data[place:]
        yield bytes(data)


@contextlib.contextmanager
def serving(respond, tls=None):
    """Serve on this machine within the block and give the address; `respond(request)` answers each GET."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(ConnectionError):  # whoever asked may have left
                respond(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(request, body, status=200, promised=None):
    """Answer with a body, of which `promised` bytes are announced."""
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if promised is None else promised))
    request.end_headers()
    request.wfile.write(body)


def reset(request, body):
    """Send half of the body, then reset the connection."""
    send(request, body[: len(body) // 2], promised=len(body))
    request.wfile.flush()
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def silent(request, body):
    """Send half of the body, then nothing, until the other side has had enough."""
    send(request, body[: len(body) // 2], promised=len(body))
    request.connection.settimeout(20)
    request.connection.recv(1)


def dripping(request, body):
    """Send the body byte by byte, each in time."""
    send(request, b"", promised=len(body))
    for byte in body:
        request.wfile.write(bytes([byte]))
        request.wfile.flush()
        threading.Event().wait(0.01)
