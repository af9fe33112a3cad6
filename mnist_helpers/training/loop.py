"""The training loop: one epoch, a generator of epochs, and `fit`, which drains it into a `History`."""

import math
import time

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import ConstantLR, CyclicLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau, StepLR
from tqdm.auto import tqdm

from ..environment import seeded
from ..evaluation.scores import accuracy, evaluate
from ..experiments.distributed import rank
from .batches import BatchError, Watched
from .history import EpochResult, History
from .resume import load_state, save_state, state_of, take_up

PER_BATCH = (OneCycleLR, CyclicLR)  # schedules that are meant to move after every batch
STEPWISE = (ReduceLROnPlateau, StepLR, MultiStepLR, ConstantLR)  # whose drops are worth a line each; others glide


class TrainingError(RuntimeError):
    """Training cannot go on. `history` holds the epochs finished before; the model has the last one's weights."""

    history = None


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
    all_reduce=None,
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
        all_reduce: where several processes train together, `distributed.all_reduce_mean`: it makes of this one's loss
            and accuracy on a loader those of all.
        bfloat16: as for `train_one_epoch`. Validation is in float32 all the same.

    Raises:
        ValueError: a loader is empty, or a plateau schedule waits for a rise, or has no validation loss to wait for.
        BatchError: the network cannot be trained on a batch; the message names it and says what is wrong with it.
        TrainingError: the loss became NaN or infinite; the message names epoch and batch.
    """
    _refuse_what_a_plateau_cannot_wait_for(scheduler, validation_loader)
    per_batch = isinstance(scheduler, PER_BATCH) if per_batch is None else per_batch
    for epoch in range(first_epoch, first_epoch + n_epochs):
        if hasattr(getattr(train_loader, "sampler", None), "set_epoch"):
            train_loader.sampler.set_epoch(epoch)
        rate = float(optimizer.param_groups[0]["lr"])
        batches = watched = Watched(train_loader, look=epoch == first_epoch)
        with seeded(seed, epoch):
            start = time.perf_counter()
            try:
                moved = scheduler if per_batch else None
                trained = train_one_epoch(model, batches, optimizer, loss_function, moved, bfloat16=bfloat16)
                seconds = time.perf_counter() - start
                trained = trained if all_reduce is None else all_reduce(trained, train_loader)
                watched = Watched(validation_loader, validation=True)
                validated = _validated(model, watched, loss_function, all_reduce)
            except TrainingError as error:
                raise TrainingError(
                    f"epoch {epoch}, {error}. Try a learning rate below {rate:g}, and check that the images are finite"
                ) from None
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
                if (fault := watched.fault(error, model)) is None:
                    raise
                raise BatchError(f"epoch {epoch}, {fault}") from error
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(validated[0])
        elif scheduler is not None and not per_batch:
            scheduler.step()
        yield EpochResult(epoch, *trained, *validated, rate, seconds)


def _refuse_what_a_plateau_cannot_wait_for(scheduler, validation_loader):
    if isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode == "max":
        raise ValueError("ReduceLROnPlateau is stepped with the validation loss, which is to fall: give it mode='min'")
    if isinstance(scheduler, ReduceLROnPlateau) and validation_loader is None:
        raise ValueError("ReduceLROnPlateau waits for the validation loss: give it a validation loader")


def _validated(model, watched, loss_function, all_reduce):
    """Return (mean loss, accuracy in percent) on a validation loader, or (None, None) without one."""
    if watched.loader is None:
        return None, None
    found = evaluate(model, watched, loss_function)
    found = found if all_reduce is None else all_reduce(found, watched.loader)
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
    copy=None,
    resume=None,
    companions=(),
    **options,
):
    """Train for up to `n_epochs` and return the `History`; the model ends with the last epoch's weights.

    Ctrl-C ends training early and keeps history and best state; the model then has the weights of the last finished
    epoch, or of the best one with `restore_best`. A line is printed when a stepwise schedule lowers the rate after an
    epoch.

    Args:
        after: the `History` of training that this one continues: its epochs come first in the new history, and the
            count of epochs goes on from it.
        patience: stop early after this many epochs without a lower validation loss; never unless given.
        restore_best: put the best epoch's weights (see `History.best`) into the model at the end.
        progress: show a progress bar.
        checkpoint: a file in which the state of training is kept after every epoch.
        copy: a folder for a second copy of it, on a mounted drive say, whose failure is a warning; it must exist.
        resume: go on from a state of training, whose epochs count among the `n_epochs` (with as many or more, there is
            nothing to train): what `resume.load_state` returned, or "auto" for that of `checkpoint` or its copy, if
            there is one. It ends as if it had not been broken off, bit for bit, where batches are a function of the
            epoch, as those of `loaders` are: not with a loader that has a random generator of its own, or with
            transforms that draw from `numpy.random` or `random`, since their state is not kept.
        companions: what else has a state that belongs to training's, such as a `torch.optim.swa_utils.AveragedModel`
            that a hook of the optimizer updates.
        **options: as for `epochs`: loss_function, scheduler, per_batch, seed, all_reduce.

    Raises:
        CheckpointError: the state cannot be read, or is that of another model, optimizer or scheduler, another seed, or
            one that continues another training; or what is to be kept could not be read again.
        ValueError: options that contradict each other; see also `epochs`.
        TrainingError, BatchError: the loss became NaN or infinite; a batch is wrong. After these and all other errors
            the model has the weights of the last finished epoch, and the exception's `history` holds the epochs.
    """
    if validation_loader is None and (patience is not None or restore_best):
        raise ValueError("without a validation loader there is no best epoch: leave out patience and restore_best")
    if isinstance(resume, str) and (resume != "auto" or checkpoint is None):
        raise ValueError(f'resume={resume!r} cannot be: give resume="auto" with the file as checkpoint')
    plain, scheduler = getattr(model, "module", model), options.get("scheduler")  # without what `distributed` wraps
    parts, seed = [plain, optimizer, scheduler, *companions], options.get("seed", 0)
    history, before = _begun(after, load_state(checkpoint, copy) if resume == "auto" else resume, parts, seed)
    options["first_epoch"] = len(history) + 1
    results = epochs(model, train_loader, validation_loader, optimizer, before + n_epochs - len(history), **options)
    with tqdm(total=n_epochs, initial=len(history) - before, unit="epoch", disable=not progress) as bar:
        try:
            while not (early := _is_enough(history, patience, before)) and (result := next(results, None)):
                history = history.extended(result, _copy_state(plain))
                if checkpoint is not None:
                    save_state(checkpoint, state_of(history, parts, seed, before), copy)
                _tell(bar, result, optimizer, None if options.get("per_batch") else scheduler)
            if early:
                history.stopped = "early"
                bar.write(f"Stopped early after epoch {len(history)}: no lower validation loss for {patience} epochs")
            if restore_best and history.best_state is not None:
                plain.load_state_dict(history.best_state)
        except (Exception, KeyboardInterrupt) as error:
            interrupted, error.history = isinstance(error, KeyboardInterrupt), history
            _put_back(plain, restore_best and interrupted and history.best_state or history.last_state, error)
            if not interrupted:
                raise
            history.stopped = "interrupted"
            bar.write(f"Interrupted: {len(history)} finished epochs and the best state are kept")
    return history


def _put_back(model, state, error):
    """Give the model the weights of a finished epoch; where that fails too, raise the first error with a note."""
    try:
        model.load_state_dict(state)
    except Exception as second:  # such as a GPU's that takes nothing any more
        error.add_note(f"The weights of the last finished epoch, in its `history`, could not be put back: {second}")
        raise error from None


def _begun(after, state, parts, seed):
    """Return (history so far, how many of its epochs are `after`'s), the model as it was put by a state, if any."""
    history = History(list(after.epochs), after.best_state) if after is not None else History()
    before = len(history)
    if state is not None:
        history = take_up(state, parts, None if rank() else seed, history.epochs)  # the first process's is kept
    history.last_state = _copy_state(parts[0])
    return history, before


def _is_enough(history, patience, before):
    """Tell whether training has waited long enough for a lower validation loss, since the first `before` epochs."""
    return patience is not None and history.waited(before) >= patience


def _tell(bar, result, optimizer, scheduler):
    """Move the progress bar on, and say so where a stepwise scheduler has lowered the rate."""
    part, reached = "validation", result.validation_accuracy
    if reached is None:
        part, reached = "training", result.train_accuracy
    bar.set_postfix_str(f"{part} {reached:.2f} %", refresh=False)
    bar.update()
    rate = float(optimizer.param_groups[0]["lr"])
    if rate < result.learning_rate and isinstance(scheduler, STEPWISE) and rank() == 0:
        bar.write(f"Epoch {result.epoch}: the learning rate drops from {result.learning_rate:g} to {rate:g}")


def _copy_state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
