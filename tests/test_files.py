import errno
import io
import os
import re
import signal
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_helpers import files
from mnist_helpers.__main__ import main
from mnist_helpers.data.digits import load_digits_sample, load_mnist
from mnist_helpers.environment import seeded
from mnist_helpers.experiments.records import described_run
from mnist_helpers.experiments.run import record_run
from mnist_helpers.files import check_writable, file_name, previous_of, read_regular, write_atomically
from mnist_helpers.handwriting.ink import open_picture
from mnist_helpers.models import mlp_baseline
from mnist_helpers.models.export import export_onnx
from mnist_helpers.models.saved import load_model, read_card, save_model
from mnist_helpers.training import loop as training
from mnist_helpers.training.resume import load_state, save_state
from mnist_helpers.widgets.drawings import as_digits, load_drawings, save_drawings
from mnist_helpers.widgets.pad import DrawingPad


def test_writes_text_and_bytes_and_makes_folders(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", "é")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"\xc3\xa9"
    write_atomically(tmp_path / "a" / "b.txt", b"new")
    assert os.listdir(tmp_path / "a") == ["b.txt"]  # no temporary file is left


def test_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "card.json"
    path.write_text("old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk that holds .* is full: free \d+ MB") as caught:
        write_atomically(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["card.json"]


def test_a_file_in_the_folders_place_is_one_sentence(tmp_path):
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(OSError, match="card.json cannot be written .*: choose a folder you may write to"):
        write_atomically(tmp_path / "folder" / "card.json", "new")


def test_writers_at_once_never_show_a_mixture(tmp_path):
    path, contents = tmp_path / "file", [bytes([65 + number]) * 100_000 for number in range(4)]
    threads = [threading.Thread(target=lambda c=c: [write_atomically(path, c) for _ in range(10)]) for c in contents]
    write_atomically(path, contents[0])
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    assert path.read_bytes() in contents


def test_a_second_process_that_renames_the_file_first_takes_nothing_from_the_one_that_writes(tmp_path, monkeypatch):
    """Between the look and the step, in each order: the file is there, or already called the previous one."""
    path, replace, calls = tmp_path / "state", os.replace, []
    write_atomically(path, "old")

    def slower_than_another(*given):
        calls.append(given)
        if len(calls) == 1:
            replace(path, previous_of(path))
        replace(*given)

    monkeypatch.setattr(os, "replace", slower_than_another)
    write_atomically(path, "new", previous_of(path))
    assert path.read_text() == "new" and previous_of(path).read_text() == "old" and len(calls) == 2


def test_whether_a_file_can_be_written_is_tried_without_a_trace(tmp_path):
    path = tmp_path / "new" / "state"
    check_writable(path, 1000)
    assert os.listdir(path.parent) == []
    path.write_text("old")
    check_writable(path, 1000)
    assert os.listdir(path.parent) == ["state"] and path.read_text() == "old"
    with pytest.raises(OSError, match="new is a folder: give the path of a file in it"):
        check_writable(tmp_path / "new")
    with pytest.raises(OSError, match="cannot be written .*: choose a folder you may write to"):
        check_writable(path / "state")


def test_only_regular_files_up_to_a_limit_are_read(tmp_path):
    path, pipe, large = tmp_path / "file", tmp_path / "pipe", tmp_path / "large"
    path.write_bytes(b"content")
    assert read_regular(path) == read_regular(str(path), limit=7) == b"content"
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link") == b"content"
    os.mkfifo(pipe)
    with open(large, "wb") as file:
        file.truncate(200_000_001)  # takes no place on the disk
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    refused = {
        pipe: "is no regular file",
        "/dev/null": "is no regular file",
        large: "has 200,000,001 bytes: files of more than 200,000,000 bytes are not read",
        tmp_path: "is a folder, not a file",
        tmp_path / "none": ": there is no such file",
        tmp_path / "dangling": ": there is no such file",
        tmp_path / "loop": "cannot be read: Too many levels",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
        "a\0b": "cannot be read: .*null",
        path / "below": "cannot be read: Not a directory",
    }

    def give_up(*_):
        raise TimeoutError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        for unread, sentence in refused.items():
            with pytest.raises(OSError, match=sentence) as caught:
                read_regular(unread)
            assert str(caught.value).startswith(str(unread)) and "\n" not in str(caught.value)
        with pytest.raises(OSError, match="has 7 bytes: files of more than 6 bytes are not read"):
            read_regular(path, limit=6)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_name_from_data_is_a_file_in_its_own_folder_on_any_system():
    for good in ("mlp_rate_0.0001", "network_betas_[0.9, 0.999]", "Größe 3", "a" * 150):
        assert file_name(good) == good
    bad = [
        "",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "a\0b",
        "a\nb",
        "CON",
        "con.txt",
        "LPT¹",
        "NUL .x",
    ]
    bad += [
        ".hidden",
        "end.",
        "end ",
        "*",
        "a?",
        "\ud800",
        "x" * 151,
        "é" * 80,
        "../" * 1000,
        "nul",
        "aux.",
        "<b>",
        "a|b",
    ]
    names = [file_name(name) for name in bad]
    assert len({name.lower() for name in names}) == len(bad), "names that differ are different files"
    for name in names:
        assert len(name.encode()) <= 150 and file_name(name) == name
        assert name[0] not in ". " and name[-1] not in ". " and not set(name) & set('/\\:*?"<>|\0\n')
        assert name.split(".")[0].rstrip().upper() not in ("CON", "NUL", "AUX", "LPT¹")
    assert len(file_name("synthetic " * 9, 24)) <= 24


class FullDisk(io.FileIO):
    """A file on a disk with room for so many bytes."""

    room = 0

    def write(self, data):
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def disk_of(room):
    return lambda path, mode: type("Small", (FullDisk,), {"room": room})(path, mode)


@pytest.mark.filterwarnings("default:THIS IS NOT MNIST")
def test_what_cannot_be_kept_is_noticed_before_training(project, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("it was begun")

    monkeypatch.setattr(training, "train_one_epoch", refuse)
    monkeypatch.setattr("mnist_helpers.notebooks.execute", refuse)
    (project / "runs").touch()
    (project / "notebooks").mkdir()
    (project / "notebooks" / "01_first.ipynb").touch()
    for command in (["train", "network", "--allow-sample", "--device", "cpu"], ["notebooks"]):
        assert main(command) == 2
        assert re.search(r"runs/\S+ cannot be written .*: choose a folder you may write to", capsys.readouterr().err)
    (project / "runs").unlink()
    for room in (900_000, 1_500_000):  # too little for the record, and for a state of 4 * 109,386 * 4 bytes
        monkeypatch.setattr(files, "open", disk_of(room), raising=False)
        with pytest.raises(OSError, match=r"the disk that holds .* is full: free [23] MB"):
            record_run("network", digits=load_digits_sample(), device="cpu", progress=False)


def test_every_path_that_a_user_gives_may_begin_at_home(project, contents, monkeypatch):
    home = project / "home"
    (home / "states").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    with seeded(0):
        model = mlp_baseline()
    save_model(model, "~/own.pth", {"model": "mlp_baseline", "model_arguments": {}})
    assert load_model("~/own.pth").card == read_card("~/own.pth")
    load_model(Path("~/own.pth"), model=model)
    save_state("~/states/state.pt", {"states": []})
    assert load_state("~/states/state.pt") is not None
    save_drawings(as_digits([np.zeros((28, 28), np.uint8)], [3]), "~/own.npz")
    assert len(load_drawings("~/own.npz")) == len(DrawingPad(model, file="~/own.npz").digits) == 1
    Image.new("L", (50, 40)).save(home / "page.png")
    assert open_picture("~/page.png")[0].shape == (40, 50, 3)
    options = {"digits": load_digits_sample().take(torch.arange(200)), "device": "cpu", "progress": False}
    made = record_run("network", checkpoints="~/states", **options)
    (record,) = (project / "runs" / "records").glob("*/*.json")
    record.rename(home / "record.json")
    assert described_run("~/record.json")[0] == made
    for folder in ("root", "named"):
        (home / folder / "MNIST" / "raw").mkdir(parents=True)
        for name, content in contents.items():
            (home / folder / "MNIST" / "raw" / name).write_bytes(content)
    assert load_mnist("~/root", download=False).folder.startswith(str(home))
    monkeypatch.setenv("MNIST_DATA", "~/named")
    assert load_mnist(download=False).folder.startswith(str(home))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(model_proto=model_proto))
    model_proto = SimpleNamespace(SerializeToString=lambda: b"onnx")
    export_onnx(model, "~/own.onnx")
    assert (home / "own.onnx").read_bytes() == b"onnx"
    assert not (project / "~").exists()


def test_only_a_regular_file_is_replaced(tmp_path):
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_text("old")
    link.symlink_to(pipe)
    for path in (pipe, link):
        for write in (check_writable, lambda path: write_atomically(path, "new", previous_of(path))):
            with pytest.raises(OSError, match="it is a device or a pipe"):
                write(path)
        assert stat.S_ISFIFO(os.stat(path).st_mode)
    for nothing in ("", ".", "a\0b"):
        with pytest.raises(OSError, match="names no file: give the path of one"):
            check_writable(nothing)
    with pytest.raises(OSError, match="~nobody.-here/x: there is no home folder of that name"):
        write_atomically("~nobody.-here/x", "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]
