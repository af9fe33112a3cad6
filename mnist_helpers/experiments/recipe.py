"""Recipes: everything that decides what is trained. What the named ones are, `systems` says."""

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from ..data.augment import Augmentation
from ..data.loaders import check_range, mean_and_std
from ..files import file_name
from ..models import INITIALISATIONS, outline

# Fields that do not decide the outcome of training
DESCRIPTION = ("name", "ablation", "published_accuracy", "saved_as", "note", "varied", "changes")
FIXED = (*DESCRIPTION, "start", "members", "all_images")  # fields that `vary` leaves alone


@dataclass(frozen=True)
class Recipe:
    """A system: everything that decides what is trained, and what its authors published.

    Attributes:
        name: the key in `systems.RECIPES` and in the results table.
        model, model_arguments: the architecture, see `models.build_model`.
        initialisation: a name in `models.INITIALISATIONS`; "": PyTorch's own.
        start: the recipe whose training this one continues, from the weights of the same seed; None: fresh weights.
        optimizer, optimizer_arguments: a class of `torch.optim` by name, and its arguments.
        scheduler, scheduler_arguments: a class of `torch.optim.lr_scheduler` by name, and its arguments, see
            `make_scheduler`.
        augmentation: how training images are distorted, if at all.
        mixed_precision: train in bfloat16 on processors that support it, see `environment.has_bfloat16`.
        all_images: train on all 60,000 images and hold none back for validation.
        hands, no_digits: so many digits of other hands, and pictures of no digit, are learnt beside the training
            images, see `hands.many_hands`; the model then has eleven answers.
        members: the recipes of a committee's members, see `run.record_run`.
        keep_best: end with the weights of the best epoch on validation, not with the last one's.
        normalisation, batch_size, epochs: as for `loaders.make_loaders` and `training.fit`; epochs after `start`.
        ablation: "" for a system of the results table. Otherwise the group of variants, each with one part changed,
            that this recipe belongs to.
        published_accuracy: on the test set, percent; None where nothing was published.
        saved_as: the weights' file name in the source project; the recipe's name unless given.
        note: what to know about the published protocol.
        varied, changes: of a trial in a search, see `vary`: the recipe that was varied, and what is different.
    """

    name: str
    model: str
    model_arguments: dict[str, Any] = field(default_factory=dict)
    initialisation: str = ""
    start: "Recipe | None" = None
    optimizer: str = "Adam"
    optimizer_arguments: dict[str, Any] = field(default_factory=lambda: {"lr": 1e-3, "fused": True})
    scheduler: str | None = None
    scheduler_arguments: dict[str, Any] = field(default_factory=dict)
    augmentation: Augmentation | None = None
    mixed_precision: bool = False
    all_images: bool = False
    hands: int = 0
    no_digits: int = 0
    members: "tuple[Recipe, ...]" = ()
    keep_best: bool = False
    normalisation: str = "half"
    batch_size: int = 64
    epochs: int = 15
    ablation: str = ""
    published_accuracy: float | None = None
    saved_as: str = ""
    note: str = ""
    varied: "Recipe | None" = None
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_system(self) -> bool:
        """Whether it is scored on test; a variant in an ablation and a trial in a search are not."""
        return not self.ablation and self.varied is None

    def settings(self) -> dict[str, Any]:
        """Return what decides the outcome of training, JSON-ready; what is not used is left out."""
        settings = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in DESCRIPTION}
        settings = {name: value for name, value in settings.items() if value not in (None, "", {}, (), False)}
        if self.augmentation:
            settings["augmentation"] = _used(self.augmentation)
        if self.start:
            settings["start"] = self.start.settings()
        if self.members:
            settings["members"] = [member.settings() for member in self.members]
        return json.loads(json.dumps(settings))  # as a record read from disk has it: lists for tuples


VARIABLE = {one.name for one in fields(Recipe)} - {*FIXED, "optimizer_arguments"}


def vary(recipe: Recipe, changes: dict[str, Any], *, check: bool = True) -> Recipe:
    """Return a recipe with other hyperparameters, as a trial in a search: it is scored on validation only.

    Its name says what changed, as in `conv_bn_relu_w8_lr_0.01`. A trial that is varied again keeps its first changes.

    Args:
        changes: JSON-ready values by name. A field of `Recipe` (batch_size, epochs, model_arguments, optimizer, ...)
            or else an argument of the optimizer (lr, weight_decay, ...). Arguments that a new optimizer does not know
            are dropped. Under OneCycleLR, lr is the highest rate. `augmentation` may be an `Augmentation` or its
            arguments.
        check: make model, optimizer and schedule once, to see that they take the values; a trial that is read from a
            record has shown it.

    Raises:
        ValueError: neither the recipe nor its optimizer has something of that name, or the value does not suit; or the
            recipe is a committee's.
    """
    if recipe.members:
        raise ValueError(f"{recipe.name} is a committee of trained networks: search the recipe of a member instead")
    base, known = recipe.varied or recipe, _argument_names(changes.get("optimizer", recipe.optimizer))
    changes = _with_earlier(recipe, changes, known)
    own = {name: value for name, value in changes.items() if name in VARIABLE}
    added = {name: value for name, value in changes.items() if name not in VARIABLE}
    scheduler, arguments = own.get("scheduler", base.scheduler), own.get("scheduler_arguments", {})
    if "lr" in added and (scheduler == "CyclicLR" or "max_lr" in arguments):
        raise ValueError(f"the schedule of {base.name} sets the learning rate: leave out lr")
    if "lr" in added and scheduler == "OneCycleLR":
        own["scheduler_arguments"] = (arguments or base.scheduler_arguments) | {"max_lr": added["lr"]}
    own["optimizer_arguments"] = {k: v for k, v in base.optimizer_arguments.items() if k in known} | added
    trial: dict[str, Any] = {
        "varied": base,
        "changes": changes,
        "ablation": "",
        "start": _held_back(base.start),
        "all_images": False,
        "published_accuracy": None,
        "saved_as": "",
        "note": "",
    }
    try:
        json.dumps(changes, allow_nan=False)
        if own.get("augmentation") is not None:
            own["augmentation"] = Augmentation(**own["augmentation"])
        varied = replace(base, name=_trial_name(base, changes), **own, **trial)
        if check:
            check_recipe(varied)
    except Exception as error:  # whatever the constructors raise
        raise ValueError(f"{base.name} cannot be trained with {changes}: {error}") from error
    return varied


