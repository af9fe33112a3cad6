"""Records of finished runs, one small JSON file each."""

import contextlib
import glob
import json
import os
import shutil
import warnings
from copy import deepcopy
from pathlib import Path

import torch

from ..data.digits import load_data, load_part
from ..data.loaders import SPLIT, make_loaders
from ..environment import choose_device, project_root, quick_mode, runs_folder
from ..evaluation.scores import predict_logits, score_on_test
from ..files import sha256, write_atomically
from ..models.saved import save_model
from ..training.history import EpochResult, History
from .distributed import broadcast, first_on_its_machine, rank
from .recipes import RECIPES, find_recipe, vary
from .run import run

FIELDS = ("parameters", "epochs", "seconds", "threads", "validation_accuracy", "test_accuracy", "test_predictions")
KEY = ("recipe", "source", "quick", "trained_on", "device")  # what tells one row of the table from another


def record_run(
    recipe,
    seed=0,
    *,
    device=None,
    allow_sample=False,
    progress=True,
    digits=None,
    limit=None,
    train=None,
    copy=None,
    again=False,
):
    """Run a recipe, keep its record (and seed 0's weights) among this machine's runs, and return the record.

    A run that is already recorded there, with the same settings on the same kind of device, is not trained again; one
    that was broken off goes on after its last finished epoch, unless it is trained `again`. Under torchrun only the
    first process gets and writes the record; the others get None, or what was recorded before.

    Args:
        recipe: its name, or a `Recipe`.
        digits: for training and validation; MNIST, or the sample if `allow_sample`, unless given.
        seed, device, progress, limit, train: as for `runs.run`.
        copy: a folder for a second copy of the state of unfinished training, on a mounted drive say; it must exist.
        again: train it from the start, even if it is recorded or begun; the new record takes the old one's place.

    Raises:
        ValueError: no such recipe.
        DataError: MNIST is not to be had, and the sample was not asked for with `allow_sample`.
        TrainingError, OSError: training went wrong; the record cannot be written. Nothing recorded before is lost.
    """
    recipe, device = find_recipe(recipe), choose_device(device)
    if digits is None:
        with first_on_its_machine():
            digits = load_data(allow_sample=allow_sample)
    known = broadcast(_recorded(recipe, seed, digits, device, limit) if rank() == 0 and not again else None)
    if known is not None:
        if progress and rank() == 0:
            print(f"{recipe.name}, seed {seed} is recorded already, and not trained again")
        return known
    name = _unfinished_name(recipe, seed, digits, device, limit)
    unfinished = None if train else runs_folder() / "unfinished" / name
    copy = None if train or copy is None else _inner_folder(Path(copy), name)
    if again and rank() == 0:
        _remove(unfinished, copy)
    options = {"device": device, "progress": progress, "limit": limit, "train": train}
    finished = run(recipe, digits, seed, unfinished=unfinished, copy=copy, **options)
    result = finished.record
    if result is None:
        return None
    paths = []
    if seed == 0 and digits.source == "mnist" and not recipe.study and limit is None:
        paths.append(runs_folder() / "saved_models" / f"{recipe.saved_as or recipe.name}.pth")
    if any(recipe.name in one.members for one in RECIPES.values()):
        paths.append(member_path(result))
    if paths:
        keep_weights(finished, digits, *paths)
    file = f"{result['source']}-{result['trained_on']}-{result['device']}-seed{seed}.json"
    write_atomically(_record_path(recipe, file), json.dumps(result, indent=1) + "\n")
    _remove(unfinished, copy)
    return result


def _unfinished_name(recipe, seed, digits, device, limit):
    """Return the name of a folder for the state of this run, and of no other one."""
    facts = [recipe.settings(), digits.source, len(digits), limit, quick_mode()]
    return f"{recipe.name[:60]}-{device.type}-seed{seed}-{sha256(json.dumps(facts).encode())[:12]}"


def _inner_folder(folder, name):
    """Return a folder of this name, made where the outer one exists: a drive that has gone is not made anew."""
    if os.path.isdir(folder):
        with contextlib.suppress(OSError):  # of which `save_state` warns
            os.makedirs(folder / name, exist_ok=True)
    return folder / name


def _remove(*folders):
    for folder in filter(None, folders):
        shutil.rmtree(folder, ignore_errors=True)


def _record_path(recipe, file):
    """Return where this machine's record of a recipe, or of a trial in a search, lies."""
    folder = runs_folder() / "records"
    return folder / "trials" / f"{recipe.name}-{file}" if recipe.varied else folder / recipe.name / file


def _recorded(recipe, seed, digits, device, limit):
    """Return this machine's record of such a run, or None; a pruned one does not count."""
    pattern = _record_path(recipe, f"{digits.source}-*-{device.type}-seed{seed}.json")
    for path in pattern.parent.glob(glob.escape(pattern.name).replace("[*]", "*")):
        found = _read_record(path)
        same = found["settings"] == recipe.settings() and found.get("limit") == limit
        if same and found["quick"] == quick_mode() and found.get("stopped") != "pruned":
            return found
    return None


