"""The widgets of `DigitBrowser`: clicks call it, and what it holds is shown. Core ipywidgets only."""

import functools
import math
import uuid

import ipywidgets
import numpy as np

from .faults import Faults
from .pictures import bars, caption, cards, highlight, overlay, png, thumbnails
from .selection import ORDERS

PER_PAGE, COLUMNS = 24, 12  # thumbnails
BLANK = png(np.full((28, 28), 238, dtype=np.uint8), 9)
FILTERS = ("label", "prediction", "right", "confidence", "loss")


class BrowserShell:
    """The page of a `DigitBrowser`: `view`, which `show` fills with the digit that the browser is at."""

    def __init__(self, browser):
        self.browser, self.faults = browser, Faults()
        self.errors = self.faults.errors
        self._filling = False  # while the controls are filled from code, their changes are no requests
        self._drawn = None  # the numbers on the page of thumbnails
        known = browser.facts.predictions is not None
        rows = [self._moving(), *self._choosing(known)]
        boxes = [*rows, self._digit(known), self.faults.view, *self._page()]
        self.view = ipywidgets.VBox(boxes, layout=ipywidgets.Layout(max_width="920px"))
        self.view.add_class("mnist-browser")

    def show(self) -> None:
        """Fill the page with the digit that the browser is at."""
        self._filling = True
        try:
            self._show_controls()
            if self.browser.index is None:
                self._show_nothing()
            else:
                self._show_digit(self.browser.index)
            self._show_page()
        finally:
            self._filling = False

    # Building: each returns widgets, and connects them with the browser

    def _moving(self):
        """Make what moves through the selection: a row."""
        browser = self.browser
        self.previous, self.next = _button("Previous", "arrow-left"), _button("Next", "arrow-right")
        self.collect = _button("Collect", "star-o", 115)
        self.play = ipywidgets.Play(interval=500, show_repeat=False, layout=ipywidgets.Layout(width="auto"))
        self.slider = ipywidgets.IntSlider(description="position", layout=ipywidgets.Layout(width="260px"))
        self.slider.style.description_width = "55px"
        self.number = ipywidgets.BoundedIntText(max=len(browser.digits) - 1, description="no.", layout=_width(120))
        self.number.style.description_width = "28px"
        self._on_click(self.previous, lambda: browser.step(-1))
        self._on_click(self.next, lambda: browser.step(1))
        self._on_click(self.collect, lambda: browser.drop() if self._collected() else browser.collect())
        for control, move in ((self.play, browser.goto), (self.slider, browser.goto), (self.number, browser.jump)):
            self._on_change(control, lambda control=control, move=move: move(control.value))
        return ipywidgets.HBox(
            [self.previous, self.next, self.play, self.slider, self.number, self.collect],
            layout=ipywidgets.Layout(flex_flow="row wrap"),
        )

    def _choosing(self, known):
        """Make what filters and orders: rows. Without predictions there is little to choose by."""
        digits = [("any", None), *((str(digit), digit) for digit in range(10))]
        costliest = float(self.browser.facts.loss.max()) if known else 0.0
        self.filters = {
            "label": _menu("label", digits),
            "prediction": _menu("read as", digits),
            "right": _menu("answer", [("any", None), ("right", True), ("wrong", False)]),
            "confidence": _range("confidence", 1.0),
            "loss": _range("loss", int(costliest * 100 + 1) / 100),  # the next mark above the costliest
        }
        self.order = _menu("order", ORDERS if known else ORDERS[:1])
        self.descending = ipywidgets.ToggleButton(description="largest first", layout=_width(105))
        for control in self.filters.values():
            self._on_change(control, self._filter)
        for control in (self.order, self.descending):
            self._on_change(control, lambda: self.browser.order(self.order.value, self.descending.value))
        menus = [self.filters[name] for name in FILTERS[: 3 if known else 1]]
        rows = [[*menus, self.order, self.descending], [self.filters["confidence"], self.filters["loss"]]]
        return [ipywidgets.HBox(row, layout=ipywidgets.Layout(flex_flow="row wrap")) for row in rows[: 1 + known]]

    def _digit(self, known):
        """Make the large digit and what stands beside it: a box."""
        self.picture, self.map = (ipywidgets.Image(layout=_square(side)) for side in (252, 112))
        self.caption, self.bars, self.near = (ipywidgets.HTML() for _ in range(3))
        self.picture.add_class("mnist-picture"), self.caption.add_class("mnist-caption")
        self.look = ipywidgets.Dropdown(options=["saliency", "occlusion"], layout=_width(112))
        self._on_change(self.look, lambda: self.browser.look_by(self.look.value))
        beside = [self.bars] if known else []
        if self.browser.model is not None:
            beside.append(ipywidgets.VBox([ipywidgets.HTML("where it looked"), self.map, self.look]))
        below = [ipywidgets.HTML("the nearest training digits: label (distance)"), self.near]
        right = [self.caption, ipywidgets.HBox(beside), *(below if self.browser.neighbours is not None else [])]
        return ipywidgets.HBox([self.picture, ipywidgets.VBox(right, layout=ipywidgets.Layout(padding="0 0 0 14px"))])

    def _page(self):
        """Make the page of thumbnails, which are buttons with a picture put on by a style sheet: boxes."""
        self.back, self.forward = _button("", "angle-double-left", 40), _button("", "angle-double-right", 40)
        self._on_click(self.back, lambda: self.browser.step(-PER_PAGE))
        self._on_click(self.forward, lambda: self.browser.step(PER_PAGE))
        self.thumbnails = [ipywidgets.Button(layout=_width(56)) for _ in range(PER_PAGE)]
        for place, button in enumerate(self.thumbnails):
            self._on_click(button, functools.partial(self._open, place))
        columns = ipywidgets.Layout(grid_template_columns=f"repeat({COLUMNS}, 58px)", grid_gap="2px")
        grid = ipywidgets.GridBox(self.thumbnails, layout=columns)
        self._class = f"mnist-thumbnails-{uuid.uuid4().hex[:8]}"
        grid.add_class(self._class)
        self.pages, self._pictures, self._marks = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        return [ipywidgets.HBox([self.back, self.forward, self.pages]), grid, self._pictures, self._marks]

    # Listening

    def _on_click(self, button, work):
        button.on_click(self.faults.guard(lambda _button: work()))

    def _on_change(self, control, work):
        control.observe(self.faults.guard(lambda _change: None if self._filling else work()), "value")

    def _open(self, place):
        """Show the digit whose thumbnail stands at this place of the page."""
        self.browser.jump(self._drawn[place])

    def _filter(self):
        """Select what menus and sliders ask for. A slider that reaches from end to end asks for nothing."""
        values = {name: control.value for name, control in self.filters.items()}
        for name in ("confidence", "loss"):
            slider = self.filters[name]
            if slider.value == (slider.min, slider.max):
                values[name] = None
        self.browser.filter(**values)

    def _collected(self):
        return self.browser.index in self.browser.selected

    # Showing

    def _show_controls(self):
        """Set the controls to the browser's state, whether clicks or code changed it."""
        browser, last = self.browser, max(len(self.browser) - 1, 0)
        for control in (self.slider, self.play):
            control.max = last
            control.value = browser.position or 0
        self.number.value = browser.index or 0
        self.previous.disabled, self.next.disabled = not browser.position, browser.position in (None, last)
        self.collect.disabled = browser.index is None
        self.collect.icon = "star" if self._collected() else "star-o"
        self.collect.description = f"{'Drop' if self._collected() else 'Collect'} ({len(browser.selected)})"
        self.order.value = browser.choice.get("order", "index")
        self.descending.value = browser.choice.get("descending", False)
        for name, control in self.filters.items():
            wanted = browser.choice.get(name)
            if name in ("confidence", "loss"):
                low, high = wanted or (control.min, control.max)
                wanted = min(max(low, control.min), control.max), min(max(high, control.min), control.max)
            control.value = wanted
        self.look.value = browser.look

    def _show_nothing(self):
        self.picture.value = self.map.value = BLANK
        self.caption.value = "<b>No digit fits.</b> Widen the filters above."
        self.bars.value = self.near.value = ""

    def _show_digit(self, number):
        browser, facts = self.browser, self.browser.facts
        image = browser.digits.images[number]
        self.picture.value, self.caption.value = png(image, 9), caption(number, facts)
        if facts.predictions is not None:
            self.bars.value = bars(facts.probabilities[number], facts.labels[number].item())
        if browser.model is not None:
            self.map.value = png(overlay(image, browser.where_it_looked(number)), 4)
        if browser.neighbours is not None:
            distances, found = browser.nearest_neighbours(number)
            labels = browser.neighbours.labels[found].tolist()
            texts = [f"<b>{label}</b> ({distance:.1f})" for label, distance in zip(labels, distances.tolist())]
            self.near.value = cards(browser.neighbours.images[found], texts)

    def _show_page(self):
        """Show the page of thumbnails that the browser is on; its pictures only where it is another page."""
        browser, facts = self.browser, self.browser.facts
        page, place = divmod(browser.position or 0, PER_PAGE)
        chosen = browser.indices[page * PER_PAGE : (page + 1) * PER_PAGE]
        labels, numbers = facts.labels[chosen].tolist(), chosen.tolist()
        answers = labels if facts.predictions is None else facts.predictions[chosen].tolist()
        if numbers != self._drawn:
            self._drawn = numbers
            self._pictures.value = thumbnails(browser.digits.images[chosen], self._class)
        for button, number, label, answer in zip(self.thumbnails, numbers, labels, answers):
            star = "★ " if number in browser.selected else ""
            button.description = f"{star}{label}" if label == answer else f"{star}{label} → {answer}"
            button.tooltip = f"no. {number}: label {label}" + ("" if label == answer else f", read as {answer}")
        wrong = [k for k, (label, answer) in enumerate(zip(labels, answers)) if label != answer]
        self._marks.value = highlight(self._class, place, wrong)
        self.pages.value = (
            f"{len(browser):,} of {len(browser.digits):,} digits are selected; page {page + 1:,} of "
            f"{max(math.ceil(len(browser) / PER_PAGE), 1):,}. Click a digit to open it."
        )


def _width(pixels):
    return ipywidgets.Layout(width=f"{pixels}px", min_width=f"{pixels}px", flex="0 0 auto")


def _square(side):
    """Return the layout of a picture that is not stretched to fill its box."""
    layout = _width(side)
    layout.height, layout.align_self = f"{side}px", "flex-start"
    return layout


def _button(text, icon, width=95):
    return ipywidgets.Button(description=text, icon=icon, layout=_width(width))


def _menu(title, options):
    menu = ipywidgets.Dropdown(options=options, description=title, layout=_width(150))
    menu.style.description_width = "55px"
    return menu


def _range(title, most):
    """Return a slider for a range from 0 to `most`, which at first reaches from end to end."""
    slider = ipywidgets.FloatRangeSlider(
        value=(0, most), min=0, max=most, step=0.01, description=title, continuous_update=False, layout=_width(400)
    )
    slider.style.description_width = "75px"
    return slider
