import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mnist_helpers.evaluation import scores as evaluation
from mnist_helpers.experiments import records, search
from mnist_helpers.experiments import run as runs
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.records import load_records
from mnist_helpers.experiments.search import (
    best_trial,
    compare_learning_rates,
    fit_trial,
    grid_search,
    load_trials,
    pivot,
    run_trials,
    trials_table,
)
from mnist_helpers.experiments.setup import prepare
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.training.loop import fit


@pytest.fixture
def quiet(project, monkeypatch, digits):
    """What all searches here are called with, in an empty project where the test set must not be touched."""

    def forbidden(*_, **__):
        raise AssertionError("a search has looked at the test set")

    for module in (runs, evaluation):
        monkeypatch.setattr(module, "score_on_test", forbidden)
    monkeypatch.setattr(evaluation, "load_part", forbidden)
    return {"digits": digits, "device": "cpu", "progress": False}


def test_learning_rates_are_compared_each_for_so_many_epochs(quiet):
    records = compare_learning_rates("network", (1e-2, 1e-6), n_epochs=2, **quiet)
    assert [one["changes"] for one in records] == [{"lr": 1e-2, "epochs": 2}, {"lr": 1e-6, "epochs": 2}]
    assert [one["settings"]["optimizer_arguments"]["lr"] for one in records] == [1e-2, 1e-6]
    assert [len(one["history"]) for one in records] == [2, 2]
    assert records[0]["validation_accuracy"] > records[1]["validation_accuracy"]
    assert all(one["test_accuracy"] is one["test_predictions"] is None for one in records)
    assert sorted(load_records(), key=lambda one: one["recipe"]) == sorted(records, key=lambda one: one["recipe"])


def test_four_rates_for_one_epoch_are_the_default(quiet):
    records = compare_learning_rates("network", **quiet)
    assert [(one["changes"]["lr"], one["epochs"]) for one in records] == [(0.1, 1), (0.01, 1), (0.001, 1), (0.0001, 1)]


def test_a_grid_has_every_combination_and_what_is_recorded_is_not_trained_again(quiet, monkeypatch, project):
    grid = {"lr": [0.01, 0.001], "batch_size": [16, 64]}
    first = grid_search("network", {**grid, "lr": [0.01]}, n_epochs=1, **quiet)
    trained = []
    monkeypatch.setattr(search, "fit_trial", lambda setup: trained.append(setup) or fit_trial(setup))
    records = grid_search("network", grid, n_epochs=1, **quiet)
    assert [setup.recipe.optimizer_arguments["lr"] for setup in trained] == [0.001, 0.001], "two of four are known"
    chosen = [(one["changes"]["lr"], one["changes"]["batch_size"]) for one in records]
    assert sorted(chosen) == [(0.001, 16), (0.001, 64), (0.01, 16), (0.01, 64)]
    assert all(one in records for one in first)
    assert len(list((project / "runs" / "records" / "trials").iterdir())) == 4
    assert grid_search("network", grid, n_epochs=1, **quiet) == records and len(trained) == 2


def test_without_a_length_trials_take_as_many_epochs_as_the_recipe(quiet, monkeypatch):
    monkeypatch.setitem(RECIPES, "network", replace(RECIPES["network"], epochs=3))
    (record,) = grid_search("network", {"lr": [0.01]}, **quiet)
    assert record["epochs"] == 3 and record["changes"] == {"lr": 0.01}


def test_a_trial_is_what_the_recipe_gives_with_those_settings(quiet):
    (record,) = run_trials("network", [{"lr": 0.01, "epochs": 2}], seed=4, **quiet)
    varied = vary(RECIPES["network"], {"lr": 0.01, "epochs": 2})
    setup = prepare(varied, quiet["digits"], 4, torch.device("cpu"))
    history = fit(
        setup.model, setup.train_loader, setup.validation_loader, setup.optimizer, 2, progress=False, **setup.options
    )
    assert records.recorded_history(record) == history and record["seed"] == 4


def test_a_trial_that_diverges_is_recorded_and_the_others_go_on(quiet):
    trials = [{"optimizer": "SGD", "lr": rate, "epochs": 2} for rate in (1e9, 0.1)]
    diverged, fine = run_trials("network", trials, **quiet)
    assert diverged["stopped"] == "diverged" and diverged["history"] == [] and diverged["validation_accuracy"] is None
    assert fine["stopped"] == "" and fine["validation_accuracy"] > 0
    assert best_trial([diverged, fine]) == fine and best_trial([diverged]) is None and best_trial([]) is None
    assert run_trials("network", trials, **quiet) == [diverged, fine], "what diverged is not tried again either"
    text = json.dumps([diverged, fine], allow_nan=False)
    assert json.loads(text) == [diverged, fine], "no number in a record is infinite or none"


def test_diverging_late_keeps_the_epochs_before_it_but_is_not_the_best(quiet, monkeypatch):
    rising = {"scheduler": "StepLR", "scheduler_arguments": {"step_size": 2, "gamma": 1e12}, "lr": 0.1, "epochs": 4}
    late, low = run_trials("network", [{"optimizer": "SGD", **rising}, {"lr": 1e-9, "epochs": 1}], **quiet)
    assert late["stopped"] == "diverged" and late["epochs"] == 2
    assert late["validation_accuracy"] == late["history"][-1]["validation_accuracy"] > low["validation_accuracy"]
    assert best_trial([late, low]) == low


