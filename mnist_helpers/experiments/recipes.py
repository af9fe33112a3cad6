"""The named systems, and the variants that studies compare, as data."""

import inspect
import json
from dataclasses import asdict, dataclass, field, fields, replace

import torch

from ..data.augment import Augmentation
from ..files import sha256

# Fields of a recipe that do not decide what training brings
DESCRIPTION = "name", "study", "published_accuracy", "saved_as", "note", "varied", "changes"


@dataclass(frozen=True)
class Recipe:
    """A system: everything that decides what is trained, and what its authors published.

    Attributes:
        name: the key in `RECIPES` and in the results table.
        model, model_arguments: the architecture, see `models.build_model`.
        initialisation: a name in `models.INITIALISATIONS`; "": PyTorch's own.
        start: the recipe whose training this one continues, from the weights of the same seed; None: fresh weights.
        optimizer, optimizer_arguments: a class of `torch.optim` by name, and its arguments.
        scheduler, scheduler_arguments: a class of `torch.optim.lr_scheduler` by name, and its arguments. Those that
            need the length of the training are told it: `T_max` in epochs, `total_steps` in batches.
        augmentation: how training images are distorted, if at all.
        mixed_precision: train in bfloat16 where the processor is made for it, see `environment.has_bfloat16`.
        all_images: train on all 60,000 images and hold none back: a frozen recipe, with nothing left to choose.
        members: of a committee, the recipe of each member, see `committees`.
        keep_best: end with the weights of the epoch that was best on validation, not with the last one's.
        normalisation, batch_size, epochs: as for `loaders.make_loaders` and `training.fit`; epochs after `start`.
        study: "" for a system of the results table. Otherwise the study that the recipe is a variant in: it is scored
            on validation only, and never sees the test set.
        published_accuracy: on the test set, percent; None where nothing was published.
        saved_as: the weights' file name in the source project; the recipe's name unless given.
        note: what to know about the published protocol.
        varied, changes: of a trial in a search, see `vary`: the named recipe, and what is different.
    """

    name: str
    model: str
    model_arguments: dict = field(default_factory=dict)
    initialisation: str = ""
    start: str | None = None
    optimizer: str = "Adam"
    optimizer_arguments: dict = field(default_factory=lambda: {"lr": 1e-3, "fused": True})
    scheduler: str | None = None
    scheduler_arguments: dict = field(default_factory=dict)
    augmentation: Augmentation | None = None
    mixed_precision: bool = False
    all_images: bool = False
    members: tuple = ()
    keep_best: bool = False
    normalisation: str = "half"
    batch_size: int = 64
    epochs: int = 15
    study: str = ""
    published_accuracy: float | None = None
    saved_as: str = ""
    note: str = ""
    varied: str = ""
    changes: dict = field(default_factory=dict)

    def settings(self):
        """Return what decides the outcome of training, JSON-ready; what is not used is left out."""
        settings = {name: value for name, value in asdict(self).items() if value not in (None, "", {}, (), False)}
        if self.augmentation:
            settings["augmentation"] = {name: value for name, value in settings["augmentation"].items() if value}
        for description in DESCRIPTION:
            settings.pop(description, None)
        if self.start:
            settings["start"] = RECIPES[self.start].settings()
        if self.members:
            settings["members"] = [RECIPES[member].settings() for member in self.members]
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
HALF_OF_TEST = "one run; validation and test were the halves of the test images, training used all 60,000"
SHAKEN = Augmentation(degrees=15, translate=2.8, scale=0.1)  # shift of a tenth of 28 pixels
MOVED = Augmentation(degrees=10, translate=2, scale=0.1, brightness=0.2)  # a crop of a padded image is a shift
TUNED = Recipe(
    name="cnn_tuned",
    model="cnn_tuned",
    initialisation="normal",
    augmentation=SHAKEN,
    batch_size=32,
    published_accuracy=99.10,
    note=HALF_OF_TEST,
)
KERAS = Recipe(
    name="keras_cnn",
    model="keras_cnn",
    initialisation="glorot",
    normalisation="raw",
    batch_size=32,
    epochs=10,
    published_accuracy=98.15,
    note="one run; the test set was the validation set, and 99.51 % was the training accuracy",
)
CONV_BN_RELU = Recipe(
    name="conv_bn_relu",
    model="conv_bn_relu",
    optimizer="SGD",
    optimizer_arguments={"lr": 0.005, "momentum": 0.9, "weight_decay": 1e-5, "fused": True},
    normalisation="mnist",
    epochs=20,
    keep_best=True,
    published_accuracy=99.50,
    note="99.50 to 99.56 % for the epoch that was best on the test set; more than an hour an epoch without a GPU",
)
CONV_W8 = replace(
    CONV_BN_RELU,
    name="conv_bn_relu_w8",
    model_arguments={"width": 0.125},
    published_accuracy=None,
    note="`conv_bn_relu` with an eighth of its channels; the epoch that was best on validation",
)
LENET = Recipe(
    name="lenet5", model="lenet5", normalisation="mnist", note="not from the source projects; LeCun 1998: 99.05 %"
)
NETWORK = Recipe(name="network", model="network", saved_as="Network", note="no figure was published")


