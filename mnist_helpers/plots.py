"""Pictures: arrays in, Axes or a closed Figure out. Nothing here saves a file or imports the rest of the package."""

import math

import matplotlib.pyplot as plt
import numpy as np

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe and Ito's colour-blind-safe palette


def image_grid(images, titles=None, colors=None, title=None, columns=5, size=1.5, cmap="gray"):
    """Return a closed Figure of pictures in rows.

    Args:
        images: array or tensor (N, H, W), or (N, H, W, 3) for colour; every picture is shown from its own least value
            (black) to its greatest (white).
        titles: N texts, one above each picture.
        colors: N colours for the titles.
        title: a text above the whole.
        columns: pictures in a row.
        size: inches a picture.
        cmap: matplotlib's name of the colours for (H, W) pictures.
    """
    images = np.asarray(images)
    rows = math.ceil(len(images) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.3) * rows), squeeze=False, layout="constrained"
    )
    for index, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if index < len(images):
            axis.imshow(images[index], cmap=cmap)
            if titles is not None:
                axis.set_title(titles[index], color=colors[index] if colors is not None else "black", fontsize=11)
    if title is not None:
        figure.suptitle(title, fontsize=10, color="gray")
    plt.close(figure)  # else a notebook would show it twice: returned and still open
    return figure


def show5(loader):
    """Return a closed Figure of five images of the loader's next batch with their labels, in one row.

    Works on any loader of (images, labels), images (B, H, W) or (B, C, H, W). The normalisation is undone for the eye
    with the loader's `mean` and `std` where it has them, and with the batch's range otherwise; the loader's `source`,
    where it has one, stands above.
    """
    images, labels = next(iter(loader))
    images = np.asarray(images[:5].cpu(), dtype=np.float32)
    mean, std = getattr(loader, "mean", None), getattr(loader, "std", None)
    if mean is not None and std is not None:
        images = images * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
    else:
        images = (images - images.min()) / max(np.ptp(images), 1e-12)
    images = images.clip(0, 1)
    if images.ndim == 4:  # (5, C, H, W)
        images = images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)
    return image_grid(images, [str(int(label)) for label in labels[:5]], title=getattr(loader, "source", None))


def curves(history, quantity="accuracy", ax=None):
    """Draw a run's training and validation curve over the epochs and return the Axes.

    Args:
        history: anything whose `history["train_accuracy"]` and the like are lists with one number an epoch.
        quantity: "accuracy" (percent) or "loss".
        ax: where to draw; a new figure unless given.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
    epochs = range(1, len(history[f"train_{quantity}"]) + 1)
    ax.plot(epochs, history[f"train_{quantity}"], "o-", color=BLUE, label="training", markersize=4)
    ax.plot(epochs, history[f"validation_{quantity}"], "s-", color=ORANGE, label="validation", markersize=4)
    ax.set(xlabel="epoch", ylabel="accuracy (%)" if quantity == "accuracy" else quantity)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