def member_path(record):
    """Return where this machine keeps the weights of a recorded run that a committee may call in."""
    run = f"{record['source']}-{record['trained_on']}-{record['device']}-seed{record['seed']}"
    return runs_folder() / "members" / f"{record['recipe']}-{run}.pth"


def keep_weights(finished, digits, *paths):
    """Save a `Run`'s weights and card to each of `paths`, as float16 where that changes no prediction.

    The predictions are those on the validation part of `digits` and on the test set; so the record's accuracies are
    those of the saved network, however it is saved.
    """
    record, recipe = finished.record, RECIPES[finished.record["recipe"]]
    bulky = ("history", "test_predictions")
    card = {key: value for key, value in record.items() if key not in bulky}
    card |= {"model": recipe.model, "model_arguments": recipe.model_arguments, "split": SPLIT}
    device = next(finished.model.parameters()).device
    _, loader = make_loaders(digits, 1000, recipe.normalisation, device=device)
    halved = deepcopy(finished.model).half().float()
    answers = [predict_logits(model, loader).argmax(dim=1) for model in (finished.model, halved)]
    half = torch.equal(*answers) and (
        score_on_test(halved, recipe.normalisation, digits.source).predictions == record["test_predictions"]
    )
    for path in paths:
        save_model(finished.model, path, card, half=half)


def load_records(folders=None):
    """Return all records as dicts: the committed ones, and this machine's, which stand in for their committed twins.

    Records made with other settings than the recipe has now are left out, with a warning that counts them.

    Args:
        folders: where to look instead; of two records of one run, the later folder's is taken.

    Raises:
        ValueError: a file is no record.
    """
    if folders is None:
        folders = [project_root() / "records", runs_folder() / "records"]
    records, outdated = {}, 0
    for path in [path for folder in folders for path in sorted(folder.glob("*/*.json"))]:
        found = _read_record(path)
        try:
            current = found["settings"] == _recipe_today(found).settings()
        except ValueError:  # a recipe or a hyperparameter that is no more
            current = False
        key = tuple(found[name] for name in (*KEY, "seed"))
        if not current:
            outdated += 1
        elif key not in records or found.get("stopped") != "pruned":  # which overrules no finished trial
            records[key] = found
    if outdated:
        warnings.warn(f"{outdated} records of other settings than today's recipes are left out", stacklevel=2)
    return list(records.values())


def _read_record(path, fields=frozenset({*FIELDS, *KEY, "seed", "settings"})):
    """Return the record in a file; raises ValueError if it is none, or lacks one of these fields."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = fields - set(found)
        if missing:
            raise KeyError(*sorted(missing))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a record of a run ({error}): remove it or restore it") from error
    return found


def described_run(path):
    """Return (what a record or a card says, the options for `record_run` that train the same run again).

    Args:
        path: of a record (`records/*/*.json`) or of a card (`saved_models/*.json`).

    Raises:
        ValueError: it is neither, its recipe has changed since, or it is of quick mode and this is not, or the reverse.
        DataError: the digits are not to be had.
    """
    card = _read_record(Path(path), {*KEY, "seed", "settings"})
    recipe = _recipe_today(card)
    if card["settings"] != recipe.settings():
        raise ValueError(f"{path} was made with other settings than {recipe.name} has today: train that instead")
    if card["quick"] != quick_mode():
        raise ValueError(f"{path} is of a {'quick' if card['quick'] else 'full'} run, and this one is not: see QUICK")
    digits = load_part(card["source"], train=True)
    options = {"seed": card["seed"], "device": card["device"], "limit": card.get("limit"), "digits": digits}
    return card, {"recipe": recipe, "again": True, **options}


def _recipe_today(record):
    """Return the recipe of a record, or the trial in a search, as it would be run today."""
    if "varied" in record:
        return vary(record["varied"], record["changes"])
    return find_recipe(record["recipe"])


def full_runs(records=None, device="cpu"):
    """Return the full runs on MNIST on one kind of device: recipe's name -> its records in the order of their seeds.

    A full run has 48,000 images to train on, or all 60,000 where its recipe says so. `records` are the committed ones
    unless given; `load_records()` has this machine's too.
    """
    records = load_records([project_root() / "records"]) if records is None else records
    runs = {name: [] for name in RECIPES}
    for one in sorted(records, key=lambda one: one["seed"]):
        if one["recipe"] in runs:
            trained_on = 60_000 if RECIPES[one["recipe"]].all_images else 48_000
            if tuple(one[key] for key in KEY[1:]) == ("mnist", False, trained_on, device):
                runs[one["recipe"]].append(one)
    return runs


def recorded_history(record):
    """Return the `training.History` of a record."""
    return History([EpochResult(**epoch) for epoch in record["history"]])
