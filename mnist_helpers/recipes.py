"""The named systems as data, and `run`, which trains one of them and scores it."""

import json
import platform
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import nn

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
        start: the recipe whose training this one continues, from the weights of the same seed; None: fresh weights.
        optimizer, optimizer_arguments: a class of `torch.optim` by name, and its arguments.
        scheduler, scheduler_arguments: a class of `torch.optim.lr_scheduler` by name, and its arguments. Those that
            need the length of the training are told it: `T_max` in epochs, `total_steps` in batches.
        normalisation, batch_size, epochs: as for `loaders.make_loaders` and `training.fit`; epochs after `start`.
        study: "" for a system of the results table. Otherwise the study that the recipe is a variant in: it is scored
            on validation only, and never sees the test set.
        published_accuracy: on the test set, percent; None where nothing was published.
        saved_as: the weights' file name in the source project; the recipe's name unless given.
        note: what to know about the published protocol.
    """

    name: str
    model: str
    model_arguments: dict = field(default_factory=dict)
    start: str | None = None
    optimizer: str = "Adam"
    optimizer_arguments: dict = field(default_factory=lambda: {"lr": 1e-3, "fused": True})
    scheduler: str | None = None
    scheduler_arguments: dict = field(default_factory=dict)
    normalisation: str = "half"
    batch_size: int = 64
    epochs: int = 15
    study: str = ""
    published_accuracy: float | None = None
    saved_as: str = ""
    note: str = ""

    def settings(self):
        """Return what decides the outcome of training, JSON-ready; what is not used is left out."""
        settings = {name: value for name, value in asdict(self).items() if value not in (None, "", {})}
        for description in ("name", "study", "published_accuracy", "saved_as", "note"):
            settings.pop(description, None)
        if self.start:
            settings["start"] = RECIPES[self.start].settings()
        return json.loads(json.dumps(settings))  # as a record read from disk has it: lists for tuples


BASELINE = Recipe(
    name="mlp_baseline",
    model="mlp_baseline",
    published_accuracy=98.05,
    note="one run; weights of the last epoch",
)
PLATEAU = Recipe(
    name="mlp_plateau",
    model="mlp_baseline",
    start="mlp_baseline",
    scheduler="ReduceLROnPlateau",
    scheduler_arguments={"mode": "min", "factor": 0.1, "patience": 5},
    published_accuracy=98.38,
    saved_as="saved_model",
    note="one run; 15 epochs more than the baseline, so the schedule's part in the gain was not shown",
)
SYSTEMS = (
    BASELINE,
    PLATEAU,
    Recipe(name="network", model="network", saved_as="Network", note="no figure was published"),
    Recipe(
        name="improved_network",
        model="improved_network",
        saved_as="ImprovedNetwork",
        note='no figure was published; said to "significantly enhance" `network`',
    ),
)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def _variant(recipe, study, name, **changes):
    """Return a recipe changed for a study, which its authors' figure says nothing about."""
    return replace(recipe, study=study, name=name, **changes, published_accuracy=None, saved_as="", note="")


def _constant(rate):
    return {"optimizer_arguments": {**BASELINE.optimizer_arguments, "lr": rate}}


def _one_cycle(rate):
    return {"scheduler": "OneCycleLR", "scheduler_arguments": {"max_lr": rate}}


STUDIES = (
    _variant(PLATEAU, "schedules", "mlp_constant", scheduler=None, scheduler_arguments={}),
    _variant(BASELINE, "schedules", "mlp_constant_30", epochs=30),
    _variant(
        BASELINE,
        "schedules",
        "mlp_step",
        epochs=30,
        scheduler="StepLR",
        scheduler_arguments={"step_size": 10, "gamma": 0.1},
    ),
    _variant(BASELINE, "schedules", "mlp_cosine", epochs=30, scheduler="CosineAnnealingLR"),
    _variant(BASELINE, "schedules", "mlp_one_cycle", epochs=30, **_one_cycle(1e-2)),
    *(_variant(BASELINE, "learning rates", f"mlp_rate_{rate:g}", **_constant(rate)) for rate in RATES if rate != 1e-3),
    *(_variant(BASELINE, "learning rates", f"mlp_one_cycle_rate_{rate:g}", **_one_cycle(rate)) for rate in RATES),
)
RECIPES = {recipe.name: recipe for recipe in (*SYSTEMS, *STUDIES)}


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
    """Train the recipe called `name` on `digits`, score its last epoch, and return the `Run`.

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
        "validation_accuracy": history["validation_accuracy"][-1],
        "validation_loss": history["validation_loss"][-1],
        **_test_fields(recipe, model, digits),
        "history": [asdict(result) for result in history.epochs],
    }
    return Run(record, model, history)


def _train(recipe, digits, seed, device, progress):
    """Return (trained model, history, training loader) of a recipe, after what it continues."""
    train_loader, validation_loader = make_loaders(
        digits, recipe.batch_size, recipe.normalisation, seed, device, limit=quick(None, short=4000)
    )
    if recipe.start:
        model, before, _ = _train(RECIPES[recipe.start], digits, seed, device, progress)
    else:
        before = None
        with seeded(seed):
            model = build_model(recipe.model, **recipe.model_arguments).to(device)
    n_epochs = quick(recipe.epochs, short=2)
    optimizer = getattr(torch.optim, recipe.optimizer)(model.parameters(), **recipe.optimizer_arguments)
    scheduler = _make_scheduler(recipe, optimizer, n_epochs, len(train_loader))
    options = {"scheduler": scheduler, "seed": seed, "progress": progress}
    history = fit(model, train_loader, validation_loader, optimizer, n_epochs, after=before, **options)
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    return model, history, train_loader


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
        "data": {**digits.checksums, **test.checksums},
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
