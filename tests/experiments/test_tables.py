"""Records are read as they were written, and the tables made from them say what is in them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnist_helpers.__main__ import main
from mnist_helpers.data.digits import load_mnist
from mnist_helpers.evaluation.significance import paired_difference, wilson_interval
from mnist_helpers.experiments import systems
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.records import REQUIRED, TEST_IMAGES, full_runs, load_records
from mnist_helpers.experiments.run import record_run
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.experiments.tables import (
    HIGHLIGHTS,
    differences_table,
    highlights_table,
    markdown_table,
    pages_with_tables,
    recorded_difference,
    result_rows,
    results_table,
    validation_table,
)
from mnist_helpers.models.cards import EPOCH

ROOT = Path(__file__).parent.parent.parent
FIELDS = (
    "recipe published_accuracy validation_accuracy_mean validation_accuracy_std test_accuracy_mean test_accuracy_std "
    "seeds parameters epochs seconds threads device trained_on source"
)


def make_record(seed=0, test=98.0, validation=98.5, recipe="mlp_baseline", **changes):
    """Return a record as `run` makes it, with figures of our choosing."""
    n_epochs = changes.get("epochs", 15)
    return {
        "recipe": recipe,
        "settings": RECIPES[recipe].settings() if recipe in RECIPES else {},
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
        "validation_loss": 0.05,
        "test_accuracy": test,
        "test_loss": None if test is None else 0.06,
        "test_predictions": "7" * TEST_IMAGES[changes.get("source", "mnist")],
        "history": [{**dict.fromkeys(EPOCH, 0.5), "epoch": number} for number in range(1, n_epochs + 1)],
    } | changes


def trial_record(name, changes, **figures):
    """Return the record of a full trial on MNIST."""
    varied = vary(RECIPES[name], changes)
    figures |= {"settings": varied.settings(), "varied": name, "changes": changes}
    return make_record(test=None, test_predictions=None, recipe=varied.name, **figures)


def write(folder, *records):
    for record in records:
        name = f"{record['source']}-{record['device']}-{record['seed']}.json"
        path = folder / "records" / record["recipe"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))


def seeds(records):
    return [one["seed"] for one in records]


def test_records_of_other_settings_are_left_out_and_counted(project, monkeypatch):
    write(project, make_record(0), make_record(1, settings={"epochs": 99}))
    with pytest.warns(UserWarning, match="1 records of other settings"):
        assert seeds(load_records()) == [0]
    recipe = replace(RECIPES["mlp_baseline"], model="network", model_arguments={"widths": (8,)})
    monkeypatch.setitem(RECIPES, "mlp_baseline", recipe)
    write(project, make_record(0), make_record(1))
    assert len(load_records()) == 2, "a tuple survives the way through JSON"


def test_trials_of_a_recipe_that_has_changed_since_are_left_out(project, monkeypatch):
    write(project, trial_record("network", {"lr": 0.1}), trial_record("conv_bn_relu_w8", {"momentum": 0.5}))
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
    monkeypatch.setattr(systems, "RECIPES", {name: one for name, one in RECIPES.items() if name != "network"})
    with pytest.warns(UserWarning, match="2 records of other settings"):
        assert load_records() == []


INCOMPLETE = {key: value for key, value in make_record().items() if key != "test_accuracy"}


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"recipe": "mlp_baseline"}', json.dumps(INCOMPLETE)])
def test_a_damaged_record_is_named(project, text):
    path = project / "records" / "mlp_baseline" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ValueError, match="x.json is not a record of a run"):
        load_records()
    for together in ("", "[1]", "5", json.dumps([make_record(), INCOMPLETE])):  # all in one, as an installed package
        (project / "records" / "all.json").write_text(together)
        with pytest.raises(ValueError, match=r"all.json is damaged \(.*\): install the package again"):
            load_records([project / "records"])


def test_a_record_that_says_nonsense_is_one_sentence_with_file_and_field(project, capsys):
    compare = ["results", "--compare", "mlp_plateau", "mlp_baseline"]
    for seed in (0, 1):
        write(project, make_record(seed), make_record(seed, 98.1 + seed, 98.6 + seed, recipe="mlp_plateau"))
    assert main(compare) == 0
    path = project / "records" / "mlp_baseline" / "mnist-cpu-1.json"
    good = json.loads(path.read_text())
    nullable = "limit", "validation_accuracy", "validation_loss"
    allowed = [("quick", True), *((field, None) for field in nullable)]
    for field in (*REQUIRED, "n_digits", "limit", "varied", "changes", "stopped"):
        for value in (float("nan"), "\n", ["mnist"], {"a": None}, -1, True, None):
            if (field, value) in allowed or (field in ("settings", "changes") and isinstance(value, dict)):
                continue
            path.write_text(json.dumps({**good, field: value}))
            with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is not a record of a run: .*{field}.*"):
                load_records()
    for change, said in (
        ({"validation_accuracy": float("nan")}, "validation_accuracy is nan, and not a number from 0 to 100, or null"),
        ({"test_predictions": "7" * 9999}, "test_predictions are 9,999, and not 10,000"),
        ({"test_predictions": "7" * 20_000}, "test_predictions are 20,000, and not 10,000"),
        ({"test_predictions": ""}, "test_predictions are 0, and not 10,000"),
        ({"test_predictions": "٣" * 10_000}, "test_predictions is .* and not a text of digits"),
        ({"test_accuracy": 98.005}, "test_accuracy is 98.005, which is no share of 10,000 test_predictions"),
        ({"source": "mine", "test_predictions": ""}, "test_predictions are 0, and not 1"),
        ({"test_loss": None}, "it has only one of test_accuracy and test_loss"),
        ({"epochs": 99}, "history has .+ epochs, and epochs is 99"),
        ({"device": "<b>"}, "device is '<b>', and not text in one line of at most 300 characters, without"),
        ({"history": [{"epoch": 1}]}, "history is .* and not a list of epochs"),
    ):
        path.write_text(json.dumps(good | change))
        for command in (["results"], compare):
            capsys.readouterr()
            assert main(command) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"Error: {path} is not a record of a run: ") and len(error.splitlines()) == 1
            assert re.search(said, error), change


def test_a_trial_never_takes_the_name_of_a_named_recipe(project):
    settings = RECIPES["network"].settings()
    write(project, make_record(0), make_record(1, varied="network", changes={}, settings=settings))
    with pytest.warns(UserWarning, match="1 records of other settings"):
        assert seeds(load_records()) == [0]
    nested = {}
    for _ in range(900):
        nested = {"a": nested}
    odd = [
        {"scheduler_arguments": 5, "lr": 1},
        {"model_arguments": nested},
        {"optimizer": ["SGD"]},
        {"augmentation": 3},
    ]
    for seed, changes in enumerate(odd):
        write(project, make_record(seed, recipe="trial", varied="network", changes=changes, settings=settings))
    with pytest.warns(UserWarning, match=f"{1 + len(odd)} records of other settings"):
        assert seeds(load_records()) == [0]


def test_full_runs_are_full_and_in_the_order_of_their_seeds(project):
    write(project, make_record(10), make_record(2), make_record(3, quick=True), make_record(4, trained_on=60000))
    write(project, make_record(5, recipe="speed_99", trained_on=60000), make_record(6, recipe="speed_99"))
    write(project, make_record(7, 50.0, source="sklearn-digits"), make_record(8, device="cuda"))
    write(project / "runs", make_record(9))
    assert seeds(full_runs()["mlp_baseline"]) == [2, 10], "the committed ones"
    assert seeds(full_runs()["speed_99"]) == [5], "a recipe that holds nothing back"
    assert seeds(full_runs(load_records())["mlp_baseline"]) == [2, 9, 10]
    assert seeds(full_runs(device="cuda")["mlp_baseline"]) == [8]


def test_trials_never_enter_the_tables(project):
    write(project, make_record(0, 98.0))
    for number, changes in enumerate(({}, {"lr": 0.1}, {"epochs": 15})):
        write(project, trial_record("mlp_baseline", changes, seed=number, validation=10.0))
    assert len(load_records()) == 4
    assert [one["validation_accuracy"] for one in full_runs(load_records())["mlp_baseline"]] == [98.5]
    rows = [row for row in result_rows() if row["seeds"]]
    assert [(row["recipe"], row["seeds"], row["test_accuracy_mean"]) for row in rows] == [("mlp_baseline", [0], 98.0)]


@pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")
def test_quick_runs_are_labelled_and_lie_elsewhere(project, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    record = record_run("mlp_baseline", device="cpu", allow_sample=True, progress=False)
    assert record["quick"]
    assert [row["quick"] for row in result_rows() if row["seeds"]] == [True] and "(QUICK)" in results_table()
    monkeypatch.delenv("QUICK")
    assert load_records() == []


def test_a_markdown_table_has_a_line_for_the_heads_and_each_row():
    assert markdown_table(["a", ""], [["1", "2"], ["", "3"]]) == "| a |  |\n|---|---|\n| 1 | 2 |\n|  | 3 |"


def test_a_table_of_validation_figures_takes_single_runs_and_none_and_names_missing_ones():
    one, two = (make_record(seed, validation=98.0 + seed, validation_loss=0.1 * (seed + 1)) for seed in (0, 1))
    none = make_record(validation=None, validation_loss=None)
    recorded = {"mlp_baseline": [one, two], "network": [one], "speed_99": [none, none], "lenet5": []}
    assert validation_table(["mlp_baseline", "network", "speed_99"], recorded).splitlines()[2:] == [
        "| `mlp_baseline` | 98.50 ± 0.71 | 0.1500 ± 0.0707 | 2 | 15 | 270,346 |",
        "| `network` | 98.00 | 0.1000 | 1 | 15 | 270,346 |",
        "| `speed_99` | none held back | none held back | 2 | 15 | 270,346 |",
    ]
    for name in ("lenet5", "unheard_of"):
        with pytest.raises(ValueError, match=f"no full run of '{name}' is recorded"):
            validation_table([name], recorded)


def test_rows_hold_mean_and_sample_deviation(project):
    tests = [98.0, 98.3, 98.1]
    write(project, *(make_record(seed, test) for seed, test in enumerate(tests)))
    row = result_rows()[0]
    assert row["test_accuracy_mean"] == pytest.approx(np.mean(tests))
    assert row["test_accuracy_std"] == pytest.approx(np.std(tests, ddof=1))
    assert row["seeds"] == [0, 1, 2] and row["seconds"] == 11 and row["published_accuracy"] == 98.05
    assert "98.13 ± 0.15" in results_table()


def test_quick_and_sample_runs_never_mix_with_real_ones(project):
    write(project, make_record(0, 98.0), make_record(1, 50.0, source="sklearn-digits"))
    write(project, make_record(2, 60.0, quick=True), make_record(3, 70.0, trained_on=60000))
    write(project, make_record(4, 80.0, device="cuda"))
    rows = [row for row in result_rows() if row["seeds"]]
    assert sorted(row["test_accuracy_mean"] for row in rows) == [50, 60, 70, 80, 98]
    assert [row["published_accuracy"] for row in rows if row["quick"] or row["source"] != "mnist"] == [None, None]


def test_this_machines_run_stands_in_for_its_committed_twin(project):
    write(project, make_record(0, 98.0), make_record(1, 98.2))
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


def test_variants_in_an_ablation_have_a_table_of_their_own(project, capsys):
    variant = {"recipe": "mlp_step", "test": None, "test_predictions": None}
    write(project, make_record(0, validation=98.0, **variant), make_record(1, validation=98.2, **variant))
    assert "mlp_step" not in {row["recipe"] for row in result_rows()}
    (row,) = [row for row in result_rows(ablation="schedules") if row["seeds"]]
    assert row["validation_accuracy_mean"] == pytest.approx(98.1)
    assert row["validation_accuracy_std"] == pytest.approx(0.1 * 2**0.5)
    assert row["test_accuracy_mean"] is None and row["published_accuracy"] is None
    assert main(["results", "--ablation", "schedules"]) == 0
    assert "| `mlp_step` |  | not scored | 98.10 ± 0.14 | 2 |" in capsys.readouterr().out
    assert main(["results", "--ablation", "nothing"]) == 2
    assert "no ablation 'nothing': choose one of augmentation, held back, initialisation" in capsys.readouterr().err


def test_differences_are_taken_seed_by_seed(project):
    for seed, (validation, other) in enumerate(((98.0, 98.1), (98.2, 98.4), (98.1, 98.1))):
        write(project, make_record(seed, validation=validation))
        write(project, make_record(seed, validation=other, recipe="mlp_plateau"))
    write(project, make_record(3, validation=50.0))
    found = paired_difference([98.1, 98.4, 98.1], [98.0, 98.2, 98.1])
    row = differences_table([("mlp_plateau", "mlp_baseline")]).splitlines()[-1]
    assert row == (
        f"| `mlp_plateau` - `mlp_baseline` | +0.100 | {found.low:+.3f} to {found.high:+.3f} | {found.p_value:.2g} | 3 |"
    )


def test_pairs_are_made_by_seed_and_not_by_place():
    def made(figures):
        return [make_record(seed, validation=figure, validation_loss=figure / 1e4) for seed, figure in figures.items()]

    recorded = {"one": made({0: 1.0, 1: 5.0, 2: 7.0, 3: 9.0}), "two": made({2: 6.0, 3: 7.0, 4: 0.0, 1: 5.0})}
    found, n_seeds = recorded_difference("one", "two", recorded)
    assert n_seeds == 3 and found == paired_difference([5.0, 7.0, 9.0], [5.0, 6.0, 7.0])
    assert "| +0.0001 |" in differences_table([("one", "two")], recorded, "validation_loss")
    with pytest.raises(ValueError, match="one and three have no two seeds in common whose validation_accuracy"):
        recorded_difference("one", "three", {**recorded, "three": made({0: 1.0})})


def test_command_compares_two_recipes_on_each_device(project, capsys):
    for seed, (one, other) in enumerate(((98.0, 98.1), (98.2, 98.4))):
        for device in ("cpu", "cuda"):
            for name, figure in (("mlp_baseline", one), ("mlp_plateau", other)):
                write(project, make_record(seed, figure + 0.5, figure, recipe=name, device=device))
    assert main(["results", "--compare", "mlp_plateau", "mlp_baseline"]) == 0
    out = capsys.readouterr().out
    assert out.count("on cpu") == out.count("on cuda") == 2, "validation and test"
    assert out.count("| `mlp_plateau` - `mlp_baseline` | +0.150 |") == 4
    assert main(["results", "--compare", "mlp_plateau", "network"]) == 2
    assert "have not been run with two seeds in common: train them first" in capsys.readouterr().err


def test_command_prints_objects_with_the_documented_fields(project, capsys):
    write(project, make_record(0))
    assert main(["results", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["recipe"] for row in rows] == [name for name, recipe in RECIPES.items() if not recipe.ablation]
    row = rows[0]
    assert all(set(FIELDS.split()) <= set(row) for row in rows)
    assert row["test_accuracy_mean"] == 98.0 and row["test_accuracy_std"] is None and row["seeds"] == [0]


def test_the_pages_hold_the_tables_of_the_committed_records(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path, text in pages_with_tables().items():
        assert path.read_text(encoding="utf-8") == text, path


def test_the_short_table_has_a_row_for_each_highlight(project):
    write(project, make_record(0, recipe="lenet5", threads=2), make_record(1, recipe="lenet5", threads=2))
    table = highlights_table(result_rows())
    assert [line.split("`")[1] for line in table.splitlines()[2:]] == [*HIGHLIGHTS]
    assert "| 98.00 ± 0.00 | 2 |" in table and ", 2 threads |" in table and table.count("not measured") == 4


# System -> the number of test images behind the published figure
PUBLISHED = {"mlp_baseline": 10_000, "mlp_plateau": 10_000, "cnn_dropout": 5000, "cnn_tuned": 5000, "keras_cnn": 10_000}


def test_the_committed_runs_reproduce_the_published_figures(monkeypatch):
    """By the rule that a mean within the published figure's own uncertainty, or above it, counts."""
    monkeypatch.chdir(ROOT)
    rows = result_rows(load_records([ROOT / "records"]))
    for name, n in PUBLISHED.items():
        (row,) = [row for row in rows if row["recipe"] == name and row["device"] == "cpu"]
        assert len(row["seeds"]) >= 5 and row["trained_on"] == 48000 and row["source"] == "mnist"
        low, _ = wilson_interval(round(row["published_accuracy"] * n / 100), n)
        assert row["test_accuracy_mean"] >= low, name


@pytest.mark.mnist
def test_recorded_accuracies_follow_from_the_recorded_predictions():
    labels = load_mnist(train=False).labels.numpy()
    scored = [one for one in load_records([ROOT / "records"]) if one["test_accuracy"] is not None]
    assert len(scored) > 100
    for record in scored:
        right = (np.array([*record["test_predictions"]]) == labels.astype(str)).sum()  # x, no digit, is wrong
        assert record["test_accuracy"] == pytest.approx(right / 100)


def test_numbers_in_the_table_have_their_units(project):
    write(project, make_record(0), make_record(1, recipe="network", threads=1))
    write(project, make_record(2, device="cuda", threads=16))
    write(project, make_record(0, recipe="lenet5", threads=2), make_record(1, recipe="lenet5", threads=11))
    table = results_table()
    for cell in ("cpu, 2 threads", "cpu, 1 thread", "cuda", "cpu, 2 or 11 threads", "published, test %", "seconds"):
        assert f"| {cell} |" in table
