"""Same seed, same numbers; no test label where choices are made; nothing let in; and the page on reliability."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from recipes import without_seconds

from mnist_helpers.__main__ import main
from mnist_helpers.data.digits import load_digits_sample
from mnist_helpers.evaluation import scores as evaluation
from mnist_helpers.experiments import records
from mnist_helpers.experiments import run as runs
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.records import described_run, load_records
from mnist_helpers.experiments.run import record_run, run
from mnist_helpers.experiments.systems import RECIPES

ROOT = Path(__file__).parent.parent
RUNS = sorted(ROOT.glob("records/*/*-seed*.json")) + sorted(ROOT.glob("saved_models/*.json"))


REPEATED = "mlp_baseline", "lenet5_elastic", "speed_99", "tiny_2k"


def repeat(folder):
    """Train each recipe for two epochs, and keep record and weights."""
    for name in REPEATED:
        recipe = replace(RECIPES[name], epochs=2, batch_size=32)
        finished = run(recipe, load_digits_sample().take(torch.arange(100)), 3, device="cpu", progress=False)
        torch.save((str(without_seconds(finished.record)), finished.model.state_dict()), folder / name)


def test_another_process_gets_the_same_history_and_weights_from_the_same_seed(short):
    script = f"""
import sys, pathlib, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_faults_project
torch.set_num_threads(1)
torch.manual_seed(99)
pathlib.Path("another").mkdir()
test_faults_project.repeat(pathlib.Path("another"))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    repeat(short)
    for name in REPEATED:
        (theirs, their_weights), (ours, our_weights) = torch.load(Path("another", name)), torch.load(Path(name))
        assert theirs == ours
        assert all(torch.equal(their_weights[one], our_weights[one]) for one in our_weights)


@pytest.mark.parametrize("what", ["labels", "images"])
@pytest.mark.parametrize("recipe", ["network", "mlp_plateau", "speed_99"])
def test_poisoned_test_digits_change_no_training_and_no_choice(short, monkeypatch, recipe, what):
    digits, plain = load_digits_sample().take(torch.arange(400)), load_digits_sample(False)
    recipe = replace(RECIPES[recipe], batch_size=32)
    clean = run(recipe, digits, 1, device="cpu", progress=False)
    poisoned = {"labels": (plain.labels + 1) % 10, "images": 255 - plain.images}[what]
    monkeypatch.setattr(evaluation, "load_part", lambda source, train: replace(plain, **{what: poisoned}))
    found = run(recipe, digits, 1, device="cpu", progress=False)
    assert found.history == clean.history
    theirs, ours = clean.model.state_dict(), found.model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    differing = {key for key, value in found.record.items() if value != clean.record[key]} - {"seconds", "history"}
    assert "test_accuracy" in differing and {key.split("_")[0] for key in differing} == {"test"}


@pytest.mark.parametrize("kind", ["record", "card", "trial", "committee"])
def test_a_run_is_trained_again_from_its_record_or_card_by_one_command(short, monkeypatch, capsys, kind):
    digits, options = load_digits_sample(), {"device": "cpu", "progress": False, "allow_sample": True}
    if kind == "trial":
        made = record_run(vary(RECIPES["network"], {"lr": 0.01}), 4, limit=100, digits=digits, **options)
    elif kind == "committee":
        members = (RECIPES["tiny_2k"],) * 2
        networks = {"members": [(member.model, member.model_arguments) for member in members]}
        small = replace(RECIPES["committee"], members=members, model_arguments=networks)
        monkeypatch.setitem(RECIPES, "committee", small)
        made = record_run("committee", 0, digits=digits, limit=100, **options)
    else:
        made = record_run("network", 4, limit=None if kind == "card" else 200, digits=digits, **options)
    (file,) = [path for path in Path("runs").rglob("*.json") if json.loads(path.read_text()) == made]
    if kind == "card":
        finished = runs.run("network", digits, 4, device="cpu", progress=False)
        runs.save_weights(finished, digits, short / "network.pth")
        file = Path("network.json")
    begun = []
    monkeypatch.setattr(
        runs, "fit_setup", lambda *given, fit=runs.fit_setup, **more: begun.append(1) or fit(*given, **more)
    )
    capsys.readouterr()
    assert main(["train", "--card", str(file)]) == 0
    assert f"to the last digit what {file} says" in capsys.readouterr().out
    assert len(begun) == (len(RECIPES["committee"].members) if kind == "committee" else 1)
    (again,) = [one for one in load_records([short / "runs" / "records"]) if one["recipe"] == made["recipe"]]
    assert without_seconds(again) == without_seconds(made)


