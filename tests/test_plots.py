import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mnist_helpers.loaders import make_loaders
from mnist_helpers.plots import curves, image_grid, show5


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def shown(figure):
    """Return the pictures of a figure's axes that show one."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


@pytest.mark.parametrize("plain", [False, True])
def test_show5_undoes_the_normalisation(digits, plain):
    training, _ = make_loaders(digits, 16, "mnist", device="cpu", plain=plain)
    training.sampler.set_epoch(4)
    figure = show5(training)
    training.sampler.set_epoch(4)
    images, labels = next(iter(training))
    assert [axis.get_title() for axis in figure.axes] == [str(int(label)) for label in labels[:5]]
    for picture, image in zip(shown(figure), images[:5]):
        np.testing.assert_allclose(picture, (image[0] * 0.3081 + 0.1307).clip(0, 1), atol=1e-6)
    assert figure.get_suptitle() == "synthetic"


def test_show5_is_closed_so_that_a_notebook_shows_it_once(digits):
    figure = show5(make_loaders(digits, device="cpu")[0])
    assert isinstance(figure, Figure) and plt.get_fignums() == []


@pytest.mark.parametrize("shape", [(9, 28, 28), (9, 1, 28, 28), (9, 3, 28, 28), (2, 1, 5, 7)])
def test_show5_takes_any_loader(shape):
    images = torch.linspace(-3, 9, int(np.prod(shape))).view(shape)
    pictures = shown(show5([(images, torch.zeros(len(images)))]))
    assert len(pictures) == min(5, len(images))
    assert min(picture.min() for picture in pictures) == 0 and max(picture.max() for picture in pictures) <= 1


def test_image_grid_fills_rows_and_leaves_the_rest_empty():
    figure = image_grid(torch.rand(7, 4, 4, generator=torch.Generator()), titles="abcdefg", colors=["red"] * 7)
    assert len(figure.axes) == 10 and len(shown(figure)) == 7
    assert figure.axes[6].get_title() == "g" and figure.axes[6].title.get_color() == "red"


def test_curves_draw_what_the_history_holds():
    history = {
        "train_loss": [3.0, 2.0],
        "validation_loss": [2.5, 2.6],
        "train_accuracy": [1],
        "validation_accuracy": [2],
    }
    axes = curves(history, "loss")
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3.0, 2.0], [2.5, 2.6]]
    assert axes.lines[0].get_xdata().tolist() == [1, 2] and axes.get_ylabel() == "loss"
    assert curves(history, ax=axes) is axes
    assert axes.get_ylabel() == "accuracy (%)"
