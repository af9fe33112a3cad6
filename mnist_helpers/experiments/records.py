"""Records of finished runs, one small JSON file each: read, written and described."""

import glob
import json
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.digits import Digits, load_part
from ..environment import published_folder, quick_mode, runs_folder
from ..files import file_name, read_regular, write_atomically
from ..models.cards import check_fields, read_object
from ..training.history import EpochResult, History
from .recipe import Recipe, vary
from .systems import RECIPES, find_recipe

Record = dict[str, Any]  # what is kept of a run, JSON-ready
KEY = ("recipe", "source", "quick", "trained_on", "device")  # what tells one row of the table from another
DESCRIBED = (*KEY, "seed", "settings")  # what a card says, too
FIGURES = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "test_predictions", "history")
REQUIRED = (*DESCRIBED, *FIGURES, "parameters", "epochs", "seconds", "threads")
TEST_IMAGES = {"mnist": 10_000, "fashionmnist": 10_000, "kmnist": 10_000, "qmnist": 60_000, "sklearn-digits": 360}


def load_records(folders: Sequence[Path] | None = None) -> list[Record]:
    """Return all records: the committed ones, and this machine's, which replace committed ones of the same run.

    Records made with other settings than the recipe has now are left out, with a warning that counts them.

    Args:
        folders: where to look instead; of two records of one run, the later folder's is taken.

    Raises:
        ValueError: a file is no record.
    """
    if folders is None:
        folders = [published_folder("records"), runs_folder() / "records"]
    records: dict[tuple, Record] = {}
    outdated = 0
    for found in [one for folder in folders for one in _read_folder(folder)]:
        try:
            current = found["settings"] == _recipe_today(found).settings()
        except ValueError:  # the recipe or the hyperparameter no longer exists
            current = False
        key = tuple(found[name] for name in (*KEY, "seed"))
        if not current:
            outdated += 1
        elif key not in records or found.get("stopped") != "pruned":  # a pruned trial replaces no finished one
            records[key] = found
    if outdated:
        warnings.warn(f"{outdated} records of other settings than today's recipes are left out", stacklevel=2)
    return list(records.values())


def find_record(recipe: Recipe, seed: int, digits: Digits, device: torch.device, limit: int | None) -> Record | None:
    """Return this machine's record of such a run, or None; a pruned one does not count."""
    pattern = _record_path(recipe, _run_name(digits.source, "*", device.type, seed))
    for path in pattern.parent.glob(glob.escape(pattern.name).replace("[*]", "*")):
        found = _read_record(path)
        same = found["settings"] == recipe.settings() and found.get("limit") == limit
        same = same and found.get("n_digits", len(digits)) == len(digits)
        if same and found["quick"] == quick_mode() and found.get("stopped") != "pruned":
            return found
    return None


def write_record(recipe: Recipe, record: Record) -> None:
    """Write a record among this machine's runs, in the place of an earlier one; ValueError if none could read it."""
    checked(record)
    write_atomically(_record_path(recipe, _run_name_of(record)), json.dumps(record, indent=1) + "\n")


def weights_path(record: Record) -> Path:
    """Return where this machine keeps the weights of a recorded run for committees."""
    return runs_folder() / "members" / f"{file_name(record['recipe'])}-{_run_name_of(record)}.pth"


def described_run(path: str | Path) -> tuple[Record, dict[str, Any]]:
    """Return (what a record or a card says, the arguments with which `record_run` trains the same run again).

    Args:
        path: of a record (`records/*/*.json`) or of a card (`saved_models/*.json`).

    Raises:
        ValueError: it is neither, its recipe has changed since, or it is of quick mode and this is not, or the reverse.
        DataError: the digits cannot be found.
    """
    card = _read_record(Path(path), DESCRIBED)
    recipe = _recipe_today(card, check=True)
    if card["settings"] != recipe.settings():
        raise ValueError(f"{path} was made with other settings than {recipe.name} has today: train that instead")
    if card["quick"] != quick_mode():
        raise ValueError(f"{path} is of a {'quick' if card['quick'] else 'full'} run, and this one is not: see QUICK")
    digits = load_part(card["source"], train=True)
    arguments = {"seed": card["seed"], "device": card["device"], "limit": card.get("limit"), "digits": digits}
    return card, {"recipe": recipe, "again": True, **arguments}


