import gzip
import hashlib
import shutil
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import RAW, lay, send, serving
from torchvision import datasets

from mnist_helpers.data import digits as data
from mnist_helpers.data import idx_files, mirrors, verified
from mnist_helpers.data.digits import Digits, load_data, load_digits_sample, load_mnist
from mnist_helpers.data.idx_files import SETS, DataError, describe
from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.files import sha256


@pytest.mark.parametrize("packed", [False, True])
def test_reads_extracted_and_packed_files(project, contents, packed):
    folder = lay(project / "elsewhere", contents, packed)
    for train, n in ((True, 30), (False, 20)):
        digits = load_mnist(folder, train=train, download=False)
        assert digits.images.shape == (n, 28, 28) and digits.images.dtype == torch.uint8
        assert digits.labels.shape == (n,) and digits.labels.dtype == torch.int64
        assert digits.source == "mnist" and digits.folder == str(folder)
        file, _ = data.describe("MNIST", train)
        assert digits.images.numpy().tobytes() == contents[file.name][16:]
        assert digits.checksums[file.name] == file.sha256


def test_looks_in_root_then_mnist_data_then_the_project(project, contents, monkeypatch):
    folders = [lay(project / name, contents) for name in ("root", "named", "data")]
    monkeypatch.setenv("MNIST_DATA", str(folders[1]))
    assert load_mnist(folders[0]).folder == str(folders[0])
    assert load_mnist().folder == str(folders[1])
    monkeypatch.setenv("MNIST_DATA", "named")
    (project / "notebooks").mkdir()
    monkeypatch.chdir(project / "notebooks")
    assert load_mnist().folder == str(folders[1]), "a relative folder counts from the project too"
    monkeypatch.delenv("MNIST_DATA")
    assert load_mnist().folder == str(folders[2])


