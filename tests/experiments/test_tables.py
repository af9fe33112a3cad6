import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mnist_helpers.__main__ import main
from mnist_helpers.data.digits import DataError, load_data
from mnist_helpers.evaluation import scores as evaluation
from mnist_helpers.evaluation.significance import paired_difference, wilson_interval
from mnist_helpers.experiments import recipes, records
from mnist_helpers.experiments import run as runs
from mnist_helpers.experiments import tables as results
from mnist_helpers.experiments.recipes import RECIPES, vary
from mnist_helpers.experiments.records import load_records, record_run
from mnist_helpers.experiments.run import run
from mnist_helpers.experiments.tables import result_rows, results_table
from mnist_helpers.models.saved import CheckpointError, read_card
from mnist_helpers.training import loop as training
from mnist_helpers.training.loop import History

ROOT = Path(__file__).parent.parent.parent
FIELDS = (
    "recipe published_accuracy validation_accuracy_mean validation_accuracy_std test_accuracy_mean test_accuracy_std "
    "seeds parameters epochs seconds threads device trained_on source"
)
pytestmark = pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")


@pytest.fixture
def short(project, monkeypatch):
    """An empty project where the baseline takes two epochs."""
    monkeypatch.setitem(RECIPES, "mlp_baseline", replace(RECIPES["mlp_baseline"], epochs=2))
    return project


def make_record(seed=0, test=98.0, validation=98.5, **changes):
    """Return a record as `run` makes it, with figures of our choosing."""
    return {
        "recipe": "mlp_baseline",
        "settings": RECIPES["mlp_baseline"].settings(),
        "seed": seed,
        "source": "mnist",
        "quick": False,
        "trained_on": 48000,
        "device": "cpu",
        "parameters": 270346,
        "epochs": 15,
        "seconds": 10.0 + seed,
        "threads": 2,
        "validation_accuracy": validation,
        "test_accuracy": test,
        "test_predictions": "7" * 10000,
    } | changes


def write(folder, record):
    path = folder / "records" / record["recipe"] / f"{record['source']}-{record['seed']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def test_the_sample_is_refused_unless_asked_for(short):
    with pytest.raises(DataError, match="--allow-sample"):
        record_run("mlp_baseline", device="cpu")
    assert not (short / "runs").exists()


def test_a_run_is_recorded_once_and_the_same_again_is_not_trained(short, monkeypatch):
    record = record_run("mlp_baseline", 1, device="cpu", allow_sample=True, progress=False)
    assert record["source"] == "sklearn-digits" and not record["quick"] and record["trained_on"] == 1149
    assert len(record["history"]) == record["epochs"] == 2 and len(record["test_predictions"]) == 360
    monkeypatch.setattr(records, "run", None)
    assert record_run("mlp_baseline", 1, device="cpu", allow_sample=True) == record
    assert load_records() == [record]


def test_an_interrupted_run_is_neither_scored_nor_recorded(short, monkeypatch):
    monkeypatch.setattr(runs, "fit", lambda *_, **__: History(stopped="interrupted"))
    monkeypatch.setattr(runs, "score_on_test", None)
    with pytest.raises(KeyboardInterrupt):
        record_run("mlp_baseline", device="cpu", allow_sample=True)
    assert not (short / "runs").exists()


@pytest.fixture
def epochs_begun(monkeypatch):
    """Count epochs; the one whose number is put into `breaks` is where Ctrl-C is pressed."""
    begun = SimpleNamespace(n=0, breaks=None)
    train_one_epoch = training.train_one_epoch

    def counted(*given, **options):
        begun.n += 1
        if begun.n == begun.breaks:
            raise KeyboardInterrupt
        return train_one_epoch(*given, **options)

    monkeypatch.setattr(training, "train_one_epoch", counted)
    return begun


def without_seconds(record):
    epochs = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in record["history"]]
    return {key: value for key, value in record.items() if key != "seconds"} | {"history": epochs}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("breaks", [2, 4])  # in the recipe that it continues, and after that
