"""Train a recipe, score it and record the run; put committees together from recorded members."""

import json
import platform
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from operator import index
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..data.digits import Digits, load_data
from ..data.loaders import SPLIT, make_loaders
from ..environment import choose_device, quick_mode, runs_folder, seeded
from ..evaluation.scores import evaluate, predict_logits, score_on_test
from ..files import check_writable, file_name, sha256, user_path
from ..models import count_parameters, unwrapped
from ..models.averaged import Committee
from ..models.cards import check_fields
from ..models.saved import load_model, save_model
from ..training.history import History
from ..training.loop import train_one_epoch
from .distributed import broadcast, first_on_its_machine, rank, world_size
from .recipe import Recipe, make_optimizer
from .records import Record, find_record, recorded_history, weights_path, write_record
from .setup import Setup, fit_setup, initialised, prepare, training_loaders, uses_bfloat16
from .systems import RECIPES, find_recipe


@dataclass(frozen=True)
class Run:
    """A finished run: its recipe, its JSON-ready record, the trained model and the history of its epochs.

    Of several processes that train together, only the first has a record.
    """

    recipe: Recipe
    record: Record | None
    model: nn.Module
    history: History


def record_run(
    recipe: str | Recipe,
    seed: int = 0,
    *,
    device: str | torch.device | None = None,
    allow_sample: bool = False,
    progress: bool = True,
    digits: Digits | None = None,
    limit: int | None = None,
    train: Callable[[Setup], History] | None = None,
    checkpoints: str | Path | None = None,
    again: bool = False,
    keep_weights: bool = False,
) -> Record:
    """Run a recipe, keep its record (and seed 0's weights) among this machine's runs, and return the record.

    A run that is already recorded there, with the same settings on the same kind of device, is not trained again. One
    that was interrupted goes on after its last finished epoch. Under torchrun only the first process writes the
    record, and all return it.

    A committee's members are trained and recorded first, each as a run of its own. Of a recipe that n members have,
    they get the seeds from n * seed on, so no two committees share a member. The committee's epochs and seconds are
    those of all its members.

    Args:
        recipe: its name, or a `Recipe`.
        digits: for training and validation; MNIST, or the sample if `allow_sample`, unless given.
        seed, device, progress, limit, train: as for `run`.
        checkpoints: the folder for states of unfinished training, such as one on a mounted drive; it must exist. One
            among this machine's runs unless given.
        again: train it from the start, even if it is recorded or begun; the new record replaces the old one.
        keep_weights: keep the weights for a committee, whatever the seed, as is always done for members in `RECIPES`.

    Raises:
        ValueError: no such recipe or folder; a committee under torchrun, or with `train`.
        DataError: MNIST cannot be found, and the sample was not asked for with `allow_sample`.
        CheckpointError: a member is recorded, but its weights are missing: remove its record to train it again.
        OSError: what is to be kept cannot be written, which is noticed before training where it can be.
        TrainingError: training went wrong. Nothing recorded before is lost.
    """
    recipe, device = find_recipe(recipe), choose_device(device)
    seed, limit = index(seed), None if limit is None else index(limit)  # of NumPy's numbers, which JSON does not know
    if recipe.members and world_size() > 1:
        raise ValueError(f"a committee is put together by one process: train {recipe.name} without torchrun")
    if recipe.members and train is not None:
        raise ValueError(
            f"{recipe.name} is a committee: its members are trained by their own recipes, so leave out train"
        )
    if checkpoints is not None and not (checkpoints := user_path(checkpoints)).is_dir():
        raise ValueError(f"there is no folder {checkpoints} for checkpoints: make it, or mount its drive")
    if digits is None:
        with first_on_its_machine():
            digits = load_data(allow_sample=allow_sample)
    check_fields({"recipe": recipe.name, "seed": seed, "limit": limit, "source": digits.source})  # before hours of work
    known = broadcast(find_record(recipe, seed, digits, device, limit) if rank() == 0 and not again else None)
    if known is not None:
        if progress and rank() == 0:
            print(f"{recipe.name}, seed {seed} is recorded already, and not trained again")
        return known
    options: dict[str, Any] = {"device": device, "progress": progress, "limit": limit}
    if recipe.members:
        train = partial(_train_members, digits=digits, checkpoints=checkpoints, again=again, **options)
    states = Path(checkpoints or runs_folder() / "unfinished")
    states /= _states_name(recipe, seed, digits, device, limit)
    if rank() == 0:  # before training, not after; `fit` looks at the states
        check_writable(runs_folder() / "records" / f"{file_name(recipe.name)}.json", 1_000_000)
    if again and rank() == 0:
        shutil.rmtree(states, ignore_errors=True)
    finished = run(recipe, digits, seed, train=train, checkpoints=None if train else states, **options)
    if finished.record is not None:
        _keep(finished, finished.record, digits, keep_weights)
        shutil.rmtree(states, ignore_errors=True)
    return broadcast(finished.record)


