"""Pictures: arrays in, Axes or a closed Figure out. Nothing here saves a file or imports the rest of the package.

Where a function takes `ax`, it draws there, and otherwise into a new figure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

# Okabe and Ito's palette, which colour-blind readers can tell apart. Nothing is told apart by colour alone.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
SERIES = BLUE, ORANGE, GREEN, RED, PURPLE, SKY, "#000000"
LINES: list[Any] = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]


class Columns(Protocol):
    """A run's history: one number an epoch under each column's name, such as "train_loss"; None if not measured."""

    def __getitem__(self, column: str, /) -> Sequence[float | None]: ...


def image_grid(
    images: Any,
    titles: Any = None,
    colors: Sequence[str] | None = None,
    title: str | None = None,
    columns: int = 5,
    size: float = 1.5,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Return a closed Figure of pictures in rows, or the Axes they were drawn into.

    Args:
        images: array or tensor (N, H, W), (N, 1, H, W), or (N, H, W, 3) for colour. Each picture is shown from its own
            least value (black) to its greatest (white).
        titles: N texts, one above each picture.
        colors: N colours for the titles.
        title: a text above the whole.
        columns: pictures in a row.
        size: inches a picture.

    Raises:
        ValueError: no images, or another number of titles.
    """
    import matplotlib.pyplot as plt  # here, as below: slow to import, and most of the package needs none

    images, titles = _array(images), None if titles is None else [str(title) for title in _array(titles).tolist()]
    if len(images) == 0 or (titles is not None and len(titles) != len(images)):
        raise ValueError(f"a grid needs images, and as many titles: {len(images)} and {titles and len(titles)}")
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    rows = math.ceil(len(images) / columns)
    no_ticks: Any = {"xticks": [], "yticks": []}  # though no axis is shown, titles look for their place around ticks
    if ax is None:
        titled = sum(any(titles[row * columns : (row + 1) * columns]) for row in range(rows)) if titles else 0
        height = size * rows + 0.3 * titled + (0.3 if title else 0)
        figure = plt.figure(figsize=(size * columns, height), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False, subplot_kw=no_ticks).flat)
        figure.suptitle(title or "", fontsize=10, color="gray")
        plt.close(figure)  # else a notebook would show it twice: returned and still open
    else:
        share = 0.8 if titles is not None else 0.95  # the rest of each row is for the titles
        places = [(index % columns / columns, 1 - (index // columns + 1) / rows) for index in range(rows * columns)]
        axes = [ax.inset_axes((left, bottom, 0.95 / columns, share / rows), **no_ticks) for left, bottom in places]
        ax.set_axis_off()
        ax.set_title(title or "")
    for index, axis in enumerate(axes):
        axis.set_axis_off()
        if index < len(images):
            axis.imshow(images[index], cmap="gray", interpolation="nearest")
            if titles is not None:
                axis.set_title(titles[index], color=colors[index] if colors is not None else "black", fontsize=11)
    return figure if ax is None else ax


def show5(loader: Iterable) -> Figure | Axes:
    """Return a closed Figure of five images of the loader's next batch with their labels, in one row.

    Args:
        loader: any loader of (images, labels), images (B, H, W) or (B, C, H, W). Normalisation is undone with its
            `mean` and `std`, or, without these, by stretching the images to their range. Its `source` is the title.
    """
    images, labels = next(iter(loader))
    images = _array(images[:5]).astype(np.float32)
    mean, std = getattr(loader, "mean", None), getattr(loader, "std", None)
    if mean is not None and std is not None:
        images = images * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
    else:
        images = (images - images.min()) / max(np.ptp(images), 1e-12)
    images = images.clip(0, 1)
    if images.ndim == 4:  # (5, C, H, W)
        images = images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)
    return image_grid(images, [str(int(label)) for label in labels[:5]], title=getattr(loader, "source", None))


def curves(history: Columns, quantity: str = "accuracy", ax: Axes | None = None) -> Axes:
    """Draw a run's training curve over the epochs, and its validation curve if there is one, and return the Axes.

    A dotted line marks where a steady learning rate fell at once to half or less.

    Args:
        history: a `History`, or anything else with the columns "epoch", "train_accuracy", "learning_rate" and so on.
        quantity: "accuracy" (percent) or "loss".
    """
    ax, epochs = _epoch_axes(ax, quantity), _numbers(history, "epoch")
    ax.plot(epochs, _numbers(history, f"train_{quantity}"), "o-", color=BLUE, label="training", markersize=4)
    validation = _numbers(history, f"validation_{quantity}")
    if not np.isnan(validation).all():
        ax.plot(epochs, validation, "s-", color=ORANGE, label="validation", markersize=4)
    rates = _numbers(history, "learning_rate")
    for epoch, earlier, (before, after) in zip(epochs, [*rates[:1], *rates], pairwise(rates)):
        if after <= before / 2 and before == earlier:
            ax.axvline(epoch + 0.5, color="gray", linestyle=":", label=f"rate {before:g} to {after:g}")
    ax.legend()
    return ax


def compare_curves(
    runs: Mapping[str, Sequence[Columns]], quantity: str = "validation_accuracy", ax: Axes | None = None
) -> Axes:
    """Draw one quantity of several systems over the epochs and return the Axes.

    Args:
        runs: dict from a system's name to its runs' histories, one for each seed and equally long. The line is their
            mean, the shade reaches from the lowest to the highest.
        quantity: the histories' column. A system without it has no line, and its name says "not measured".

    Raises:
        ValueError: a system has no runs, or runs of different lengths.
    """
    for name, histories in runs.items():
        if len({len(history["epoch"]) for history in histories}) != 1:
            raise ValueError(f"{name} needs runs, all with the same number of epochs, to have a mean curve")
    ax = _epoch_axes(ax, quantity)
    for (name, histories), color, line in zip(runs.items(), cycle(SERIES), cycle(LINES)):
        values = np.stack([_numbers(history, quantity) for history in histories])  # (seeds, epochs)
        epochs = _numbers(histories[0], "epoch")
        label = f"{name} (not measured)" if np.isnan(values).all() else name
        ax.plot(epochs, values.mean(axis=0), color=color, linestyle=line, label=label)
        if len(values) > 1:
            ax.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
    ax.legend()
    return ax


def schedules(rates: Mapping[str, Sequence[float]], n_batches: int, ax: Axes | None = None) -> Axes:
    """Draw learning rates over the epochs, on a logarithmic axis, and return the Axes.

    Args:
        rates: dict from a schedule's name to its rate in each batch, as `learning_rates` gives it.
        n_batches: batches in an epoch.
    """
    ax = _epoch_axes(ax, "learning rate")
    for (name, values), color, line in zip(rates.items(), cycle(SERIES), cycle(LINES)):
        ax.plot(np.arange(len(values)) / n_batches, values, color=color, linestyle=line, label=name)
    ax.set_yscale("log")
    ax.legend()
    return ax


def class_balance(parts: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Draw the share of each digit in several sets of labels, in percent, and return the Axes.

    Args:
        parts: dict from a part's name to its labels (N,), 0 to 9.
    """
    ax = _axes(ax, 8, 3)
    width = 0.8 / len(parts)
    for index, ((name, labels), color, hatch) in enumerate(zip(parts.items(), cycle(SERIES), cycle(("", "//", "..")))):
        shares = 100 * np.bincount(_array(labels), minlength=10) / len(labels)
        places = np.arange(10) + (index - (len(parts) - 1) / 2) * width
        ax.bar(places, shares, width, color=color, hatch=hatch, edgecolor="white", label=f"{name} ({len(labels):,})")
    ax.axhline(10, color="gray", linestyle=":", linewidth=1)
    ax.set(xlabel="digit", ylabel="share (%)", xticks=range(10), ylim=(0, 1.3 * ax.dataLim.y1))
    ax.legend(loc="upper center", ncols=len(parts))  # above the bars
    return ax


def reliability(
    confidence: Sequence[float], accuracy: Sequence[float], counts: Sequence[int], ax: Axes | None = None
) -> Axes:
    """Draw the accuracy against the confidence, bin by bin, and return the Axes.

    A calibrated system lies on the diagonal: where it is 80 % confident, it is right 80 % of the time.

    Args:
        confidence, accuracy: of each bin, from 0 to 1, as `calibration.confidence_bins` returns them.
        counts: the number of images in each bin, written beside its point.
    """
    ax = _axes(ax, 4.5, 4.5)
    ax.plot([0, 1], [0, 1], color="gray", linestyle=":")
    ax.plot(confidence, accuracy, "o", color=BLUE)
    for x, y, n in zip(confidence, accuracy, counts):
        ax.annotate(f"{n:,}", (x, y), xytext=(5, -11), textcoords="offset points", fontsize=8)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.15), ylim=(0, 1.05))
    return ax


def accuracy_against(
    costs: Mapping[str, float],
    accuracies: Mapping[str, Sequence[float]],
    label: str,
    ax: Axes | None = None,
    hollow: Collection[str] = (),
) -> Axes:
    """Draw the mean and standard deviation of several systems' accuracy against a cost and return the Axes.

    Args:
        costs: dict from a system's name to its cost, such as seconds; the axis is logarithmic.
        accuracies: dict from the same names to their runs' accuracies in percent.
        label: what the cost is.
        hollow: names of the systems whose marker is not filled.
    """
    ax = _axes(ax, 6, 4.5)
    for (name, cost), color, marker in zip(costs.items(), cycle(SERIES), cycle("os^vDP*X")):
        spread = np.std(accuracies[name], ddof=1) if len(accuracies[name]) > 1 else None
        face = "white" if name in hollow else color
        mean = float(np.mean(accuracies[name]))
        ax.errorbar(cost, mean, spread, fmt=marker, color=color, markerfacecolor=face, capsize=3, label=name)
    ax.set(xscale="log", xlabel=label, ylabel="accuracy (%), mean ± std")
    ax.grid(alpha=0.3)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return ax


def rate_test(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the loss against the learning rate of a range test, on a logarithmic axis, and return the Axes.

    Args:
        rates, losses: as `lr_find` returns them.
        suggestion: a rate to mark.
    """
    ax = _axes(ax, 5, 3.5)
    ax.plot(rates, losses, color=BLUE)
    if suggestion is not None:
        ax.axvline(suggestion, color=ORANGE, linestyle="--", label=f"suggestion: {suggestion:.2g}")
        ax.legend()
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
    ax.grid(alpha=0.3)
    return ax


def heat_map(
    rows: Sequence,
    columns: Sequence,
    values: ArrayLike,
    labels: tuple[str, str] = ("", ""),
    places: int = 2,
    ax: Axes | None = None,
) -> Axes:
    """Draw a table of values as coloured cells with the values in them, and return the Axes.

    Args:
        rows, columns: the headings of the R rows and C columns, numbers or texts.
        values: (R, C); NaN is an empty cell.
        labels: what the rows and the columns are.
        places: decimals of the values.
    """
    ax = _axes(ax, 1.5 + 1.1 * len(columns), 1 + 0.6 * len(rows))
    values = np.asarray(values, dtype=float)
    ax.imshow(values, cmap="cividis", aspect="auto")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value < middle else "black"
        ax.text(column, row, f"{value:.{places}f}" if np.isfinite(value) else "", ha="center", va="center", color=color)
    ax.set(xlabel=labels[1], ylabel=labels[0], xticks=range(len(columns)), yticks=range(len(rows)))
    for set_labels, headings in ((ax.set_xticklabels, columns), (ax.set_yticklabels, rows)):
        set_labels([heading if isinstance(heading, str) else f"{heading:.4g}" for heading in headings])
    return ax


def parallel_coordinates(
    choices: Mapping[str, Sequence], scores: Sequence[float], label: str = "accuracy (%)", ax: Axes | None = None
) -> Axes:
    """Draw each trial of a search as a line through its settings, coloured by its score, and return the Axes.

    Args:
        choices: dict from a hyperparameter's name to its value in each trial, (T,). Numbers of different magnitudes
            get a logarithmic scale, texts one place each.
        scores: (T,), shown on the last vertical axis and by colour, from dark (the lowest) to light.
        label: what the scores are.
    """
    from matplotlib import colormaps

    ax = _axes(ax, 1.8 * (len(choices) + 1) + 1, 3.5)
    places, marks = zip(*(_vertical_axis(values) for values in [*choices.values(), scores]))
    colors = colormaps["cividis"](places[-1])
    for number in np.argsort(places[-1]):  # the best are drawn last, above the others
        ax.plot([column[number] for column in places], color=colors[number], linewidth=1.5)
    for x, texts in enumerate(marks):
        ax.axvline(x, color="gray", linewidth=0.8)
        for y, text in texts:
            ax.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
    ax.set(xticks=range(len(marks)), xlim=(-0.1, len(marks) - 0.6), yticks=[])
    ax.set_xticklabels([*choices, label])
    return ax


def bars(shares: Mapping[str, float], label: str, ax: Axes | None = None) -> Axes:
    """Draw named numbers as horizontal bars, the largest above, and return the Axes.

    Args:
        shares: dict from a name to its number.
        label: what the numbers are.
    """
    ax = _axes(ax, 5, 0.6 + 0.45 * len(shares))
    names = sorted(shares, key=lambda name: shares[name])
    drawn = ax.barh(names, [shares[name] for name in names], color=BLUE)
    ax.bar_label(drawn, fmt="%.2f", padding=3)
    ax.set(xlabel=label, xlim=(0, 1.15 * max(shares.values())))
    return ax


def scatter_digits(points: Any, labels: Any, ax: Axes | None = None) -> Axes:
    """Draw points in the plane, each as its label's digit, and return the Axes.

    Args:
        points: array (N, 2).
        labels: (N,), 0 to 9.
    """
    ax = _axes(ax, 6, 6)
    points, labels = _array(points), _array(labels)
    colors = (*SERIES, "gray", "purple", "saddlebrown")  # ten are needed; the digits themselves tell them apart
    for digit in range(10):
        chosen = points[labels == digit]
        ax.scatter(chosen[:, 0], chosen[:, 1], s=28, marker=f"${digit}$", color=colors[digit], linewidths=0.2)
    ax.set(xticks=[], yticks=[])
    return ax


def _vertical_axis(values):
    """Return (places from 0 to 1, [(place, text)]) of values; of five numbers or more, only the ends have a text."""
    if any(isinstance(value, str) for value in values):
        names = list(dict.fromkeys(values))
        heights = {name: index / max(len(names) - 1, 1) for index, name in enumerate(names)}
        return np.array([heights[value] for value in values]), [(height, name) for name, height in heights.items()]
    numbers = np.array(values, dtype=float)
    low, high = numbers.min(), numbers.max()
    scaled = np.log(numbers) if low > 0 and high / low > 20 else numbers
    places = (scaled - scaled.min()) / max(np.ptp(scaled), 1e-12)
    marked = {place: f"{number:.3g}" for place, number in zip(places.tolist(), values)}
    return places, sorted((place, text) for place, text in marked.items() if place in (0, 1) or len(marked) < 5)


def _array(values):
    """Return a list, array or tensor on any device as a numpy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _numbers(history, column):
    """Return a history's column as float (epochs,), with NaN for what was not measured."""
    return np.array(history[column], dtype=float)


def _axes(ax, width, height):
    """Return `ax`, or the Axes of a new figure of this size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _epoch_axes(ax, quantity):
    """Return `ax`, or the Axes of a new figure, with epochs along it and the quantity's name on its vertical axis."""
    ax = _axes(ax, 5, 3.5)
    label = quantity.replace("_", " ")
    ax.set(xlabel="epoch", ylabel=f"{label} (%)" if quantity.endswith("accuracy") else label)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    return ax
