"""Pages are composed of digits that a scripted hand draws, so nothing here needs MNIST unless it says so."""

import functools
import io
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from pages import drawing, written
from PIL import Image

from mnist_helpers import predict
from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.form import to_mnist_form
from mnist_helpers.data.loaders import stratified_split
from mnist_helpers.evaluation.scores import DEFAULT_MODEL
from mnist_helpers.handwriting import candidates, draw_reading, read_digits
from mnist_helpers.handwriting.boxes import match_boxes, overlaps
from mnist_helpers.handwriting.candidates import Lattice
from mnist_helpers.handwriting.reading import best_sequence, best_sequences
from mnist_helpers.models.saved import load_model

loaded = functools.cache(functools.partial(load_model, device="cpu"))


def read(image, model=DEFAULT_MODEL):
    """Read with a network that is loaded once."""
    return read_digits(image, loaded(model))


def check(page, image=None, model="densenet_small"):
    """Assert that a page is read without a mistake."""
    reading = read(page.image if image is None else image, model)
    lines = [page.labels[page.lines == line] for line in np.unique(page.lines)]
    assert reading.text == "\n".join("".join(map(str, line)) for line in lines)
    assert (match_boxes(page.boxes, reading.boxes) == np.arange(len(page.boxes))).all()
    return reading


def test_a_page_is_read_in_order_with_boxes_and_probabilities():
    reading = check(written())
    assert reading.text == "3072\n5948" and len(reading) == 8 and reading.lines.tolist() == [0] * 4 + [1] * 4
    assert reading.probabilities.shape == (8, 10) and reading.probabilities.sum(axis=1) == pytest.approx(np.ones(8))
    assert (reading.probabilities.argmax(axis=1) == reading.digits).all() and len(reading.others) == 0
    digits, probabilities = predict(reading.forms, "densenet_small")
    assert digits.tolist() == reading.digits.tolist() and np.allclose(probabilities, reading.probabilities)


def test_the_readers_own_networks_are_loaded_once(monkeypatch):
    picture, model = drawing(3), loaded(DEFAULT_MODEL)
    assert read_digits(picture).text == "3"  # by the default network; the reader's own are loaded here at the latest
    monkeypatch.setattr(torch, "load", None)
    assert read_digits(picture, model).text == "3"