def test_every_row_of_the_results_can_be_trained_again(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("QUICK")
    monkeypatch.setattr(records, "load_part", lambda source, train: (source, train))
    assert len(RUNS) > 300
    for path in RUNS:
        card, options = described_run(path)
        assert options["recipe"].settings() == card["settings"] and options["digits"] == ("mnist", True), path
        assert options["seed"] == card["seed"] and options["device"] == card["device"] and options["again"], path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda card: card["settings"].update(epochs=3), "with other settings than network has today"),
        (lambda card: card.update(quick=True), "is of a quick run, and this one is not"),
        (lambda card: card.update(recipe="unheard_of"), "there is no recipe 'unheard_of'"),
        (lambda card: card.pop("seed"), "is not a record of a run"),
        (lambda card: card.update(source="nothing"), "there is no digit set 'nothing'"),
    ],
)
def test_a_card_that_cannot_be_trained_again_is_one_sentence(project, capsys, change, sentence):
    card = json.loads((ROOT / "saved_models" / "Network.json").read_text())
    change(card)
    Path("card.json").write_text(json.dumps(card))
    assert main(["train", "--card", "card.json"]) == 2
    assert re.fullmatch(f"Error: .*{sentence}.*\n", capsys.readouterr().err)
    for arguments in (["train"], ["train", "network", "--card", "card.json"], ["train", "--card", "none.json"]):
        assert main(arguments) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_one_cycle_over_too_few_batches_is_one_sentence(short, monkeypatch):
    """A rise of a quarter of four batches is one batch, by whose length less one PyTorch divides."""
    one_cycle = {"max_lr": 0.1, "pct_start": 0.25}
    recipe = replace(RECIPES["mlp_one_cycle"], scheduler_arguments=one_cycle, batch_size=100)
    with pytest.raises(ValueError, match="OneCycleLR cannot rise within a single one of 4 batches: train for more"):
        run(recipe, load_digits_sample(), device="cpu", limit=200, progress=False)


def test_compare_says_that_it_takes_no_other_option(project, capsys):
    for options in (["--json"], ["--ablation", "schedules"]):
        assert main(["results", "--compare", "network", "lenet5", *options]) == 2
        assert "leave out --json and --ablation" in capsys.readouterr().err


# The last version of each package with a known hole, and the advisory
VULNERABLE = [
    ("torch", "2.9.1", "CVE-2026-24747"),
    ("pillow", "10.2.0", "CVE-2024-28219"),
    ("pillow", "11.2.1", "CVE-2025-48379"),
    ("pillow", "12.3.0", "CVE-2026-112397"),
    ("tqdm", "4.66.2", "CVE-2024-34062"),
    ("scikit-learn", "1.4.2", "CVE-2024-5206"),
    ("onnx", "1.17.0", "CVE-2025-51480"),
    ("opencv-python-headless", "4.11.0.86", "CVE-2025-53644"),
    ("pytest", "9.0.2", "CVE-2025-71176"),
    ("jupyterlab", "4.4.7", "CVE-2025-59842"),
]


@pytest.mark.parametrize(("name", "version", "advisory"), VULNERABLE)
def test_versions_with_known_holes_are_excluded(name, version, advisory):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    lines += [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] not in "#-"]
    bounds = [one.specifier for one in map(Requirement, lines) if one.name == name]
    assert bounds and not all(one.contains(version) for one in bounds), advisory


def test_every_test_that_the_page_on_reliability_names_exists():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page)
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert [name for name in named if f"def {name}(" not in tests] == []
    sections = [section for section in page.split("\n## ") if "| fault |" in section]
    assert len(sections) > 5
    for section in sections:
        rows = re.findall(r"^\| (?!fault \|).* \| .* \|$", section, re.MULTILINE)
        lines = re.findall(r"^(\d+)\. `test_\w+`", section, re.MULTILINE)
        assert lines == [str(number) for number in range(1, len(rows) + 1)], "a line of tests for each row"


def test_trained_again_means_every_figure_and_prediction(short, capsys):
    """The record with one prediction, or one epoch's loss, changed is not what is trained again."""
    options = {"device": "cpu", "progress": False, "limit": 200, "digits": load_digits_sample()}
    made = record_run("network", 4, **options)
    predictions = made["test_predictions"]
    swapped = {"test_predictions": predictions[1:] + predictions[:1]}
    history = [made["history"][0] | {"train_loss": made["history"][0]["train_loss"] + 1e-12}, *made["history"][1:]]
    slower = [epoch | {"seconds": 99.0} for epoch in made["history"]]
    for change, answer in (
        (swapped, "not exactly"),
        ({"history": history}, "not exactly"),
        ({"history": slower}, "to the last digit"),
    ):
        Path("record.json").write_text(json.dumps(made | change))
        assert main(["train", "--card", "record.json"]) == 0
        assert f"{answer} what record.json says" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--seeds", "1"], ["--allow-sample"]])
def test_what_a_card_says_itself_is_no_option_beside_it(project, capsys, options):
    assert main(["train", "--card", str(ROOT / "saved_models" / "Network.json"), *options]) == 2
    assert "--card names seed and digits: leave out --seeds and --allow-sample" in capsys.readouterr().err
