"""The drawing pad, with and without anywidget; its JavaScript is tested in tests/browser."""

import io
import os
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_helpers import load_model, predict
from mnist_helpers.data.form import to_mnist_form
from mnist_helpers.data.strokes import draw, fitted, write
from mnist_helpers.widgets import DrawingPad, drawings
from mnist_helpers.widgets.drawings import as_digits, load_drawings, save_drawings, uploaded


@pytest.fixture(scope="module")
def model():
    return load_model("lenet5", device="cpu")


@pytest.fixture
def pad(model):
    pytest.importorskip("anywidget")
    return DrawingPad(model)


def picture_file(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_nothing_is_drawn_at_first(pad):
    assert pad.digit is None and pad.probabilities is None and not pad.picture.any() and pad.strokes == []
    assert "Nothing is drawn" in pad._answered.value and len(pad.digits) == 0
    with pytest.raises(ValueError, match="nothing to keep"):
        pad.keep()


def test_what_is_drawn_is_read_in_mnists_form(pad, model):
    for digit in (0, 3, 7, 8):
        assert pad.draw(fitted(write(digit))) == digit
        assert np.array_equal(pad.picture, to_mnist_form(draw(fitted(write(digit)))))
        answer, probabilities = predict(pad.picture, model)
        assert pad.digit == answer and torch.equal(pad.probabilities, probabilities)
        assert f"It reads <b>{digit}</b>" in pad._answered.value and pad.label.value == digit
        seen = np.asarray(Image.open(io.BytesIO(pad._seen.value)))
        assert np.array_equal(seen[::5, ::5], pad.picture)


def test_strokes_from_the_page_are_read(pad):
    pad.canvas.strokes = write(4)[:1]
    first = pad.picture.copy()
    pad.canvas.strokes = write(4)
    assert pad.digit == 4 and not np.array_equal(pad.picture, first) and pad.errors == []


def test_undo_and_clear(pad):
    pad.draw(write(4))
    pad.buttons["Undo"].click()
    assert len(pad.strokes) == len(pad.canvas.strokes) == 1
    pad.buttons["Clear"].click()
    assert pad.strokes == [] and pad.digit is None
    pad.undo()
    assert pad.strokes == [] and pad.errors == []


def test_keeping_corrected_drawings(pad):
    pad.draw(write(3))
    form = pad.picture
    pad.label.value = 5
    pad.canvas.strokes = [*write(3), [[0.9, 0.9]]]
    assert pad.label.value == 5, "a correction outlives further strokes"
    pad.draw(write(3))
    pad.buttons["Keep"].click()
    assert pad.digit is None and pad.strokes == []
    pad.draw(write(7))
    assert pad.label.value == 7, "but not the drawing"
    pad.keep()
    pad.draw(write(0))
    pad.keep(6)
    digits = pad.digits
    assert digits.labels.tolist() == [5, 7, 6] and digits.source == "drawings" and digits.images.dtype == torch.uint8
    assert np.array_equal(digits.images[0].numpy(), form) and "1 × 5, 1 × 6, 1 × 7" in pad._kept.value
    pad.buttons["Forget last"].click()
    assert pad.digits.labels.tolist() == [5, 7]


def test_labels_are_digits(pad):
    pad.draw(write(1))
    for label in (10, -1, "3", 2.5):
        with pytest.raises(ValueError, match="digit from 0 to 9"):
            pad.keep(label)
    assert len(pad.digits) == 0 and pad.digit is not None


def test_drawings_outlive_the_pad(pad, model, tmp_path):
    file = tmp_path / "own.npz"
    first = DrawingPad(model, file=file)
    first.draw(write(2)), first.keep()
    first.draw(write(9)), first.keep()
    again = DrawingPad(model, file=file)
    assert torch.equal(again.digits.images, first.digits.images) and again.digits.labels.tolist() == [2, 9]
    assert "own.npz" in again._kept.value
    again.forget()
    assert load_drawings(file).labels.tolist() == [2]


def test_names_of_files_are_text_in_the_page(model, tmp_path):
    name = """<img src=x onerror="a('&')">.npz"""
    escaped = "&lt;img src=x onerror=&quot;a(&#x27;&amp;&#x27;)&quot;&gt;.npz"
    pad = DrawingPad(model, file=tmp_path / name)
    assert f"Kept in {escaped}:" in pad._kept.value
    pad.draw(write(2)), pad.keep()
    assert f"Kept in {escaped}: 1 × 2" in pad._kept.value
    pad._faults.guard(pad.read_file)(b"no picture", name)
    assert escaped in pad._faults.view.value and "<img" not in pad._faults.view.value + pad._kept.value


def test_a_file_that_holds_no_drawings_is_named(tmp_path):
    file = tmp_path / "own.npz"
    for content in (b"", b"no archive", b"PK\x03\x04 broken"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"own\.npz holds no drawings"):
            load_drawings(file)
    np.savez(file, images=np.zeros((2, 8, 8), dtype=np.uint8), labels=np.array([1, 2]))
    with pytest.raises(ValueError, match="holds no drawings of digits"):
        load_drawings(file)
    save_drawings(as_digits([], []), tmp_path / "none.npz")
    assert len(load_drawings(tmp_path / "none.npz")) == 0


def packed(images, labels, compression=zipfile.ZIP_DEFLATED):
    """Return an archive with the bytes of the two arrays' files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("images.npy", images), archive.writestr("labels.npy", labels)
    return file.getvalue()


def understated(archive):
    """Return an archive whose directory says that its first entry unpacks to three images."""
    first = archive.rindex(b"PK\1\2", 0, archive.rindex(b"PK\1\2"))
    return archive[: first + 24] + (2352 + 128).to_bytes(4, "little") + archive[first + 28 :]


def npy(dtype, shape, content=b""):
    """Return a NumPy file that declares this dtype and shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def test_an_archive_that_declares_or_unpacks_to_anything_takes_no_memory(tmp_path, monkeypatch):
    """A header declares any shape; a packed entry may unpack to a thousand times its size, or to more than it says."""
    monkeypatch.setattr(drawings, "MAX_ARRAY", 1_000_000)
    three, zeros = npy("<i8", (3,), bytes(24)), npy("|u1", (3, 28, 28), bytes(5_000_000))
    contents = {
        "a shape": packed(npy("|u1", (10**12, 28, 28)), npy("<i8", (10**12,))),
        "a shape beyond numbers": packed(npy("|u1", (10**30, 28, 28)), npy("<i8", (10**30,))),
        "labels": packed(npy("|u1", (3, 28, 28), bytes(2352)), npy("<i8", (10**11,))),
        "objects": packed(npy("|O", (10**9,)), npy("|O", (10**9,))),
        "an entry's size": packed(zeros, three),
        "a size that is not so": understated(packed(zeros, three)),
        "the same in bzip2, which unpacks all at once": understated(packed(zeros, three, zipfile.ZIP_BZIP2)),
        "nested brackets": packed(b"\x93NUMPY\1\0\x40\x1f" + 8000 * b"(", three),
        "labels in rows": packed(npy("|u1", (3, 28, 28), bytes(2352)), npy("<i8", (3, 1), bytes(24))),
        "labels with a point": packed(npy("|u1", (3, 28, 28), bytes(2352)), npy("<f8", (3,), bytes(24))),
        "a single label": packed(npy("|u1", (3, 28, 28), bytes(2352)), npy("<i8", (), bytes(8))),
    }
    tracemalloc.start()
    for name, content in contents.items():
        (tmp_path / "own.npz").write_bytes(content)
        tracemalloc.reset_peak()
        with pytest.raises(ValueError, match=r"own\.npz holds no drawings"):
            load_drawings(tmp_path / "own.npz")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000, name
    tracemalloc.stop()
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ValueError, match=r"pipe\.npz is no regular file"):
        DrawingPad(file=tmp_path / "pipe.npz")