CONDITIONS = {
    "thin strokes": {"size": 90, "stroke": -4},
    "thick strokes": {"size": 60, "stroke": 6},
    "small": {"size": 22},
    "large": {"size": 200},
    "turned": {"degrees": 9},
    "turned the other way": {"degrees": -9},
    "in perspective": {"tilt": 0.2, "degrees": 3},
    "in shadow": {"shadow": 0.7},
    "blurred": {"blur": 2.0},
    "noisy": {"noise": 15.0},
    "in pencil": {"ink": (150, 150, 150), "noise": 3.0},
    "faint": {"ink": (215, 213, 210), "noise": 1.0},
    "in blue on pink": {"ink": (40, 50, 160), "paper": (240, 190, 200)},
    "in red on green of the same lightness": {"ink": (200, 70, 60), "paper": (90, 130, 90)},
    "in chalk": {"ink": (230, 230, 220), "paper": (40, 60, 50), "shadow": 0.4, "noise": 5.0},
    "on lines": {"ruling": "lines", "printed": 0.5, "degrees": 2},
    "on lines as dark as the ink": {"ruling": "lines", "printed": 1.0},
    "on squared paper": {"ruling": "squares", "printed": 0.5, "degrees": -3, "shadow": 0.4},
    "in boxes": {"ruling": "boxes", "printed": 1.0, "degrees": 2},
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_pages_are_read_under_hard_conditions(name):
    check(written(**CONDITIONS[name]))


def as_file(image, **options):
    """Return a PIL image as it comes back from a file."""
    content = io.BytesIO()
    image.save(content, **options)
    return Image.open(content)


def transparent(image):
    """Return a picture whose ink is opaque black and whose paper is transparent black."""
    cover = image.convert("L").point(lambda grey: 255 * (grey <= 128))
    return Image.merge("LA", (Image.new("L", image.size), cover)).convert("RGBA")


def sixteen_bits(image):
    """Return a 16-bit grey picture that uses a small part of its range."""
    return Image.fromarray(1000 + 9 * np.asarray(image.convert("L")).astype(np.uint16))


KINDS = {
    "PIL": lambda image: image,
    "grey": lambda image: image.convert("L"),
    "black and white": lambda image: image.convert("1"),
    "palette": lambda image: as_file(image.quantize(16), format="PNG"),
    "CMYK": lambda image: as_file(image.convert("CMYK"), format="JPEG"),
    "poor JPEG": lambda image: as_file(image, format="JPEG", quality=12),
    "WebP": lambda image: as_file(image, format="WEBP"),
    "transparent": transparent,
    "transparent, white ink": lambda image: Image.merge(
        "RGBA", [Image.new("L", image.size, 255)] * 3 + [transparent(image).getchannel("A")]
    ),
    "16 bits": lambda image: as_file(sixteen_bits(image), format="PNG"),
    "array": np.asarray,
    "truth values": lambda image: np.asarray(image.convert("L")) < 128,
    "floats": lambda image: np.asarray(image.convert("L")) / 255.0,
    "four channels": lambda image: np.asarray(image.convert("RGBA")),
    "four channels of floats": lambda image: np.asarray(transparent(image)) / np.array([1, 1, 1, 255.0]),
    "channels first": lambda image: torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255,
    "one channel first": lambda image: torch.from_numpy(np.asarray(image.convert("L")).copy())[None],
    "one channel": lambda image: np.asarray(image.convert("L"))[:, :, None],
    "tensor": lambda image: torch.from_numpy(np.asarray(image.convert("L")).copy()),
    "inverted": lambda image: 255 - np.asarray(image),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_read(kind):
    page = written(size=40)
    check(page, KINDS[kind](Image.fromarray(page.image)))


def test_twelve_megapixels_are_read_with_boxes_in_their_own_pixels(tmp_path):
    page = written(size=100, shadow=0.3)
    large = cv2.resize(page.image, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(large).save(tmp_path / "large.jpg", quality=85)
    factor = np.array([4000 / page.image.shape[1], 3000 / page.image.shape[0]] * 2)
    reading = read(tmp_path / "large.jpg")
    assert reading.text == "3072\n5948"
    assert (match_boxes(page.boxes * factor, reading.boxes) == np.arange(8)).all()


def test_a_drawing_with_the_mouse_is_read():
    for digit, width in itertools.product(range(10), (8, 20, 30)):
        assert read(drawing(digit, width)).text == str(digit), width
    found = [len(read(drawing(digit, 8 + 8 * seed, seed))) for digit in range(10) for seed in (0, 2)]
    assert found.count(1) >= 18, "one digit, read rightly or not"


def test_a_digit_in_mnists_form_stays_as_it_is():
    for digit in range(10):
        form = to_mnist_form(drawing(digit))
        reading = read(form)
        assert reading.text == str(digit) and np.abs(reading.forms[0].astype(int) - form).mean() < 4


@pytest.mark.mnist
def test_mnists_own_digits_are_read_as_predict_reads_them():
    digits = load_mnist()
    images = digits.images[stratified_split(digits.labels)[1][:30]]
    answers = predict(images, loaded(DEFAULT_MODEL))[0].tolist()
    assert np.mean([read(image).text == str(answer) for image, answer in zip(images, answers)]) > 0.95


def pair(first, second, overlap=2, width=26):
    """Return a picture of two digits that touch."""
    one, two = (drawing(digit, width) for digit in (first, second))
    one, two = (digit[:, digit.any(axis=0)] for digit in (one, two))
    rows = one.any(axis=1) & two.any(axis=1)
    reach = max(
        (np.nonzero(one[row])[0][-1] - np.nonzero(two[row])[0][0] for row in np.nonzero(rows)[0]), default=one.shape[1]
    )
    left = int(reach) + 1 - overlap
    picture = np.zeros((280, left + two.shape[1] + 60), np.uint8)
    picture[:, 30 : 30 + one.shape[1]] = one
    picture[:, 30 + left : 30 + left + two.shape[1]] |= two
    return picture


def test_touching_digits_are_cut():
    for digits in ((0, 3), (2, 7), (3, 5), (8, 0), (6, 4), (9, 2), (5, 5)):
        picture = pair(*digits)
        n_pieces, *_ = cv2.connectedComponentsWithStats(picture)
        assert n_pieces == 2  # the background and one piece of ink
        assert read(255 - picture).text == "".join(map(str, digits))


def test_a_digit_with_a_break_is_one_digit():
    for digit, gap in ((0, slice(135, 143)), (3, slice(90, 97)), (5, slice(75, 82)), (8, slice(180, 187))):
        picture = drawing(digit, 20)
        picture[gap] = 0
        assert read(picture).text == str(digit), digit


def blank(value=240, noise=0.0):
    return (value + noise * np.random.default_rng(0).standard_normal((300, 400))).clip(0, 255).astype(np.uint8)


def with_dashes(picture):
    for x in (60, 150, 240):
        cv2.line(picture, (x, 150), (x + 60, 152), 30, 6)
    return picture


def with_blots(picture):
    for x in (80, 200, 320):
        cv2.ellipse(picture, (x, 150), (22, 17), 20, 0, 360, 30, -1)
    return picture


def with_letters(picture):
    """Draw A, H and M."""
    for points in (
        [(40, 200), (80, 100), (120, 200)],
        [(58, 165), (102, 165)],
        [(180, 100), (180, 200), (180, 150), (240, 150), (240, 100), (240, 200)],
        [(290, 200), (290, 100), (330, 160), (370, 100), (370, 200)],
    ):
        cv2.polylines(picture, [np.array(points)], False, 30, 7)
    return picture


NOTHING = {
    "white": blank(255),
    "black": blank(0),
    "noise": blank(noise=12.0),
    "dashes": with_dashes(blank()),
    "blots": with_blots(blank()),
    "letters": with_letters(blank()),
    "gradient": np.tile(np.linspace(60, 250, 400), (300, 1)).astype(np.uint8),
    "one pixel": np.zeros((1, 1), np.uint8),
    "a row": np.arange(50, dtype=np.uint8)[None],
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_digit_is_left_out(name):
    reading = read(NOTHING[name])
    assert len(reading) == 0 and reading.text == "" and reading.boxes.shape == (0, 4)
    assert reading.probabilities.shape == (0, 10) and reading.forms.shape == (0, 28, 28)


def test_ink_that_is_no_digit_is_told_among_the_others():
    page = written(size=60)
    width = page.image.shape[1]
    picture = np.pad(page.image, ((0, 0), (0, 120), (0, 0)), mode="edge")
    for points in ([(0, 70), (28, 0), (56, 70)], [(11, 42), (45, 42)]):  # an A beside the digits
        cv2.polylines(picture, [np.array(points) + (width + 10, 60)], False, (20, 20, 40), 5)
    cv2.ellipse(picture, (width - 22, 20), (13, 10), 0, 0, 360, (20, 20, 40), -1)  # a blot, which is not considered
    reading = read(picture)
    assert reading.text == "3072\n5948" and len(reading.others) == 1
    assert overlaps(reading.others, [[width + 8, 58, width + 69, 133]])[0, 0] > 0.8


def bomb(side):
    """Return a PNG of side x side pixels in a few bytes that hold none of them."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_what_is_no_picture_is_one_sentence(tmp_path):
    photo = io.BytesIO()
    Image.fromarray(written().image).save(photo, format="JPEG")
    contents = {
        "empty.png": (b"", "is empty"),
        "text.png": (b"no picture at all", "is no picture that can be read here"),
        "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture that can be read here"),
        "page.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture that can be read here"),
        "half.jpg": (photo.getvalue()[:2000], "is damaged"),
        "large.png": (bomb(13_000), "is too large, 13000 x 13000 pixels"),
        "bomb.png": (bomb(60_000), "is refused"),
        "hollow.png": (bomb(500), "is damaged"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} .*{reason}|{name} {reason}") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="there is no such file"):
        read(tmp_path / "none.png")
    with pytest.raises(ValueError, match="cannot be read: File name too long"):
        read("x" * 300)
    with pytest.raises(ValueError, match="is a folder, not a file"):
        read(tmp_path)
    for name in ("/dev/null", "/dev/zero"):
        with pytest.raises(ValueError, match=f"{name} is no regular file"):
            read(name)


def test_errors_name_the_picture(tmp_path, monkeypatch):
    dots, infinite = tmp_path / "dots.png", tmp_path / "infinite.tiff"
    Image.fromarray(written().image).save(dots)
    monkeypatch.setattr(candidates, "MAX_PARTS", 2)
    Image.fromarray(np.full((9, 9), np.inf, np.float32)).save(infinite)
    with pytest.raises(ValueError, match="dots.png has [0-9,]+ separate pieces of ink, too many"):
        read(dots)
    with pytest.raises(ValueError, match="dots.png has [0-9,]+ separate pieces of ink, too many"):
        read(Image.open(dots))
    with pytest.raises(ValueError, match="infinite.tiff holds numbers that are not finite"):
        read(infinite)


def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path):
    first, second = Image.fromarray(drawing(3)), Image.fromarray(drawing(5))
    for name in ("film.gif", "pages.tiff", "film.png", "film.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second], duration=100)
        with pytest.warns(UserWarning, match=f"{name} holds several pictures: only the first is read"):
            assert read(tmp_path / name).text == "3"


def test_arrays_that_are_no_picture_are_refused():
    flat, empty, two_channels, text = np.zeros(9), np.zeros((0, 9)), np.zeros((9, 9, 2)), np.array([["ink", "no"]])
    for array in (flat, empty, two_channels, text, np.full((9, 9), np.nan)):
        with pytest.raises(ValueError, match="a picture (must be|holds numbers that are not finite)"):
            read(array)


def lattice_of(spans, chances=None, complete=None, sizes=None):
    """Return a `Lattice` of candidates about which nothing else is known."""
    given = [np.ones(len(spans)) if one is None else np.array(one) for one in (chances, complete, sizes)]
    return Lattice(spans, [], np.array([]), given[0], given[1] > 0, given[2])


def chosen(spans, whole, **known):
    """Return the best sequence of such candidates."""
    return best_sequence(lattice_of(spans, **known), np.array(whole), np.ones(len(spans)))


def test_the_best_sequence_weighs_cuts_against_wholes():
    spans = [(0, 1), (0, 2), (1, 2)]
    assert chosen(spans, [0.9, 0.1, 0.9]) == ([0, 2], [])  # two that touch
    assert chosen(spans, [0.6, 0.95, 0.6]) == ([1], [])  # one
    assert chosen(spans, [0.6, 0.6, 0.6], chances=[0.95, 0.1, 0.95]) == ([0, 2], [])  # the cut is likely
    assert chosen(spans, [0.9, 0.9, 0.2], chances=[0.95, 0.1, 0.95], complete=[0, 1, 0]) == ([0, 2], [])
    assert chosen(spans, [0.1, 0.05, 0.2]) == ([], [1])  # none
    assert chosen([(0, 1), (1, 2)], [0.9, 0.05]) == ([0], [1])  # a digit and a speck
    assert chosen(spans, [0.9, 0.93, 0.01], sizes=[1, 1, 1]) == ([1], [])  # a digit of two pieces
    assert chosen(spans, [0.9, 0.5, 0.01], sizes=[1, 1, 0.1]) == ([0], [2])  # a digit and a small dash


@pytest.mark.parametrize(("around", "is_digit"), [(0.95, True), (0.1, False)])
@pytest.mark.parametrize("dashes", [0, 20])
def test_what_may_be_a_digit_is_one_among_digits_and_none_among_others(around, is_digit, dashes):
    whole, sizes = np.array([0.08] + 7 * [around] + dashes * [0.01]), [1] * 8 + [0.1] * dashes
    lattice = lattice_of([(place, place + 1) for place in range(len(whole))], sizes=sizes)
    sure = np.ones(len(whole))
    sequences, certain = best_sequences([lattice, lattice], [whole, whole], [sure, sure])
    assert 0 not in best_sequence(lattice, whole, sure)[0]
    for (digits, rest), one in zip(sequences, certain):
        assert (0 in digits) == is_digit and len(digits) + len(rest) == len(whole)
        assert (one[0] > 0.08) == is_digit
    assert best_sequences([], [], []) == ([], [])


def test_among_digits_half_a_digit_is_no_likelier_a_whole_one():
    spans = [(0, 1), (0, 2), (1, 2)] + [(place, place + 1) for place in range(2, 26)]
    whole, chances = np.array([0.1, 0.6, 0.1] + 24 * [0.99]), [0.8, 0.2, 0.8] + 24 * [1.0]
    lattice = lattice_of(spans, chances=chances, complete=[False, True, False] + 24 * [True])
    [(digits, rest)], [certain] = best_sequences([lattice], [whole], [np.ones(27)])
    assert digits == [1, *range(3, 27)] and rest == []
    assert certain[1] > 0.8 and (certain[[0, 2]] <= 0.1).all()


def test_the_reading_is_drawn_on_the_page():
    page = written()
    reading = read(page.image)
    ax = draw_reading(page.image, reading)
    assert [text.get_text() for text in ax.texts] == [str(digit) for digit in reading.digits]
    corners = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in ax.patches]
    assert corners == [(left, top, right - left, bottom - top) for left, top, right, bottom in reading.boxes]
    assert draw_reading(page.image[:, :, 0], reading, ax) is ax


def test_a_photograph_is_read_and_drawn_as_its_exif_data_turn_it(tmp_path):
    page, exif, path = written(), Image.Exif(), tmp_path / "photo.jpg"
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    Image.fromarray(np.rot90(page.image)).save(path, exif=exif, quality=90)
    height, width = page.image.shape[:2]
    for picture in (path, str(path), Image.open(path)):
        ax = draw_reading(picture, check(page, picture))
        assert ax.get_xlim() == (-0.5, width - 0.5) and ax.get_ylim() == (height - 0.5, -0.5)
        assert ax.images[0].get_array().shape[:2] == (height, width)
