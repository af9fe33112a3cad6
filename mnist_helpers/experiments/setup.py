"""A recipe made ready for training: loaders, model, optimizer and schedule; and the training of it."""

import warnings
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data.digits import Digits
from ..data.loaders import ResidentLoader, make_loaders
from ..environment import combine_seeds, has_bfloat16, quick, seeded
from ..models import INITIALISATIONS, build_model
from ..models.saved import CheckpointError
from ..training.history import History
from ..training.loop import fit
from ..training.resume import load_state
from .distributed import all_reduce_mean, broadcast, gather, global_mean, rank, to_ddp, world_size
from .recipe import Recipe, make_optimizer, make_scheduler


@dataclass(frozen=True)
class Setup:
    """A recipe made ready for training: what `training.epochs` and `training.fit` are given.

    `before` is the `History` of the training that this one continues, or None. `options` are keywords of `epochs`.
    """

    recipe: Recipe
    seed: int
    model: nn.Module
    train_loader: ResidentLoader
    validation_loader: ResidentLoader | None
    optimizer: torch.optim.Optimizer
    n_epochs: int
    options: dict[str, Any]
    before: History | None


def prepare(
    recipe: Recipe,
    digits: Digits,
    seed: int,
    device: torch.device,
    *,
    limit: int | None = None,
    progress: bool = True,
    checkpoints: Path | None = None,
) -> Setup:
    """Return the `Setup` of a recipe; one that continues another recipe is trained up to there. See `run`."""
    limit = quick(limit, short=min(4000 if limit is None else limit, 4000))
    train_loader, validation_loader = training_loaders(recipe, digits, seed, device, limit)
    if recipe.start:
        folder = None if checkpoints is None else checkpoints / "start"
        start = prepare(recipe.start, digits, seed, device, limit=limit, progress=progress, checkpoints=folder)
        model, before = start.model, fit_setup(start, progress=progress, checkpoints=folder)
    else:
        model, before = to_ddp(initialised(recipe, seed, device)), None
    n_epochs = quick(recipe.epochs, short=min(recipe.epochs, 2))
    optimizer = make_optimizer(recipe, model.parameters())
    options: dict[str, Any] = {
        "scheduler": make_scheduler(recipe, optimizer, n_epochs, len(train_loader)),
        "bfloat16": uses_bfloat16(recipe, device),
        "seed": combine_seeds(seed, rank()) if rank() else seed,  # each process has dropout of its own
    }
    if world_size() > 1:
        options |= {"loss_function": global_mean(F.cross_entropy), "all_reduce": all_reduce_mean}
    return Setup(recipe, seed, model, train_loader, validation_loader, optimizer, n_epochs, options, before)


def fit_setup(setup: Setup, *, progress: bool = True, checkpoints: Path | None = None) -> History:
    """Train what `prepare` returned and return the `History`.

    `checkpoints` is a folder for the state after each epoch; training goes on from a state there. Raises ValueError
    for a committee, which is not trained as one network; KeyboardInterrupt after Ctrl-C; else as `fit`.
    """
    if setup.recipe.members:
        raise ValueError(f"{setup.recipe.name} is a committee, not trained as one network: use record_run")
    checkpoint = None if checkpoints is None else checkpoints / "state.pt"
    state = broadcast(_first_state(checkpoint) if checkpoint else None)
    if state is not None and rank():
        state["seed"] = setup.options["seed"]  # it is the first process's, and each has its own
    history = fit(
        setup.model,
        setup.train_loader,
        setup.validation_loader,
        setup.optimizer,
        setup.n_epochs,
        after=setup.before,
        restore_best=setup.recipe.keep_best,
        progress=progress and rank() == 0,
        checkpoint=checkpoint if rank() == 0 else None,
        resume=state,
        **setup.options,
    )
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    return history


def _first_state(checkpoint: Path) -> dict[str, Any] | None:
    """Return the first process's state, or None; warn where another one, on another machine, has a longer one."""
    state = None
    with suppress(CheckpointError) if rank() else nullcontext():
        state = load_state(checkpoint)
    finished = gather(0 if state is None else len(state["epochs"]))
    if max(finished) > finished[0] and rank() == 0:
        goes = f"goes on after epoch {finished[0]}" if finished[0] else "begins anew"
        warnings.warn(
            f"training {goes}, though process {finished.index(max(finished))} has a state after epoch {max(finished)} "
            f"on its machine: to go on from there, copy it to {checkpoint} here, or start that machine first",
            stacklevel=3,
        )
    return state


def training_loaders(
    recipe: Recipe, digits: Digits, seed: int, device: torch.device, limit: int | None
) -> tuple[ResidentLoader, ResidentLoader | None]:
    """Return the loaders that a recipe is trained and validated with."""
    return make_loaders(
        digits,
        recipe.batch_size,
        recipe.normalisation,
        seed,
        device,
        limit=limit,
        augmentation=recipe.augmentation,
        shard=(rank(), world_size()),
        all_images=recipe.all_images,
        hands=recipe.hands,
        no_digits=recipe.no_digits,
    )


def initialised(recipe: Recipe, seed: int, device: torch.device) -> nn.Module:
    """Return the recipe's model before training."""
    with seeded(seed):
        model = build_model(recipe.model, **recipe.model_arguments)
        if recipe.initialisation:
            INITIALISATIONS[recipe.initialisation](model)
        return model.to(device)


def uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Tell whether a recipe is trained in bfloat16 on this device."""
    return recipe.mixed_precision and has_bfloat16(device)