def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(short, monkeypatch, epochs_begun, breaks):
    monkeypatch.setitem(RECIPES, "mlp_plateau", replace(RECIPES["mlp_plateau"], epochs=2))
    whole = run("mlp_plateau", load_data(), 1, device="cpu", progress=False).record
    assert epochs_begun.n == 4
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    epochs_begun.n, epochs_begun.breaks = 0, breaks
    with pytest.raises(KeyboardInterrupt):
        record_run("mlp_plateau", 1, **options)
    assert list((short / "runs" / "unfinished").rglob("*.pt")) and not (short / "runs" / "records").exists()
    epochs_begun.n, epochs_begun.breaks = 0, None
    record = record_run("mlp_plateau", 1, **options)
    assert epochs_begun.n == 4 - (breaks - 1), "finished epochs are not trained again"
    assert without_seconds(record) == without_seconds(whole)
    assert not list((short / "runs" / "unfinished").iterdir())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("other", [{"seed": 2}, {"limit": 200}, {"batch_size": 32}], ids=str)
def test_an_interrupted_run_is_not_taken_up_by_another_one(short, monkeypatch, epochs_begun, other):
    options = {"seed": 1, "device": "cpu", "allow_sample": True, "progress": False}
    epochs_begun.breaks = 2
    with pytest.raises(KeyboardInterrupt):
        record_run("mlp_baseline", **options)
    epochs_begun.n, epochs_begun.breaks = 0, None
    if "batch_size" in other:  # the recipe is changed in the meantime
        monkeypatch.setitem(RECIPES, "mlp_baseline", replace(RECIPES["mlp_baseline"], **other))
        other = {}
    record_run("mlp_baseline", **options | other)
    assert epochs_begun.n == 2


@pytest.mark.usefixtures("one_thread")
def test_a_short_run_that_ends_leaves_the_unfinished_long_one(short, epochs_begun):
    Path("drive").mkdir()
    options = {"seed": 1, "device": "cpu", "allow_sample": True, "progress": False, "copy": "drive"}
    epochs_begun.breaks = 2
    with pytest.raises(KeyboardInterrupt):
        record_run("mlp_baseline", **options)
    left = sorted(Path().rglob("*.pt"))
    assert len(left) == 2, "the state and its copy"
    epochs_begun.breaks = None
    record_run("mlp_baseline", **options, limit=200)
    assert sorted(Path().rglob("*.pt")) == left
    epochs_begun.n = 0
    record_run("mlp_baseline", **options)
    assert epochs_begun.n == 1 and not list(Path().rglob("*.pt")) and not list(Path("drive").iterdir())


@pytest.mark.usefixtures("one_thread")
def test_a_copys_folder_that_is_not_there_is_not_made(short):
    with pytest.warns(UserWarning, match="no second copy of the state of training: there is no folder drive"):
        record_run("mlp_baseline", 1, device="cpu", allow_sample=True, progress=False, limit=200, copy="drive")
    assert not Path("drive").exists()


@pytest.mark.usefixtures("one_thread")
def test_again_is_from_the_start_whatever_is_left_of_an_unfinished_run(short, epochs_begun):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    epochs_begun.breaks = 2
    with pytest.raises(KeyboardInterrupt):
        record_run("mlp_baseline", 1, **options)
    epochs_begun.n, epochs_begun.breaks = 0, None
    record_run("mlp_baseline", 1, **options, again=True)
    assert epochs_begun.n == 2


@pytest.mark.usefixtures("one_thread")
def test_a_damaged_state_is_named(short, epochs_begun):
    epochs_begun.breaks = 2
    with pytest.raises(KeyboardInterrupt):
        record_run("mlp_baseline", 1, device="cpu", allow_sample=True, progress=False)
    (state,) = (short / "runs" / "unfinished").rglob("*.pt")
    state.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=f"{state.name} is damaged, or no state of training"):
        record_run("mlp_baseline", 1, device="cpu", allow_sample=True, progress=False)


