"""What training reached, epoch by epoch."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch


@dataclass(frozen=True)
class EpochResult:
    """What one epoch reached: losses are means over examples in nats, accuracies percent.

    The training figures are gathered while the weights move and dropout is on. The validation figures belong to the
    weights at the epoch's end, and are None where no images were held back. `learning_rate` is the rate that the epoch
    began with, `seconds` the time of its training alone.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float = field(compare=False)


@dataclass
class History:
    """The epochs of a run: `history["validation_loss"]` is a column, `history.best` the best epoch's result.

    Attributes:
        epochs: one `EpochResult` each.
        best_state, last_state: the state dicts at the end of the best epoch and of the last, where they are known.
        stopped: "" after all epochs, "early" (no improvement) or "interrupted" (Ctrl-C).
    """

    epochs: list[EpochResult] = field(default_factory=list)
    best_state: dict[str, torch.Tensor] | None = field(default=None, compare=False, repr=False)
    stopped: str = ""
    last_state: dict[str, torch.Tensor] | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, column: str) -> list[Any]:
        return [getattr(result, column) for result in self.epochs]

    @property
    def best(self) -> EpochResult | None:
        """The epoch with the highest validation accuracy (among equals, the lowest validation loss), or None."""
        return _best(self.epochs)

    @property
    def seconds(self) -> float:
        """Seconds of training alone, all epochs together."""
        return sum(self["seconds"])

    def extended(self, result: EpochResult, state: dict[str, torch.Tensor]) -> "History":
        """Return the history with one more epoch, at whose end the model had this state dict; this one is left alone.

        So an interrupt finds the one or the other, and never the epoch without its weights.
        """
        longer = replace(self, epochs=[*self.epochs, result], last_state=state)
        if longer.best is result:
            longer.best_state = state
        return longer

    def epochs_without_improvement(self, since: int = 0) -> int:
        """Return how many epochs came after the best one, without the first `since`; 0 where nothing was validated."""
        best = _best(self.epochs[since:])
        return 0 if best is None else self.epochs[-1].epoch - best.epoch


def _best(epochs: list[EpochResult]) -> EpochResult | None:
    validated = [one for one in epochs if one.validation_loss is not None]
    return max(validated, key=lambda one: (one.validation_accuracy, -one.validation_loss), default=None)  # type: ignore[operator]
