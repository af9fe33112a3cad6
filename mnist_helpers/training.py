"""The training loop: one epoch, a generator of epochs, and `fit`, which drains it into a `History`."""

import math
import time
from dataclasses import asdict, dataclass, field, replace

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import ConstantLR, CyclicLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau, StepLR
from tqdm.auto import tqdm

from .checkpoints import CheckpointError, load_state, save_state
from .distributed import rank
from .environment import seeded
from .evaluation import accuracy, evaluate

PER_BATCH = (OneCycleLR, CyclicLR)  # schedules that are meant to move after every batch
STEPWISE = (ReduceLROnPlateau, StepLR, MultiStepLR, ConstantLR)  # whose drops are worth a line each; others glide


class TrainingError(RuntimeError):
    """Training cannot go on. `history` holds the epochs finished before; the model has the last one's weights."""

    history = None


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
        best_state: the state dict at the end of the best epoch, where it is known.
        stopped: "" after all epochs, "early" (no improvement) or "interrupted" (Ctrl-C).
    """

    epochs: list = field(default_factory=list)
    best_state: dict | None = field(default=None, compare=False, repr=False)
    stopped: str = ""

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


def train_one_epoch(model, loader, optimizer, loss_function=F.cross_entropy, scheduler=None, *, bfloat16=False):
    """Train on every batch once and return (mean loss, accuracy in percent), exact over examples.

    `scheduler`, if given, moves after every batch. With `bfloat16`, the model's products are computed in this shorter
    format; weights, loss and optimizer keep float32. Raises TrainingError, naming the batch, if the loss is not finite.
    """
    device = next(model.parameters()).device
    model.train()
    losses, logits, labels = [], [], []  # kept as tensors: reading a number would make a GPU wait in every step
    for images, targets in loader:
        images, targets = images.to(device), targets.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            outputs = model(images)  # (B, 10)
        outputs = outputs.float()
        loss = loss_function(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.detach())
        logits.append(outputs.detach())
        labels.append(targets)
    if not losses:
        raise ValueError("the loader gave no batch: there is nothing to train on")
    losses = torch.stack(losses).cpu().double()  # (number of batches,)
    if not losses.isfinite().all():
        batch = int((~losses.isfinite()).nonzero()[0]) + 1
        raise TrainingError(f"batch {batch}: the loss is {losses[batch - 1].item()}")
    sizes = torch.tensor([len(targets) for targets in labels]).double()
    return (losses @ sizes / sizes.sum()).item(), accuracy(torch.cat(logits), torch.cat(labels))


def learning_rates(make_scheduler, learning_rate, n_epochs, n_batches):
    """Return the rate of each batch that a schedule would give, without training: a list of n_epochs * n_batches.

    Args:
        make_scheduler: optimizer -> scheduler, as in `lambda optimizer: StepLR(optimizer, 10)`.
        learning_rate: what the optimizer starts with (Adam, say).
        n_epochs, n_batches: epochs, and batches in each.

    Raises:
        ValueError: a plateau schedule, which has no curve of its own: it waits for losses.
    """
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], learning_rate)
    scheduler, rates = make_scheduler(optimizer), []
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError("ReduceLROnPlateau cannot be drawn before training: its drops depend on the losses")
    for _ in range(n_epochs):
        for _ in range(n_batches):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()  # nothing has a gradient, so nothing moves; schedulers want to see a step
            if isinstance(scheduler, PER_BATCH) and len(rates) < n_epochs * n_batches:
                scheduler.step()
        if not isinstance(scheduler, PER_BATCH):
            scheduler.step()
    return rates


def epochs(
    model,
    train_loader,
    validation_loader,
    optimizer,
    n_epochs,
    *,
    loss_function=F.cross_entropy,
    scheduler=None,
    per_batch=None,
    seed=0,
    first_epoch=1,
    combine=None,
    bfloat16=False,
):
    """Train for `n_epochs` and yield an `EpochResult` after each; stop asking, and training stops.

    Args:
        model: any module from images to logits, already on its device.
        train_loader, validation_loader: iterables of (images, labels). A `sampler` with `set_epoch` is told the epoch.
            Without images to validate on, `validation_loader` is None.
        optimizer: over the model's parameters.
        loss_function: (logits (B, 10), labels (B,)) -> mean loss.
        scheduler: any of `torch.optim.lr_scheduler`; plateau ones are stepped with the validation loss.
        per_batch: whether the scheduler moves after each batch; unless said, `OneCycleLR` and `CyclicLR` do.
        seed: of dropout and the like. Each epoch's randomness is a function of (seed, epoch); the caller's random
            state is left alone.
        first_epoch: the first one's number; training that goes on counts on, lest batch orders come twice.
        combine: where several processes train together, `distributed.combine`: it makes of this one's loss and accuracy
            on a loader those of all.
        bfloat16: as for `train_one_epoch`. Validation is in float32 all the same.

    Raises:
        ValueError: a loader is empty, or a plateau schedule waits for a rise, or has no validation loss to wait for.
        TrainingError: the loss became NaN or infinite; the message names epoch and batch.
    """
    if isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode == "max":
        raise ValueError("ReduceLROnPlateau is stepped with the validation loss, which is to fall: give it mode='min'")
    if isinstance(scheduler, ReduceLROnPlateau) and validation_loader is None:
        raise ValueError("ReduceLROnPlateau waits for the validation loss: give it a validation loader")
    per_batch = isinstance(scheduler, PER_BATCH) if per_batch is None else per_batch
    for epoch in range(first_epoch, first_epoch + n_epochs):
        if hasattr(getattr(train_loader, "sampler", None), "set_epoch"):
            train_loader.sampler.set_epoch(epoch)
        rate = float(optimizer.param_groups[0]["lr"])
        with seeded(seed, epoch):
            start = time.perf_counter()
            try:
                moved = scheduler if per_batch else None
                trained = train_one_epoch(model, train_loader, optimizer, loss_function, moved, bfloat16=bfloat16)
                seconds = time.perf_counter() - start
                trained = trained if combine is None else combine(trained, train_loader)
                validated = _validated(model, validation_loader, loss_function, combine)
            except TrainingError as error:
                raise TrainingError(
                    f"epoch {epoch}, {error}. Try a learning rate below {rate:g}, and check that the images are finite"
                ) from None
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(validated[0])
        elif scheduler is not None and not per_batch:
            scheduler.step()
        yield EpochResult(epoch, *trained, *validated, rate, seconds)


def _validated(model, loader, loss_function, combine):
    """Return (mean loss, accuracy in percent) on a validation loader, or (None, None) without one."""
    if loader is None:
        return None, None
    found = evaluate(model, loader, loss_function)
    found = found if combine is None else combine(found, loader)
    if not math.isfinite(found[0]):
        raise TrainingError(f"after its last batch: the validation loss is {found[0]}")
    return found


def fit(
    model,
    train_loader,
    validation_loader,
    optimizer,
    n_epochs,
    *,
    after=None,
    patience=None,
    restore_best=False,
    progress=True,
    checkpoint=None,
    resume=None,
    **options,
):
    """Train for up to `n_epochs` and return the `History`; the model ends with the last epoch's weights.

    Ctrl-C ends training early and keeps history and best state; the model then has the weights of the last finished
    epoch. A line is printed when a stepwise schedule lowers the rate after an epoch.

    Args:
        after: the `History` of training that this one continues: its epochs come first in the new history, and the
            count of epochs goes on from it.
        patience: stop early after this many epochs without a lower validation loss; never unless given.
        restore_best: put the best epoch's weights (see `History.best`) into the model at the end.
        progress: show a progress bar.
        checkpoint: a file in which the state of training is kept after every epoch.
        resume: go on from a state of training, whose epochs count among the `n_epochs`: what
            `checkpoints.load_state` returned, or "auto" for that of the file `checkpoint`, if there is one.
        **options: as for `epochs`: loss_function, scheduler, per_batch, seed, combine.

    Raises:
        CheckpointError: the state cannot be read, or is that of another model, optimizer or scheduler.
        TrainingError: the loss became NaN or infinite. The model is put back to the last good epoch, and the
            exception's `history` holds the epochs before.
    """
    if validation_loader is None and (patience is not None or restore_best):
        raise ValueError("without a validation loader there is no best epoch: leave out patience and restore_best")
    plain, scheduler = getattr(model, "module", model), options.get("scheduler")  # without what `distributed` wraps
    history = History() if after is None else replace(after, epochs=list(after.epochs), stopped="")
    done = len(history)
    state = load_state(checkpoint) if resume == "auto" else resume
    if state is not None:
        history = _resumed(state, plain, optimizer, scheduler)
    last_state, left = _copy_state(plain), n_epochs + done - len(history)
    announced = not options.get("per_batch") and isinstance(scheduler, STEPWISE) and rank() == 0
    options["first_epoch"] = len(history) + 1
    results = epochs(model, train_loader, validation_loader, optimizer, left, **options)
    bar = tqdm(results, total=n_epochs, initial=n_epochs - left, unit="epoch", disable=not progress)
    try:
        for result in bar:
            last_state = _copy_state(plain)
            history.epochs.append(result)
            if history.best is result:
                history.best_state = last_state
            if checkpoint is not None:
                save_state(checkpoint, _state(history, plain, optimizer, scheduler))
            part, reached = "validation", result.validation_accuracy
            if validation_loader is None:
                part, reached = "training", result.train_accuracy
            bar.set_postfix_str(f"{part} {reached:.2f} %")
            rate = float(optimizer.param_groups[0]["lr"])
            if rate < result.learning_rate and announced:
                bar.write(f"Epoch {result.epoch}: the learning rate drops from {result.learning_rate:g} to {rate:g}")
            waited = _waited(history["validation_loss"][done:])
            if patience is not None and waited >= patience:
                history.stopped = "early"
                bar.write(f"Stopped early after epoch {result.epoch}: no lower validation loss for {waited} epochs")
                break
    except (KeyboardInterrupt, TrainingError) as error:
        plain.load_state_dict(last_state)
        if isinstance(error, TrainingError):
            error.history = history
            raise
        history.stopped = "interrupted"
        bar.write(f"Interrupted: {len(history)} finished epochs and the best state are kept")
    finally:
        bar.close()
    if restore_best and history.best_state is not None:
        plain.load_state_dict(history.best_state)
    return history


def _waited(losses):
    """Return for how many epochs there has been no lower validation loss; 0 where there is none at all."""
    return 0 if None in losses else len(losses) - 1 - losses.index(min(losses))


def _state(history, *parts):
    """Return what training needs to go on after the last epoch; `parts` are model, optimizer and scheduler."""
    return {
        "epochs": [asdict(result) for result in history.epochs],
        "best_state": history.best_state,
        "parts": [part and part.state_dict() for part in parts],
        "classes": [type(part).__name__ for part in parts],
    }


def _resumed(state, *parts):
    """Put `parts` into the state that `_state` returned, and return its history."""
    try:
        if state["classes"] != [type(part).__name__ for part in parts]:  # schedules take any state without a complaint
            raise ValueError(f"of {', '.join(state['classes'])}")
        for part, found in zip(parts, state["parts"], strict=True):
            if part is not None or found is not None:
                part.load_state_dict(found)
        return History([EpochResult(**epoch) for epoch in state["epochs"]], state["best_state"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            "the state of training is that of another model, optimizer or schedule: remove it, or train without resume"
        ) from error


def _copy_state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