def test_another_model_reads_the_same_drawing(pad):
    pad.draw(write(1))
    before = pad.probabilities
    pad.model = "densenet_small"
    assert not torch.equal(pad.probabilities, before) and pad.digit == 1


def test_errors_in_callbacks_are_kept_and_shown(pad):
    pad.buttons["Keep"].click()
    assert "nothing to keep" in str(pad.errors[0]) and "nothing to keep" in pad._faults.view.value
    pad.canvas.strokes = [["nonsense"]]
    assert len(pad.errors) == 2 and "pairs (x, y)" in pad._faults.view.value
    pad.canvas.strokes = write(5)
    assert pad.digit == 5 and pad._faults.view.value == ""


# Without anywidget


@pytest.fixture
def upload(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)  # as if it were not installed
    return DrawingPad(model)


def test_without_anywidget_pictures_are_uploaded(upload):
    assert upload.canvas is None and upload.strokes == []
    paper = 255 - draw(write(3))
    file = {"name": "three.png", "type": "image/png", "size": 1, "content": memoryview(picture_file(paper))}
    upload._uploaded((file,))
    assert upload.digit == 3 and upload.errors == []
    upload.keep(8)
    assert upload.digits.labels.tolist() == [8] and upload.digit is None
    assert upload.draw(write(4)) == 4, "code can draw all the same"


