import numpy as np
import pytest
from PIL import Image

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.form import to_mnist_form


def centre_of_mass(form):
    mass = form.astype(float)
    return [np.average(np.arange(28), weights=mass.sum(axis=1 - axis)) for axis in (0, 1)]


def test_fits_the_box_and_centres_the_mass():
    picture = np.zeros((100, 70))
    picture[10:90, 20:25] = 1  # a tall stroke with a foot to the right
    picture[85:90, 20:60] = 1
    form = to_mnist_form(picture)
    rows, columns = np.nonzero(form.max(axis=1))[0], np.nonzero(form.max(axis=0))[0]
    assert form.shape == (28, 28) and form.dtype == np.uint8 and form.max() == 255
    assert rows[-1] - rows[0] + 1 == 20 and columns[-1] - columns[0] + 1 <= 20
    assert centre_of_mass(form) == pytest.approx([14, 14], abs=0.55)


def test_place_scale_and_contrast_do_not_matter():
    picture = np.zeros((40, 40))
    picture[5:25, 8:12] = 3.0
    picture[5:9, 8:20] = 3.0
    moved = np.full((80, 90), 7.0)
    moved[30:70, 40:64] += 0.5 * np.kron(picture[5:25, 8:20], np.ones((2, 2)))
    difference = to_mnist_form(picture).astype(int) - to_mnist_form(moved)
    assert np.abs(difference).mean() < 2


def test_empty_picture_gives_an_empty_one():
    assert not to_mnist_form(np.full((9, 9), 4.0)).any()
    assert not to_mnist_form(np.zeros((0, 9))).any()


def test_refuses_what_is_no_picture():
    for picture in (np.zeros(5), np.zeros((2, 3, 4)), np.full((5, 5), np.nan)):
        with pytest.raises(ValueError, match="finite array of shape"):
            to_mnist_form(picture)


def test_a_pil_image_is_taken_by_its_grey_values():
    picture = np.zeros((40, 40), np.uint8)
    picture[5:25, 8:12], picture[5:9, 8:20] = 200, 255
    palette = Image.fromarray(255 - picture).convert("P")
    palette.putpalette([grey for grey in range(255, -1, -1) for _ in range(3)])
    for image in (Image.fromarray(picture), palette, Image.fromarray(picture).convert("RGB")):
        assert np.array_equal(to_mnist_form(image), to_mnist_form(picture))
    deep = Image.fromarray(picture.astype(np.uint16) * 257)
    assert np.array_equal(to_mnist_form(deep), to_mnist_form(picture))
    with pytest.raises(ValueError, match="transparent parts"):
        to_mnist_form(Image.merge("LA", (Image.new("L", (40, 40)), Image.fromarray(picture))))


def test_ink_on_bright_paper_is_a_warning():
    picture = np.zeros((40, 40), np.uint8)
    picture[5:25, 8:12] = 200
    for bright in (255 - picture, 0.5 - picture / 255, 90 - picture // 3):
        with pytest.warns(UserWarning, match="the picture has a bright border, like ink on light paper.*255 - picture"):
            to_mnist_form(bright)


@pytest.mark.mnist
def test_leaves_mnist_as_it_is():
    images = load_mnist(train=False).images[:1000].numpy()
    same = [np.array_equal(to_mnist_form(image), np.round(image * (255 / image.max()))) for image in images]
    assert np.mean(same) > 0.9  # MNIST's own rounding puts some centres half a pixel away