def run(
    recipe: str | Recipe,
    digits: Digits,
    seed: int = 0,
    *,
    device: str | torch.device | None = None,
    progress: bool = True,
    limit: int | None = None,
    train: Callable[[Setup], History] | None = None,
    checkpoints: Path | None = None,
) -> Run:
    """Train a recipe on `digits`, score the weights that it ends with, and return the `Run`.

    It is scored on validation, if images were held back for that, and on test if it is a system of the results table.
    Quick mode trains for two epochs on 4,000 images and says so in the record. Under torchrun all processes train
    together, see `distributed`.

    Args:
        recipe: its name, or a `Recipe`.
        digits: `Digits` for training and validation; the test part is loaded by `evaluation` when training is over.
        seed: of initialisation, batch order and dropout.
        device: the best one here unless named.
        limit: keep only this many training images, and a quarter as many for validation.
        train: takes the `Setup` and returns the `History`; `fit_setup` unless given.
        checkpoints: a folder of this run's own for the state of unfinished training, from which the run goes on.

    Raises:
        ValueError: no such recipe; a committee, which `record_run` puts together.
        DataError: the test part of the digits' set cannot be found.
        TrainingError: the loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C; an unfinished run is never scored.
    """
    recipe, device = find_recipe(recipe), choose_device(device)
    if progress and rank() == 0 and (recipe.hands or recipe.no_digits):
        print(f"{recipe.name} learns from the pen and from {len(_fonts(recipe))} fonts that are installed here")
    setup = prepare(recipe, digits, seed, device, limit=limit, progress=progress, checkpoints=checkpoints)
    history = train(setup) if train else fit_setup(setup, progress=progress, checkpoints=checkpoints)
    model = unwrapped(setup.model)
    if rank() != 0:
        return Run(recipe, None, model, history)
    validation_accuracy, validation_loss = _on_validation(setup, history)
    record = {
        "recipe": recipe.name,
        **({"varied": recipe.varied.name, "changes": recipe.changes} if recipe.varied else {}),
        "settings": recipe.settings(),
        "seed": seed,
        "source": digits.source,
        "n_digits": len(digits),
        "quick": quick_mode(),
        "trained_on": setup.train_loader.n_examples - setup.train_loader.n_drawn,
        "limit": limit,
        **_machine(device, recipe),
        "parameters": count_parameters(model),
        "epochs": len(history),
        "stopped": history.stopped,
        "seconds": round(history.seconds, 2),
        "validation_accuracy": validation_accuracy,
        "validation_loss": validation_loss,
        **_on_test(recipe, model, digits),
        "history": [asdict(result) for result in history.epochs],
    }
    return Run(recipe, record, model, history)


def save_weights(finished: Run, digits: Digits, *paths: Path) -> None:
    """Save a `Run`'s weights and card to each of `paths`, as float16 where that changes no prediction.

    The predictions are those on the validation part of `digits`, and for a system those on the test set too. So the
    record's accuracies are those of the saved network in either format.
    """
    record, recipe = finished.record, finished.recipe
    if record is None:
        raise ValueError("the first process alone saves the weights: this one has no record")
    card = {key: value for key, value in record.items() if key not in ("history", "test_predictions")}
    card |= {"model": recipe.model, "model_arguments": recipe.model_arguments, "split": SPLIT}
    device = next(finished.model.parameters()).device
    _, loader = make_loaders(digits, 1000, recipe.normalisation, device=device)
    halved = deepcopy(finished.model).half().float()
    answers = [predict_logits(model, loader).argmax(dim=1) for model in (finished.model, halved)]
    half = torch.equal(*answers)
    if half and record["test_predictions"] is not None:
        test = score_on_test(halved, recipe.normalisation, digits.source)
        half = test.predictions == record["test_predictions"]
    for path in paths:
        save_model(finished.model, path, card, half=half)


