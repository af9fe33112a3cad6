"""What training is given, checked before the first step: each mistake is one sentence."""

import inspect
import math
import warnings
from collections.abc import Iterable, Sized
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CyclicLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

PER_BATCH = (OneCycleLR, CyclicLR)  # schedules that are meant to move after every batch


def check_kinds(model: object, scheduler: object) -> None:
    """Raise ValueError where the model is no network, or the schedule no object of `torch.optim.lr_scheduler`."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is {model!r}: give a network, an nn.Module; load_model gives one by its name")
    if scheduler is not None and not isinstance(scheduler, LRScheduler):
        raise ValueError(
            f"the scheduler is {scheduler!r}: give one of torch.optim.lr_scheduler, made for the optimizer"
        )


def check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise ValueError where no step of the optimizer would train the model."""
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"the optimizer is {optimizer!r}: give one of torch.optim, made from model.parameters()")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"{type(optimizer).__name__} computes the loss several times a step, which this loop does not do: take "
            "another optimizer, such as SGD or Adam"
        )
    check_hyperparameters(optimizer)
    own = set(model.parameters())
    if not own:
        raise ValueError(f"the model, a {type(model).__name__}, has no parameters: there is nothing to train")
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = [parameter for parameter in held if parameter in own]
    if not trained:
        raise ValueError(
            f"none of the optimizer's {len(held)} parameters is the model's: make the optimizer anew, from this "
            "model's parameters()"
        )
    if not any(parameter.requires_grad for parameter in trained):
        raise ValueError("all parameters that the optimizer holds are frozen: give some of them requires_grad_(True)")


def warn_of_replaced_layers(model: nn.Module, optimizer: Optimizer) -> None:
    """Warn where some parameters of the optimizer are not the model's, as when a layer was replaced since."""
    own = set(model.parameters())
    others = [one for group in optimizer.param_groups for one in group["params"] if one not in own]
    if others:
        warnings.warn(
            f"{len(others)} of the optimizer's parameters are not the model's: if a layer was replaced after the "
            "optimizer was made, make the optimizer anew",
            stacklevel=3,
        )


def check_loss(loss: Any) -> None:
    """Raise ValueError unless a batch's loss is one number, from which a gradient leads to the model."""
    if not isinstance(loss, Tensor) or loss.ndim:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"type {type(loss).__name__}"
        raise ValueError(f"the loss has the {found}, and must be a tensor with one number: the batch's mean")
    if not loss.requires_grad:
        raise ValueError(
            "no gradient leads from the loss to the model: is its output detached, is it frozen, or is this within "
            "torch.no_grad()?"
        )


def check_hyperparameters(optimizer: Optimizer) -> None:
    """Raise ValueError for a learning rate that is not finite, or another setting that is NaN."""
    for group in optimizer.param_groups:
        for name, value in group.items():
            numbers = value if isinstance(value, tuple) else (value,)
            if name != "params" and any(isinstance(one, (float, Tensor)) and math.isnan(one) for one in numbers):
                raise ValueError(f"the optimizer's {name} is {value}: give it a number")
        if math.isinf(group["lr"]):
            raise ValueError(f"the optimizer's lr is {group['lr']}: give it a finite learning rate")


def parts_of(scheduler: LRScheduler | None) -> list[LRScheduler]:
    """Return the schedules that a SequentialLR or ChainedScheduler is made of; one of another class is its only part.

    A part that is such a schedule itself is taken apart, too.
    """
    if isinstance(scheduler, (SequentialLR, ChainedScheduler)):
        return [part for one in scheduler._schedulers for part in parts_of(one)]
    return [] if scheduler is None else [scheduler]


def moves_per_batch(scheduler: LRScheduler | None, per_batch: bool | None = None) -> bool:
    """Tell whether a schedule moves after each batch: as `per_batch` says, or else if it is made of `PER_BATCH`.

    Raises:
        ValueError: some of its parts move after each batch, and others after each epoch.
    """
    if per_batch is not None:
        return per_batch
    kinds = {isinstance(part, PER_BATCH): type(part).__name__ for part in parts_of(scheduler)}
    if len(kinds) > 1:
        raise ValueError(
            f"{kinds[True]} moves after every batch and {kinds[False]} after every epoch, so {type(scheduler).__name__}"
            " cannot tell which: give per_batch=True and count all of its steps in batches, or leave one of them out"
        )
    return True in kinds


def check_schedule(
    scheduler: LRScheduler | None,
    optimizer: Optimizer,
    train_loader: Iterable,
    validation_loader: Iterable | None,
    n_epochs: int,
    per_batch: bool,
) -> None:
    """Raise ValueError where a schedule cannot move the optimizer's rate through `n_epochs` more epochs."""
    if scheduler is None:
        return
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            f"the {type(scheduler).__name__} belongs to another optimizer: make the schedule anew, from this one"
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        if scheduler.mode == "max":
            raise ValueError(
                "ReduceLROnPlateau is stepped with the validation loss, which should fall: give it mode='min'"
            )
        if validation_loader is None:
            raise ValueError("ReduceLROnPlateau waits for the validation loss: give it a validation loader")
        if per_batch:
            raise ValueError("ReduceLROnPlateau waits for the validation loss after each epoch: leave out per_batch")
    n_batches = _length(train_loader) if per_batch else 1
    if n_batches is not None:
        _check_cycles(scheduler, n_epochs * n_batches)


def _check_cycles(scheduler: LRScheduler, n_steps: int) -> None:
    """Raise ValueError if a OneCycleLR is over before so many more steps are taken."""
    if isinstance(scheduler, ChainedScheduler):
        for part in scheduler._schedulers:
            _check_cycles(part, n_steps)
    elif isinstance(scheduler, SequentialLR):
        end = scheduler.last_epoch + n_steps
        for part, (first, after) in zip(scheduler._schedulers, pairwise([0, *scheduler._milestones, end + 1])):
            _check_cycles(part, min(end, after - 1) - first - max(part.last_epoch, 0))
    elif isinstance(scheduler, OneCycleLR):
        taken, total = max(scheduler.last_epoch, 0), scheduler.total_steps
        if taken + n_steps > total:
            raise ValueError(
                f"OneCycleLR has total_steps={total}, of which {taken} are taken, and this training takes {n_steps} "
                f"more: give it total_steps={taken + n_steps} from the start, or train for fewer epochs"
            )


def _length(loader: Any) -> int | None:
    """Return a loader's number of batches where it knows it."""
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader of an IterableDataset
        return None