DAMAGES = {
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "another magic number": lambda content: b"\0\0\x0d" + content[3:],
    "another count": lambda content: content[:7] + b"\x63" + content[8:],
    "a flipped bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "a label above 9": lambda content: content[:-1] + b"\x0a",
    "an error page": lambda content: b"<html>403 Forbidden</html>",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named_and_repaired_from_the_archive(project, contents, damage):
    name = "train-labels-idx1-ubyte"
    lay(project / "data", contents, packed=True)
    lay(project / "data", {**contents, name: DAMAGES[damage](contents[name])})
    with pytest.warns(UserWarning, match=f"{name} .*; it has been replaced by good content"):
        digits = load_mnist(download=False)
    assert digits.labels.tolist() == list(contents[name][8:])
    assert (project / "data" / RAW / name).read_bytes() == contents[name]
    load_mnist(download=False)  # repaired: no further warning, which would be an error


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_beyond_repair_is_refused_and_left_in_place(project, contents, damage, packed):
    name = "t10k-labels-idx1-ubyte"
    damaged = DAMAGES[damage](contents[name])
    lay(project / "data", {**contents, name: damaged}, packed)
    with pytest.raises(DataError, match=f"{name}.* put its four files into"):
        load_mnist(train=False)
    path = project / "data" / RAW / (f"{name}.gz" if packed else name)
    assert (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()) == damaged


def test_every_damaged_copy_on_the_way_is_repaired(project, contents, monkeypatch):
    name = "train-labels-idx1-ubyte"
    folders = [lay(project / place, {**contents, name: b"rot"}) for place in ("root", "named")]
    lay(project / "data", contents)
    monkeypatch.setenv("MNIST_DATA", str(folders[1]))
    with pytest.warns(UserWarning, match="replaced by good content") as caught:
        load_mnist(folders[0])
    assert len(caught) == 2
    assert all((folder / RAW / name).read_bytes() == contents[name] for folder in folders)


LABELS = "train-labels-idx1-ubyte"
CORRECTIONS = {  # whole files that differ: somebody's work
    "a label": lambda content: content[:-1] + bytes([(content[-1] + 1) % 10]),
    "letters, which are numbered on": lambda content: content[:-1] + b"\x14",
    "fewer digits": lambda content: content[:7] + b"\x09" + content[8:17],
    "more digits": lambda content: content[:7] + b"\x63" + content[8:] + bytes(0x63 - 30),
    "numbers of another type": lambda content: b"\0\0\x0c\1\0\0\0\x0a" + bytes(40),
}


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_whole_file_that_differs_is_kept_under_another_name(project, contents, correction):
    own = CORRECTIONS[correction](contents[LABELS])
    raw = lay(lay(project / "data", contents, packed=True), {**contents, LABELS: own}) / RAW
    for _ in range(2):
        (raw / LABELS).write_bytes(own)
        kept = f"{LABELS}.{sha256(own)[:8]}"
        with pytest.warns(UserWarning, match=f"{LABELS} .*; it has been replaced by good content, and kept as {kept}"):
            assert load_mnist().labels.tolist() == list(contents[LABELS][8:])
        assert (raw / kept).read_bytes() == own and (raw / LABELS).read_bytes() == contents[LABELS]
    load_mnist()  # repaired: no further warning, which would be an error
    assert len(list(raw.iterdir())) == 9


@pytest.mark.parametrize("how", ["root", "relative root", "link", "environment", "relative environment"])
def test_in_a_folder_that_was_named_a_whole_file_that_differs_stays(project, contents, monkeypatch, how):
    own = CORRECTIONS["a label"](contents[LABELS])
    raw = lay(lay(project / "data", contents, packed=True), {**contents, LABELS: own}) / RAW
    (project / "link").symlink_to(project / "data")
    root = {"root": project / "data", "relative root": "data", "link": project / "link"}.get(how)
    if root is None:
        monkeypatch.setenv("MNIST_DATA", "data" if how.startswith("relative") else str(project / "data"))
    before = {path: path.stat() for path in raw.iterdir()}
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"{LABELS} .*but the file stays as it is"):
            assert load_mnist(root).labels.tolist() == list(contents[LABELS][8:])
        assert {path: path.stat() for path in raw.iterdir()} == before
    (raw / LABELS).write_bytes(b"rot")
    with pytest.warns(UserWarning, match=f"{LABELS} .*; it has been replaced by good content\\."):
        load_mnist(root)
    assert (raw / LABELS).read_bytes() == contents[LABELS]


def test_what_is_packed_is_told_by_the_bytes(project, contents):
    """Some programs unpack a file and leave it its name, or pack it under the plain one."""
    raw = lay(project / "data", contents) / RAW
    (raw / LABELS).rename(raw / f"{LABELS}.gz")
    (raw / "train-images-idx3-ubyte").write_bytes(gzip.compress(contents["train-images-idx3-ubyte"]))
    digits = load_mnist()
    assert digits.labels.tolist() == list(contents[LABELS][8:])
    assert digits.images.numpy().tobytes() == contents["train-images-idx3-ubyte"][16:]


def test_an_archive_that_unpacks_to_anything_is_read_no_further_than_needed(project, contents):
    folder = lay(project / "data", contents)
    path = folder / RAW / "train-labels-idx1-ubyte"
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(contents[path.name] + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(DataError, match="is longer than"):
        load_mnist()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_good_content_serves_where_the_damaged_file_cannot_be_written(project, contents, monkeypatch):
    lay(project / "data", contents, packed=True)
    damaged = lay(project / "data", {"train-labels-idx1-ubyte": b"rot"}) / RAW / "train-labels-idx1-ubyte"

    def refuse(path, *_, **__):
        raise OSError(30, f"{path} cannot be written")

    monkeypatch.setattr(verified, "write_atomically", refuse)
    with pytest.warns(UserWarning, match="the file stays as it is"):
        assert len(load_mnist()) == 30
    assert damaged.read_bytes() == b"rot"


class Mirrors:
    """What the servers answer, path -> (status, body), and which paths they were asked for."""

    def __init__(self):
        self.answers, self.asked, self.address = {}, [], None

    def respond(self, request):
        self.asked.append(request.path)
        status, body = self.answers.get(request.path, (404, b""))
        send(request, body, status)


@pytest.fixture
def server(monkeypatch):
    """A server on this machine that plays the mirrors; downloading is allowed."""
    monkeypatch.delenv("MNIST_OFFLINE")
    server = Mirrors()
    with serving(server.respond) as server.address:
        yield server


@pytest.fixture
def two_mirrors(contents, server, monkeypatch):
    """Two mirrors, /bad/ and /good/; the first serves error pages with status 200."""
    server.answers = {f"/good/{name}.gz": (200, gzip.compress(content)) for name, content in contents.items()}
    server.answers |= {f"/bad/{name}.gz": (200, b"<html>come back later</html>") for name in contents}
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.address}/bad/", f"{server.address}/good"])
    return server


