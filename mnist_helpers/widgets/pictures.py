"""What the widgets show, as PNG bytes and HTML text; nothing here knows of widgets."""

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike
from PIL import Image

from ..plots import BLUE, GREEN, ORANGE, RED
from .selection import Facts


def png(picture: ArrayLike, factor: int = 1) -> bytes:
    """Return a picture as PNG bytes: uint8 (H, W) or (H, W, 3), each pixel a square of `factor` pixels."""
    enlarged = np.asarray(picture).repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(enlarged).save(buffer, "PNG", compress_level=1)  # speed matters here, size hardly
    return buffer.getvalue()


def data_address(picture: ArrayLike) -> str:
    """Return a uint8 picture (H, W) or (H, W, 3) as a `data:` address, for HTML and CSS."""
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"


def overlay(image: ArrayLike, heat: ArrayLike) -> np.ndarray:
    """Return a digit with a map over it, from grey through violet to yellow where the map is largest.

    Args:
        image: uint8 (28, 28).
        heat: float (28, 28). Values below 0 count as 0; a map with nothing above 0 leaves the digit grey.

    Returns:
        uint8 array (28, 28, 3).
    """
    grey = np.asarray(image, dtype=np.float32)[..., None] / 255
    positive = np.clip(np.asarray(heat, dtype=np.float32), 0, None)
    positive = positive / max(positive.max(), 1e-12)
    colors = colormaps["inferno"](positive)[..., :3]
    weight = positive[..., None] ** 0.5 * 0.85
    return np.round(255 * ((1 - weight) * 0.6 * grey + weight * colors)).astype(np.uint8)


def cards(images: Any, texts: Iterable[str], side: int = 56) -> str:
    """Return HTML with pictures uint8 (N, 28, 28) in a row, `side` pixels large, each with its text (HTML) below it."""
    parts = [
        f'<div><img src="{data_address(image)}" alt="" '
        f'style="width:{side}px;height:{side}px;image-rendering:pixelated">'
        f'<div style="text-align:center;line-height:15px;font-size:11px">{text}</div></div>'
        for image, text in zip(images, texts)
    ]
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px">{"".join(parts)}</div>'


def bars(probabilities: ArrayLike, label: int | None = None) -> str:
    """Return HTML with a bar for each digit's probability, the highest bold and blue.

    Where the label is known, its row is marked, and the highest bar is green (right) or orange-red (wrong).
    """
    values = np.asarray(probabilities, dtype=float)
    top, rows = int(values.argmax()), []
    for digit, value in enumerate(values):
        color = "#999" if digit != top else BLUE if label is None else GREEN if top == label else RED
        weight = "bold" if digit == top else "normal"
        mark = " &#9668; label" if digit == label else ""
        rows.append(
            f'<tr style="font-weight:{weight}"><td style="padding:0 6px 0 0">{digit}</td>'
            f'<td style="width:120px;padding:0"><div style="height:13px;width:{100 * value:.1f}%;min-width:1px;'
            f'background:{color}"></div></td>'
            f'<td style="padding:0 0 0 6px;white-space:nowrap">{value:.1%}{mark}</td></tr>'
        )
    return (
        '<table class="mnist-bars" style="line-height:17px;font-size:12px;border-collapse:collapse">'
        + "".join(rows)
        + "</table>"
    )


def caption(number: int, facts: Facts) -> str:
    """Return HTML with what the `Facts` know of the digit `number`: label, prediction, confidence, margin and loss."""
    text = f"no. {number:,} &middot; label <b>{facts.labels[number]}</b>"
    if facts.predictions is None or facts.confidence is None or facts.margin is None or facts.loss is None:
        return text
    right = bool(facts.predictions[number] == facts.labels[number])
    color, verdict = (GREEN, "right") if right else (RED, "wrong")
    return (
        f'{text} &middot; read as <b style="color:{color}">{facts.predictions[number]} ({verdict})</b><br>'
        f"confidence {facts.confidence[number]:.1%} &middot; margin {facts.margin[number]:.1%} "
        f"&middot; loss {facts.loss[number]:.3f}"
    )


def thumbnails(images: Any, page_class: str) -> str:
    """Return a style sheet that puts one picture on each button of a page and hides the buttons left over.

    Args:
        images: uint8 (N, 28, 28); N may be 0.
        page_class: the CSS class of the box that holds the buttons.
    """
    n, side, button = len(images), 56, f".{page_class} button"
    hidden = f"{button}:nth-child(n+{n + 1}){{visibility:hidden}}"
    if n == 0:
        return f"<style>{hidden}</style>"
    address = data_address(np.hstack(list(np.asarray(images))))  # one picture, of which each button shows its part
    places = "".join(f"{button}:nth-child({k + 1}){{background-position:{-k * side}px 0}}" for k in range(n))
    return (
        f"<style>{button}{{background:url({address}) no-repeat;background-size:{n * side}px {side}px;"
        f"image-rendering:pixelated;width:{side}px;height:{side + 18}px;padding:{side}px 0 0;margin:0;"
        f"line-height:18px;font-size:11px;overflow:hidden;border:0;color:inherit}}{places}{hidden}</style>"
    )


def highlight(page_class: str, place: int, wrong: Iterable[int] = ()) -> str:
    """Return a style sheet that frames a page's button at `place` and colours the captions at the places `wrong`."""
    marks = ",".join(f".{page_class} button:nth-child({k + 1})" for k in wrong)
    colored = f"{marks}{{color:{RED};font-weight:bold}}" if marks else ""
    frame = f"outline:3px solid {ORANGE};outline-offset:-3px"
    return f"<style>{colored}.{page_class} button:nth-child({place + 1}){{{frame}}}</style>"
