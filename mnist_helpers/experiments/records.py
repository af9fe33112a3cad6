"""Records of finished runs, one small JSON file each: read, written and described."""

import glob
import json
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.digits import Digits, load_part
from ..environment import project_root, quick_mode, runs_folder
from ..files import write_atomically
from ..training.history import EpochResult, History
from .recipe import Recipe, vary
from .systems import RECIPES, find_recipe

FIELDS = ("parameters", "epochs", "seconds", "threads", "validation_accuracy", "test_accuracy", "test_predictions")
Record = dict[str, Any]  # what is kept of a run, JSON-ready
KEY = ("recipe", "source", "quick", "trained_on", "device")  # what tells one row of the table from another


def load_records(folders: Sequence[Path] | None = None) -> list[Record]:
    """Return all records: the committed ones, and this machine's, which replace committed ones of the same run.

    Records made with other settings than the recipe has now are left out, with a warning that counts them.

    Args:
        folders: where to look instead; of two records of one run, the later folder's is taken.

    Raises:
        ValueError: a file is no record.
    """
    if folders is None:
        folders = [project_root() / "records", runs_folder() / "records"]
    records: dict[tuple, Record] = {}
    outdated = 0
    for path in [path for folder in folders for path in sorted(folder.glob("*/*.json"))]:
        found = _read_record(path)
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
    pattern = _record_path(recipe, f"{digits.source}-*-{device.type}-seed{seed}.json")
    for path in pattern.parent.glob(glob.escape(pattern.name).replace("[*]", "*")):
        found = _read_record(path)
        same = found["settings"] == recipe.settings() and found.get("limit") == limit
        same = same and found.get("n_digits", len(digits)) == len(digits)
        if same and found["quick"] == quick_mode() and found.get("stopped") != "pruned":
            return found
    return None


def write_record(recipe: Recipe, record: Record) -> None:
    """Write a record among this machine's runs, in the place of an earlier one of the same run."""
    write_atomically(_record_path(recipe, f"{_run_name(record)}.json"), json.dumps(record, indent=1) + "\n")


def weights_path(record: Record) -> Path:
    """Return where this machine keeps the weights of a recorded run for committees."""
    return runs_folder() / "members" / f"{record['recipe']}-{_run_name(record)}.pth"


def described_run(path: str | Path) -> tuple[Record, dict[str, Any]]:
    """Return (what a record or a card says, the arguments with which `record_run` trains the same run again).

    Args:
        path: of a record (`records/*/*.json`) or of a card (`saved_models/*.json`).

    Raises:
        ValueError: it is neither, its recipe has changed since, or it is of quick mode and this is not, or the reverse.
        DataError: the digits cannot be found.
    """
    card = _read_record(Path(path), {*KEY, "seed", "settings"})
    recipe = _recipe_today(card)
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
    records = load_records([project_root() / "records"]) if records is None else records
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


def _read_record(path: Path, fields: Collection[str] = frozenset({*FIELDS, *KEY, "seed", "settings"})) -> Record:
    """Return the record in a file; raises ValueError if it is none, or lacks one of these fields."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if missing := set(fields) - set(found):
            raise KeyError(*sorted(missing))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a record of a run ({error}): remove it or restore it") from error
    return found


def _recipe_today(record: Record) -> Recipe:
    """Return the recipe of a record, or the trial in a search, as it would be run today."""
    if "varied" in record:
        return vary(find_recipe(record["varied"]), record["changes"], check=False)
    return find_recipe(record["recipe"])


def _run_name(record: Record) -> str:
    return f"{record['source']}-{record['trained_on']}-{record['device']}-seed{record['seed']}"


def _record_path(recipe: Recipe, file: str) -> Path:
    """Return where this machine's record of a recipe, or of a trial in a search, lies."""
    folder = runs_folder() / "records"
    return folder / "trials" / f"{recipe.name}-{file}" if recipe.varied else folder / recipe.name / file
