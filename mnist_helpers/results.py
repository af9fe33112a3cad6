"""Records of finished runs, one small JSON file each, and the results table made from them."""

import copy
import glob
import json
import shutil
import warnings
from itertools import groupby
from statistics import mean, stdev

import torch

from .checkpoints import save_model
from .data import load_data
from .distributed import first_on_its_machine, rank, shared
from .environment import choose_device, project_root, quick_mode, runs_folder
from .evaluation import predict_logits, score_on_test
from .files import write_atomically
from .loaders import SPLIT, make_loaders
from .recipes import RECIPES, find_recipe, vary
from .runs import run
from .statistics import paired_difference, wilson_interval
from .training import EpochResult, History

FIELDS = ("parameters", "epochs", "seconds", "threads", "validation_accuracy", "test_accuracy", "test_predictions")
KEY = ("recipe", "source", "quick", "trained_on", "device")  # what tells one row of the table from another
MARKS = "<!-- results:start -->", "<!-- results:end -->"  # around the table in README.md


def record_run(recipe, seed=0, *, device=None, allow_sample=False, progress=True, digits=None, limit=None, train=None):
    """Run a recipe, keep its record (and seed 0's weights) among this machine's runs, and return the record.

    A run that is already recorded there, with the same settings on the same kind of device, is not trained again; one
    that was broken off goes on after its last finished epoch. Under torchrun only the first process gets and writes
    the record; the others get None, or what was recorded before.

    Args:
        recipe: its name, or a `Recipe`.
        digits: for training and validation; MNIST, or the sample if `allow_sample`, unless given.
        seed, device, progress, limit, train: as for `runs.run`.

    Raises:
        ValueError: no such recipe.
        DataError: MNIST is not to be had, and the sample was not asked for with `allow_sample`.
        TrainingError, OSError: training went wrong; the record cannot be written. Nothing recorded before is lost.
    """
    recipe, device = find_recipe(recipe), choose_device(device)
    if digits is None:
        with first_on_its_machine():
            digits = load_data(allow_sample=allow_sample)
    known = shared(_recorded(recipe, seed, digits, device, limit) if rank() == 0 else None)
    if known is not None:
        if progress and rank() == 0:
            print(f"{recipe.name}, seed {seed} is recorded already, and not trained again")
        return known
    unfinished = None if train else runs_folder() / "unfinished" / f"{recipe.name}-{device.type}-seed{seed}"
    options = {"device": device, "progress": progress, "limit": limit, "train": train, "unfinished": unfinished}
    finished = run(recipe, digits, seed, **options)
    result = finished.record
    if result is None:
        return None
    if seed == 0 and digits.source == "mnist" and not recipe.study and limit is None:
        keep_weights(finished, digits, runs_folder() / "saved_models" / f"{recipe.saved_as or recipe.name}.pth")
    if any(one.member == recipe.name for one in RECIPES.values()):
        keep_weights(finished, digits, member_path(recipe, seed, device))
    file = f"{result['source']}-{result['trained_on']}-{result['device']}-seed{seed}.json"
    write_atomically(_record_path(recipe, file), json.dumps(result, indent=1) + "\n")
    if unfinished:
        shutil.rmtree(unfinished, ignore_errors=True)
    return result


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


def member_path(recipe, seed, device):
    """Return where this machine keeps the weights of a run that a committee may call in."""
    return runs_folder() / "members" / f"{recipe.name}-{device.type}-seed{seed}.pth"


def keep_weights(finished, digits, path):
    """Save a `Run`'s weights and card to `path`, as float16 where that changes no prediction.

    The predictions are those on the validation part of `digits` and on the test set; so the record's accuracies are
    those of the saved network, however it is saved.
    """
    record, recipe = finished.record, RECIPES[finished.record["recipe"]]
    bulky = ("history", "test_predictions")
    card = {key: value for key, value in record.items() if key not in bulky}
    card |= {"model": recipe.model, "model_arguments": recipe.model_arguments, "split": SPLIT}
    device = next(finished.model.parameters()).device
    _, loader = make_loaders(digits, 1000, recipe.normalisation, device=device)
    halved = copy.deepcopy(finished.model).half().float()
    answers = [predict_logits(model, loader).argmax(dim=1) for model in (finished.model, halved)]
    half = torch.equal(*answers) and (
        score_on_test(halved, recipe.normalisation, digits.source).predictions == record["test_predictions"]
    )
    save_model(finished.model, path, card, half)


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


