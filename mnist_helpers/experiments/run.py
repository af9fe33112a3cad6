"""Training a recipe, and scoring it."""

import json
import platform
import time
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ..data.loaders import ResidentLoader, make_loaders
from ..environment import choose_device, combine_seeds, has_bfloat16, quick, quick_mode, seeded
from ..evaluation.scores import score_on_test
from ..files import sha256
from ..models import INITIALISATIONS, build_model, count_parameters, unwrapped
from ..training.history import History
from ..training.loop import fit, train_one_epoch
from ..training.resume import load_state
from .distributed import all_reduce_mean, broadcast, global_mean, rank, to_ddp, world_size
from .recipes import RECIPES, Recipe, find_recipe


@dataclass(frozen=True)
class Setup:
    """A recipe made ready for training: what `training.epochs` and `training.fit` are to be given.

    `before` is the `History` of the training that this one continues, or None.
    """

    recipe: Recipe
    seed: int
    model: nn.Module
    train_loader: ResidentLoader
    validation_loader: ResidentLoader | None
    optimizer: torch.optim.Optimizer
    n_epochs: int
    options: dict
    before: History | None

    def fingerprint(self):
        """Return a name that training which goes otherwise does not have; the number of processes is not in it."""
        loader = self.train_loader
        facts = [self.recipe.settings(), self.n_epochs, self.seed]
        facts += [loader.source, loader.n_examples, loader.labels.device.type]
        return f"{self.recipe.name[:60]}-{sha256(json.dumps(facts).encode())[:16]}"


@dataclass(frozen=True)
class Run:
    """A finished run: its JSON-ready `record`, the trained `model` and the `history` of its epochs.

    Of several processes that train together, only the first has a record.
    """

    record: dict | None
    model: nn.Module
    history: History


def run(recipe, digits, seed=0, *, device=None, progress=True, limit=None, train=None, unfinished=None, copy=None):
    """Train a recipe on `digits`, score the weights that it ends with, and return the `Run`.

    It is scored on validation, if images were held back for that, and on test unless it is a variant in a study.
    Quick mode trains for two epochs on 4,000 images and says so in the record. Under torchrun all processes train
    together, see `distributed`.

    Args:
        recipe: its name, or a `Recipe`.
        digits: `Digits` for training and validation; the test part is loaded by `evaluation` when training is over.
        seed: of initialisation, batch order and dropout.
        device: the best one here unless named.
        limit: keep only so many training images, and a quarter as many for validation.
        train: takes the `Setup` and returns the `History`; `fit_setup` unless given.
        unfinished: a folder that keeps the state of unfinished training, which the same run takes up again.
        copy: a folder for a second copy of that state, see `training.fit`.

    Raises:
        ValueError: no such recipe.
        DataError: the test part of the digits' set is not to be had.
        TrainingError: the loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C; an unfinished run is never scored.
    """
    recipe, device = find_recipe(recipe), choose_device(device)
    options = {"progress": progress, "unfinished": unfinished, "copy": copy}
    setup = prepare(recipe, digits, seed, device, limit=limit, **options)
    history = train(setup) if train else fit_setup(setup, **options)
    model = unwrapped(setup.model)
    if rank() != 0:
        return Run(None, model, history)
    kept = history.best if recipe.keep_best or not len(history) else history.epochs[-1]
    record = {
        "recipe": recipe.name,
        **({"varied": recipe.varied, "changes": recipe.changes} if recipe.varied else {}),
        "settings": recipe.settings(),
        "seed": seed,
        "source": digits.source,
        "quick": quick_mode(),
        "trained_on": setup.train_loader.n_examples,
        "limit": limit,
        **_machine(device, recipe),
        "parameters": count_parameters(model),
        "epochs": len(history),
        "stopped": history.stopped,
        "seconds": round(history.seconds, 2),
        "validation_accuracy": kept.validation_accuracy if kept else None,
        "validation_loss": kept.validation_loss if kept else None,
        **_test_fields(recipe, model, digits),
        "history": [asdict(result) for result in history.epochs],
    }
    return Run(record, model, history)


