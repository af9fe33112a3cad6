"""What happens to downloads and files when mirrors, disks and processes fail; loopback servers play the mirrors."""

import errno
import gzip
import os
import pickle
import queue
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from faults import RAW, die_at, dripping, in_child, lay, mutations, reset, send, serving, silent, start, wait
from torchvision import datasets

from mnist_helpers import files
from mnist_helpers.data import digits as data
from mnist_helpers.data import mirrors, verified
from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.idx_files import DataError

LABELS = "train-labels-idx1-ubyte"
SILENCE, N_MIRRORS = mirrors.TIMEOUT, len(datasets.MNIST.mirrors)  # before a test changes them


@pytest.fixture
def mirrors_answer(project, contents, monkeypatch):
    """Let these answers (request, archive) be those of the mirrors, in turn; downloading is allowed."""
    monkeypatch.delenv("MNIST_OFFLINE")
    monkeypatch.setattr(mirrors, "TIMEOUT", 0.3)
    archives = {f"/{name}.gz": gzip.compress(content) for name, content in contents.items()}
    servers = []

    def play(*answers):
        verified._failed_downloads.clear()
        for answer in answers:
            servers.append(serving(lambda request, answer=answer: answer(request, archives[request.path])))
        monkeypatch.setattr(datasets.MNIST, "mirrors", [one.__enter__() for one in servers[-len(answers) :]])

    yield play
    for server in servers:
        server.__exit__(None, None, None)


def assert_good(digits, contents, folder):
    assert digits.images.numpy().tobytes() == contents["train-images-idx3-ubyte"][16:]
    assert digits.labels.tolist() == list(contents[LABELS][8:])
    for path in (folder / RAW).glob("[!.]*"):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert content == contents[path.name.removesuffix(".gz")], "what is on disk is whole"