def test_mistakes_are_found_before_anything_is_trained(quiet, monkeypatch):
    monkeypatch.setattr(search, "record_run", None)
    with pytest.raises(ValueError, match="neither a recipe nor Adam has 'momentum'"):
        grid_search("network", {"lr": [0.1], "momentum": [0.9]}, **quiet)
    with pytest.raises(ValueError, match="there is no recipe 'resnet'"):
        compare_learning_rates("resnet", **quiet)


def test_a_trial_of_a_recipe_that_continues_another_counts_its_epochs(quiet):
    recipe = replace(RECIPES["mlp_plateau"], epochs=2, start=replace(RECIPES["mlp_baseline"], epochs=2))
    (record,) = run_trials(recipe, [{"lr": 1e-4}], **quiet)
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3, 4]
    assert [epoch["learning_rate"] for epoch in record["history"]] == [1e-3, 1e-3, 1e-4, 1e-4]


class Watcher:
    """Stands for an Optuna trial: it is told accuracies, and would be pruned after so many."""

    def __init__(self, patience):
        self.told, self.patience = {}, patience

    def report(self, value, step):
        self.told[step] = value

    def should_prune(self):
        return len(self.told) >= self.patience


@pytest.mark.parametrize(("patience", "stopped", "n"), [(2, "pruned", 2), (99, "", 4)])
def test_a_trial_is_told_every_epoch_and_can_end_training(quiet, patience, stopped, n):
    setup = prepare(vary(RECIPES["network"], {"epochs": 4}), quiet["digits"], 0, torch.device("cpu"))
    history = fit_trial(setup, trial := Watcher(patience))
    assert history.stopped == stopped and len(history) == n
    assert trial.told == dict(zip(history["epoch"], history["validation_accuracy"], strict=True))


def make_trial(accuracy=98.0, loss=0.1, stopped="", n_epochs=2, **changes):
    """Return what the functions here read of a trial's record."""
    last = {"train_loss": loss and loss / 2, "validation_loss": loss}
    return {
        "changes": changes,
        "epochs": n_epochs,
        "stopped": stopped,
        "validation_accuracy": accuracy,
        "validation_loss": loss,
        "history": [last] * n_epochs,
    }


def test_full_trials_of_one_kind_are_those_of_the_recipe(project):
    full = {"varied": "network", "source": "mnist", "quick": False, "device": "cpu", "trained_on": 48_000}
    others = ({"varied": "lenet5"}, {"source": "synthetic"}, {"quick": True}, {"device": "cuda"}, {"trained_on": 100})
    records = [full | {"recipe": f"network_{name}"} for name in "ba"] + [full | {"recipe": "x"} | one for one in others]
    plain_run = {key: value for key, value in full.items() if key != "varied"} | {"recipe": "network"}
    assert load_trials("network", [*records, plain_run]) == [records[1], records[0]]
    assert len(load_trials("network", records, device="cuda")) == len(load_trials("lenet5", records)) == 1
    assert len(load_trials(RECIPES["network"], records, trained_on=100)) == 1
    assert load_trials("network") == [], "the committed ones, of which this project has none"
    with pytest.raises(ValueError, match="no recipe 'resnet'"):
        load_trials("resnet", records)


def test_the_best_has_the_highest_accuracy_and_among_equals_the_lowest_loss():
    trials = [make_trial(98.0, 0.1), make_trial(99.0, 0.3), make_trial(99.0, 0.2), make_trial(99.5, 0.1, "diverged")]
    assert best_trial(trials) is trials[2]
    trials.append(make_trial(None, None, "diverged", 0))
    assert best_trial(trials) is trials[2] and best_trial(trials[3:]) is None


def test_the_table_shows_in_what_trials_differ_and_what_came_of_it():
    trials = [
        make_trial(98.25, 0.08, lr=0.001, batch_size=32, epochs=2),
        make_trial(97.5, 0.2, lr=1e-05, weight_decay=0.1, batch_size=32, epochs=2),
        make_trial(None, None, "diverged", 0, lr=1e9, batch_size=32, optimizer="SGD"),
    ]
    assert trials_table(trials).splitlines() == [
        "| lr | weight_decay | optimizer | epochs | training loss | validation loss | validation accuracy (%) |  |",
        "|---|---|---|---|---|---|---|---|",
        "| 0.001 |  |  | 2 | 0.0400 | 0.0800 | 98.25 |  |",
        "| 1e-05 | 0.1 |  | 2 | 0.1000 | 0.2000 | 97.50 |  |",
        "| 1e+09 |  | SGD | 0 |  |  |  | diverged |",
    ]
    assert trials_table(trials[:1]).splitlines()[0].startswith("| lr | batch_size | epochs |"), "one differs in nothing"


def test_a_pivot_has_a_place_for_every_pair_of_values():
    trials = [
        make_trial(98.0, 0.1, lr=0.1, batch_size=64),
        make_trial(97.0, 0.2, lr=0.01, batch_size=64),
        make_trial(96.0, 0.3, lr=0.1, batch_size=16),
        make_trial(None, None, "diverged", 0, lr=1.0, batch_size=64),
    ]
    rows, columns, table = pivot(trials, "lr", "batch_size")
    assert rows == [0.01, 0.1, 1.0] and columns == [16, 64]
    np.testing.assert_array_equal(table, [[math.nan, 97.0], [96.0, 98.0], [math.nan, math.nan]])
    _, _, losses = pivot(trials, "batch_size", "lr", "validation_loss")
    np.testing.assert_array_equal(losses, [[math.nan, 0.3, math.nan], [0.2, 0.1, math.nan]])