def prepare(recipe, digits, seed, device, *, limit=None, **options):
    """Return the `Setup` of a recipe; one that continues another recipe is trained up to there. See `run`."""
    limit = quick(limit, short=min(limit or 4000, 4000))
    train_loader, validation_loader = _make_loaders(recipe, digits, seed, device, limit)
    if recipe.start:
        start = prepare(RECIPES[recipe.start], digits, seed, device, limit=limit, **options)
        model, before = start.model, fit_setup(start, **options)
    else:
        model, before = to_ddp(_initialised(recipe, seed, device)), None
    n_epochs = quick(recipe.epochs, short=min(recipe.epochs, 2))
    optimizer = _make_optimizer(recipe, model)
    options = {"scheduler": _make_scheduler(recipe, optimizer, n_epochs, len(train_loader)), "seed": seed}
    options["bfloat16"] = _uses_bfloat16(recipe, device)
    if world_size() > 1:
        options |= {"loss_function": global_mean(F.cross_entropy), "all_reduce": all_reduce_mean}
    if rank():
        options["seed"] = combine_seeds(seed, rank())  # of dropout: other neurons are silent in each process
    return Setup(recipe, seed, model, train_loader, validation_loader, optimizer, n_epochs, options, before)


def fit_setup(setup, *, progress=True, unfinished=None, copy=None):
    """Train what `prepare` returned and return the `History`; raises KeyboardInterrupt after Ctrl-C, else as `fit`."""
    checkpoint, state = None, None
    if unfinished is not None:
        checkpoint = unfinished / f"{setup.fingerprint()}.pt"
        state = broadcast(load_state(checkpoint) if rank() == 0 else None)
        if state is not None:
            state["seed"] = setup.options["seed"]  # each process has a seed of its own, and the first one's is kept
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


def seconds_per_epoch(name, digits, n_batches=20, *, device=None):
    """Return how long an epoch of a recipe takes here: timed on `n_batches` batches, scaled to 48,000 images.

    The batches are trained on twice, and the first round, in which everything warms up, does not count.

    Args:
        name: of the recipe.
        digits: `Digits` to take the batches from.
        n_batches: at least 1; fewer where the digits do not suffice.
        device: the best one here unless named.

    Raises:
        ValueError: no such recipe.
    """
    recipe, device = find_recipe(name), choose_device(device)
    loader, _ = _make_loaders(recipe, digits, 0, device, n_batches * recipe.batch_size)
    model = _initialised(recipe, 0, device)
    optimizer = _make_optimizer(recipe, model)
    for _ in range(2):
        start = time.perf_counter()
        with seeded(0):
            train_one_epoch(model, loader, optimizer, bfloat16=_uses_bfloat16(recipe, device))
        seconds = time.perf_counter() - start
    return seconds * 48_000 / loader.n_examples


def _make_loaders(recipe, digits, seed, device, limit):
    options = {"limit": limit, "augmentation": recipe.augmentation, "all_images": recipe.all_images}
    shard = rank(), world_size()
    return make_loaders(digits, recipe.batch_size, recipe.normalisation, seed, device, shard=shard, **options)


def _initialised(recipe, seed, device):
    """Return the recipe's model before training."""
    with seeded(seed):
        model = build_model(recipe.model, **recipe.model_arguments)
        if recipe.initialisation:
            INITIALISATIONS[recipe.initialisation](model)
        return model.to(device)


def _uses_bfloat16(recipe, device):
    return recipe.mixed_precision and has_bfloat16(device)


def _make_optimizer(recipe, model):
    return getattr(torch.optim, recipe.optimizer)(model.parameters(), **recipe.optimizer_arguments)


def _make_scheduler(recipe, optimizer, n_epochs, n_batches):
    if recipe.scheduler is None:
        return None
    length = {"CosineAnnealingLR": {"T_max": n_epochs}, "OneCycleLR": {"total_steps": n_epochs * n_batches}}
    arguments = recipe.scheduler_arguments | length.get(recipe.scheduler, {})
    try:
        return getattr(torch.optim.lr_scheduler, recipe.scheduler)(optimizer, **arguments)
    except ZeroDivisionError:  # OneCycleLR's, whose rise ends with batch number pct_start * total_steps - 1
        raise ValueError(
            f"{recipe.scheduler} cannot rise within a single one of {n_epochs * n_batches} batches: train for more "
            "epochs, on more images, or with a larger pct_start"
        ) from None


def _test_fields(recipe, model, digits):
    """Return what the record says about the test set; of a study's variant, nothing."""
    if recipe.study:
        return {"test_accuracy": None, "test_loss": None, "test_predictions": None, "data": digits.checksums}
    test = score_on_test(model, recipe.normalisation, digits.source)
    return {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_predictions": test.predictions,
        "data": {**digits.checksums, **test.digits.checksums},
    }


def _machine(device, recipe):
    """Return where and with what a run is computed, for its record."""
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "precision": "bfloat16" if _uses_bfloat16(recipe, device) else "float32",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
