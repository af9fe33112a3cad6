import errno
import os
import threading

import pytest

from mnist_helpers.files import check_writable, previous_of, write_atomically


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
