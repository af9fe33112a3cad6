"""The training loop: one epoch, a generator of epochs, and `fit`, which drains it into a `History`."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm.auto import tqdm

from ..data.loaders import check_reusable
from ..environment import combine_seeds, seeded, whole_number
from ..evaluation.scores import accuracy, check_outputs, evaluate
from ..files import are_open, check_writable
from ..models import device_of, unwrapped
from .arguments import (
    check_hyperparameters,
    check_kinds,
    check_loss,
    check_optimizer,
    check_schedule,
    moves_per_batch,
    warn_of_replaced_layers,
)
from .batches import Batches, TrackedBatches
from .history import EpochResult, History
from .resume import load_state, save_state, state_of, take_up
from .settings import settings_of

# Schedules whose drops are worth a line each; others glide
STEPWISE = (ReduceLROnPlateau, lr_scheduler.StepLR, lr_scheduler.MultiStepLR, lr_scheduler.ConstantLR)

LossFunction = Callable[[Tensor, Tensor], Tensor]  # logits (B, 10), labels (B,) -> mean loss
Means = tuple[float, float]  # loss, accuracy in percent


class TrainingError(RuntimeError):
    """Training cannot go on. `history` holds the epochs finished before; the model has the last one's weights."""

    history: History | None = None


def train_one_epoch(
    model: nn.Module,
    loader: Batches,
    optimizer: Optimizer,
    loss_function: LossFunction = F.cross_entropy,
    scheduler: LRScheduler | None = None,
    *,
    bfloat16: bool = False,
) -> Means:
    """Train on every batch once and return (mean loss, accuracy in percent), exact over examples.

    `scheduler`, if given, moves after every batch. With `bfloat16`, the model's products are computed in this shorter
    format; weights, loss and optimizer keep float32.

    Raises:
        ValueError: the loader gave no batch; the optimizer cannot train this model; or outputs, labels or loss of the
            first batch are not what they should be.
        TrainingError: the loss is not finite; the message names the batch.
    """
    check_kinds(model, scheduler)
    check_optimizer(model, optimizer)
    device = device_of(model)
    model.train()
    losses: list[Tensor] = []
    logits, labels = [], []  # kept as tensors: reading a number would make a GPU wait in every step
    for images, targets in loader:
        images, targets = images.to(device), targets.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            outputs = model(images)  # (B, 10)
        if not losses:
            check_outputs(outputs, targets)
        outputs = outputs.float()
        loss = loss_function(outputs, targets)
        if not losses:
            check_loss(loss)
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
    means = torch.stack(losses).cpu().double()  # (number of batches,)
    if not means.isfinite().all():
        batch = int((~means.isfinite()).nonzero()[0]) + 1
        raise TrainingError(f"batch {batch}: the loss is {means[batch - 1].item()}")
    sizes = torch.tensor([len(targets) for targets in labels]).double()
    return (means @ sizes / sizes.sum()).item(), accuracy(torch.cat(logits), torch.cat(labels))


def learning_rates(
    make_scheduler: Callable[[Optimizer], LRScheduler], learning_rate: float, n_epochs: int, n_batches: int
) -> list[float]:
    """Return the rate of each batch that a schedule would give, without training: a list of n_epochs * n_batches.

    Args:
        make_scheduler: optimizer -> scheduler, as in `lambda optimizer: StepLR(optimizer, 10)`.
        learning_rate: what the optimizer starts with (Adam, say).
        n_epochs, n_batches: epochs, and batches in each.

    Raises:
        ValueError: a plateau schedule, which has no curve of its own: it waits for losses. Or numbers that are none.
    """
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], learning_rate)
    check_hyperparameters(optimizer)
    n_epochs, n_batches = whole_number("n_epochs", n_epochs), whole_number("n_batches", n_batches)
    scheduler, rates = make_scheduler(optimizer), []
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError("ReduceLROnPlateau cannot be drawn before training: its drops depend on the losses")
    per_batch = moves_per_batch(scheduler)
    for _ in range(n_epochs):
        for _ in range(n_batches):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()  # nothing has a gradient, so nothing moves; schedulers want to see a step
            if per_batch and len(rates) < n_epochs * n_batches:
                scheduler.step()
        if not per_batch:
            scheduler.step()
    return rates


