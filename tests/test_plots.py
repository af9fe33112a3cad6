import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mnist_helpers import plots
from mnist_helpers.data.loaders import make_loaders


def shown(figure):
    """Return the pictures of a figure's axes that show one."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


@pytest.mark.parametrize("plain", [False, True])
def test_show5_undoes_the_normalisation(digits, plain):
    training, _ = make_loaders(digits, 16, "mnist", device="cpu", plain=plain)
    training.sampler.set_epoch(4)
    figure = plots.show5(training)
    training.sampler.set_epoch(4)
    images, labels = next(iter(training))
    assert [axis.get_title() for axis in figure.axes] == [str(int(label)) for label in labels[:5]]
    for picture, image in zip(shown(figure), images[:5]):
        np.testing.assert_allclose(picture, (image[0] * 0.3081 + 0.1307).clip(0, 1), atol=1e-6)
    assert figure.get_suptitle() == "synthetic"
    assert isinstance(figure, Figure) and plt.get_fignums() == [], "closed, so that a notebook shows it once"


def test_show5_takes_any_loader():
    for shape in ((9, 28, 28), (9, 1, 28, 28), (9, 3, 28, 28), (2, 1, 5, 7)):
        images = torch.linspace(-3, 9, int(np.prod(shape))).view(shape)
        pictures = shown(plots.show5([(images, torch.zeros(len(images)))]))
        assert len(pictures) == min(5, len(images))
        assert min(picture.min() for picture in pictures) == 0 and max(picture.max() for picture in pictures) <= 1


def test_image_grid_fills_rows_and_leaves_the_rest_empty():
    figure = plots.image_grid(torch.rand(7, 4, 4, generator=torch.Generator()), titles="abcdefg", colors=["red"] * 7)
    assert len(figure.axes) == 10 and len(shown(figure)) == 7
    assert figure.axes[6].get_title() == "g" and figure.axes[6].title.get_color() == "red"


HISTORY = {
    "epoch": [16, 17, 18],
    "train_loss": [3.0, 2.0, 1.5],
    "validation_loss": [2.5, 2.6, 2.4],
    "train_accuracy": [90.0, 91.0, 92.0],
    "validation_accuracy": [89.0, 90.0, 90.5],
    "learning_rate": [1e-3, 1e-3, 1e-4],
}


def test_image_grid_takes_what_torch_gives():
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    figure = plots.image_grid(images, titles=torch.tensor([3, 4]))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["3", "4"]
    np.testing.assert_allclose(shown(figure)[1], images[1, 0].detach())


def test_rows_without_titles_need_no_room():
    heights = [
        plots.image_grid(np.zeros((4, 3, 3)), titles=titles, columns=2).get_size_inches()[1]
        for titles in ("abcd", ["a", "b", "", ""], None)
    ]
    assert heights[0] > heights[1] > heights[2]


def test_a_grid_without_images_or_with_too_few_titles_is_refused():
    for n, titles in ((0, None), (3, "ab")):
        with pytest.raises(ValueError, match=f"a grid needs images, and as many titles: {n} and"):
            plots.image_grid(np.zeros((n, 3, 3)), titles=titles)


def test_image_grid_draws_into_axes_that_are_given():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.image_grid(np.eye(4)[None].repeat(3, 0), titles="abc", title="three", columns=2, ax=right) is right
    assert right.get_title() == "three" and not left.child_axes
    pictures = [axis for axis in right.child_axes if axis.images]
    assert [axis.get_title() for axis in pictures] == ["a", "b", "c"]
    boxes = [axis.get_position() for axis in pictures]
    assert boxes[0].x1 < boxes[1].x0 and boxes[0].y0 > boxes[2].y1, "side by side, and below one another"


def test_curves_draw_what_the_history_holds_and_mark_the_drop():
    axes = plots.curves(HISTORY, "loss")
    training, validation, drop = axes.lines
    assert training.get_ydata().tolist() == HISTORY["train_loss"]
    assert validation.get_ydata().tolist() == HISTORY["validation_loss"]
    assert training.get_xdata().tolist() == [16, 17, 18] and axes.get_ylabel() == "loss"
    assert drop.get_xdata() == [17.5, 17.5] and drop.get_label() == "rate 0.001 to 0.0001"
    assert training.get_color() != validation.get_color() and training.get_marker() != validation.get_marker()
    assert plots.curves(HISTORY, ax=axes) is axes
    assert axes.get_ylabel() == "accuracy (%)"


def test_gliding_rates_are_not_marked():
    steps = {(1e-3, 9e-4, 7e-4): 0, (1e-3, 7e-4, 2e-4): 0, (1e-3, 1e-3, 5e-4): 1}
    steps[4e-3, 2e-3, 1e-3] = 1  # a first drop to a half may be a step
    for rates, marked in steps.items():
        assert len(plots.curves(HISTORY | {"learning_rate": rates}, "loss").lines) == 2 + marked, rates


def test_without_validation_there_is_no_validation_curve():
    history = HISTORY | {"validation_loss": [None] * 3, "validation_accuracy": [None] * 3}
    lines = plots.curves(history, "loss").lines
    assert [line.get_label() for line in lines[:-1]] == ["training"], "the last marks the drop of the rate"
    axes = plots.compare_curves({"one": [HISTORY, HISTORY], "all images": [history, history]})
    assert [line.get_label() for line in axes.lines] == ["one", "all images (not measured)"]
    assert axes.lines[0].get_ydata().tolist() == HISTORY["validation_accuracy"]
    axes.figure.canvas.draw()


def test_compared_curves_are_means_over_the_runs_with_their_range():
    other = HISTORY | {"validation_accuracy": [91.0, 92.0, 91.5]}
    third = HISTORY | {"validation_accuracy": [90.0, 91.0, 91.0]}
    axes = plots.compare_curves({"one": [HISTORY], "two": [HISTORY, other, third]})
    assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle()
    assert [line.get_label() for line in axes.lines] == ["one", "two"]
    assert axes.lines[0].get_ydata().tolist() == HISTORY["validation_accuracy"]
    assert axes.lines[1].get_ydata().tolist() == [90, 91, 91]
    (band,) = axes.collections
    assert band.get_datalim(axes.transData).intervaly.tolist() == [89, 92]
    assert axes.get_ylabel() == "validation accuracy (%)"


def test_runs_of_different_lengths_have_no_mean_curve():
    short = {name: values[:2] for name, values in HISTORY.items()}
    for histories in ([HISTORY, short], []):
        with pytest.raises(ValueError, match="two needs runs, all with the same number of epochs"):
            plots.compare_curves({"one": [HISTORY], "two": histories})


def test_schedules_run_over_epochs():
    axes = plots.schedules({"step": [1e-3] * 4 + [1e-4] * 2}, n_batches=2)
    assert axes.lines[0].get_xdata().tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert axes.get_yscale() == "log"


def test_class_balance_shows_shares_in_percent():
    axes = plots.class_balance({"training": [0, 0, 0, 1], "test": torch.tensor([9, 9])})
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[75, 25] + [0] * 8, [0] * 9 + [100]]
    assert [text.get_text() for text in axes.get_legend().get_texts()][-2:] == ["training (4)", "test (2)"]
    assert len({bars[0].get_facecolor() for bars in axes.containers}) == 2
    assert len({bars[0].get_hatch() for bars in axes.containers}) == 2
    assert len({bars[0].get_x() for bars in axes.containers}) == 2, "side by side"


def test_points_are_drawn_as_the_digits_they_are():
    axes = plots.scatter_digits(np.arange(40).reshape(20, 2), np.arange(20) % 10)
    assert [group.get_offsets().tolist() for group in axes.collections][3] == [[6, 7], [26, 27]]
    assert len({tuple(group.get_facecolor()[0]) for group in axes.collections}) == 10


def test_reliability_sets_accuracy_against_confidence_bin_by_bin():
    axes = plots.reliability([0.55, 0.9], [1.0, 0.75], [4, 1200])
    assert axes.lines[1].get_xydata().tolist() == [[0.55, 1.0], [0.9, 0.75]]
    assert [text.get_text() for text in axes.texts] == ["4", "1,200"]


def test_accuracy_is_drawn_against_its_cost_with_mean_and_deviation():
    axes = plots.accuracy_against({"slow": 100, "fast": 1}, {"fast": [97, 99], "slow": [99, 99.5]}, "seconds")
    assert [axes.lines[index].get_xydata().tolist() for index in (0, 3)] == [[[100, 99.25]], [[1, 98]]]
    low, high = axes.collections[1].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(2**0.5) and axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["slow", "fast"]
    one = plots.accuracy_against({"one": 1}, {"one": [99]}, "seconds", hollow=["one"])
    assert not one.collections, "one run has no deviation"
    faces = [line.get_markerfacecolor() for line in (axes.lines[0], one.lines[0])]
    assert faces[0] == axes.lines[0].get_color() and faces[1] == "white"


def test_a_range_test_is_drawn_with_its_suggestion():
    axes = plots.rate_test([1e-3, 1e-2, 1e-1], [2.3, 1.0, 4.0], 1e-2)
    assert axes.get_xscale() == "log" and axes.lines[0].get_ydata().tolist() == [2.3, 1.0, 4.0]
    assert set(axes.lines[1].get_xdata()) == {1e-2} and "0.01" in axes.get_legend().get_texts()[0].get_text()


def test_a_heat_map_has_its_values_in_its_cells():
    axes = plots.heat_map([0.1, 0.01], [1e-6, 1e-5, 1e-4], [[1, 2, 3], [4, np.nan, 6]], ("rate", "decay"))
    assert [text.get_text() for text in axes.texts] == ["1.00", "2.00", "3.00", "4.00", "", "6.00"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1e-06", "1e-05", "0.0001"]
    assert axes.get_ylabel() == "rate" and axes.texts[0].get_color() != axes.texts[5].get_color()


def test_a_trial_is_a_line_through_its_choices():
    choices = {"rate": [0.001, 0.01, 0.1], "optimizer": ["SGD", "Adam", "SGD"], "same": [2, 2, 2]}
    axes = plots.parallel_coordinates(choices, [97.0, 99.0, 98.0])
    lines = [line.get_ydata().tolist() for line in axes.lines[:3]]
    assert lines == [
        [0, 0, 0, 0],
        [1, 0, 0, pytest.approx(0.5)],
        [pytest.approx(0.5), 1, 0, 1],
    ], "the best is drawn last; rates lie on a logarithmic scale"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["rate", "optimizer", "same", "accuracy (%)"]
    marks = [text.get_text() for text in axes.texts]
    assert marks == ["0.001", "0.01", "0.1", "SGD", "Adam", "2", "97", "98", "99"]
    many = plots.parallel_coordinates({"rate": np.linspace(1, 2, 9)}, np.arange(9.0))
    assert [text.get_text() for text in many.texts] == ["1", "2", "0", "8"], "of many values, the ends are told"


def test_bars_stand_in_the_order_of_their_size():
    axes = plots.bars({"small": 0.1, "large": 0.7, "middle": 0.2}, "share")
    assert [patch.get_width() for patch in axes.patches] == [0.1, 0.2, 0.7]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["small", "middle", "large"]


def test_everything_draws_where_it_is_told():
    for draw in (
        lambda ax: plots.accuracy_against({"one": 3.0}, {"one": [98, 99]}, "seconds", ax=ax),
        lambda ax: plots.reliability([0.5], [0.5], [1], ax=ax),
        lambda ax: plots.curves(HISTORY, ax=ax),
        lambda ax: plots.compare_curves({"one": [HISTORY]}, ax=ax),
        lambda ax: plots.schedules({"step": [1e-3]}, 1, ax=ax),
        lambda ax: plots.class_balance({"all": [1]}, ax=ax),
        lambda ax: plots.scatter_digits(np.zeros((1, 2)), [1], ax=ax),
        lambda ax: plots.image_grid(np.zeros((2, 3, 3)), ax=ax),
        lambda ax: plots.rate_test([0.1, 1.0], [2.0, 1.0], ax=ax),
        lambda ax: plots.heat_map([1], [1], [[0.5]], ax=ax),
        lambda ax: plots.parallel_coordinates({"rate": [0.1]}, [99.0], ax=ax),
        lambda ax: plots.bars({"one": 1.0}, "share", ax=ax),
    ):
        plt.close("all")
        figure, axes = plt.subplots()
        assert draw(axes) is axes and plt.get_fignums() == [figure.number]
        figure.canvas.draw()
