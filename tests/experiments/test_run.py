import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recipes import without_seconds

from mnist_helpers.__main__ import main
from mnist_helpers.data.augment import Augmentation
from mnist_helpers.data.digits import DataError, load_data
from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation import scores
from mnist_helpers.evaluation.scores import evaluate, score_on_test
from mnist_helpers.experiments import records
from mnist_helpers.experiments import run as run_module
from mnist_helpers.experiments import setup as setups
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.records import load_records, recorded_history, weights_path
from mnist_helpers.experiments.run import record_run, run, save_weights, seconds_per_epoch
from mnist_helpers.experiments.setup import fit_setup, prepare
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.models import mlp_baseline
from mnist_helpers.models.averaged import committee
from mnist_helpers.models.saved import CheckpointError, load_model, read_card
from mnist_helpers.training import loop
from mnist_helpers.training.history import History
from mnist_helpers.training.loop import fit

pytestmark = pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")
QUIETLY = {"device": "cpu", "progress": False}
SAMPLE = {**QUIETLY, "allow_sample": True}


def test_a_run_is_what_its_pieces_give_by_hand(project):
    rough = {"optimizer_arguments": {"lr": 0.1}, "normalisation": "mnist", "epochs": 5}  # coarse steps: up and down
    digits, seed = load_data(), 5
    finished = run(replace(RECIPES["mlp_baseline"], **rough), digits, seed, **QUIETLY)
    loaders = make_loaders(digits, 64, "mnist", seed, "cpu")
    with seeded(seed):
        model = mlp_baseline()
    history = fit(model, *loaders, torch.optim.Adam(model.parameters(), lr=0.1), 5, seed=seed, progress=False)
    score = score_on_test(model, "mnist", "sklearn-digits")
    assert finished.history == history == recorded_history(json.loads(json.dumps(finished.record)))
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
    whole = run("mlp_plateau", digits, seed, **QUIETLY)
    start = run("mlp_baseline", digits, seed, **QUIETLY)
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
    setup = prepare(RECIPES[name], load_data(), 0, torch.device("cpu"))
    history = fit_setup(setup, progress=False)
    for found, expected in zip(history["learning_rate"], rates, strict=True):
        assert expected is None or found == pytest.approx(expected)
    if name == "mlp_one_cycle":  # it ends with the last batch: 1,149 images in batches of 64
        scheduler = setup.options["scheduler"]
        assert scheduler.total_steps == scheduler.last_epoch == 2 * 18