def _read_record(path):
    """Return the record in a file; raises ValueError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = {*FIELDS, *KEY, "seed", "settings"} - set(found)
        if missing:
            raise KeyError(*sorted(missing))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a record of a run ({error}): remove it or restore it") from error
    return found


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


def recorded_difference(first, second, runs, quantity="validation_accuracy"):
    """Return (paired difference, number of seeds): how far the recipe `first` lies above `second`.

    Args:
        runs: as `full_runs` returns them; a seed counts where both recipes have it.
        quantity: a field of the records.

    Raises:
        ValueError: fewer than two seeds have this quantity for both; see also `statistics.paired_difference`.
    """
    pairs = _pairs(first, second, runs, quantity)
    if len(pairs) < 2:
        raise ValueError(f"{first} and {second} have no two seeds in common whose {quantity} is recorded")
    return paired_difference(*zip(*pairs)), len(pairs)


def _pairs(first, second, runs, quantity):
    """Return two recipes' figures, a pair for each seed that has both."""
    figures = [
        {one["seed"]: one[quantity] for one in runs[name] if one[quantity] is not None} for name in (first, second)
    ]
    return [(figures[0][seed], figures[1][seed]) for seed in sorted(figures[0].keys() & figures[1].keys())]


def differences_table(pairs, runs=None, quantity="validation_accuracy"):
    """Return a Markdown table of `recorded_difference`s; `pairs` are (first, second) by name."""
    runs, places = full_runs() if runs is None else runs, 3 if quantity.endswith("accuracy") else 4
    unit = " (points)" if quantity.endswith("accuracy") else ""
    lines = [f"| {quantity.replace('_', ' ')}{unit} | mean | 95 % interval | p (paired t-test) | seeds |"]
    lines.append("|---|---|---|---|---|")
    for first, second in pairs:
        found, n_seeds = recorded_difference(first, second, runs, quantity)
        mean, low, high = (f"{value:+.{places}f}" for value in (found.mean, found.low, found.high))
        lines.append(f"| `{first}` - `{second}` | {mean} | {low} to {high} | {found.p_value:.2g} | {n_seeds} |")
    return "\n".join(lines)


def validation_table(names, runs=None):
    """Return a Markdown table of recipes on validation: mean ± sample standard deviation over the recorded seeds.

    `runs` are as `full_runs` returns them, the committed ones unless given. Raises ValueError for a recipe without one.
    """
    runs = full_runs() if runs is None else runs
    lines = ["| recipe | validation accuracy (%) | validation loss | seeds | epochs | parameters |"]
    lines.append("|---|---|---|---|---|---|")
    for name in names:
        if not runs.get(name):
            raise ValueError(f"no full run of {name!r} is recorded")
        figures = []
        for quantity, places in (("validation_accuracy", 2), ("validation_loss", 4)):
            found = [one[quantity] for one in runs[name]]
            spread = f" ± {stdev(found):.{places}f}" if len(found) > 1 else ""
            figures.append(f"{mean(found):.{places}f}{spread}")
        last = runs[name][-1]
        lines.append(
            f"| `{name}` | {' | '.join(figures)} | {len(runs[name])} | {last['epochs']} | {last['parameters']:,} |"
        )
    return "\n".join(lines)


def comparison(first, second):
    """Return tables of the paired differences between two recipes, on validation and, where both are scored, on test.

    All recorded runs count, this machine's too, for each kind of device by itself. Raises ValueError if no device has
    two seeds of both.
    """
    records, parts = load_records(), []
    for device in sorted({one["device"] for one in records}):
        runs = full_runs(records, device)
        for quantity in ("validation_accuracy", "test_accuracy"):
            if len(_pairs(first, second, runs, quantity)) > 1:
                parts.append(f"on {device}\n\n{differences_table([(first, second)], runs, quantity)}")
    if not parts:
        raise ValueError(f"{first} and {second} have not been run with two seeds in common: train them first")
    return "\n\n".join(parts)


