"""Training a recipe, and scoring it."""

import platform
import time
from dataclasses import asdict, dataclass

import torch
from torch import nn

from .environment import choose_device, quick, quick_mode, seeded
from .evaluation import score_on_test
from .loaders import make_loaders
from .models import INITIALISATIONS, build_model, count_parameters
from .recipes import RECIPES, find_recipe
from .training import History, fit, train_one_epoch


@dataclass(frozen=True)
class Run:
    """A finished run: its JSON-ready `record`, the trained `model` and the `history` of its epochs."""

    record: dict
    model: nn.Module
    history: History


def run(name, digits, seed=0, *, device=None, progress=True):
    """Train the recipe called `name` on `digits`, score the weights that it ends with, and return the `Run`.

    It is scored on validation, and on test unless it is a variant in a study.

    Quick mode trains for two epochs on 4,000 images and says so in the record.

    Args:
        digits: `Digits` for training and validation; the test part is loaded by `evaluation` when training is over.
        seed: of initialisation, batch order and dropout.
        device: the best one here unless named.

    Raises:
        ValueError: no such recipe.
        DataError: the test part of the digits' set is not to be had.
        TrainingError: the loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C; an unfinished run is never scored.
    """
    recipe, device = find_recipe(name), choose_device(device)
    model, history, loader = _train(recipe, digits, seed, device, progress)
    kept = history.best if recipe.keep_best else history.epochs[-1]
    record = {
        "recipe": name,
        "settings": recipe.settings(),
        "seed": seed,
        "source": digits.source,
        "quick": quick_mode(),
        "trained_on": len(loader.labels),
        **_machine(device),
        "parameters": count_parameters(model),
        "epochs": len(history),
        "seconds": round(history.seconds, 2),
        "validation_accuracy": kept.validation_accuracy,
        "validation_loss": kept.validation_loss,
        **_test_fields(recipe, model, digits),
        "history": [asdict(result) for result in history.epochs],
    }
    return Run(record, model, history)


def _train(recipe, digits, seed, device, progress):
    """Return (trained model, history, training loader) of a recipe, after what it continues."""
    train_loader, validation_loader = _make_loaders(recipe, digits, seed, device, quick(None, short=4000))
    if recipe.start:
        model, before, _ = _train(RECIPES[recipe.start], digits, seed, device, progress)
    else:
        model, before = _initialised(recipe, seed, device), None
    n_epochs = quick(recipe.epochs, short=2)
    optimizer = _make_optimizer(recipe, model)
    scheduler = _make_scheduler(recipe, optimizer, n_epochs, len(train_loader))
    options = {"scheduler": scheduler, "seed": seed, "progress": progress, "restore_best": recipe.keep_best}
    history = fit(model, train_loader, validation_loader, optimizer, n_epochs, after=before, **options)
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    return model, history, train_loader


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
            train_one_epoch(model, loader, optimizer)
        seconds = time.perf_counter() - start
    return seconds * 48_000 / len(loader.labels)


def _make_loaders(recipe, digits, seed, device, limit):
    options = {"limit": limit, "augmentation": recipe.augmentation}
    return make_loaders(digits, recipe.batch_size, recipe.normalisation, seed, device, **options)


def _initialised(recipe, seed, device):
    """Return the recipe's model before training."""
    with seeded(seed):
        model = build_model(recipe.model, **recipe.model_arguments)
        if recipe.initialisation:
            INITIALISATIONS[recipe.initialisation](model)
        return model.to(device)


def _make_optimizer(recipe, model):
    return getattr(torch.optim, recipe.optimizer)(model.parameters(), **recipe.optimizer_arguments)


def _make_scheduler(recipe, optimizer, n_epochs, n_batches):
    if recipe.scheduler is None:
        return None
    length = {"CosineAnnealingLR": {"T_max": n_epochs}, "OneCycleLR": {"total_steps": n_epochs * n_batches}}
    arguments = recipe.scheduler_arguments | length.get(recipe.scheduler, {})
    return getattr(torch.optim.lr_scheduler, recipe.scheduler)(optimizer, **arguments)


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


def _machine(device):
    """Return where and with what a run is computed, for its record."""
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": "float32",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