def test_a_run_on_fewer_images_does_not_pass_for_a_full_one(short, digits):
    options = {"digits": digits, "device": "cpu", "progress": False}
    some = record_run("mlp_constant_30", limit=80, **options, train=lambda setup: fit_one(setup))
    every = record_run("mlp_constant_30", **options, train=lambda setup: fit_one(setup))
    assert (some["limit"], some["trained_on"]) == (80, 80) and (every["limit"], every["trained_on"]) == (None, 162)
    refuse = {"train": None, "digits": digits, "device": "cpu", "progress": False}
    assert (
        record_run("mlp_constant_30", limit=80, **refuse) == some and record_run("mlp_constant_30", **refuse) == every
    )


def fit_one(setup, stopped=""):
    """Train a single epoch, whatever the recipe says."""
    setup.options["scheduler"] = None
    loaders = setup.train_loader, setup.validation_loader
    history = training.fit(setup.model, *loaders, setup.optimizer, 1, progress=False, **setup.options)
    history.stopped = stopped
    return history


def test_what_is_known_is_said_where_progress_is_shown(short, digits, capsys):
    record = record_run("mlp_step", digits=digits, device="cpu", progress=False, train=fit_one)
    assert record_run("mlp_step", digits=digits, device="cpu", progress=False) == record
    assert capsys.readouterr().out == ""
    assert record_run("mlp_step", digits=digits, device="cpu") == record
    assert capsys.readouterr().out == "mlp_step, seed 0 is recorded already, and not trained again\n"


def test_a_pruned_trial_is_no_answer_to_a_search_that_does_not_prune(short, digits):
    options = {"digits": digits, "device": "cpu", "progress": False}
    varied = vary("network", {"lr": 0.01})
    assert record_run(varied, train=lambda setup: fit_one(setup, "pruned"), **options)["stopped"] == "pruned"
    whole = record_run(varied, train=fit_one, **options)
    assert whole["stopped"] == "" and record_run(varied, **options) == whole


def test_a_recipe_changed_by_hand_is_not_taken_for_the_one_of_that_name(short, digits):
    options = {"digits": digits, "device": "cpu", "progress": False, "train": fit_one}
    plain = record_run(vary("network", {"lr": 0.01}), **options)
    other = record_run(vary(replace(RECIPES["network"], batch_size=16), {"lr": 0.01}), **options)
    assert other["settings"]["batch_size"] == 16 and other["history"] != plain["history"]


def test_a_trial_is_recorded_with_what_was_changed_and_not_scored_on_test(short, monkeypatch, digits):
    monkeypatch.setattr(runs, "score_on_test", None)
    varied = vary("network", {"lr": 0.01, "epochs": 1})
    record = record_run(varied, device="cpu", digits=digits, progress=False)
    assert record["recipe"] == "network_lr_0.01_epochs_1" and record["varied"] == "network"
    assert record["changes"] == {"lr": 0.01, "epochs": 1} and record["settings"] == varied.settings()
    assert record["test_accuracy"] is record["test_predictions"] is None
    (path,) = (short / "runs" / "records").rglob("*.json")
    assert path.parent.name == "trials" and path.name == "network_lr_0.01_epochs_1-synthetic-162-cpu-seed0.json"
    assert load_records() == [record]


def trial_record(name, changes, **figures):
    """Return the record of a full trial on MNIST."""
    varied = vary(name, changes)
    figures |= {"recipe": varied.name, "settings": varied.settings(), "varied": name, "changes": changes}
    return make_record(test=None, test_predictions=None, **figures)