def test_quick_runs_are_short(project, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    limits, make = [], setups.make_loaders

    def noted(*given, limit, **more):
        limits.append(limit)
        return make(*given, limit=200, **more)

    monkeypatch.setattr(setups, "make_loaders", noted)
    record = run("mlp_plateau", load_data(), **QUIETLY).record
    assert record["quick"] and record["epochs"] == 2 + 2 and record["trained_on"] == 200
    assert limits == [4000, 4000]


def test_a_limit_of_few_images_leaves_one_to_validate_on(short, digits):
    record = run("mlp_step", digits, limit=3, **QUIETLY).record
    assert record["trained_on"] == 3 and record["validation_accuracy"] in (0, 100)


def test_a_variant_or_a_trial_is_not_scored_on_test(short, monkeypatch, digits):
    monkeypatch.setattr(run_module, "score_on_test", None)
    varied = vary(RECIPES["network"], {"lr": 0.01, "augmentation": Augmentation(degrees=15)})
    for recipe in ("mlp_constant", varied):
        record = record_run(recipe, digits=digits, **QUIETLY)
        assert record["test_accuracy"] is record["test_predictions"] is record["test_loss"] is None
        assert record["validation_accuracy"] > 0 and set(record["data"]) == {"images"}
    assert record["recipe"] == "network_lr_0.01_degrees_15_smoothness_4.0" and record["varied"] == "network"
    assert record["changes"] == varied.changes and record["settings"] == varied.settings()
    (path,) = (short / "runs" / "records" / "trials").iterdir()
    assert path.name == f"{record['recipe']}-synthetic-162-cpu-seed0.json"
    assert record in load_records()


def test_names_from_data_never_become_paths(short, mnist, capsys):
    """Of a trial trained again from its record, of a recipe, of the file it is saved as, and of the digits' source."""
    outside = {"scheduler_arguments": {"x": "../../../PWNED/z"}}
    trial = vary(RECIPES["network"], outside)
    record = record_run(trial, digits=load_data(), limit=100, **QUIETLY)
    Path("record.json").write_text(json.dumps(record))
    assert main(["train", "--card", "record.json"]) == 0
    assert "to the last digit what record.json says" in capsys.readouterr().out
    away = replace(RECIPES["network"], name="../../away/one", saved_as="../../away/two")
    made = record_run(away, keep_weights=True, **QUIETLY)
    load_model(weights_path(made), "cpu"), load_model("../../away/two", "cpu"), load_model("../../away/one", "cpu")
    assert record_run(away, **QUIETLY) == made, "and it is found again"
    foreign = replace(load_data().take(torch.arange(200)), source="../../away/three")
    record_run(replace(RECIPES["network"], name="CON", ablation="one"), digits=foreign, **QUIETLY)
    assert sorted(path.name for path in short.iterdir()) == ["pyproject.toml", "record.json", "runs"]
    assert {path.name for path in (short / "runs").iterdir()} <= {"records", "members", "saved_models", "unfinished"}
    for folder in ("records", "members", "saved_models"):
        files = [path for path in (short / "runs" / folder).rglob("*") if path.is_file()]
        assert files and all(len(path.relative_to(short / "runs" / folder).parts) <= 2 for path in files)


def test_what_a_record_could_not_say_is_refused_before_training(short, monkeypatch, digits):
    monkeypatch.setattr(run_module, "run", None)
    for options, said in (
        ({"seed": -1}, "seed is -1, and not a whole number from 0 to"),
        ({"limit": 0}, "limit is 0, and not a whole number from 1 to .*, or null"),
        ({"digits": replace(digits, source="a\nb")}, "source is .*, and not text in one line"),
        ({"recipe": replace(RECIPES["network"], name="a\nb")}, "recipe is .*, and not text in one line"),
    ):
        with pytest.raises(ValueError, match=said):
            record_run(**{"recipe": "network", "digits": digits, **QUIETLY, **options})


def test_a_record_that_could_not_be_read_is_not_written(short, digits):
    good = record_run("network_dropout", digits=digits, **QUIETLY)
    with pytest.raises(ValueError, match="test_loss is nan, and not a number"):
        records.write_record(RECIPES["network_dropout"], {**good, "test_loss": float("nan")})
    assert load_records() == [good]


def test_a_trial_that_could_not_be_trained_is_refused_before_it_is(short, digits):
    made = record_run(vary(RECIPES["network"], {"lr": 0.1}), digits=digits, limit=100, **QUIETLY)
    for changes in (
        {"model_arguments": {"widths": [10**9]}},
        {"model_arguments": {"widths": [1] * 50_000}},
        {"lr": "x"},
    ):
        recipe = vary(RECIPES["network"], changes, check=False)
        record = {**made, "changes": changes, "recipe": recipe.name, "settings": recipe.settings()}
        Path("record.json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match="network cannot be trained with .*(would (take|have)|rate|str)"):
            records.described_run("record.json")


def test_the_best_epochs_weights_are_kept_where_the_recipe_says_so(project):
    rising = {"scheduler": "StepLR", "scheduler_arguments": {"step_size": 3, "gamma": 300.0}}  # spoils the last epoch
    digits = load_data()
    finished = run(replace(RECIPES["network"], **rising, epochs=4, keep_best=True), digits, **QUIETLY)
    best = max(finished.history["validation_accuracy"])
    assert finished.history["validation_accuracy"][-1] < best, "the last epoch is spoilt"
    assert finished.record["validation_accuracy"] == best
    _, loader = make_loaders(digits, device="cpu")
    assert evaluate(finished.model, loader)[1] == best


def test_initialisation_and_augmentation_are_the_recipes(short):
    digits = load_data().take(torch.arange(200))
    plain = run("lenet5", digits, **QUIETLY).history
    for change in ({"initialisation": "normal"}, {"augmentation": Augmentation(degrees=15)}):
        assert run(replace(RECIPES["lenet5"], **change), digits, **QUIETLY).history != plain


def test_an_epochs_seconds_are_measured_and_scaled_to_48000_images(digits, monkeypatch):
    clock = iter([0, 100, 200, 203])  # the first round takes 100 s, the second 3
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: next(clock))
    assert seconds_per_epoch("mlp_baseline", digits, n_batches=2, device="cpu") == 3 * 48_000 / 128


def test_the_sample_is_refused_unless_asked_for(short):
    with pytest.raises(DataError, match="--allow-sample"):
        record_run("mlp_baseline", device="cpu")
    assert not (short / "runs").exists()


def test_a_run_is_recorded_once_and_the_same_again_is_not_trained(short, monkeypatch, capsys):
    record = record_run("mlp_baseline", np.int64(1), **SAMPLE)
    assert record["source"] == "sklearn-digits" and not record["quick"] and record["trained_on"] == 1149
    assert len(record["history"]) == record["epochs"] == 2 and len(record["test_predictions"]) == 360
    monkeypatch.setattr(run_module, "run", None)
    assert record_run("mlp_baseline", 1, **SAMPLE) == record and capsys.readouterr().out == ""
    assert record_run("mlp_baseline", 1, device="cpu", allow_sample=True) == record
    assert capsys.readouterr().out == "mlp_baseline, seed 1 is recorded already, and not trained again\n"
    assert load_records() == [record]


def test_an_interrupted_run_is_neither_scored_nor_recorded(short, monkeypatch):
    monkeypatch.setattr(setups, "fit", lambda *_, **__: History(stopped="interrupted"))
    monkeypatch.setattr(run_module, "score_on_test", None)
    with pytest.raises(KeyboardInterrupt):
        record_run("mlp_baseline", device="cpu", allow_sample=True)
    assert [path for path in (short / "runs").rglob("*") if path.is_file()] == []


@pytest.fixture
def epochs_begun(monkeypatch):
    """Count epochs; the one whose number is put into `breaks` is where Ctrl-C is pressed."""
    begun = SimpleNamespace(n=0, breaks=None)
    train_one_epoch = loop.train_one_epoch

    def counted(*given, **options):
        begun.n += 1
        if begun.n == begun.breaks:
            raise KeyboardInterrupt
        return train_one_epoch(*given, **options)

    monkeypatch.setattr(loop, "train_one_epoch", counted)
    return begun


def interrupt(begun, number, *given, **options):
    """Record a run and press Ctrl-C in its epoch of this number."""
    begun.n, begun.breaks = 0, number
    with pytest.raises(KeyboardInterrupt):
        record_run(*given, **options)
    begun.n, begun.breaks = 0, None


@pytest.mark.parametrize("breaks", [2, 4])  # in the recipe that it continues, and after that
def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(short, epochs_begun, breaks):
    whole = run("mlp_plateau", load_data(), 1, **QUIETLY).record
    assert epochs_begun.n == 4
    interrupt(epochs_begun, breaks, "mlp_plateau", 1, **SAMPLE)
    runs = short / "runs"
    assert list((runs / "unfinished").rglob("*.pt")) and not list((runs / "records").rglob("*.json"))
    record = record_run("mlp_plateau", 1, **SAMPLE)
    assert epochs_begun.n == 4 - (breaks - 1), "finished epochs are not trained again"
    assert without_seconds(record) == without_seconds(whole)
    assert not list((short / "runs" / "unfinished").iterdir())


@pytest.mark.parametrize("other", [{"seed": 2}, {"limit": 200}, {"batch_size": 32}, {"again": True}], ids=str)
def test_an_interrupted_run_is_not_taken_up_by_another_one_nor_when_trained_again(short, epochs_begun, other):
    interrupt(epochs_begun, 2, "mlp_baseline", 1, **SAMPLE)
    recipe = RECIPES["mlp_baseline"]
    if "batch_size" in other:  # the recipe is changed in the meantime
        recipe, other = replace(recipe, **other), {}
    record_run(recipe, **{"seed": 1, **SAMPLE, **other})
    assert epochs_begun.n == 2


def test_a_short_run_that_ends_leaves_the_unfinished_long_one(short, epochs_begun):
    """Nor is anything written elsewhere where the states have a folder of their own, on a mounted drive say."""
    with pytest.raises(ValueError, match="there is no folder drive for checkpoints"):
        record_run("mlp_baseline", 1, **SAMPLE, checkpoints="drive")
    Path("drive").mkdir()
    options = {"seed": 1, **SAMPLE, "checkpoints": "drive"}
    interrupt(epochs_begun, 2, "mlp_baseline", **options)
    (left,) = Path().rglob("*.pt")
    assert left.parts[0] == "drive"
    record_run("mlp_baseline", **options, limit=200)
    assert list(Path().rglob("*.pt")) == [left]
    epochs_begun.n = 0
    record_run("mlp_baseline", **options)
    assert epochs_begun.n == 1 and not list(Path("drive").iterdir())


def test_a_damaged_state_is_named(short, epochs_begun):
    interrupt(epochs_begun, 2, "mlp_baseline", 1, **SAMPLE)
    (state,) = (short / "runs" / "unfinished").rglob("*.pt")
    state.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=f"{state.name} is damaged, or no state of training"):
        record_run("mlp_baseline", 1, **SAMPLE)