def test_downloads_verifies_and_keeps(project, contents, two_mirrors, capsys):
    digits = load_mnist()
    assert digits.labels.tolist() == list(contents["train-labels-idx1-ubyte"][8:])
    assert digits.folder == str(project / "data") and "Downloading" in capsys.readouterr().out
    assert (project / "data" / RAW / "train-images-idx3-ubyte").read_bytes() == contents["train-images-idx3-ubyte"]
    two_mirrors.asked.clear()
    load_mnist()
    assert two_mirrors.asked == []


def test_a_download_replaces_nothing_that_is_whole(project, contents, two_mirrors):
    own = CORRECTIONS["a label"](contents[LABELS])
    pair = {LABELS: own, f"{LABELS}.gz": gzip.compress(own)}
    named, raw = lay(project / "named", pair) / RAW, lay(project / "data", pair) / RAW
    with pytest.warns(UserWarning, match=f"{LABELS}.* has another SHA-256 checksum than MNIST's") as caught:
        digits = load_mnist(project / "named")
    assert digits.labels.tolist() == list(contents[LABELS][8:]) and len(caught) == 4
    assert {path.name: path.read_bytes() for path in named.glob(f"{LABELS}*")} == pair
    assert (raw / LABELS).read_bytes() == contents[LABELS]
    assert gzip.decompress((raw / f"{LABELS}.gz").read_bytes()) == contents[LABELS]
    assert all((raw / f"{name}.{sha256(content)[:8]}").read_bytes() == content for name, content in pair.items())
    shutil.rmtree(project / "data")
    two_mirrors.asked.clear()
    with pytest.warns(UserWarning, match="stays as it is"):
        assert load_mnist(project / "named").folder == str(project / "named"), "of the images"
    assert (project / "data" / RAW / LABELS).read_bytes() == contents[LABELS]
    shutil.rmtree(project / "data")
    (project / "data").touch()
    with pytest.warns(UserWarning, match="MNIST") as caught:
        load_mnist(project / "named")
    assert any("MNIST was downloaded but could not be kept: " in str(one.message) for one in caught)


def test_downloads_what_repairs_a_damaged_file(project, contents, two_mirrors):
    lay(project / "data", {**contents, "train-images-idx3-ubyte": b"rot"})
    with pytest.warns(UserWarning, match="replaced by good content"):
        load_mnist()
    assert (project / "data" / RAW / "train-images-idx3-ubyte").read_bytes() == contents["train-images-idx3-ubyte"]