def test_trials_of_a_recipe_that_has_changed_since_are_left_out(project, monkeypatch):
    write(project, trial_record("network", {"lr": 0.1}))
    write(project, trial_record("conv_bn_relu_w8", {"momentum": 0.5}))
    assert len(load_records()) == 2
    network = RECIPES["network"]
    monkeypatch.setitem(RECIPES, "network", replace(network, optimizer_arguments={"lr": 5.0, "fused": True}))
    assert len(load_records()) == 2, "another learning rate, which the trial has changed anyway"
    monkeypatch.setitem(RECIPES, "network", replace(network, batch_size=32))
    with pytest.warns(UserWarning, match="1 records of other settings"):
        assert [one["varied"] for one in load_records()] == ["conv_bn_relu_w8"]
    monkeypatch.setitem(RECIPES, "conv_bn_relu_w8", replace(RECIPES["conv_bn_relu_w8"], optimizer="Adam"))
    with pytest.warns(UserWarning, match="2 records of other settings"):
        assert load_records() == [], "Adam has no momentum to change"
    monkeypatch.setattr(recipes, "RECIPES", {name: one for name, one in RECIPES.items() if name != "network"})
    with pytest.warns(UserWarning, match="2 records of other settings"):
        assert load_records() == []


def test_trials_never_enter_the_tables(project):
    write(project, make_record(0, 98.0))
    for number, changes in enumerate(({}, {"lr": 0.1}, {"epochs": 15})):
        write(project, trial_record("mlp_baseline", changes, seed=number, validation=10.0))
    assert len(load_records()) == 4
    runs_of_baseline = records.full_runs(load_records())["mlp_baseline"]
    assert [one["validation_accuracy"] for one in runs_of_baseline] == [98.5]
    rows = [row for row in result_rows() if row["seeds"]]
    assert [(row["recipe"], row["seeds"], row["test_accuracy_mean"]) for row in rows] == [("mlp_baseline", [0], 98.0)]
    with pytest.raises(ValueError, match="there is no study 'search'"):
        result_rows(study="search")