def full_runs(records: list[Record] | None = None, device: str = "cpu") -> dict[str, list[Record]]:
    """Return the full runs on MNIST on one kind of device: recipe's name -> its records in the order of their seeds.

    A full run has 48,000 images to train on, or all 60,000 where its recipe says so. `records` are the committed ones
    unless given; `load_records()` has this machine's too.
    """
    records = load_records([published_folder("records")]) if records is None else records
    found: dict[str, list[Record]] = {name: [] for name in RECIPES}
    for one in sorted(records, key=lambda one: one["seed"]):
        if one["recipe"] in found:
            trained_on = 60_000 if RECIPES[one["recipe"]].all_images else 48_000
            if tuple(one[key] for key in KEY[1:]) == ("mnist", False, trained_on, device):
                found[one["recipe"]].append(one)
    return found


def recorded_history(record: Record) -> History:
    """Return the `training.History` of a record."""
    return History([EpochResult(**epoch) for epoch in record["history"]])


def _read_folder(folder: Path) -> list[Record]:
    """Return the records in a folder: a file each, or, in an installed package, all in one (see setup.py)."""
    together = folder / "all.json"
    if together.exists():
        try:
            return [checked(record) for record in json.loads(read_regular(together))]
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{together} is damaged ({error}): install the package again") from error
    return [_read_record(path) for path in sorted(folder.glob("*/*.json"))]


def _read_record(path: Path, required: Collection[str] = REQUIRED) -> Record:
    """Return the record in a file; raises ValueError, naming the field, if it is none."""
    try:
        return checked(read_object(path), required)
    except ValueError as error:
        raise ValueError(f"{path} is not a record of a run: {error}. Remove it or restore it.") from error


def checked(record: Record, required: Collection[str] = REQUIRED) -> Record:
    """Return a record whose every field is what it must be, or raise ValueError, naming the field."""
    check_fields(record, required)
    accuracy, predictions = record.get("test_accuracy"), record.get("test_predictions")
    if "test_predictions" in required and (accuracy is None) != (predictions is None):
        raise ValueError("it has only one of test_accuracy and test_predictions")
    if (accuracy is None) != (record.get("test_loss") is None):
        raise ValueError("it has only one of test_accuracy and test_loss")
    if "history" in record and "epochs" in record and len(record["history"]) != record["epochs"]:
        raise ValueError(f"history has {len(record['history'])} epochs, and epochs is {record['epochs']}")
    if accuracy is not None and predictions is not None:
        n = TEST_IMAGES.get(record["source"], len(predictions))
        if len(predictions) != n or not n:
            raise ValueError(f"test_predictions are {len(predictions):,}, and not {n or 1:,}")
        if abs(accuracy * n / 100 - round(accuracy * n / 100)) > 1e-6:
            raise ValueError(f"test_accuracy is {accuracy}, which is no share of {n:,} test_predictions")
    return record


def _recipe_today(record: Record, *, check: bool = False) -> Recipe:
    """Return the recipe of a record, or the trial in a search, as it would be run today."""
    if "varied" not in record:
        return find_recipe(record["recipe"])
    if record["recipe"] in RECIPES:
        raise ValueError(f"a trial in a search has a name of its own, not {record['recipe']!r}")
    return vary(find_recipe(record["varied"]), record.get("changes", {}), check=check)


def _run_name(source: str, trained_on: object, device: str, seed: int) -> str:
    return f"{file_name(source, 24)}-{trained_on}-{file_name(device, 24)}-seed{seed}"


def _run_name_of(record: Record) -> str:
    return _run_name(record["source"], record["trained_on"], record["device"], record["seed"])


def _record_path(recipe: Recipe, run: str) -> Path:
    """Return where this machine's record of a recipe, or of a trial in a search, lies."""
    folder, name = runs_folder() / "records", file_name(recipe.name)
    return folder / "trials" / f"{name}-{run}.json" if recipe.varied else folder / name / f"{run}.json"