def fit_one(setup, stopped=""):
    """Train a single epoch, whatever the recipe says."""
    setup.options["scheduler"] = None
    loaders = setup.train_loader, setup.validation_loader
    history = fit(setup.model, *loaders, setup.optimizer, 1, progress=False, **setup.options)
    history.stopped = stopped
    return history


def test_a_run_on_fewer_images_does_not_pass_for_a_full_one(short, digits):
    options = {"digits": digits, **QUIETLY}
    some = record_run("mlp_constant_30", limit=np.int64(80), train=fit_one, **options)
    every = record_run("mlp_constant_30", train=fit_one, **options)
    assert (some["limit"], some["trained_on"]) == (80, 80) and (every["limit"], every["trained_on"]) == (None, 162)
    assert record_run("mlp_constant_30", limit=80, **options) == some
    assert record_run("mlp_constant_30", **options) == every
    part = record_run("mlp_constant_30", train=fit_one, **options | {"digits": digits.take(torch.arange(100))})
    assert part["trained_on"] == 80, "it is not taken for one of those"


def test_a_pruned_trial_is_no_answer_to_a_search_that_does_not_prune(short, digits):
    options = {"digits": digits, **QUIETLY}
    varied = vary(RECIPES["network"], {"lr": 0.01})
    assert record_run(varied, train=lambda setup: fit_one(setup, "pruned"), **options)["stopped"] == "pruned"
    whole = record_run(varied, train=fit_one, **options)
    assert whole["stopped"] == "" and record_run(varied, **options) == whole