def result_rows(records=None, study=""):
    """Return the table's rows as dicts, JSON-ready: one for each (recipe, source, quick, trained_on, device).

    Accuracies are percent: the mean over `seeds`, and the sample standard deviation (None for a single run);
    `seconds` is the mean of training alone, `threads` the CPU threads that the runs used. A recipe without a record
    has a row too, its figures None.

    Args:
        records: those of `load_records` unless given.
        study: "" for the systems of the results table; else the study whose variants are wanted, which are scored on
            validation only (see `recipes.Recipe`).

    Raises:
        ValueError: no such study.
    """
    order = [name for name, recipe in RECIPES.items() if recipe.study == study]
    if not order:
        studies = sorted({recipe.study for recipe in RECIPES.values()} - {""})
        raise ValueError(f"there is no study {study!r}: choose one of {', '.join(studies)}")
    records = [one for one in (load_records() if records is None else records) if one["recipe"] in order]
    records.sort(key=lambda one: (order.index(one["recipe"]), *(str(one[key]) for key in KEY), one["seed"]))
    rows = [_row(list(runs)) for _, runs in groupby(records, key=lambda one: tuple(one[key] for key in KEY))]
    missing = set(order) - {row["recipe"] for row in rows}
    rows += [_empty_row(name) for name in order if name in missing]
    return sorted(rows, key=lambda row: order.index(row["recipe"]))


def results_table(rows=None):
    """Return the results table, or other rows of `result_rows`, as Markdown."""
    rows = result_rows() if rows is None else rows
    lines = [
        "| system | published, test % | ours, test % | ours, validation % | seeds | parameters | epochs | seconds "
        "| device | trained on | published protocol |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        published = "" if row["published_accuracy"] is None else f"{row['published_accuracy']:.2f}"
        cells = [f"`{row['recipe']}`", published]
        if row["seeds"]:
            cells += [_cell(row, "test"), _cell(row, "validation"), str(len(row["seeds"]))]
            seconds = f"{row['seconds']:.0f}" if row["seconds"] >= 10 else f"{row['seconds']:.1f}"
            threads = f"{' or '.join(map(str, row['threads']))} thread{'s' * (row['threads'] != [1])}"
            device = f"cpu, {threads}" if row["device"] == "cpu" else row["device"]
            cells += [f"{row['parameters']:,}", str(row["epochs"]), seconds, device]
            cells.append(f"{row['trained_on']:,} {row['source']}{' (QUICK)' if row['quick'] else ''}")
        else:
            cells += ["not measured"] + [""] * 7
        lines.append(f"| {' | '.join(cells)} | {row['note']} |")
    return "\n".join(lines)


def readme_with_table(readme):
    """Return the text of README.md with the table between `MARKS` made anew from the committed records."""
    start, end = (readme.index(mark) for mark in MARKS)
    rows = result_rows(load_records([project_root() / "records"]))
    return f"{readme[:start]}{MARKS[0]}\n{results_table(rows)}\n{readme[end:]}"


def _row(runs):
    first = runs[0]
    comparable = {} if first["source"] == "mnist" and not first["quick"] else {"published_accuracy": None, "note": ""}
    row = {**_empty_row(first["recipe"]), **comparable}
    for part in ("validation", "test"):
        accuracies = [one[f"{part}_accuracy"] for one in runs]
        if None not in accuracies:  # a study's variants are not scored on test
            row[f"{part}_accuracy_mean"] = mean(accuracies)
            row[f"{part}_accuracy_std"] = stdev(accuracies) if len(runs) > 1 else None
    return {
        **row,
        "test_images": len(first["test_predictions"] or ""),
        "seeds": [one["seed"] for one in runs],
        "seconds": mean(one["seconds"] for one in runs),
        "threads": sorted({one["threads"] for one in runs}),
        **{key: first[key] for key in ("parameters", "epochs", *KEY[1:])},
    }


def _empty_row(name):
    recipe = RECIPES[name]
    unknown = (
        "validation_accuracy_mean validation_accuracy_std test_accuracy_mean test_accuracy_std test_images seeds "
        "parameters epochs seconds threads device trained_on source quick"
    )
    known = {"recipe": name, "published_accuracy": recipe.published_accuracy, "note": recipe.note, "seeds": []}
    return dict.fromkeys(unknown.split()) | known


def _cell(row, part):
    """Return the text of a row's accuracy on "validation" or "test"."""
    accuracy, deviation = row[f"{part}_accuracy_mean"], row[f"{part}_accuracy_std"]
    if accuracy is None:
        return "not scored" if part == "test" else "none held back"
    if deviation is not None:
        return f"{accuracy:.2f} ± {deviation:.2f}"
    if part == "validation":
        return f"{accuracy:.2f}"
    low, high = wilson_interval(round(accuracy * row["test_images"] / 100), row["test_images"])
    return f"{accuracy:.2f} (one run; 95 % interval {low:.2f} to {high:.2f})"
