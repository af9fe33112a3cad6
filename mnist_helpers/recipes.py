"""The named systems as data, and `run`, which trains one of them and scores it."""

import json
import platform
from dataclasses import asdict, dataclass, field

import torch
from torch import nn

from .data import DataError
from .environment import choose_device, quick, quick_mode, seeded
from .evaluation import score_on_test
from .loaders import make_loaders
from .models import build_model, count_parameters
from .training import History, fit


@dataclass(frozen=True)
class Recipe:
    """A system: everything that decides what is trained, and what its authors published.

    Attributes:
        name: the key in `RECIPES` and in the results table.
        model, model_arguments: the architecture, see `models.build_model`.
        optimizer, optimizer_arguments: a class of `torch.optim` by name, and its arguments.
        normalisation, batch_size, epochs: as for `loaders.make_loaders` and `training.fit`.
        published_accuracy: on the test set, percent; None where nothing was published.
        note: what to know about the published protocol.
    """

    name: str
    model: str
    model_arguments: dict = field(default_factory=dict)
    optimizer: str = "Adam"
    optimizer_arguments: dict = field(default_factory=lambda: {"lr": 1e-3, "fused": True})
    normalisation: str = "half"
    batch_size: int = 64
    epochs: int = 15
    published_accuracy: float | None = None
    note: str = ""

    def settings(self):
        """Return what decides the outcome of training, JSON-ready: all but the published figure and the note."""
        settings = asdict(self)
        del settings["published_accuracy"], settings["note"]
        return json.loads(json.dumps(settings))  # as a record read from disk has it: lists for tuples


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mlp_baseline",
            model="mlp_baseline",
            published_accuracy=98.05,
            note="one run; weights of the last epoch",
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """A finished run: its JSON-ready `record`, the trained `model` and the `history` of its epochs."""

    record: dict
    model: nn.Module
    history: History


def find_recipe(name):
    """Return a recipe by its name; raises ValueError, naming them all, for an unknown one."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def run(name, digits, seed=0, *, device=None, progress=True):
    """Train the recipe called `name` on `digits`, score its last epoch on validation and test, and return the `Run`.

    Quick mode trains for two epochs on 4,000 images and says so in the record.

    Args:
        digits: `Digits` for training and validation; the test part is loaded by `evaluation` when training is over.
        seed: of initialisation, batch order and dropout.
        device: the best one here unless named.

    Raises:
        ValueError: no such recipe.
        DataError: the test part that is found is of another source than `digits`.
        TrainingError: the loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C; an unfinished run is never scored.
    """
    recipe = find_recipe(name)
    device = choose_device(device)
    train_loader, validation_loader = make_loaders(
        digits, recipe.batch_size, recipe.normalisation, seed, device, limit=quick(None, short=4000)
    )
    with seeded(seed):
        model = build_model(recipe.model, **recipe.model_arguments).to(device)
    optimizer = getattr(torch.optim, recipe.optimizer)(model.parameters(), **recipe.optimizer_arguments)
    n_epochs = quick(recipe.epochs, short=2)
    history = fit(model, train_loader, validation_loader, optimizer, n_epochs, seed=seed, progress=progress)
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    test = score_on_test(model, recipe.normalisation)
    if test.source != digits.source:
        raise DataError(f"{name} was trained on {digits.source}, but the test part that was found is {test.source}")
    record = {
        "recipe": name,
        "settings": recipe.settings(),
        "seed": seed,
        "source": digits.source,
        "quick": quick_mode(),
        "trained_on": len(train_loader.labels),
        **_machine(device),
        "parameters": count_parameters(model),
        "epochs": len(history),
        "seconds": round(history.seconds, 2),
        "validation_accuracy": history["validation_accuracy"][-1],
        "validation_loss": history["validation_loss"][-1],
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_predictions": test.predictions,
        "history": [asdict(result) for result in history.epochs],
        "data": {**digits.checksums, **test.checksums},
    }
    return Run(record, model, history)


def _machine(device):
    """Return where and with what a run is computed, for its record."""
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": "float32",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