def test_a_recipe_changed_by_hand_is_not_taken_for_the_one_of_that_name(short, digits):
    options = {"digits": digits, **QUIETLY, "train": fit_one}
    plain = record_run(vary(RECIPES["network"], {"lr": 0.01}), **options)
    other = record_run(vary(replace(RECIPES["network"], batch_size=16), {"lr": 0.01}), **options)
    assert other["settings"]["batch_size"] == 16 and other["history"] != plain["history"]


@pytest.fixture
def mnist(monkeypatch):
    """The sample in MNIST's place."""
    monkeypatch.setitem(records.TEST_IMAGES, "mnist", 360)
    disguised = {train: replace(load_data(train=train), source="mnist") for train in (True, False)}
    monkeypatch.setattr(run_module, "load_data", lambda allow_sample: disguised[True])
    monkeypatch.setattr(scores, "load_part", lambda source, train: disguised[train])


def test_weights_of_seed_0_are_kept_for_systems_on_mnist_alone(short, mnist):
    baseline = replace(RECIPES["mlp_baseline"], name="mine", saved_as="Published")  # it need not be a named one
    record_run(baseline, 0, digits=load_data(), **QUIETLY)
    assert not (short / "runs" / "saved_models").exists()
    record_run(baseline, 0, **QUIETLY)
    record_run(replace(baseline, name="variant", ablation="an ablation", saved_as=""), 0, **QUIETLY)
    assert [path.name for path in (short / "runs" / "saved_models").glob("*.pth")] == ["Published.pth"]
    card = read_card("Published")
    assert card["recipe"] == "mine" and card["seed"] == 0 and "test_predictions" not in card
    promised = "model model_arguments data split test_accuracy seconds device precision versions".split()
    assert not [key for key in promised if key not in card]


@pytest.mark.parametrize("sensitive", ["", "validation", "test"])
def test_weights_are_rounded_only_where_that_changes_no_prediction(short, monkeypatch, sensitive):
    digits = load_data()
    finished = run("mlp_baseline", digits, limit=100, **QUIETLY)
    finished.record["test_predictions"] = "3" * 360
    last = finished.model[-1]
    with torch.no_grad():  # the answer is 3 for every image, by much or by less than float16 can hold
        last.weight.zero_(), last.bias.zero_()
        last.bias[2], last.bias[3] = 1.0, 1.0001 if sensitive == "validation" else 1.1
    rounded = ("2" if sensitive == "test" else "3") * 360
    monkeypatch.setattr(run_module, "score_on_test", lambda *_: SimpleNamespace(predictions=rounded))
    save_weights(finished, digits, short / "runs" / "saved_models" / "mlp_baseline.pth")
    assert read_card("mlp_baseline")["weights"] == ("float32" if sensitive else "float16")