def _averaged_cnn(*widths, diagonals=False, **arguments):
    """Return the model and arguments of a `fast_cnn` whose answers are averaged over shifts."""
    arguments = {"model": "fast_cnn", "model_arguments": {"widths": widths, **arguments}}
    if diagonals:
        arguments["diagonals"] = True
    return {"model": "shift_averaged", "model_arguments": arguments}


SPEED_99 = Recipe(
    name="speed_99",
    **_averaged_cnn(16, 32, 32),
    optimizer_arguments={"lr": 0.01, "betas": (0.7, 0.9), "fused": True},
    scheduler="OneCycleLR",
    scheduler_arguments={"max_lr": 0.01, "pct_start": 0.25, "anneal_strategy": "linear", "cycle_momentum": False},
    mixed_precision=True,
    all_images=True,
    normalisation="raw",  # batch normalisation makes up for it, and nothing need be computed
    batch_size=256,
    epochs=1,
    note="ours, made for speed",
)
AFFINE = Augmentation(degrees=10, translate=1.5, scale=0.1, shear=5)
SPEED_995 = replace(SPEED_99, name="speed_995", augmentation=AFFINE, epochs=7)
SPEED_997 = replace(
    SPEED_995,
    name="speed_997",
    **_averaged_cnn(24, 24, 48, 48, pool_after=1, diagonals=True),
    optimizer="SGD",
    optimizer_arguments={"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "fused": True},
    scheduler_arguments=SPEED_99.scheduler_arguments | {"max_lr": 0.1},
    augmentation=Augmentation(degrees=12, translate=2, scale=0.12, shear=8),
    batch_size=128,
    epochs=45,
)
RECORD = replace(
    SPEED_997,
    name="record",
    **_averaged_cnn(48, 48, 96, 96, pool_after=1, diagonals=True),
    augmentation=Augmentation(degrees=15, translate=2.5, scale=0.15, shear=10),  # more room, more to learn
    epochs=30,
    note="ours, made for accuracy",
)
TINY_10K = replace(
    SPEED_995, name="tiny_10k", **_averaged_cnn(16, 16, 16, 16, pool_after=1), epochs=30, note="ours, made small"
)
TINY_2K = replace(
    TINY_10K,
    name="tiny_2k",
    **_averaged_cnn(6, 6, 8, 8, pool_after=1, depthwise_head=True),
    optimizer_arguments=SPEED_99.optimizer_arguments | {"lr": 0.02},
    scheduler_arguments=SPEED_99.scheduler_arguments | {"max_lr": 0.02},
    augmentation=Augmentation(degrees=8, translate=1.2, scale=0.08, shear=4),  # little room, less to learn
    epochs=40,
)
MEMBERS = RECORD, RECORD, SPEED_997, SPEED_997, SPEED_997
COMMITTEE = replace(
    RECORD,
    name="committee",
    model="committee_of",
    model_arguments={"members": [(member.model, member.model_arguments) for member in MEMBERS]},
    members=tuple(member.name for member in MEMBERS),
    note="ours: two of `record`, three of `speed_997`; no two committees share a member",
)
SYSTEMS = (
    BASELINE,
    PLATEAU,
    NETWORK,
    Recipe(
        name="improved_network",
        model="improved_network",
        saved_as="ImprovedNetwork",
        note='no figure was published; said to "significantly enhance" `network`',
    ),
    replace(
        TUNED,
        name="cnn_dropout",
        model="cnn_dropout",
        normalisation="unit",
        epochs=10,
        published_accuracy=97.69,
    ),
    TUNED,
    KERAS,
    CONV_BN_RELU,
    CONV_W8,
    LENET,
    replace(LENET, name="resnet_small", model="resnet_small", note="not from the source projects"),
    replace(LENET, name="densenet_small", model="densenet_small", note="not from the source projects"),
    SPEED_99,
    SPEED_995,
    SPEED_997,
    TINY_10K,
    TINY_2K,
    RECORD,
    COMMITTEE,
)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def _variant(recipe, study, name, **changes):
    """Return a recipe changed for a study, which its authors' figure says nothing about."""
    return replace(recipe, study=study, name=name, **changes, published_accuracy=None, saved_as="", note="")


def _constant(rate):
    return {"optimizer_arguments": {**BASELINE.optimizer_arguments, "lr": rate}}


def _one_cycle(rate):
    return {"scheduler": "OneCycleLR", "scheduler_arguments": {"max_lr": rate}}


# speed_995 with images held back, and what it is without one of its parts, or with one more
HELD_BACK = replace(SPEED_995, all_images=False)
ORDINARY = {"lr": 1e-3, "fused": True}  # Adam's usual rate and betas
SPEED_STUDY = {
    "speed_whole": {},
    "speed_no_augmentation": {"augmentation": None},
    "speed_elastic": {"augmentation": replace(AFFINE, elastic=20)},
    "speed_sgd": {
        name: getattr(SPEED_997, name)
        for name in ("optimizer", "optimizer_arguments", "scheduler_arguments", "batch_size")
    },
    "speed_constant_rate": {"scheduler": None, "scheduler_arguments": {}},
    "speed_usual_adam": {"scheduler": None, "scheduler_arguments": {}, "optimizer_arguments": ORDINARY},
    "speed_usual_betas": {"optimizer_arguments": {"lr": 0.01, "fused": True}},
    "speed_no_shifts": {"model": "fast_cnn", "model_arguments": {"widths": (16, 32, 32)}},
    "speed_pooled_later": _averaged_cnn(16, 32, 32, pool_after=1),
    "speed_float32": {"mixed_precision": False},
    "speed_large_batches": {"batch_size": 1024},
}
STUDIES = (
    *(
        _variant(recipe, "held back", f"{recipe.name}_held_back", all_images=False)
        for recipe in (SPEED_99, SPEED_997, TINY_10K, TINY_2K, RECORD)  # on validation, as when they were chosen
    ),
    *(_variant(HELD_BACK, "speed", name, **changes) for name, changes in SPEED_STUDY.items()),
    _variant(NETWORK, "regularisation", "network_dropout", model_arguments={"dropout": 0.2}),
    _variant(NETWORK, "regularisation", "network_batch_norm", model_arguments={"batch_norm": True}),
    _variant(TUNED, "initialisation", "cnn_tuned_default", initialisation=""),
    _variant(KERAS, "pixels", "keras_cnn_scaled", normalisation="unit"),
    _variant(TUNED, "augmentation", "cnn_tuned_plain", augmentation=None),
    _variant(LENET, "augmentation", "lenet5_shaken", augmentation=SHAKEN),
    _variant(LENET, "augmentation", "lenet5_elastic", augmentation=replace(SHAKEN, elastic=34)),
    _variant(LENET, "augmentation", "lenet5_flipped", augmentation=Augmentation(flip=True)),
    _variant(CONV_W8, "augmentation", "conv_bn_relu_w8_augmented", augmentation=MOVED),
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


def find_recipe(name):
    """Return a recipe by its name, or the `Recipe` itself; raises ValueError, naming them all."""
    if isinstance(name, Recipe):
        return name
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def vary(recipe, changes):
    """Return a recipe with other hyperparameters, as a trial in a search: it is scored on validation only.

    Its name tells the changes, `conv_bn_relu_w8_lr_0.01`, and those of a trial that is varied again are added up.

    Args:
        recipe: a recipe or its name.
        changes: JSON-ready values by name. A field of `Recipe` (batch_size, epochs, model_arguments, optimizer, ...)
            or else an argument of the optimizer (lr, weight_decay, ...). An optimizer's arguments that another one
            does not know are dropped with it. Under OneCycleLR, lr is the highest rate.

    Raises:
        ValueError: no such recipe, or neither the recipe nor its optimizer has something of that name; a committee.
    """
    recipe = find_recipe(recipe)
    if recipe.members:
        raise ValueError(f"{recipe.name} is a committee of trained networks: search the recipe of a member instead")
    changes = changes | changes.get("optimizer_arguments", {})
    changes.pop("optimizer_arguments", None)
    settings = {one.name for one in fields(Recipe)} - {*DESCRIPTION, "optimizer_arguments"}
    optimizer = changes.get("optimizer", recipe.optimizer)
    known = _arguments(optimizer)
    if unknown := [name for name in changes if name not in settings and name not in known]:
        raise ValueError(f"neither a recipe nor {optimizer} has {unknown[0]!r}: {optimizer} has {', '.join(known)}")
    varied = recipe.varied or recipe.name
    changes = {name: value for name, value in recipe.changes.items() if name in settings or name in known} | changes
    recipe = find_recipe(varied) if recipe.varied else recipe
    own = {name: value for name, value in changes.items() if name in settings}
    added = {name: value for name, value in changes.items() if name not in settings}
    scheduler = own.get("scheduler", recipe.scheduler)
    if "lr" in added and (scheduler == "CyclicLR" or "max_lr" in own.get("scheduler_arguments", {})):
        raise ValueError(f"the schedule of {varied} sets the learning rate: leave out lr")
    if "lr" in added and scheduler == "OneCycleLR":
        own["scheduler_arguments"] = own.get("scheduler_arguments", recipe.scheduler_arguments) | {
            "max_lr": added["lr"]
        }
    own["optimizer_arguments"] = {k: v for k, v in recipe.optimizer_arguments.items() if k in known} | added
    parts = [f"{name}_{value}" for name, value in _flat(changes)] or ["unchanged"]
    name = "_".join([varied, *parts])
    if len(name) > 150:  # too long for a file's name
        name = f"{name[:130]}_{sha256(name.encode())[:12]}"
    description = {"name": name, "study": "search", "varied": varied, "changes": changes}
    own["all_images"] = False  # a search needs images to validate on
    return replace(recipe, **own, **description, published_accuracy=None, saved_as="", note="")


def _arguments(optimizer):
    """Return the names of the arguments of a class of `torch.optim`."""
    found = getattr(torch.optim, optimizer, None) if isinstance(optimizer, str) else None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)) or found is torch.optim.Optimizer:
        raise ValueError(f"torch.optim has no optimizer {optimizer!r}")
    return list(inspect.signature(found).parameters)


def _flat(changes):
    for name, value in changes.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value
