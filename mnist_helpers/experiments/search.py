"""Trials of a recipe with other hyperparameters: learning rates, a grid. Scored on validation, never on test.

Every trial is a recipe with some settings changed (`vary`) and leaves a record (`record_run`); one that is recorded
already is not trained again, so a search that was broken off goes on where it stopped.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.digits import Digits
from ..environment import published_folder
from ..files import are_open
from ..training.history import History
from ..training.loop import TrainingError, epochs
from .recipe import Recipe, vary
from .records import Record, load_records
from .run import record_run
from .setup import Setup
from .systems import find_recipe
from .tables import markdown_table

if TYPE_CHECKING:
    import optuna


def compare_learning_rates(
    recipe: Recipe | str,
    rates: Sequence[float] = (0.1, 0.01, 0.001, 0.0001),
    n_epochs: int = 1,
    seed: int = 0,
    *,
    digits: Digits | None = None,
    limit: int | None = None,
    device: str | torch.device | None = None,
    allow_sample: bool = False,
    progress: bool = True,
) -> list[Record]:
    """Train a recipe with each learning rate for `n_epochs` and return the trials' records; see `run_trials`."""
    grid = {"lr": rates, "epochs": [n_epochs]}
    return grid_search(
        recipe,
        grid,
        None,
        seed,
        digits=digits,
        limit=limit,
        device=device,
        allow_sample=allow_sample,
        progress=progress,
    )


def grid_search(
    recipe: Recipe | str,
    grid: Mapping[str, Sequence[Any]],
    n_epochs: int | None = None,
    seed: int = 0,
    *,
    digits: Digits | None = None,
    limit: int | None = None,
    device: str | torch.device | None = None,
    allow_sample: bool = False,
    progress: bool = True,
) -> list[Record]:
    """Train a recipe with every combination in a grid and return the trials' records; see `run_trials`.

    Args:
        grid: values to try by name, as in `{"lr": [0.01, 0.001], "weight_decay": [1e-5, 1e-4]}`; names as for `vary`.
        n_epochs: of each trial; as many as the recipe has unless given.
    """
    length = {} if n_epochs is None else {"epochs": n_epochs}
    trials = [dict(zip(grid, values)) | length for values in product(*grid.values())]
    return run_trials(
        recipe, trials, seed, digits=digits, limit=limit, device=device, allow_sample=allow_sample, progress=progress
    )


def run_trials(
    recipe: Recipe | str,
    trials: Sequence[dict[str, Any]],
    seed: int = 0,
    *,
    digits: Digits | None = None,
    limit: int | None = None,
    device: str | torch.device | None = None,
    allow_sample: bool = False,
    progress: bool = True,
) -> list[Record]:
    """Train a recipe once with each of several changes and return the records, in the same order.

    A trial whose loss becomes NaN or infinite counts: its record says `"stopped": "diverged"`.

    Args:
        recipe: a recipe or its name.
        trials: a list of changes, see `vary`.
        seed: the same for all, so that they differ in nothing else.
        digits, limit, device, allow_sample: as for `record_run`.
        progress: show a progress bar.

    Raises:
        ValueError: an unknown recipe or hyperparameter, before anything is trained.
    """
    recipes = [vary(find_recipe(recipe), changes) for changes in trials]
    records: list[Record] = []
    options: dict[str, Any] = {"device": device, "allow_sample": allow_sample, "digits": digits, "limit": limit}
    with tqdm(recipes, unit="trial", disable=not (progress and are_open(sys.stdout, sys.stderr))) as bar:
        for varied in bar:
            records.append(record_run(varied, seed, train=fit_trial, progress=False, **options))
            best = best_trial(records)
            bar.set_postfix_str(f"best validation {best['validation_accuracy']:.2f} %" if best else "all diverged")
    return records


def fit_trial(setup: Setup, trial: "optuna.Trial | None" = None) -> History:
    """Train what `prepare` returned and return its `History`; `stopped` is "pruned" or "diverged" where it was.

    An Optuna `trial` is told each epoch's validation accuracy, and training ends when it should be pruned.
    """
    history = History(list(setup.before.epochs) if setup.before else [])
    results = epochs(
        setup.model,
        setup.train_loader,
        setup.validation_loader,
        setup.optimizer,
        setup.n_epochs,
        first_epoch=len(history) + 1,
        **setup.options,
    )
    try:
        for result in results:
            history.epochs.append(result)
            if trial is not None and result.validation_accuracy is not None:
                trial.report(result.validation_accuracy, result.epoch)
                if trial.should_prune():
                    history.stopped = "pruned"
                    break
    except TrainingError:
        history.stopped = "diverged"
    return history


def load_trials(
    recipe: Recipe | str, records: list[Record] | None = None, device: str = "cpu", trained_on: int = 48_000
) -> list[Record]:
    """Return the records of a recipe's full trials on MNIST of one kind, in the order of their names.

    `records` are the committed ones unless given; `load_records()` has this machine's too.
    """
    records = load_records([published_folder("records")]) if records is None else records
    wanted = find_recipe(recipe).name, "mnist", False, device, trained_on
    keys = "varied", "source", "quick", "device", "trained_on"
    trials = [one for one in records if tuple(one.get(key) for key in keys) == wanted]
    return sorted(trials, key=lambda one: one["recipe"])


def best_trial(trials: Sequence[Record]) -> Record | None:
    """Return the record with the highest validation accuracy (among equals, the lowest loss), or None."""
    ranked = [one for one in trials if one["validation_accuracy"] is not None and one["stopped"] != "diverged"]
    return max(ranked, key=lambda one: (one["validation_accuracy"], -one["validation_loss"]), default=None)


def trials_table(trials: Sequence[Record]) -> str:
    """Return a Markdown table of trials' records: the settings in which they differ, the losses and accuracies.

    Training loss and validation loss are the last epoch's, the accuracy that of the epoch whose weights count.
    """
    changed = dict.fromkeys(name for one in trials for name in one["changes"] if name != "epochs")
    names = [name for name in changed if len(trials) == 1 or len({str(one["changes"].get(name)) for one in trials}) > 1]
    heads = [*names, "epochs", "training loss", "validation loss", "validation accuracy (%)", ""]
    rows = []
    for one in trials:
        cells = [_text(one["changes"].get(name, "")) for name in names] + [str(one["epochs"])]
        last = one["history"][-1] if one["history"] else None
        cells += [f"{last[part]:.4f}" if last else "" for part in ("train_loss", "validation_loss")]
        rows.append([*cells, f"{one['validation_accuracy']:.2f}" if last else "", one["stopped"]])
    return markdown_table(heads, rows)


def pivot(
    trials: Sequence[Record], rows: str, columns: str, quantity: str = "validation_accuracy"
) -> tuple[list[Any], list[Any], np.ndarray]:
    """Return (row values, column values, array) of a grid's trials, for `plots.heat_map`; NaN where there is none."""
    places = [sorted({one["changes"][name] for one in trials}) for name in (rows, columns)]
    table = np.full([len(values) for values in places], np.nan)
    for one in trials:
        if one[quantity] is not None:
            table[places[0].index(one["changes"][rows]), places[1].index(one["changes"][columns])] = one[quantity]
    return places[0], places[1], table


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