def test_quick_runs_are_labelled_and_lie_elsewhere(short, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    record = record_run("mlp_baseline", device="cpu", allow_sample=True, progress=False)
    assert record["quick"]
    assert [row["quick"] for row in result_rows() if row["seeds"]] == [True] and "(QUICK)" in results_table()
    monkeypatch.delenv("QUICK")
    assert load_records() == []


def test_weights_of_seed_0_are_kept_for_mnist_alone(short, monkeypatch):
    record_run("mlp_baseline", 0, device="cpu", allow_sample=True, progress=False)
    assert not (short / "runs" / "saved_models").exists()
    disguised = {train: replace(load_data(train=train), source="mnist") for train in (True, False)}
    monkeypatch.setattr(records, "load_data", lambda allow_sample: disguised[True])
    monkeypatch.setattr(evaluation, "load_part", lambda source, train: disguised[train])
    monkeypatch.setitem(RECIPES, "mlp_baseline", replace(RECIPES["mlp_baseline"], saved_as="Published"))
    record_run("mlp_baseline", 0, device="cpu", progress=False)
    monkeypatch.setitem(RECIPES, "variant", replace(RECIPES["mlp_baseline"], name="variant", study="a study"))
    record_run("variant", 0, device="cpu", progress=False)
    assert [path.name for path in (short / "runs" / "saved_models").glob("*.pth")] == ["Published.pth"]
    card = read_card("Published")
    assert card["recipe"] == "mlp_baseline" and card["seed"] == 0 and "test_predictions" not in card
    promised = "model model_arguments data split test_accuracy seconds device precision versions".split()
    assert not [key for key in promised if key not in card]


@pytest.mark.parametrize("sensitive", ["", "validation", "test"])
def test_weights_are_rounded_only_where_that_changes_no_prediction(short, monkeypatch, sensitive):
    digits = load_data()
    finished = run("mlp_baseline", digits, device="cpu", progress=False)
    finished.record["test_predictions"] = "3" * 360
    last = finished.model[-1]
    with torch.no_grad():  # the answer is 3 for every image, by much or by less than float16 can hold
        last.weight.zero_(), last.bias.zero_()
        last.bias[2], last.bias[3] = 1.0, 1.0001 if sensitive == "validation" else 1.1
    rounded = ("2" if sensitive == "test" else "3") * 360
    monkeypatch.setattr(records, "score_on_test", lambda *_: SimpleNamespace(predictions=rounded))
    records.keep_weights(finished, digits, short / "runs" / "saved_models" / "mlp_baseline.pth")
    assert read_card("mlp_baseline")["weights"] == ("float32" if sensitive else "float16")


def test_a_table_of_validation_figures_takes_single_runs_and_names_missing_ones(project):
    one, two = make_record(0, validation=98.0), make_record(1, validation=99.0)
    runs = {"mlp_baseline": [one, two], "network": [one], "lenet5": []}
    for name in runs:
        for number, record in enumerate(runs[name]):
            record["validation_loss"] = 0.1 + number / 10
    table = results.validation_table(["mlp_baseline", "network"], runs)
    assert "| `mlp_baseline` | 98.50 ± 0.71 | 0.1500 ± 0.0707 | 2 | 15 | 270,346 |" in table
    assert "| `network` | 98.00 | 0.1000 | 1 |" in table
    for name in ("lenet5", "unheard_of"):
        with pytest.raises(ValueError, match=f"no full run of '{name}' is recorded"):
            results.validation_table([name], runs)


def test_rows_hold_mean_and_sample_deviation(project):
    tests = [98.0, 98.3, 98.1]
    for seed, test in enumerate(tests):
        write(project, make_record(seed, test))
    row = result_rows()[0]
    assert row["test_accuracy_mean"] == pytest.approx(np.mean(tests))
    assert row["test_accuracy_std"] == pytest.approx(np.std(tests, ddof=1))
    assert row["seeds"] == [0, 1, 2] and row["seconds"] == 11 and row["published_accuracy"] == 98.05
    assert "98.13 ± 0.15" in results_table()


def test_quick_and_sample_runs_never_mix_with_real_ones(project):
    write(project, make_record(0, 98.0))
    write(project, make_record(1, 50.0, source="sklearn-digits"))
    write(project, make_record(2, 60.0, quick=True))
    write(project, make_record(3, 70.0, trained_on=60000))
    write(project, make_record(4, 80.0, device="cuda"))
    means = [row["test_accuracy_mean"] for row in result_rows() if row["seeds"]]
    assert sorted(means) == [50, 60, 70, 80, 98]


def test_this_machines_run_stands_in_for_its_committed_twin(project):
    write(project, make_record(0, 98.0))
    write(project, make_record(1, 98.2))
    write(project / "runs", make_record(1, 98.4))
    assert result_rows()[0]["test_accuracy_mean"] == pytest.approx(98.2)


def test_a_single_run_is_shown_as_one_with_its_interval(project):
    write(project, make_record(0, 98.0))
    assert result_rows()[0]["test_accuracy_std"] is None
    assert "| 98.00 (one run; 95 % interval 97.71 to 98.26) | 98.50 | 1 |" in results_table()


def test_a_recipe_without_runs_has_a_row_of_unknowns(project):
    row = result_rows()[0]
    assert row["seeds"] == [] and row["published_accuracy"] == 98.05 and row["test_accuracy_mean"] is None
    assert "not measured" in results_table()


def test_variants_in_a_study_have_a_table_of_their_own(project, capsys):
    variant = {"test_accuracy": None, "test_predictions": None}
    for seed, validation in enumerate((98.0, 98.2)):
        settings = RECIPES["mlp_step"].settings()
        write(project, make_record(seed, validation=validation, recipe="mlp_step", settings=settings, **variant))
    assert "mlp_step" not in {row["recipe"] for row in result_rows()}
    rows = result_rows(study="schedules")
    (row,) = [row for row in rows if row["seeds"]]
    assert row["validation_accuracy_mean"] == pytest.approx(98.1)
    assert row["validation_accuracy_std"] == pytest.approx(0.1 * 2**0.5)
    assert row["test_accuracy_mean"] is None and row["published_accuracy"] is None
    assert main(["results", "--study", "schedules"]) == 0
    assert "| `mlp_step` |  | not scored | 98.10 ± 0.14 | 2 |" in capsys.readouterr().out
    assert main(["results", "--study", "nothing"]) == 2
    assert "no study 'nothing': choose one of augmentation, held back, initialisation" in capsys.readouterr().err


def test_differences_are_taken_seed_by_seed(project):
    for seed, (validation, other) in enumerate(((98.0, 98.1), (98.2, 98.4), (98.1, 98.1))):
        write(project, make_record(seed, validation=validation))
        settings = RECIPES["mlp_plateau"].settings()
        write(project, make_record(seed, validation=other, recipe="mlp_plateau", settings=settings))
    write(project, make_record(3, validation=50.0))
    write(project, make_record(4, validation=50.0, source="sklearn-digits"))
    write(project, make_record(5, validation=50.0, device="cuda"))
    write(project / "runs", make_record(6, validation=50.0))
    assert [one["seed"] for one in records.full_runs()["mlp_baseline"]] == [0, 1, 2, 3]
    found = paired_difference([98.1, 98.4, 98.1], [98.0, 98.2, 98.1])
    row = results.differences_table([("mlp_plateau", "mlp_baseline")]).splitlines()[-1]
    assert row == (
        f"| `mlp_plateau` - `mlp_baseline` | +0.100 | {found.low:+.3f} to {found.high:+.3f} | {found.p_value:.2g} | 3 |"
    )
    everything = records.full_runs(load_records())
    assert [one["seed"] for one in everything["mlp_baseline"]] == [0, 1, 2, 3, 6]
    assert [one["seed"] for one in records.full_runs(device="cuda")["mlp_baseline"]] == [5]


def test_full_runs_are_full_and_in_the_order_of_their_seeds(project):
    for seed in (10, 2):
        write(project, make_record(seed))
    write(project, make_record(3, quick=True))
    write(project, make_record(4, trained_on=60000))
    for seed, trained_on in ((5, 60000), (6, 48000)):
        settings = RECIPES["speed_99"].settings()
        write(project, make_record(seed, recipe="speed_99", settings=settings, trained_on=trained_on))
    assert [one["seed"] for one in records.full_runs()["mlp_baseline"]] == [2, 10]
    assert [one["seed"] for one in records.full_runs()["speed_99"]] == [5], "a recipe that holds nothing back"


def test_pairs_are_made_by_seed_and_not_by_place():
    def made(figures):
        return [make_record(seed, validation=figure, validation_loss=figure / 1e4) for seed, figure in figures.items()]

    runs = {"one": made({0: 1.0, 1: 5.0, 2: 7.0, 3: 9.0}), "two": made({2: 6.0, 3: 7.0, 4: 0.0, 1: 5.0})}
    found, n_seeds = results.recorded_difference("one", "two", runs)
    assert n_seeds == 3 and found == paired_difference([5.0, 7.0, 9.0], [5.0, 6.0, 7.0])
    assert "| +0.0001 |" in results.differences_table([("one", "two")], runs, "validation_loss")
    with pytest.raises(ValueError, match="one and three have no two seeds in common whose validation_accuracy"):
        results.recorded_difference("one", "three", {**runs, "three": made({0: 1.0})})


def test_command_compares_two_recipes_on_each_device(project, capsys):
    for seed, (one, other) in enumerate(((98.0, 98.1), (98.2, 98.4))):
        for device in ("cpu", "cuda"):
            for name, figure in (("mlp_baseline", one), ("mlp_plateau", other)):
                settings = RECIPES[name].settings()
                record = make_record(seed, figure + 0.5, figure, recipe=name, settings=settings, device=device)
                write(project / device, record)
    (project / "records").mkdir()
    for device in ("cpu", "cuda"):
        for path in (project / device / "records").glob("*/*.json"):
            target = project / "records" / path.parent.name / f"{device}-{path.name}"
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    assert main(["results", "--compare", "mlp_plateau", "mlp_baseline"]) == 0
    out = capsys.readouterr().out
    assert out.count("on cpu") == out.count("on cuda") == 2, "validation and test"
    assert out.count("| `mlp_plateau` - `mlp_baseline` | +0.150 |") == 4
    assert main(["results", "--compare", "mlp_plateau", "network"]) == 2
    assert "have not been run with two seeds in common: train them first" in capsys.readouterr().err


def test_the_history_of_a_record_is_that_of_its_run(short):
    finished = run("mlp_baseline", load_data(), device="cpu", progress=False)
    history = records.recorded_history(json.loads(json.dumps(finished.record)))
    assert history.epochs == finished.history.epochs and history.best == finished.history.best


def test_records_of_other_settings_are_left_out_and_counted(project):
    write(project, make_record(0))
    write(project, make_record(1, settings={"epochs": 99}))
    with pytest.warns(UserWarning, match="1 records of other settings"):
        assert len(load_records()) == 1


INCOMPLETE = {key: value for key, value in make_record().items() if key != "test_accuracy"}


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"recipe": "mlp_baseline"}', json.dumps(INCOMPLETE)])
def test_a_damaged_record_is_named(project, text):
    path = project / "records" / "mlp_baseline" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ValueError, match="x.json is not a record of a run"):
        load_records()