def epochs(
    model: nn.Module,
    train_loader: Batches,
    validation_loader: Batches | None,
    optimizer: Optimizer,
    n_epochs: int,
    *,
    loss_function: LossFunction = F.cross_entropy,
    scheduler: LRScheduler | None = None,
    per_batch: bool | None = None,
    seed: int = 0,
    first_epoch: int = 1,
    all_reduce: Callable[[Means, Any], Means] | None = None,
    bfloat16: bool = False,
) -> Iterator[EpochResult]:
    """Train for `n_epochs` and yield an `EpochResult` after each; stop asking, and training stops.

    Args:
        model: any module from images to logits, already on its device.
        train_loader, validation_loader: iterables of (images, labels). A `sampler` with `set_epoch` is told the epoch.
            Without images to validate on, `validation_loader` is None.
        optimizer: over the model's parameters.
        loss_function: (logits (B, 10), labels (B,)) -> mean loss.
        scheduler: any of `torch.optim.lr_scheduler`; plateau ones are stepped with the validation loss.
        per_batch: whether the scheduler moves after each batch; unless given, `OneCycleLR` and `CyclicLR` do, and
            what is made of them.
        seed: of dropout and the like. Each epoch's randomness is a function of (seed, epoch); the caller's random
            state is left alone.
        first_epoch: the first one's number. Training that continues counts on, so that no batch order comes twice.
        all_reduce: where several processes train together, `distributed.all_reduce_mean`: it turns this process's
            loss and accuracy on a loader into those of all.
        bfloat16: as for `train_one_epoch`. Validation is always in float32.

    Raises:
        ValueError: a loader is empty, or can be read only once; the schedule is another optimizer's, ends before
            training does, mixes parts that move per batch and per epoch, or is a plateau one that waits for a rise or
            has no validation loss to wait for; what is no number of epochs or seed; see also `train_one_epoch`.
        TrainingError: the loss became NaN or infinite; the message names epoch and batch.
        Exception: whatever else a batch provokes, with a note that names epoch and batch and tells dtypes and shapes.
    """
    n_epochs = whole_number("n_epochs", n_epochs)
    combine_seeds(seed)  # refuses what is no seed
    check_kinds(model, scheduler)
    check_optimizer(model, optimizer)
    warn_of_replaced_layers(model, optimizer)
    per_batch = moves_per_batch(scheduler, per_batch)
    check_schedule(scheduler, optimizer, train_loader, validation_loader, n_epochs, per_batch)
    if n_epochs > 1:
        check_reusable(train_loader)
        check_reusable(validation_loader)
    for epoch in range(first_epoch, first_epoch + n_epochs):
        sampler: Any = getattr(train_loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        rate = float(optimizer.param_groups[0]["lr"])
        batches = TrackedBatches(train_loader, check_pixels=epoch == first_epoch)
        validated = None
        try:
            with seeded(seed, epoch):
                start = time.perf_counter()
                moved = scheduler if per_batch else None
                trained = train_one_epoch(model, batches, optimizer, loss_function, moved, bfloat16=bfloat16)
                seconds = time.perf_counter() - start
                if all_reduce is not None:
                    trained = all_reduce(trained, train_loader)
                if validation_loader is not None:
                    batches = TrackedBatches(validation_loader, "validation batch")
                    validated = evaluate(model, batches, loss_function)
                    if all_reduce is not None:
                        validated = all_reduce(validated, validation_loader)
                    if not math.isfinite(validated[0]):
                        raise TrainingError(f"after its last batch: the validation loss is {validated[0]}")
        except TrainingError as error:
            advice = f"Try a learning rate below {rate:g}, and check that the images are finite"
            raise TrainingError(f"epoch {epoch}, {error}. {advice}") from None
        except Exception as error:
            error.add_note(f"epoch {epoch}, {batches}")
            raise
        if validated is not None and isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(validated[0])
        elif scheduler is not None and not per_batch:
            scheduler.step()
        validation_loss, validation_accuracy = validated or (None, None)
        yield EpochResult(epoch, *trained, validation_loss, validation_accuracy, rate, seconds)


def fit(
    model: nn.Module,
    train_loader: Batches,
    validation_loader: Batches | None,
    optimizer: Optimizer,
    n_epochs: int,
    *,
    loss_function: LossFunction = F.cross_entropy,
    scheduler: LRScheduler | None = None,
    per_batch: bool | None = None,
    seed: int = 0,
    all_reduce: Callable[[Means, Any], Means] | None = None,
    bfloat16: bool = False,
    after: History | None = None,
    patience: int | None = None,
    restore_best: bool = False,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    resume: bool | dict[str, Any] | None = None,
) -> History:
    """Train for up to `n_epochs` and return the `History`; the model ends with the last epoch's weights.

    Ctrl-C ends training early and keeps history and best state. The model then has the weights of the last finished
    epoch, or of the best one with `restore_best`.

    Args:
        model, train_loader, validation_loader, optimizer, loss_function, scheduler, per_batch, seed, all_reduce,
            bfloat16: as for `epochs`.
        after: the `History` of training that this one continues. Its epochs come first in the new history, and the
            count of epochs goes on from it.
        patience: stop early after this many epochs without a new best one (see `History.best`); never unless given.
        restore_best: put the best epoch's weights into the model at the end.
        progress: show a progress bar, and a line where a stepwise schedule lowers the rate or training ends early.
        checkpoint: a file in which the state of training is kept after every epoch.
        resume: True to go on from the state in `checkpoint`, where there is one; or what `resume.load_state` returned.
            Its epochs count among the `n_epochs`. Training ends as if it had never been broken off, bit for bit, if
            batches are a function of the epoch, as those of `loaders` are. The state of a loader's own random
            generator, of `numpy.random` and of `random` is not kept. Optimizer and schedule must have the settings
            that they began with; more epochs are fine where the schedule goes on.

    Raises:
        CheckpointError: the state cannot be read, or belongs to another model, optimizer or scheduler, to other
            settings of them, to another seed, or to training that continues other epochs; or a new state could not be
            read again.
        OSError: `checkpoint` cannot be written, which is tried before the first epoch.
        ValueError: options that contradict each other; see also `epochs`.
        TrainingError: the loss became NaN or infinite. After this and any other error the model has the weights of the
            last finished epoch, and the exception's `history` holds the epochs.
    """
    if validation_loader is None and (patience is not None or restore_best):
        raise ValueError("without a validation loader there is no best epoch: leave out patience and restore_best")
    if isinstance(resume, (str, Path)) or (resume is True and checkpoint is None):
        raise ValueError("give resume=True together with the file as checkpoint")
    check_kinds(model, scheduler)
    n_epochs = whole_number("n_epochs", n_epochs)
    if patience is not None:
        whole_number("patience", patience, 1)
    per_batch = moves_per_batch(scheduler, per_batch)
    network = unwrapped(model)
    parts: list[Any] = [network, optimizer, scheduler]
    history = History() if after is None else History(list(after.epochs), after.best_state)
    before = len(history)  # epochs of the training that this one continues
    state: Any = load_state(checkpoint) if checkpoint is not None and resume is True else resume
    begun = None if checkpoint is None and not state else settings_of(optimizer, scheduler, per_batch)
    if state not in (None, False):
        history = take_up(state, parts, seed, history.epochs, begun)
        begun = state.get("begun") or begun
    history.last_state = _copy_state(network)
    results = epochs(
        model,
        train_loader,
        validation_loader,
        optimizer,
        max(0, before + n_epochs - len(history)),
        loss_function=loss_function,
        scheduler=scheduler,
        per_batch=per_batch,
        seed=seed,
        first_epoch=len(history) + 1,
        all_reduce=all_reduce,
        bfloat16=bfloat16,
    )
    shown = progress and are_open(sys.stdout, sys.stderr)
    with tqdm(total=n_epochs, initial=len(history) - before, unit="epoch", disable=not shown) as bar:
        try:
            if checkpoint is not None:
                size = sum(value.nbytes for value in history.last_state.values())
                check_writable(checkpoint, 4 * size)  # the weights, the best ones, and two averages of Adam's
            while patience is None or history.epochs_without_improvement(before) < patience:
                if (result := next(results, None)) is None:
                    break
                history = history.extended(result, _copy_state(network))
                if checkpoint is not None:
                    save_state(checkpoint, state_of(history, parts, seed, before, begun))
                _report(bar, result, optimizer, None if per_batch else scheduler)
            else:
                history.stopped = "early"
                _say(bar, f"Stopped early after epoch {len(history)}: the best epoch is {patience} epochs back")
            if restore_best and history.best_state is not None:
                network.load_state_dict(history.best_state)
        except KeyboardInterrupt as error:
            _undo(network, history, error, best=restore_best)
            history.stopped = "interrupted"
            _say(bar, f"Interrupted: {len(history)} finished epochs and the best state are kept")
        except Exception as error:
            _undo(network, history, error)
            raise
    return history


def _undo(network: nn.Module, history: History, error: BaseException, *, best: bool = False) -> None:
    """Give the network the last finished epoch's weights or the best ones, and the error the history."""
    error.history = history  # type: ignore[attr-defined]
    state: Any = history.best_state if best and history.best_state else history.last_state
    try:
        network.load_state_dict(state)
    except Exception as second:  # such as a GPU's that takes nothing any more
        error.add_note(f"The weights of the last finished epoch, in its `history`, could not be put back: {second}")
        raise error from None


def _report(bar: tqdm, result: EpochResult, optimizer: Optimizer, scheduler: LRScheduler | None) -> None:
    """Move the progress bar on, and say so where a stepwise scheduler has lowered the rate."""
    part, reached = "validation", result.validation_accuracy
    if reached is None:
        part, reached = "training", result.train_accuracy
    bar.set_postfix_str(f"{part} {reached:.2f} %", refresh=False)
    bar.update()
    rate = float(optimizer.param_groups[0]["lr"])
    if rate < result.learning_rate and isinstance(scheduler, STEPWISE):
        _say(bar, f"Epoch {result.epoch}: the learning rate drops from {result.learning_rate:g} to {rate:g}")


def _say(bar: tqdm, text: str) -> None:
    if not bar.disable:
        bar.write(text)


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
