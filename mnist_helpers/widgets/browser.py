"""`DigitBrowser`: look through a set of digits, filtered and ordered, each large beside what a model made of it."""

from typing import Any

import torch
from IPython.display import display
from torch import nn

from ..data.digits import Digits
from ..data.loaders import mean_and_std
from ..data.neighbours import distances_to
from ..evaluation.saliency import occlusion, saliency
from ..evaluation.scores import normalisation_of
from .browser_shell import BrowserShell
from .selection import choose, clamp, gather

LOOKS = {"saliency": saliency, "occlusion": occlusion}


class DigitBrowser:
    """Browse digits in a notebook, or from code: `browser.goto(3)`, `browser.filter(right=False)`, `browser.selected`.

    What can be stepped through is a *selection* of the set, in an order. A *position* counts from 0 within it, a
    *number* within the set. Either out of range means the nearest end.

    Attributes:
        facts: the `selection.Facts` of all digits.
        choice: what is selected, and in which order: the arguments of `selection.choose`.
        indices: the numbers of the selected digits, int64 (M,).
        position: of the digit that is shown; None where nothing is selected.
        selected: the numbers of the digits that were collected, a list.
        errors: from clicks, which the page shows, too; calls from code raise them.
        view: the ipywidgets box.
    """

    def __init__(
        self,
        digits: Digits,
        logits: Any = None,
        *,
        model: nn.Module | None = None,
        normalisation: str | None = None,
        neighbours: Digits | None = None,
    ):
        """Show `digits` (`Digits`, images uint8 (N, 28, 28)).

        Args:
            logits: (N, 10), a model's on these digits in this order, as from `predict_logits` or `score_on_test`.
                Without them you can browse only by label.
            model: that model, to show where it looked.
            normalisation: the name of the one it was trained with; by default, from its card.
            neighbours: `Digits` among which to find the nearest, such as the training set.

        Raises:
            ValueError: there are no digits, the logits do not fit, or the model has no card and no normalisation.
        """
        if len(digits) == 0:
            raise ValueError("there are no digits to browse")
        self.digits, self.facts, self.neighbours, self.model = digits, gather(digits.labels, logits), neighbours, model
        self._scale = None if model is None else mean_and_std(normalisation or normalisation_of(model))
        self.choice: dict[str, Any] = {}
        self.indices = choose(self.facts)
        self.position: int | None = 0
        self.selected: list[int] = []
        self.look = "saliency"
        self._shell = BrowserShell(self)
        self.view, self.errors = self._shell.view, self._shell.errors
        self._shell.show()

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self):
        return f"<DigitBrowser: position {self.position} of {len(self):,}, number {self.index}>"

    def _ipython_display_(self):
        display(self.view)

    @property
    def index(self) -> int | None:
        """The number of the digit that is shown, or None where nothing is selected."""
        return None if self.position is None else int(self.indices[self.position])

    def goto(self, position: int) -> int | None:
        """Show the digit at `position` of the selection and return its number, or None where nothing is selected."""
        self.position = clamp(position, len(self))
        self._shell.show()
        return self.index

    def step(self, n: int = 1) -> int | None:
        """Go `n` digits on, or back if `n` is negative, and return the number of the digit that is shown then."""
        return self.goto((self.position or 0) + n)

    def jump(self, number: int) -> int | None:
        """Show the digit with this number and return the number. If it is not selected, select all digits, by index."""
        number = min(max(int(number), 0), len(self.digits) - 1)
        if not (self.indices == number).any():
            self._select({})
        return self.goto(int((self.indices == number).nonzero()[0]))

    def filter(self, **choice: Any) -> int:
        """Select by label, prediction, right, confidence and loss, as in `selection.choose`; return how many fit.

        Earlier filters are forgotten; without arguments, all are selected. The order stays. The digit that is shown
        stays if it is selected and the order is the same; otherwise the first is shown.
        """
        order = {name: self.choice[name] for name in ("order", "descending") if name in self.choice}
        self._select({**order, **choice})
        if "order" in choice:
            self.position = clamp(0, len(self))
        self._shell.show()
        return len(self)

    def order(self, order: str = "index", descending: bool = False) -> int | None:
        """Order the selection by "index", "loss", "margin" or "confidence"; show its first and return its number."""
        self._select({**self.choice, "order": order, "descending": descending})
        return self.goto(0)

    def collect(self, *numbers: int) -> None:
        """Put digits into the list `selected`, once each; without numbers, the one that is shown."""
        for one in numbers or [self.index]:
            number = None if one is None else clamp(one, len(self.digits))
            if number is not None and number not in self.selected:
                self.selected.append(number)
        self._shell.show()

    def drop(self, *numbers: int) -> None:
        """Take digits out of the list `selected`; without numbers, the one that is shown."""
        gone = numbers or [self.index]
        self.selected[:] = [number for number in self.selected if number not in gone]  # the list stays the same one
        self._shell.show()

    def look_by(self, name: str) -> None:
        """Show where the model looked by "saliency" or by "occlusion", which takes about a hundred times as long."""
        if name not in LOOKS:
            raise ValueError(f"where it looked is shown by {' or '.join(LOOKS)}, not by {name!r}")
        self.look = name
        self._shell.show()

    def nearest_neighbours(self, number: int, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (distances (k,), numbers int64 (k,)) of the `neighbours` nearest to a digit, other than itself.

        Distances are Euclidean, with pixels from 0 to 1.

        Raises:
            ValueError: the browser has no neighbours.
        """
        if self.neighbours is None:
            raise ValueError("the browser has no neighbours: make it with neighbours=...")
        # Nothing is kept for the next call: ipywidgets keeps every browser that was ever made
        distances = distances_to(self.digits.images[number], self.neighbours.images)
        if self.neighbours is self.digits:
            distances[number] = torch.inf
        others = len(distances) - (self.neighbours is self.digits)
        found = distances.topk(min(k, others), largest=False)
        return found.values, found.indices

    def where_it_looked(self, number: int) -> torch.Tensor:
        """Return the map float (28, 28) of where the model looked for its answer to a digit; see `look_by`.

        Raises:
            ValueError: the browser has no model.
        """
        if self.model is None or self._scale is None:
            raise ValueError("the browser has no model: make it with model=...")
        mean, std = self._scale
        device = next(self.model.parameters()).device
        image = (self.digits.images[number][None, None].float() / 255 - mean) / std  # (1, 1, 28, 28)
        return LOOKS[self.look](self.model, image.to(device))[0].cpu()

    def _select(self, choice):
        """Select what `choice` asks for, and stay at the digit that is shown if it is selected."""
        indices, shown = choose(self.facts, **choice), self.index
        self.choice, self.indices = choice, indices
        found = (indices == shown).nonzero().flatten() if shown is not None else []
        self.position = found[0].item() if len(found) else clamp(0, len(indices))