def test_settings_survive_the_way_through_json(project, monkeypatch):
    recipe = replace(RECIPES["mlp_baseline"], model="network", model_arguments={"widths": (8,)})
    monkeypatch.setitem(RECIPES, "mlp_baseline", recipe)
    write(project, make_record(0))
    assert len(load_records()) == 1


def test_command_prints_objects_with_the_documented_fields(project, capsys):
    write(project, make_record(0))
    assert main(["results", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["recipe"] for row in rows] == [name for name, recipe in RECIPES.items() if not recipe.study]
    row = rows[0]
    assert all(set(FIELDS.split()) <= set(row) for row in rows)
    assert row["test_accuracy_mean"] == 98.0 and row["test_accuracy_std"] is None and row["seeds"] == [0]


def test_readme_holds_the_table_of_the_committed_records(monkeypatch):
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results.readme_with_table(readme) == readme


# System -> the number of test images behind the published figure
PUBLISHED = {"mlp_baseline": 10_000, "mlp_plateau": 10_000, "cnn_dropout": 5000, "cnn_tuned": 5000, "keras_cnn": 10_000}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_committed_runs_reproduce_the_published_figure(monkeypatch, name):
    """By the rule that a mean within the published figure's own uncertainty, or above it, counts."""
    monkeypatch.chdir(ROOT)
    rows = result_rows(load_records([ROOT / "records"]))
    (row,) = [row for row in rows if row["recipe"] == name and row["device"] == "cpu"]
    assert len(row["seeds"]) >= 5 and row["trained_on"] == 48000 and row["source"] == "mnist"
    n = PUBLISHED[name]
    low, _ = wilson_interval(round(row["published_accuracy"] * n / 100), n)
    assert row["test_accuracy_mean"] >= low


@pytest.mark.mnist
def test_recorded_accuracies_follow_from_the_recorded_predictions(monkeypatch):
    monkeypatch.chdir(ROOT)
    from mnist_helpers.data.digits import load_mnist

    labels = load_mnist(train=False).labels.tolist()
    records = load_records([ROOT / "records"])
    assert records
    for record in records:
        if record["test_accuracy"] is None:
            continue
        right = sum(int(digit) == label for digit, label in zip(record["test_predictions"], labels, strict=True))
        assert record["test_accuracy"] == pytest.approx(right / 100)


def test_numbers_in_the_table_have_their_units(project):
    write(project, make_record(0))
    write(project, make_record(1, recipe="network", settings=RECIPES["network"].settings(), threads=1))
    write(project, make_record(2, device="cuda", threads=16))
    for number, threads in enumerate((2, 11)):
        write(project, make_record(number, recipe="lenet5", settings=RECIPES["lenet5"].settings(), threads=threads))
    table = results_table()
    assert "| cpu, 2 threads |" in table and "| cpu, 1 thread |" in table and "| cuda |" in table
    assert "| cpu, 2 or 11 threads |" in table
    heading = table.splitlines()[0]
    assert re.search(r"published, test %.*ours, test %.*seconds", heading)
