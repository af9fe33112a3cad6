"""`TrainingMonitor`: watch a training while it runs, stop it with Ctrl-C, and change nothing about its results."""

import html
import io
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import ipywidgets
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from ..environment import seeded
from ..models import evaluation_mode
from ..plots import curves
from ..training.history import EpochResult, History
from .faults import Faults
from .pictures import cards


class TrainingMonitor:
    """Shows a training epoch by epoch: its curves, and the digits with the largest loss.

    `history = TrainingMonitor(epochs(...)).run()`, or `for result in TrainingMonitor(epochs(...)): ...`. In a notebook
    with a front end there are pictures; elsewhere each epoch prints one line. The numbers and weights are those of the
    training without it.

    Ctrl-C (in a notebook: Interrupt) ends the training after the running epoch and keeps everything. A second one
    aborts at once with KeyboardInterrupt. The model, if it was given, then has the weights of the last finished epoch.

    Attributes:
        history: the `History` of the epochs so far; it has a `best_state` if the model was given.
        errors: what went wrong in drawing, which never stops the training.
        view: the ipywidgets box.
    """

    def __init__(
        self,
        results: Iterable[EpochResult],
        n_epochs: int | None = None,
        *,
        model: nn.Module | None = None,
        loader: Iterable | None = None,
        title: str = "",
        widget: bool | None = None,
    ):
        """Watch `results`, an iterator of `EpochResult`.

        Args:
            n_epochs: how many there will be, for the text.
            model, loader: the model that is trained, and batches of images (B, 1, 28, 28) with labels (B,), as
                `make_loaders` gives them. Those with the largest loss are shown; finding them reads the loader once
                more each epoch.
            title: above the curves.
            widget: whether to show pictures; by default, in a notebook with a front end.
        """
        self.results, self.n_epochs, self.model, self.loader = results, n_epochs, model, loader
        self.title, self.widget = title, has_front_end() if widget is None else widget
        self.history, self._faults = History(), Faults()
        self.errors = self._faults.errors
        self._line, self._curves = ipywidgets.HTML("the first epoch is running ..."), ipywidgets.Image()
        self._worst = ipywidgets.HTML()
        self.view = ipywidgets.VBox([self._line, self._curves, self._worst, self._faults.view])
        self.view.add_class("mnist-monitor")
        self._interrupts = 0

    def run(self) -> History:
        """Train to the end, or to the first Ctrl-C, and return the `History`."""
        for _ in self:
            pass
        return self.history

    def __iter__(self) -> Iterator[EpochResult]:
        if self.widget:
            display(self.view)
        self._interrupts, last_state = 0, self._state()
        with self._first_interrupt_waits():
            try:
                for result in self.results:
                    last_state = self._state()
                    self.history.epochs.append(result)
                    if self.history.best is result:
                        self.history.best_state = last_state
                    self._faults.guard(self._report)(result)
                    yield result
                    if self._interrupts:
                        self.history.stopped = "interrupted"
                        self._tell(f"Stopped after epoch {result.epoch}, as asked; everything is kept")
                        break
            except KeyboardInterrupt:
                self.history.stopped = "interrupted"
                if self.model is not None and last_state is not None:
                    self.model.load_state_dict(last_state)
                self._tell(f"Aborted; {len(self.history)} finished epochs are kept")
                raise

    @contextmanager
    def _first_interrupt_waits(self):
        """Within the block, count the first interrupt; only a further one raises KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():  # elsewhere Python handles no signals
            yield
            return
        before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupted(self, *_signal):
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt
        # Guarded: the signal may come during a print, within which another one fails
        self._faults.guard(self._tell)("Stopping after this epoch; interrupt again to abort at once")

    def _state(self):
        if self.model is None:
            return None
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _tell(self, text):
        self._line.value = html.escape(text)
        if not self.widget:
            print(text, flush=True)

    def _report(self, result):
        """Show one epoch: a line, and pictures where there is a front end."""
        self._tell(line(result, self.n_epochs))
        if not self.widget:
            return
        self._curves.value = picture_of(self.history, self.title)
        if self.model is not None and self.loader is not None:
            images, labels, answers, losses = worst_digits(self.model, self.loader)
            told = zip(labels.tolist(), answers.tolist(), losses.tolist())
            texts = [f"<b>{label}</b> &rarr; {answer}<br>{loss:.1f}" for label, answer, loss in told]
            self._worst.value = f"the costliest digits now: label &rarr; answer, loss{cards(images, texts, 64)}"


def line(result: EpochResult, n_epochs: int | None = None) -> str:
    """Return an `EpochResult` as one line of text."""
    of = "" if n_epochs is None else f"/{n_epochs}"
    parts = [f"training loss {result.train_loss:.4f}, {result.train_accuracy:.2f} %"]
    if result.validation_loss is not None:
        parts.append(f"validation loss {result.validation_loss:.4f}, {result.validation_accuracy:.2f} %")
    return f"epoch {result.epoch}{of}: {'; '.join(parts)}; {result.seconds:.1f} s"


def picture_of(history: History, title: str = "") -> bytes:
    """Return the curves of loss and accuracy of a history of at least one epoch, as PNG bytes."""
    figure = Figure(figsize=(9, 3), layout="constrained")  # without pyplot, which would show it a second time
    for axis, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        curves(history, quantity, ax=axis)
    figure.suptitle(title, fontsize=10, color="gray", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


@torch.no_grad()
def worst_digits(
    model: nn.Module, loader: Iterable, n: int = 10
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the `n` digits of a loader with the largest loss, the largest first.

    Args:
        model: from images to logits (B, 10). Its mode and the loader's random order are left as they are.
        loader: batches of (images (B, 1, 28, 28), labels (B,)).

    Returns:
        (images uint8 (n, 28, 28) stretched from their least to their greatest value, labels, answers int64 (n,),
        losses float (n,)), or fewer where the loader has fewer.
    """
    device = next(model.parameters()).device
    kept: list[torch.Tensor] = []
    with evaluation_mode(model), _untouched(loader):
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            logits = model(images)
            found = (images[:, 0], labels, logits.argmax(dim=1), F.cross_entropy(logits, labels, reduction="none"))
            together = [torch.cat(parts) for parts in zip(kept, found)] if kept else found
            order = together[-1].argsort(descending=True, stable=True)[:n]
            kept = [part[order] for part in together]
    images, labels, answers, losses = [part.cpu() for part in kept]
    low, high = images.amin(dim=(1, 2), keepdim=True), images.amax(dim=(1, 2), keepdim=True)
    pixels = 255 * (images - low) / (high - low).clamp(min=1e-12)
    return np.round(pixels.numpy()).astype(np.uint8), labels, answers, losses


@contextmanager
def _untouched(loader):
    """Let a loader be read within the block, then put its random order back."""
    sampler, generator = getattr(loader, "sampler", None), getattr(loader, "generator", None)
    epoch, state = getattr(sampler, "epoch", None), None if generator is None else generator.get_state()
    try:
        with seeded(0):  # a DataLoader without a generator of its own draws from torch's
            yield
    finally:
        if epoch is not None:
            sampler.epoch = epoch
        if state is not None:
            generator.set_state(state)


def has_front_end() -> bool:
    """Tell whether somebody is looking at this notebook, as far as can be known.

    Programs that execute notebooks, such as nbclient, say in their requests that they take no input.
    """
    try:
        return bool(get_ipython().get_parent()["content"].get("allow_stdin", True))
    except (AttributeError, KeyError, TypeError):  # no IPython, or one in a terminal
        return False
