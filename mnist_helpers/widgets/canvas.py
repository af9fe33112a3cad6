"""The drawing pad's surface, the only part of it that needs anywidget and JavaScript (pad.js)."""

from pathlib import Path

import anywidget
import traitlets

from ..data.strokes import PEN


class Canvas(anywidget.AnyWidget):
    """A square to draw on with mouse, pen or finger.

    `strokes` is a list of strokes, each a list of points [x, y] from 0 (left, top) to 1. The page sends it again and
    again while you draw, and draws it again when it is changed here.
    """

    _esm = (Path(__file__).parent / "pad.js").read_text(encoding="utf-8")
    strokes: traitlets.List = traitlets.List().tag(sync=True, echo_update=False)  # ipywidgets 8 would echo each drawing
    side = traitlets.Int(280).tag(sync=True)
    pen = traitlets.Float(PEN).tag(sync=True)