ANSWERS = {  # -> what the sentence says of it
    "403": (lambda request, archive: request.send_error(403), "failed: HTTP Error 403"),
    "503": (lambda request, archive: request.send_error(503), "failed: HTTP Error 503"),
    "a page with status 200": (
        lambda request, archive: send(request, b"<html>log in</html>"),
        "is no archive: it starts with b.<html>log in",
    ),
    "a packed page": (lambda request, archive: send(request, gzip.compress(b"<html>")), "is no such IDX file"),
    "a truncated archive": (lambda request, archive: send(request, archive[:-300]), "is shorter than|failed: "),
    "an archive without its end": (lambda request, archive: send(request, archive[:-1]), "is no whole archive"),
    "an archive and more": (lambda request, archive: send(request, archive + b"<html>"), "is no whole archive"),
    "another checksum": (
        lambda request, archive: send(request, gzip.compress(gzip.decompress(archive)[:-1] + b"\3")),
        "has another SHA-256 checksum",
    ),
    "an end too early": (
        lambda request, archive: send(request, archive[:99], promised=len(archive)),
        "is shorter|failed",
    ),
    "a reset connection": (reset, "failed: .*(reset|Incomplete)|is shorter than|no such IDX file"),
    "silence": (silent, "failed: timed out"),
    "drops": (dripping, "failed: no more than [0-9]+ bytes came in 0.3 s"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_mirror_does_wrong_is_said_and_the_other_mirror_serves(mirrors_answer, project, contents, name):
    answer, sentence = ANSWERS[name]
    good = lay(project / "data", {LABELS: contents[LABELS]}) / RAW / LABELS
    before = good.stat()
    mirrors_answer(answer, answer)
    start = time.monotonic()
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte.gz ({sentence})") as caught:
        load_mnist()
    assert time.monotonic() - start < 4 * mirrors.TIMEOUT + 2
    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(good.parent) == [LABELS] and good.stat() == before, "what was good is untouched"
    mirrors_answer(answer, send)
    assert_good(load_mnist(), contents, project / "data")


def test_two_silent_mirrors_cost_half_a_minute_whichever_parts_are_asked_for(mirrors_answer):
    asked = []

    def counted(request, archive):
        asked.append(request.path)
        silent(request, archive)

    mirrors_answer(*[counted] * N_MIRRORS)
    start = time.monotonic()
    for train in (True, False, True):
        with pytest.raises(DataError, match="timed out"):
            load_mnist(train=train)
    assert time.monotonic() - start < len(asked) * mirrors.TIMEOUT + 1
    assert len(asked) == 2 * N_MIRRORS and len(asked) * SILENCE <= 30


def test_a_redirect_from_https_to_http_is_refused(mirrors_answer, project, monkeypatch):
    mirrors_answer(send)
    (target,) = datasets.MNIST.mirrors
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key -out cert -subj /CN=here -addext"
    subprocess.run([*command.split(), "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(project / "cert"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain("cert", "key")

    def redirect(request):
        request.send_response(302)
        request.send_header("Location", target + request.path)
        request.end_headers()

    with serving(redirect, tls) as address:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        with pytest.raises(DataError, match="it redirects to http://.*, and from https to http is refused"):
            load_mnist()


def test_a_redirect_within_http_is_followed(mirrors_answer, contents, project, monkeypatch):
    mirrors_answer(send)
    (target,) = datasets.MNIST.mirrors

    def redirect(request):
        request.send_response(301)
        request.send_header("Location", target + request.path)
        request.end_headers()

    with serving(redirect) as address:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        assert_good(load_mnist(), contents, project / "data")


def test_redirects_without_an_end_are_said_in_one_line(mirrors_answer):
    def redirect(request, _archive):
        request.send_response(302)
        request.send_header("Location", request.path)
        request.end_headers()

    mirrors_answer(redirect)
    with pytest.raises(DataError, match="failed: .*infinite loop") as caught:
        load_mnist()
    assert "\n" not in str(caught.value)


def test_offline_with_a_valid_cache_nothing_is_asked(project, contents, monkeypatch):
    monkeypatch.delenv("MNIST_OFFLINE")
    lay(project / "data", contents)

    def no_network(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert_good(load_mnist(), contents, project / "data")


def test_killed_during_the_download_nothing_half_is_left(mirrors_answer, project, contents):
    killed = queue.Queue()

    def kill(request, archive):
        send(request, archive[: len(archive) // 2], promised=len(archive))
        request.wfile.flush()
        os.kill(killed.get(timeout=20), signal.SIGKILL)

    mirrors_answer(kill)
    child = start(load_mnist)
    killed.put(child[0])
    assert wait(*child) == signal.SIGKILL
    assert not (project / "data").exists()
    mirrors_answer(send)
    assert_good(load_mnist(), contents, project / "data")


def test_killed_at_any_moment_of_writing_the_next_one_repairs_or_finds_it_whole(mirrors_answer, project, contents):
    mirrors_answer(send)
    for moment in range(99):

        def work(moment=moment):
            die_at(moment, files.os, "fsync", "replace")
            load_mnist()

        outcome = in_child(work)
        folder = project / "data"
        assert_good(load_mnist(), contents, folder)  # without a warning, which would be an error
        shutil.rmtree(folder)
        if outcome is None:
            break
        assert outcome == signal.SIGKILL
    assert moment == 8, "two files, each with its archive, each flushed and renamed"


def test_two_processes_at_once_both_get_it_and_leave_one_good_copy(mirrors_answer, project, contents):
    mirrors_answer(send)
    children = [start(lambda: pickle.dumps(load_mnist().images)) for _ in range(2)]
    for outcome in [wait(*child) for child in children]:
        assert pickle.loads(outcome).numpy().tobytes() == contents["train-images-idx3-ubyte"][16:]
    assert len(os.listdir(project / "data" / RAW)) == 4, "and no temporary file"
    assert_good(load_mnist(download=False), contents, project / "data")


@pytest.fixture
def open_folder():
    """A folder that every user may enter; pytest's own are closed to all but one."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def read_only():
    if os.geteuid() == 0:  # to whom every folder is open
        os.setegid(65534)
        os.seteuid(65534)
    else:
        Path("data").chmod(0o555)


def full():
    def fail(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    os.fsync = fail


def short():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (read_only, "cannot be written .Permission denied.: choose a folder"),
        (full, "the disk that holds .* is full: free 1 MB"),
        (short, "cannot be written .File too large."),
    ],
)
def test_what_cannot_be_kept_is_used_all_the_same(mirrors_answer, contents, open_folder, monkeypatch, fault, sentence):
    (open_folder / "pyproject.toml").write_text('name = "mnist_helpers"')
    good = lay(open_folder / "data", {LABELS: contents[LABELS]}) / RAW / LABELS
    monkeypatch.chdir(open_folder)
    mirrors_answer(send)

    def work():
        fault()
        with pytest.warns(UserWarning, match=f"MNIST was downloaded but could not be kept: .*{sentence}"):
            return pickle.dumps(load_mnist().images)

    assert pickle.loads(in_child(work)).numpy().tobytes() == contents["train-images-idx3-ubyte"][16:]
    assert os.listdir(good.parent) == [LABELS] and good.read_bytes() == contents[LABELS]


@pytest.mark.parametrize("n", [60, pytest.param(500, marks=pytest.mark.full)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("known", [True, False])
def test_mutated_files_are_refused_or_read(project, contents, monkeypatch, packed, known, n):
    """With MNIST's checksum and, as for the other sets, without."""
    images, labels = (one if known else replace(one, sha256=None) for one in data.describe("MNIST", True))
    monkeypatch.setattr(data, "describe", lambda name, train: (images, labels))
    suffix, outcomes = ".gz" if packed else "", {"read": 0, "refused": 0}
    raw = lay(project / "data", contents, packed) / RAW
    tracemalloc.start()
    start = time.monotonic()
    for file in (images, labels):
        path = raw / (file.name + suffix)
        whole = path.read_bytes()
        for mutated in mutations(whole, n):
            path.write_bytes(mutated)
            try:
                digits = load_mnist()
            except DataError as error:
                assert len(str(error).splitlines()) == 1
                outcomes["refused"] += 1
            else:
                assert digits.images.shape == (30, 28, 28) and digits.labels.max() <= 9
                outcomes["read"] += 1
        path.write_bytes(whole)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 and time.monotonic() - start < 60
    assert outcomes["refused"] > 0.6 * n and sum(outcomes.values()) == 2 * n