@pytest.fixture
def trio(project, monkeypatch):
    """A committee recipe of three small members, two of them alike."""
    one = replace(RECIPES["mlp_baseline"], name="one", all_images=True, epochs=1)
    other = replace(RECIPES["network"], name="other", all_images=True, epochs=2)
    members = one, other, one
    networks = [(member.model, member.model_arguments) for member in members]
    trio = replace(one, name="trio", model="committee_of", model_arguments={"members": networks}, members=members)
    for recipe in (one, other, trio):
        monkeypatch.setitem(RECIPES, recipe.name, recipe)
    return trio


def test_a_committee_is_scored_as_its_members_together(trio):
    record = record_run(trio, 1, **SAMPLE)
    members = ("one", 2), ("other", 1), ("one", 3)
    made = {(one["recipe"], one["seed"]): one for one in load_records()}
    paths = [weights_path(made[member]) for member in members]
    alone = [score_on_test(load_model(path, "cpu"), source="sklearn-digits") for path in paths]
    together = committee([score.logits for score in alone])
    assert record["test_predictions"] == "".join(str(digit) for digit in together.argmax(1).tolist())
    assert set(made) == {*members, ("trio", 1)} and record["validation_accuracy"] is None
    for total in ("seconds", "epochs", "parameters"):
        assert record[total] == pytest.approx(sum(made[member][total] for member in members), abs=0.02), total


def test_a_committee_that_holds_images_back_is_validated_itself(project):
    """And it need not be a named one."""
    one = replace(RECIPES["network"], name="one", epochs=3)
    networks = [(one.model, one.model_arguments)] * 2
    pair = replace(one, name="pair", model="committee_of", model_arguments={"members": networks}, members=(one, one))
    digits, options = load_data(), {**QUIETLY, "limit": 400}
    record = record_run(pair, digits=digits, **options)
    members = [record_run(one, seed, digits=digits, **options) for seed in (0, 1)]
    _, loader = make_loaders(digits, one.batch_size, one.normalisation, device="cpu", limit=400)
    networks = [load_model(weights_path(member), "cpu") for member in members]
    logits = committee([scores.predict_logits(network, loader) for network in networks])
    labels = torch.cat([labels for _, labels in loader])
    assert record["validation_accuracy"] == scores.accuracy(logits, labels) != members[-1]["validation_accuracy"]
    assert record["validation_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), 1e-5)


def test_a_committee_is_never_trained_as_one_network(trio, digits):
    with pytest.raises(ValueError, match="trio is a committee: its members are trained by their own recipes"):
        record_run(trio, train=fit_one, digits=digits, **QUIETLY)
    with pytest.raises(ValueError, match="trio is a committee, not trained as one network: use record_run"):
        run("trio", digits, **QUIETLY)


def test_members_are_trained_once(trio, monkeypatch):
    trained = []

    def counted(recipe, *given, **more):
        trained.append(recipe.name)
        return run(recipe, *given, **more)

    monkeypatch.setattr(run_module, "run", counted)
    record_run("other", 0, **SAMPLE)
    first = record_run("trio", 0, **SAMPLE)
    assert trained == ["other", "trio", "one", "one"], "the committee's other members alone"
    assert record_run("trio", 0, **SAMPLE) == first and len(trained) == 4


def test_a_member_whose_weights_are_gone_is_named(trio):
    weights_path(record_run("one", 0, **SAMPLE)).unlink()
    with pytest.raises(CheckpointError, match="one-sklearn-digits-[0-9]+-cpu-seed0"):
        record_run("trio", 0, **SAMPLE)


def test_the_command_line_trains_committees_too(trio, capsys):
    assert main(["train", "trio", "--device", "cpu", "--allow-sample"]) == 0
    out = capsys.readouterr().out
    assert "trio, seed 0" in out and "validation not scored, test " in out
    assert {one["recipe"] for one in load_records()} == {"one", "other", "trio"}


def test_several_processes_are_told_to_leave_it_to_one(trio, monkeypatch):
    monkeypatch.setattr(run_module, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="train trio without torchrun"):
        record_run("trio", 0, device="cpu", allow_sample=True)


def test_no_committee_takes_the_weights_of_another_run_of_its_member(trio):
    whole = record_run("one", 0, **SAMPLE)
    weights = load_model(weights_path(whole), "cpu").state_dict()
    short = record_run("one", 0, limit=100, **SAMPLE)
    assert weights_path(short) != weights_path(whole)
    ours = load_model(weights_path(whole), "cpu").state_dict()
    assert all(torch.equal(ours[name], weights[name]) for name in weights)
