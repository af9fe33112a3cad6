"""What training brought, epoch by epoch."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class EpochResult:
    """What one epoch brought: losses are means over examples, accuracies percent.

    The training figures are gathered while the weights move and dropout is on; the validation figures belong to the
    weights at the epoch's end, and are None where no images were held back. `learning_rate` is the rate that the epoch
    began with, `seconds` its training alone.
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

    epochs: list = field(default_factory=list)
    best_state: dict | None = field(default=None, compare=False, repr=False)
    stopped: str = ""
    last_state: dict | None = field(default=None, compare=False, repr=False)

    def __len__(self):
        return len(self.epochs)

    def __getitem__(self, column):
        return [getattr(result, column) for result in self.epochs]

    @property
    def best(self):
        """The epoch with the highest validation accuracy (among equals, the lowest validation loss), or None."""
        validated = [one for one in self.epochs if one.validation_loss is not None]
        return max(validated, key=lambda one: (one.validation_accuracy, -one.validation_loss), default=None)

    @property
    def seconds(self):
        """Seconds of training alone, all epochs together."""
        return sum(self["seconds"])

    def extended(self, result, state):
        """Return the history with one more epoch, at whose end the model had this state dict; this one is left alone.

        So an interrupt finds the one or the other, and never the epoch without its weights.
        """
        longer = replace(self, epochs=[*self.epochs, result], last_state=state)
        if longer.best is result:
            longer.best_state = state
        return longer

    def waited(self, since=0):
        """Return for how many epochs there has been no lower validation loss, the first `since` epochs left out."""
        losses = self["validation_loss"][since:]
        return 0 if not losses or None in losses else len(losses) - 1 - losses.index(min(losses))
