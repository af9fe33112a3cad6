import errno
import os
import threading

import pytest

from mnist_helpers.files import file_name, write_atomically


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