def test_a_failed_download_is_not_tried_again_by_the_same_process(project, two_mirrors):
    two_mirrors.answers = {}
    messages = set()
    for _ in range(3):
        with pytest.raises(DataError) as caught:
            load_mnist()
        messages.add(str(caught.value))
    assert len(two_mirrors.asked) == 4 and len(messages) == 1, "each mirror gets a second chance, and that is all"


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_downloading_can_be_switched_off(project, two_mirrors, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("MNIST_OFFLINE", "1")
    with pytest.raises(DataError, match="downloading is switched off"):
        load_mnist(download=how == "environment")
    assert two_mirrors.asked == []


@pytest.fixture
def others(monkeypatch):
    """Small stand-ins for the sets in MNIST's form: (name, train) -> {file name: extracted content}."""
    random, others, files = np.random.default_rng(1), {}, {}
    for key in ((name, train) for name in SETS[1:] for train in (True, False)):
        files[key] = [replace(file, shape=(60, *file.shape[1:])) for file in describe(*key)]
        images, labels = files[key]
        numbers = np.arange(60) % 10
        if len(labels.shape) == 2:  # QMNIST: the label first, then what else is known of the digit
            numbers = np.stack([numbers] + [numbers + 100 * column for column in range(1, 8)], axis=1)
        others[key] = {
            images.name: images.header + random.integers(0, 256, images.shape, dtype=np.uint8).tobytes(),
            labels.name: labels.header + numbers.reshape(labels.shape).astype(labels.dtype).tobytes(),
        }
    monkeypatch.setattr(data, "describe", lambda *key: files[key])
    return others


@pytest.mark.parametrize("name", SETS[1:])
@pytest.mark.parametrize("train", [True, False])
def test_sets_in_mnists_form_are_read_as_torchvision_reads_them(project, others, name, train):
    raw = project / "data" / name / "raw"
    raw.mkdir(parents=True)
    for part in (True, False):  # torchvision wants all four files to be there
        for file, content in others[name, part].items():
            (raw / file).write_bytes(content)
    digits = load_mnist(train=train, name=name)
    theirs = getattr(datasets, name)(project / "data", train=train)
    labels = theirs.targets[:, 0] if name == "QMNIST" else theirs.targets
    assert torch.equal(digits.images, theirs.data) and torch.equal(digits.labels, labels)
    assert digits.source == name.lower() and digits.labels.dtype == torch.int64
    assert digits.checksums == {file: sha256(content) for file, content in others[name, train].items()}
    assert torch.equal(data.load_part(digits.source, train=train).images, digits.images)
    training, _ = make_loaders(digits, 8, device="cpu")
    assert next(iter(training))[0].shape == (8, 1, 28, 28)


@pytest.mark.parametrize("name", SETS[1:])
def test_another_set_is_downloaded_and_its_md5_checked(project, others, server, monkeypatch, name):
    archives = {f"{file}.gz": gzip.compress(content) for file, content in others[name, True].items()}
    server.answers = {f"/{name}/{file}": (200, archive) for file, archive in archives.items()}
    sums = {file: hashlib.md5(archive).hexdigest() for file, archive in archives.items()}
    sums |= {list(archives)[1]: "another"}
    monkeypatch.setattr(
        mirrors,
        "archive_of",
        lambda file: ([f"{server.address}/{name}/{file.name}.gz"], sums[f"{file.name}.gz"]),
    )
    with pytest.raises(DataError, match=f"has another MD5 checksum than {name}'s archive"):
        load_mnist(name=name)
    kept = sorted(path.name for path in (project / "data" / name / "raw").iterdir())
    assert kept == [list(archives)[0].removesuffix(".gz"), list(archives)[0]]


@pytest.fixture
def fashion(project, others, monkeypatch):
    """Fashion-MNIST's folder, the training part's {file name: extracted content}, and archives with known checksums."""
    contents = others["FashionMNIST", True]
    archives = {name: gzip.compress(content, mtime=0) for name, content in contents.items()}
    sums = {name: hashlib.md5(archive).hexdigest() for name, archive in archives.items()}
    monkeypatch.setattr(mirrors, "archive_of", lambda file: ([], sums[file.name]))
    raw = project / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in contents.items():
        (raw / name).write_bytes(content)
    return raw, contents, archives


@pytest.mark.parametrize("name", SETS[1:])
def test_mnists_files_in_another_sets_folder_are_refused(project, others, monkeypatch, name):
    file, content = next(iter(others[name, True].items()))
    monkeypatch.setitem(idx_files.CHECKSUMS, "train-images-idx3-ubyte", sha256(content))
    raw = project / "data" / name / "raw"
    raw.mkdir(parents=True)
    (raw / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{file} is MNIST's, not {name}'s"):
        load_mnist(name=name)
    (raw / file).rename(raw / f"{file}.gz")
    with pytest.raises(DataError, match=f"{file}.gz is MNIST's, not {name}'s"):
        load_mnist(name=name)


def test_another_sets_files_are_verified_by_their_archives(fashion):
    raw, contents, archives = fashion
    assert load_mnist(name="FashionMNIST").labels.tolist() == list(contents[LABELS][8:])  # without archives
    for name, archive in archives.items():
        (raw / f"{name}.gz").write_bytes(archive)
    assert load_mnist(name="FashionMNIST").labels.tolist() == list(contents[LABELS][8:])
    own = CORRECTIONS["a label"](contents[LABELS])
    (raw / LABELS).write_bytes(own)
    with pytest.warns(UserWarning, match=f"{LABELS} has another SHA-256 .*; it has been replaced .*, and kept as"):
        assert load_mnist(name="FashionMNIST").labels.tolist() == list(contents[LABELS][8:])
    assert (raw / f"{LABELS}.{sha256(own)[:8]}").read_bytes() == own
    (raw / LABELS).unlink()
    assert load_mnist(name="FashionMNIST").labels.tolist() == list(contents[LABELS][8:])  # from the archive


def test_archives_of_another_set_are_refused_with_what_lies_beside_them(fashion):
    raw, contents, archives = fashion
    own = CORRECTIONS["a label"](contents[LABELS])
    for other in (gzip.compress(own), gzip.compress(contents[LABELS], mtime=1), archives[LABELS][:-9]):
        for there in (True, False):
            (raw / LABELS).write_bytes(own) if there else (raw / LABELS).unlink()
            (raw / f"{LABELS}.gz").write_bytes(other)
            beside = f"{LABELS} lies beside an archive that .*" if there else ""
            with pytest.raises(DataError, match=f"{beside}{LABELS}.gz (has another MD5 checksum than|cannot be read)"):
                load_mnist(name="FashionMNIST")
            assert (raw / f"{LABELS}.gz").read_bytes() == other
    (raw / f"{LABELS}.gz").write_bytes(contents[LABELS])  # no archive, whatever its name
    assert load_mnist(name="FashionMNIST").labels.tolist() == list(contents[LABELS][8:])


def test_an_archive_is_repaired_by_one_that_has_the_known_checksum(project, fashion):
    raw, _, archives = fashion
    broken = project / "named" / "FashionMNIST" / "raw"
    broken.mkdir(parents=True)
    (broken / f"{LABELS}.gz").write_bytes(b"\x1f\x8brot")
    with pytest.warns(UserWarning, match=f"{LABELS}.gz cannot be read.* but the file stays as it is"):
        load_mnist(project / "named", name="FashionMNIST")  # one packed here would have another checksum
    (raw / LABELS).unlink()
    (raw / f"{LABELS}.gz").write_bytes(archives[LABELS])
    with pytest.warns(UserWarning, match=f"{LABELS}.gz cannot be read.*replaced by good content"):
        load_mnist(project / "named", name="FashionMNIST")
    assert (broken / f"{LABELS}.gz").read_bytes() == archives[LABELS]


def test_torchvision_knows_where_each_file_is_available():
    for file in [file for name in SETS for train in (True, False) for file in describe(name, train)]:
        addresses, md5 = mirrors.archive_of(file)
        assert len(md5) == 32
        assert all(address.startswith("http") and address.endswith(f"/{file.name}.gz") for address in addresses)


def test_a_set_that_is_not_there_is_one_clear_sentence(project):
    with pytest.raises(
        DataError, match=r"^KMNIST cannot be loaded .*downloading is switched off.*KMNIST.raw"
    ) as caught:
        load_mnist(name="KMNIST", download=False)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="no digit set 'CIFAR10': choose one of MNIST, FashionMNIST, KMNIST, QMNIST"):
        load_mnist(name="CIFAR10")
    with pytest.raises(ValueError, match="no digit set 'synthetic'"):
        data.load_part("synthetic", train=True)


def test_the_part_that_belongs_to_a_source(project, contents):
    lay(project / "data", contents)
    assert data.load_part("mnist", train=False).source == "mnist"
    assert len(data.load_part("sklearn-digits", train=False)) == 360
    assert len(data.load_part("mnist", train=True)) == 30 and len(data.load_part("mnist", train=False)) == 20


def test_a_label_outside_0_to_9_is_refused_in_qmnist_too(project, others):
    folder = project / "data" / "QMNIST" / "raw"
    folder.mkdir(parents=True)
    for file, content in others["QMNIST", True].items():
        (folder / file).write_bytes(content[:12] + b"\0\0\0\x0b" + content[16:] if "labels" in file else content)
    with pytest.raises(DataError, match="qmnist-train-labels-idx2-int holds a label outside 0 to 9"):
        load_mnist(name="QMNIST")


def test_sample_is_in_mnists_form():
    train, test = load_digits_sample(True), load_digits_sample(False)
    assert (len(train), len(test)) == (1437, 360)
    assert train.source == test.source == "sklearn-digits"
    for digits in (train, test):
        assert digits.images.shape[1:] == (28, 28) and digits.images.dtype == torch.uint8
        assert digits.labels.dtype == torch.int64 and digits.labels.unique().tolist() == list(range(10))
        ink = digits.images > 0
        for axis in (1, 2):
            lines = ink.any(dim=axis)
            extent = 28 - lines.int().argmax(1) - lines.flip(1).int().argmax(1)
            assert extent.max() <= 20
    assert train.checksums == load_digits_sample(True).checksums != test.checksums


def test_sample_split_shares_no_picture():
    train = {image.numpy().tobytes() for image in load_digits_sample(True).images}
    test = {image.numpy().tobytes() for image in load_digits_sample(False).images}
    assert not train & test


def test_load_data_prefers_mnist_and_else_warns_once(project, contents):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert load_data().source == load_data(train=True).source == "sklearn-digits"
    assert [str(warning.message)[:17] for warning in caught] == ["THIS IS NOT MNIST"]
    lay(project / "data", contents)
    assert load_data().source == "mnist"


@pytest.mark.mnist
@pytest.mark.parametrize("train", [True, False])
def test_agrees_with_torchvision(tmp_path, train):
    digits = load_mnist(train=train)
    for file, tensor in zip(describe("MNIST", train), (digits.images, digits.labels.byte())):
        path = tmp_path / RAW / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.header + tensor.numpy().tobytes())
        other = {True: "t10k", False: "train"}[train]  # torchvision wants all four names to be there
        Path(tmp_path / RAW / file.name.replace("train" if train else "t10k", other)).touch()
    theirs = datasets.MNIST(tmp_path, train=train, download=False)
    assert torch.equal(theirs.data, digits.images) and torch.equal(theirs.targets, digits.labels)


def test_digits_are_bytes_with_a_whole_number_each(digits):
    images, labels = digits.images, digits.labels
    for wrong, message in (
        (
            (images.float() / 255, labels),
            r"^images must be a tensor uint8 \(203, 28, 28\), .*, not float32 .203, 28, 28.$",
        ),
        ((images[:, None], labels), r"^images must be .*, not uint8 \(203, 1, 28, 28\)$"),
        ((images.numpy(), labels), "^images must be .*, not a ndarray$"),
        ((images, labels.float()), r"^labels must be a tensor int64 \(203,\), .*, not float32 \(203,\)$"),
        ((images, labels[1:]), r"^labels must be .*, not int64 \(202,\)$"),
        ((images, torch.nn.functional.one_hot(labels)), r"^labels must be .*, not int64 \(203, 10\)$"),
    ):
        with pytest.raises(ValueError, match=message):
            Digits(*wrong, "mine", "memory", {})
