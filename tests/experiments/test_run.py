from dataclasses import replace

import pytest
import torch

from mnist_helpers.data.augment import Augmentation
from mnist_helpers.data.digits import load_data
from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.scores import evaluate, score_on_test
from mnist_helpers.experiments import run as runs
from mnist_helpers.experiments.run import run
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.models import mlp_baseline
from mnist_helpers.training.loop import fit

pytestmark = pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")


@pytest.fixture
def short(project, monkeypatch):
    """An empty project where every recipe takes two epochs."""
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, replace(recipe, epochs=2))
    return project


def test_the_same_seed_gives_the_same_record(short):
    digits = load_data()
    first, again = (run("mlp_baseline", digits, 7, device="cpu", progress=False) for _ in range(2))
    assert first.history == again.history and first.record["test_predictions"] == again.record["test_predictions"]


def test_a_run_is_what_its_pieces_give_by_hand(project, monkeypatch):
    rough = {"optimizer_arguments": {"lr": 0.1}, "normalisation": "mnist", "epochs": 5}  # coarse steps: up and down
    monkeypatch.setitem(RECIPES, "mlp_baseline", replace(RECIPES["mlp_baseline"], **rough))
    digits, seed = load_data(), 5
    finished = run("mlp_baseline", digits, seed, device="cpu", progress=False)
    loaders = make_loaders(digits, 64, "mnist", seed, "cpu")
    with seeded(seed):
        model = mlp_baseline()
    history = fit(model, *loaders, torch.optim.Adam(model.parameters(), lr=0.1), 5, seed=seed, progress=False)
    score = score_on_test(model, "mnist", "sklearn-digits")
    assert finished.history == history
    theirs, ours = finished.model.state_dict(), model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours), "the last epoch's weights, not the best's"
    assert finished.record["test_predictions"] == score.predictions
    assert finished.record["test_accuracy"] == score.accuracy
    assert finished.record["validation_accuracy"] == history["validation_accuracy"][-1]
    assert finished.record["validation_loss"] == history["validation_loss"][-1]
    assert finished.record["test_loss"] == score.loss
    assert finished.record["data"] == digits.checksums | load_data(train=False).checksums


def test_continued_training_goes_on_where_the_other_recipe_ended(short):
    digits, seed = load_data(), 3
    whole = run("mlp_plateau", digits, seed, device="cpu", progress=False)
    start = run("mlp_baseline", digits, seed, device="cpu", progress=False)
    loaders = make_loaders(digits, seed=seed, device="cpu")
    optimizer = torch.optim.Adam(start.model.parameters(), lr=1e-3, fused=True)
    history = fit(start.model, *loaders, optimizer, 2, seed=seed, after=start.history, progress=False)
    assert whole.history == history and whole.record["epochs"] == 4
    theirs, ours = whole.model.state_dict(), start.model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert whole.record["seconds"] == pytest.approx(whole.history.seconds, abs=0.01)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("mlp_step", [1e-3, 1e-3]),
        ("mlp_cosine", [1e-3, 5e-4]),
        ("mlp_one_cycle", [1e-2 / 25, None]),
        ("mlp_rate_0.01", [1e-2, 1e-2]),
    ],
)
def test_schedules_are_told_how_long_training_is(short, name, rates):
    history = run(name, load_data(), device="cpu", progress=False).history
    for found, expected in zip(history["learning_rate"], rates, strict=True):
        assert expected is None or found == pytest.approx(expected)


def test_one_cycle_ends_with_the_last_batch(short, monkeypatch):
    made = []
    monkeypatch.setattr(
        runs, "_make_scheduler", lambda *given, make=runs._make_scheduler: made.append(make(*given)) or made[-1]
    )
    run("mlp_one_cycle", load_data(), device="cpu", progress=False)
    assert made[0].total_steps == made[0].last_epoch == 2 * 18  # 1,149 images in batches of 64


def test_quick_runs_are_short(short, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, replace(recipe, epochs=9))
    limits = []
    make = runs.make_loaders
    monkeypatch.setattr(
        runs, "make_loaders", lambda *given, limit, **more: limits.append(limit) or make(*given, limit=200, **more)
    )
    record = run("mlp_plateau", load_data(), device="cpu", progress=False).record
    assert record["quick"] and record["epochs"] == 2 + 2 and record["trained_on"] == 200
    assert limits == [4000, 4000]


def test_a_variant_in_a_study_is_not_scored_on_test(short, monkeypatch):
    monkeypatch.setattr(runs, "score_on_test", None)
    record = run("mlp_constant", load_data(), device="cpu", progress=False).record
    assert record["test_accuracy"] is record["test_predictions"] is record["test_loss"] is None
    assert record["validation_accuracy"] > 0 and set(record["data"]) == {"train-images", "train-labels"}


def test_the_best_epochs_weights_are_kept_where_the_recipe_says_so(project, monkeypatch):
    rising = {"scheduler": "StepLR", "scheduler_arguments": {"step_size": 3, "gamma": 300.0}}  # spoils the last epoch
    rough = {**rising, "epochs": 4, "keep_best": True}
    monkeypatch.setitem(RECIPES, "network", replace(RECIPES["network"], **rough))
    digits = load_data()
    finished = run("network", digits, device="cpu", progress=False)
    best = max(finished.history["validation_accuracy"])
    assert finished.history["validation_accuracy"][-1] < best, "the last epoch is spoilt"
    assert finished.record["validation_accuracy"] == best
    _, loader = make_loaders(digits, device="cpu")
    assert evaluate(finished.model, loader)[1] == best


def test_initialisation_and_augmentation_are_the_recipes(short, monkeypatch):
    digits = load_data().take(torch.arange(200))
    plain = run("lenet5", digits, device="cpu", progress=False).history
    for change in ({"initialisation": "normal"}, {"augmentation": Augmentation(degrees=15)}):
        monkeypatch.setitem(RECIPES, "lenet5", replace(RECIPES["lenet5"], **change))
        assert run("lenet5", digits, device="cpu", progress=False).history != plain


def test_an_epochs_seconds_are_measured_and_scaled_to_48000_images(digits, monkeypatch):
    clock = iter([0, 100, 200, 203])  # the first round takes 100 s, the second 3
    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(clock))
    assert runs.seconds_per_epoch("mlp_baseline", digits, n_batches=2, device="cpu") == 3 * 48_000 / 128
