"""`DrawingPad`: draw a digit, see what a model sees and reads in it, and keep the drawing as your own data."""

import html
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from IPython.display import display
from torch import nn

from ..data.digits import Digits
from ..data.form import to_mnist_form
from ..data.strokes import draw, fitted
from ..evaluation.scores import DEFAULT_MODEL, predict
from ..handwriting.ink import image_in
from ..handwriting.reading import read_digits
from ..handwriting.single import judged, single_form
from ..models.saved import load_model
from .drawings import as_digits, load_drawings, save_drawings, uploaded
from .faults import Faults
from .pictures import bars, png


class DrawingPad:
    """A pad to draw a digit on, with what the model sees (28x28, in MNIST's form) and its probabilities beside it.

    Draw with mouse, pen or finger, or from code: `pad.draw(strokes)`. Where anywidget is not installed, you upload a
    picture file instead.

    Attributes:
        model: as `predict` takes it. After `pad.model = other`, the other model reads the drawing.
        picture: what is drawn, in MNIST's form, as the model sees it: uint8 array (28, 28).
        digit, probabilities: the answer, 0 to 9 and float32 (11,), or (10,) of a model that knows nothing but digits.
            None where nothing is drawn; the digit is None, too, where it is read as no digit.
        errors: from callbacks of the page, which shows them, too.
        view: the ipywidgets box.
    """

    def __init__(self, model: str | Path | nn.Module = DEFAULT_MODEL, *, file: str | Path | None = None):
        """Make a pad.

        Args:
            model: the name of a saved model, or one that `load_model` returned.
            file: where to keep the drawings (`.npz`), beside those in it already. None: only in memory.

        Raises:
            CheckpointError: no such model is saved.
            ValueError: the file holds something else than drawings.
        """
        self.file = None if file is None else Path(file)
        kept = as_digits([], []) if self.file is None else load_drawings(self.file)
        self._images, self._labels = list(kept.images.numpy()), kept.labels.tolist()
        self._model = _loaded(model)
        self._faults, self._filling, self._corrected = Faults(), False, False
        self.errors = self._faults.errors
        self.digit: int | None = None
        self.probabilities: torch.Tensor | None = None
        self.canvas = self._make_canvas() if find_spec("anywidget") else None
        self._build()
        self._read(np.zeros((28, 28), dtype=np.uint8))
        self._show_kept()

    def __repr__(self):
        return f"<DrawingPad: reads {self.digit}, {len(self._labels)} drawings kept>"

    def _ipython_display_(self):
        display(self.view)

    @property
    def model(self) -> nn.Module:
        """The model that reads."""
        return self._model

    @model.setter
    def model(self, model: str | Path | nn.Module) -> None:
        self._model = _loaded(model)
        self._answer()

    @property
    def strokes(self) -> list:
        """What is drawn: a list of strokes, each a list of points [x, y] from 0 to 1."""
        return [] if self.canvas is None else self.canvas.strokes

    @property
    def digits(self) -> Digits:
        """The drawings that were kept, in order, as `Digits` with `source == "drawings"`."""
        return as_digits(self._images, self._labels)

    def draw(self, strokes: list) -> int | None:
        """Replace what is drawn by these strokes and return the digit that the model reads.

        Raises:
            ValueError: they are no lists of points.
        """
        self._read(to_mnist_form(draw(fitted(strokes))))
        if self.canvas is not None:
            self._filling = True  # it has been read already
            self.canvas.strokes = [[[float(x), float(y)] for x, y in stroke] for stroke in strokes]
            self._filling = False
        return self.digit

    def read_file(self, content: bytes, name: str = "the file") -> int | None:
        """Take the digit in a picture file (its bytes), dark on light or light on dark, and return what is read."""
        image = image_in(content, name)
        form, several = single_form(image)
        self._read(form)
        if several:
            text = html.escape(read_digits(image, self._model).text)
            self._answered.value += f" There are several digits, and <code>read_digits</code> reads <b>{text}</b>."
        return self.digit

    def undo(self) -> None:
        """Take the last stroke back."""
        self.draw(self.strokes[:-1])

    def clear(self) -> None:
        """Take all strokes back."""
        self.draw([])

    def keep(self, label: int | None = None) -> None:
        """Keep the drawing with its right label (what was read, or what the page says instead), and clear the pad.

        Raises:
            ValueError: nothing is drawn, or the label is no digit.
            OSError: the file cannot be written.
        """
        if not self.picture.any():
            raise ValueError("there is nothing to keep: draw a digit first")
        if label is None and self.digit is None and not self._corrected:
            raise ValueError("it was read as no digit: say which digit it is")
        label = self.label.value if label is None else label
        if label not in range(10):
            raise ValueError(f"a label is a digit from 0 to 9, not {label!r}")
        self._images.append(self.picture)
        self._labels.append(int(label))
        self._save()
        self.clear()

    def forget(self) -> None:
        """Take the last kept drawing out again."""
        if self._labels:
            del self._images[-1], self._labels[-1]
            self._save()

    def _save(self):
        if self.file is not None:
            save_drawings(self.digits, self.file)
        self._show_kept()

    def _read(self, form):
        """Read a drawing in MNIST's form, uint8 (28, 28)."""
        self.picture = form
        self._answer()

    def _answer(self):
        """Ask the model about the picture, and show picture and answer."""
        self.digit = self.probabilities = None
        if not self.picture.any():
            self._answered.value, self._bars.value, self._corrected = "Nothing is drawn yet.", bars(np.zeros(10)), False
            self._seen.value = png(self.picture, 5)
            return
        _, self.probabilities = predict(self.picture, self._model)
        self.digit, probability, verdict = judged(self.probabilities.cpu().numpy())
        self._bars.value = bars(self.probabilities[:10])  # first: what the hand waits for
        self._seen.value = png(self.picture, 5)
        answers = {"digit": f"It reads <b>{self.digit}</b>", "unsure": f"Unsure: perhaps a <b>{self.digit}</b>"}
        self._answered.value = f"{answers.get(verdict, 'This is <b>no digit</b>')} ({probability:.1%})."
        if not self._corrected and self.digit is not None:
            self._set_label(self.digit)

    # The shell

    def _make_canvas(self):
        from .canvas import Canvas  # here: it needs anywidget

        canvas = Canvas()
        canvas.observe(self._faults.guard(lambda change: self._drawn(change["new"])), "strokes")
        return canvas

    def _build(self):
        """Make the widgets, and connect them."""
        self._seen = ipywidgets.Image(layout=ipywidgets.Layout(width="140px", height="140px", align_self="flex-start"))
        self._bars, self._answered = ipywidgets.HTML(), ipywidgets.HTML()
        self._seen.add_class("mnist-seen"), self._answered.add_class("mnist-answer")
        self.label = ipywidgets.Dropdown(options=range(10), description="It is a", layout=_width(110))
        self.label.style.description_width = "45px"
        self.label.observe(self._faults.guard(lambda _: self._correct()), "value")
        buttons = {}
        for text, icon, work in (
            ("Undo", "undo", self.undo),
            ("Clear", "trash", self.clear),
            ("Keep", "save", self.keep),
            ("Forget last", "times", self.forget),
        ):
            buttons[text] = ipywidgets.Button(description=text, icon=icon, layout=_width(110))
            buttons[text].on_click(self._faults.guard(lambda _button, work=work: work()))
        self.buttons, self._kept = buttons, ipywidgets.HTML()
        correct = ipywidgets.HBox([self.label, buttons["Keep"], buttons["Forget last"]])
        below = [correct, self._kept, self._faults.view]
        if self.canvas is None:
            self.upload = ipywidgets.FileUpload(accept="image/*", multiple=False, layout=_width(160))
            self.upload.observe(self._faults.guard(lambda change: self._uploaded(change["new"])), "value")
            tip = "Upload a picture of one digit, dark on light or light on dark. (With anywidget you could draw it.)"
            left = [ipywidgets.HTML(tip), self.upload, buttons["Clear"]]
        else:
            left = [self.canvas, ipywidgets.HBox([buttons["Undo"], buttons["Clear"]])]
        middle = ipywidgets.VBox([ipywidgets.HTML("What the model sees"), self._seen], layout=_padded())
        right = ipywidgets.VBox([self._answered, self._bars], layout=_padded())
        beside = ipywidgets.VBox([ipywidgets.HBox([middle, right]), ipywidgets.VBox(below, layout=_padded())])
        self.view = ipywidgets.HBox([ipywidgets.VBox(left, layout=ipywidgets.Layout(max_width="300px")), beside])
        self.view.add_class("mnist-drawing-pad")

    def _drawn(self, strokes):
        """Read what came from the page."""
        if not self._filling:
            self._read(to_mnist_form(draw(fitted(strokes))))

    def _uploaded(self, value):
        for name, content in uploaded(value):
            self.read_file(content, name)

    def _correct(self):
        self._corrected = self._corrected or not self._filling

    def _set_label(self, digit):
        self._filling = True
        self.label.value = digit
        self._filling = False

    def _show_kept(self):
        counts = ", ".join(f"{n} × {digit}" for digit, n in sorted(Counter(self._labels).items()))
        where = "" if self.file is None else f" in {html.escape(self.file.name)}"
        self._kept.value = f"Kept{where}: {counts or 'no drawing yet'}."


def _loaded(model):
    """Return a saved model by its name, or a model as it is."""
    return load_model(model, device="cpu") if isinstance(model, (str, Path)) else model


def _width(pixels):
    return ipywidgets.Layout(width=f"{pixels}px", min_width=f"{pixels}px", flex="0 0 auto")


def _padded():
    return ipywidgets.Layout(padding="0 0 0 14px")