def seconds_per_epoch(
    recipe: str | Recipe, digits: Digits, n_batches: int = 20, *, device: str | torch.device | None = None
) -> float:
    """Return how long an epoch of a recipe takes here: timed on `n_batches` batches, scaled to 48,000 images.

    The batches are trained on twice, and the first round, in which everything warms up, does not count.

    Args:
        recipe: its name, or a `Recipe`.
        digits: `Digits` to take the batches from.
        n_batches: at least 1; fewer where the digits do not suffice.
        device: the best one here unless named.

    Raises:
        ValueError: no such recipe.
    """
    recipe, device = find_recipe(recipe), choose_device(device)
    loader, _ = training_loaders(recipe, digits, 0, device, n_batches * recipe.batch_size)
    model = initialised(recipe, 0, device)
    optimizer = make_optimizer(recipe, model.parameters())
    for _ in range(2):
        start = time.perf_counter()
        with seeded(0):
            train_one_epoch(model, loader, optimizer, bfloat16=uses_bfloat16(recipe, device))
        seconds = time.perf_counter() - start
    return seconds * 48_000 / loader.n_examples


def _train_members(setup: Setup, device: torch.device, **options: Any) -> History:
    """Train and record a committee's members, put their weights into its model, and return their epochs."""
    history, members = History(), setup.recipe.members
    committee = cast(Committee, setup.model)
    for place, (member, network) in enumerate(zip(members, committee.members, strict=True)):
        seed = setup.seed * members.count(member) + members[:place].count(member)
        record = record_run(member, seed, device=device, keep_weights=True, **options)
        network.load_state_dict(load_model(weights_path(record), device).state_dict())
        history.epochs += recorded_history(record).epochs
    return history


def _keep(finished: Run, record: Record, digits: Digits, keep_weights: bool) -> None:
    """Write a run's record and, where a command or a committee will ask for them, its weights."""
    recipe, paths = finished.recipe, []
    if recipe.is_system and record["seed"] == 0 and digits.source == "mnist" and record["limit"] is None:
        paths.append(runs_folder() / "saved_models" / f"{file_name(recipe.saved_as or recipe.name)}.pth")
    if keep_weights or any(recipe in one.members for one in RECIPES.values()):
        paths.append(weights_path(record))
    if paths:
        save_weights(finished, digits, *paths)
    write_record(recipe, record)


def _states_name(recipe: Recipe, seed: int, digits: Digits, device: torch.device, limit: int | None) -> str:
    """Return the name of a folder for the states of this run, and of no other one."""
    facts = [recipe.settings(), digits.source, len(digits), limit, quick_mode(), *_fonts(recipe)]
    return f"{file_name(recipe.name[:60])}-{device.type}-seed{seed}-{sha256(json.dumps(facts).encode())[:12]}"


def _on_validation(setup: Setup, history: History) -> tuple[float | None, float | None]:
    """Return (accuracy in percent, loss) on validation of the weights that training ended with, where known."""
    if setup.recipe.members:  # the history is that of its members
        if setup.validation_loader is None:
            return None, None
        loss, accuracy = evaluate(setup.model, setup.validation_loader)
        return accuracy, loss
    last = history.epochs[-1] if history.epochs else None
    kept = history.best if setup.recipe.keep_best else last
    return (kept.validation_accuracy, kept.validation_loss) if kept else (None, None)


def _on_test(recipe: Recipe, model: nn.Module, digits: Digits) -> dict[str, Any]:
    """Return what the record says about the test set; nothing unless the recipe is a system."""
    if not recipe.is_system:
        return {"test_accuracy": None, "test_loss": None, "test_predictions": None, "data": digits.checksums}
    test = score_on_test(model, recipe.normalisation, digits.source)
    return {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_predictions": test.predictions,
        "data": {**digits.checksums, **test.digits.checksums},
    }


def _fonts(recipe: Recipe) -> list[str]:
    """Return the names of the installed fonts that a recipe with other hands is trained with."""
    if not recipe.hands and not recipe.no_digits:
        return []
    from ..data import hands  # here: it imports OpenCV, and few recipes need it

    return [Path(file).name for file in hands.fonts(hands.HANDWRITTEN + hands.PRINTED)]


def _machine(device: torch.device, recipe: Recipe) -> dict[str, Any]:
    """Return where and with what a run is computed, for its record."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if fonts := _fonts(recipe):
        versions["fonts"] = f"{len(fonts)} fonts, {sha256(' '.join(fonts).encode())[:12]}"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "precision": "bfloat16" if uses_bfloat16(recipe, device) else "float32",
        "versions": versions,
    }