def test_both_forms_of_an_uploads_value():
    seven = {"a.png": {"metadata": {"name": "a.png"}, "content": b"xyz"}}
    eight = ({"name": "a.png", "type": "image/png", "content": memoryview(b"xyz")},)
    assert uploaded(seven) == uploaded(eight) == [("a.png", b"xyz")]
    assert uploaded({}) == uploaded(()) == []


def test_what_is_no_picture_is_one_sentence(upload):
    guarded = upload._faults.guard(upload._uploaded)
    guarded(({"name": "notes.txt", "content": memoryview(b"hello")},))
    assert str(upload.errors[0]) == "notes.txt is no picture that can be read here: save it as PNG or JPEG"
    assert "notes.txt" in upload._faults.view.value


def test_pictures_of_either_polarity_are_read(pad):
    ink = np.full((300, 240), 30, dtype=np.uint8)
    ink[40:264, 8:232][draw(write(5)) > 0] = 200
    for picture in (ink, 255 - ink):
        assert pad.read_file(picture_file(picture, "JPEG", quality=60)) == 5


def test_turned_and_transparent_pictures(pad):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = picture_file(np.rot90(255 - draw(write(7))).copy(), "JPEG", exif=exif)
    assert pad.read_file(turned) == 7
    layers = np.zeros((224, 224, 4), dtype=np.uint8)
    layers[..., 3] = draw(write(2))  # black ink on nothing
    assert pad.read_file(picture_file(layers)) == 2


def test_pictures_of_any_mode_are_read(pad):
    grey = Image.fromarray(255 - draw(write(2)))
    deep = Image.fromarray(1000 + 9 * np.asarray(grey).astype(np.uint16))
    for image in (grey.convert("P"), grey.convert("1"), deep, grey.quantize(8), grey.convert("RGBA")):
        file = io.BytesIO()
        image.save(file, "PNG")
        assert pad.read_file(file.getvalue()) == 2, image.mode


def test_huge_and_blank_pictures(pad):
    with pytest.raises(ValueError, match="big.pgm is too large, 13000 x 12000 pixels"):
        pad.read_file(b"P5 13000 12000 255\n", "big.pgm")
    assert pad.read_file(picture_file(np.full((50, 60), 255, dtype=np.uint8))) is None and not pad.picture.any()


def test_several_digits_in_a_file_are_said_and_read(pad):
    pad.read_file(picture_file(255 - np.hstack([draw(write(3)), draw(write(2))])))
    assert "There are several digits" in pad._answered.value and "<b>32</b>" in pad._answered.value


def test_no_digit_and_doubt_are_said_in_words(monkeypatch):
    pad = DrawingPad()
    pad.label.value = 3
    pad.clear()
    assert pad.draw([[(0.1, 0.1), (0.9, 0.9)], [(0.9, 0.1), (0.1, 0.9)], [(0.5, 0.1), (0.5, 0.9)]]) is None
    assert "This is <b>no digit</b>" in pad._answered.value and pad.picture.any()
    with pytest.raises(ValueError, match="it was read as no digit: say which digit it is"):
        pad.keep()
    pad.keep(4)
    assert pad.digits.labels.tolist() == [4]
    doubt = torch.full((11,), 0.04)
    doubt[3] = 0.6
    monkeypatch.setattr("mnist_helpers.widgets.pad.predict", lambda *_: (3, doubt))
    assert pad.draw(write(3)) == 3 and "Unsure: perhaps a <b>3</b> (60.0%)" in pad._answered.value


def test_a_small_drawing_gets_strokes_that_suit_its_size(pad):
    small = [[(0.4 + 0.2 * x, 0.4 + 0.2 * y) for x, y in stroke] for stroke in write(8)]
    assert pad.draw(small) == 8
    picture = pad.picture
    pad.draw(write(8))
    assert abs(pad.picture.astype(int) - picture).mean() < 2