def make_optimizer(recipe: Recipe, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of a model's parameters."""
    return getattr(torch.optim, recipe.optimizer)(parameters, **recipe.optimizer_arguments)


def make_scheduler(
    recipe: Recipe, optimizer: torch.optim.Optimizer, n_epochs: int, n_batches: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return the recipe's schedule, if it has one, for a training of `n_epochs` with `n_batches` each.

    `CosineAnnealingLR` is told its `T_max` in epochs, `OneCycleLR` its `total_steps` in batches.

    Raises:
        ValueError: OneCycleLR has too few batches for its rise.
    """
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


def _held_back(recipe: Recipe | None) -> Recipe | None:
    """Return a recipe that keeps images to validate on, as the recipes that it continues then do, too."""
    if recipe is None:
        return None
    start = _held_back(recipe.start)
    unchanged = not recipe.all_images and start is recipe.start
    return recipe if unchanged else replace(recipe, all_images=False, start=start)


def _with_earlier(recipe: Recipe, changes: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """Return a trial's earlier changes and these, whose names are checked; `known` are its optimizer's arguments."""
    for name in ("optimizer_arguments", "scheduler_arguments", "model_arguments"):
        if not isinstance(changes.get(name, {}), dict):
            raise ValueError(f"{name} must be a dict of arguments by name, not {changes[name]!r}")
    arguments = changes.get("optimizer_arguments", {})
    changes = {name: value for name, value in changes.items() if name != "optimizer_arguments"} | arguments
    if isinstance(changes.get("augmentation"), Augmentation):
        changes["augmentation"] = _used(changes["augmentation"])
    for name in changes:
        if name in FIXED:
            raise ValueError(f"a trial cannot change {name!r}: it can change {', '.join(sorted(VARIABLE))}")
        if name not in VARIABLE and name not in known:
            optimizer = changes.get("optimizer", recipe.optimizer)
            raise ValueError(f"neither a recipe nor {optimizer} has {name!r}: {optimizer} has {', '.join(known)}")
    return {name: value for name, value in recipe.changes.items() if name in VARIABLE or name in known} | changes


def check_recipe(recipe: Recipe) -> None:
    """Make once all that a recipe names, so that what does not suit raises before anything is trained."""
    for name in ("batch_size", "epochs"):
        if type(getattr(recipe, name)) is not int or getattr(recipe, name) < 1:
            raise ValueError(f"{name} must be a whole number from 1 on")
    for name in ("hands", "no_digits"):
        if type(getattr(recipe, name)) is not int or getattr(recipe, name) < 0:
            raise ValueError(f"{name} must be a whole number from 0 on")
    for name in ("mixed_precision", "keep_best"):
        if type(getattr(recipe, name)) is not bool:
            raise ValueError(f"{name} must be True or False")
    if recipe.initialisation not in ("", *INITIALISATIONS):
        raise ValueError(f"there is no initialisation {recipe.initialisation!r}: {', '.join(INITIALISATIONS)}")
    _, std = mean_and_std(recipe.normalisation)
    if recipe.augmentation:
        check_range(recipe.augmentation, std)
        recipe.augmentation(torch.zeros(1, 1, 28, 28), 0.0, torch.Generator())
    outline(recipe.model, **recipe.model_arguments)
    optimizer = make_optimizer(recipe, [torch.zeros(1, requires_grad=True)])
    make_scheduler(recipe, optimizer, recipe.epochs, n_batches=100)


def _argument_names(optimizer: object) -> list[str]:
    """Return the names of the arguments of a class of `torch.optim`, beside the parameters."""
    found = getattr(torch.optim, optimizer, None) if isinstance(optimizer, str) else None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)) or found is torch.optim.Optimizer:
        raise ValueError(f"torch.optim has no optimizer {optimizer!r}")
    return list(inspect.signature(found).parameters)[1:]


def _used(augmentation: Augmentation) -> dict[str, Any]:
    """Return an augmentation's arguments without those that switch nothing on."""
    usual = asdict(Augmentation())
    return {name: value for name, value in asdict(augmentation).items() if value or value != usual[name]}


def _trial_name(base: Recipe, changes: dict[str, Any]) -> str:
    name = "_".join([base.name, *(f"{name}_{value}" for name, value in _flat(changes))])
    if not changes:
        name += "_unchanged"
    return file_name(name)  # its record is a file of that name


def _flat(changes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in changes.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value
