"""The named systems, and the variants that ablations compare, as data."""

from dataclasses import replace
from typing import Any

from ..data.augment import Augmentation
from .recipe import Recipe

BASELINE = Recipe(
    name="mlp_baseline",
    model="mlp_baseline",
    published_accuracy=98.05,
    note="one run; weights of the last epoch",
)
PLATEAU = Recipe(
    name="mlp_plateau",
    model="mlp_baseline",
    start=BASELINE,
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


def _averaged_cnn(*widths: int, diagonals: bool = False, **arguments: Any) -> dict[str, Any]:
    """Return the model and arguments of a `fast_cnn` whose answers are averaged over shifts."""
    averaged: dict[str, Any] = {"model": "fast_cnn", "model_arguments": {"widths": widths, **arguments}}
    if diagonals:
        averaged["diagonals"] = True
    return {"model": "shift_averaged", "model_arguments": averaged}


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
# Wide distortions of all images first, at a high rate; then half of the images as they are, at a low one
ANY_HAND_WIDE = Recipe(
    name="any_hand_wide",
    model="fast_cnn",
    model_arguments={"widths": (48, 48, 96, 96), "pool_after": 1, "classes": 11},
    optimizer="SGD",
    optimizer_arguments=SPEED_997.optimizer_arguments,
    scheduler="OneCycleLR",
    scheduler_arguments=SPEED_997.scheduler_arguments,
    augmentation=Augmentation(degrees=25, translate=4, scale=0.3, shear=20, appearance=0.35),
    mixed_precision=True,
    all_images=True,
    hands=12_000,
    no_digits=12_000,
    normalisation="unit",
    batch_size=128,
    epochs=26,
)
ANY_HAND = replace(
    ANY_HAND_WIDE,
    name="any_hand",
    start=ANY_HAND_WIDE,
    scheduler_arguments=SPEED_997.scheduler_arguments | {"max_lr": 0.02, "pct_start": 0.05},
    augmentation=Augmentation(degrees=25, translate=4, scale=0.3, shear=20, appearance=0.3, undistorted=0.5),
    epochs=6,
    note="ours, made for anybody's digits: tells what is no digit",
)
MEMBERS = RECORD, RECORD, SPEED_997, SPEED_997, SPEED_997
COMMITTEE = replace(
    RECORD,
    name="committee",
    model="committee_of",
    model_arguments={"members": [(member.model, member.model_arguments) for member in MEMBERS]},
    members=MEMBERS,
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
    ANY_HAND,
    COMMITTEE,
)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def _variant(recipe: Recipe, ablation: str, name: str, **changes: Any) -> Recipe:
    """Return a recipe with one part changed, without what its authors published."""
    return replace(recipe, ablation=ablation, name=name, **changes, published_accuracy=None, saved_as="", note="")


def _constant(rate: float) -> dict[str, Any]:
    return {"optimizer_arguments": {**BASELINE.optimizer_arguments, "lr": rate}}


def _one_cycle(rate: float) -> dict[str, Any]:
    return {"scheduler": "OneCycleLR", "scheduler_arguments": {"max_lr": rate}}


# speed_995 with images held back, and what it is without one of its parts, or with one more
HELD_BACK = replace(SPEED_995, all_images=False)
ORDINARY = {"lr": 1e-3, "fused": True}  # Adam's usual rate and betas
SPEED_PARTS: dict[str, dict[str, Any]] = {
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
ABLATIONS = (
    *(
        _variant(recipe, "held back", f"{recipe.name}_held_back", all_images=False)
        for recipe in (SPEED_99, SPEED_997, TINY_10K, TINY_2K, RECORD)  # on validation, as when they were chosen
    ),
    *(_variant(HELD_BACK, "speed", name, **changes) for name, changes in SPEED_PARTS.items()),
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
RECIPES = {recipe.name: recipe for recipe in (*SYSTEMS, *ABLATIONS)}


def find_recipe(recipe: str | Recipe) -> Recipe:
    """Return a recipe by its name, or the `Recipe` itself; raises ValueError for an unknown name."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]
