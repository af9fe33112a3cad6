import io
import json
import os
import re
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from pages import written
from PIL import Image

from mnist_helpers.__main__ import main
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.sweep import SearchError
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.handwriting.boxes import match_boxes
from mnist_helpers.training.loop import TrainingError

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("default:THIS IS NOT MNIST")


def test_data_prints_source_folder_counts_and_checksums(project, capsys):
    assert main(["data"]) == 0
    out, err = capsys.readouterr()
    assert "train  source sklearn-digits, folder scikit-learn" in out and "1,437 images" in out and "360 images" in out
    assert out.count("SHA-256") == 4
    assert err.startswith("Warning: THIS IS NOT MNIST") and err.count("THIS IS NOT MNIST") == 1


@pytest.mark.mnist
def test_data_prints_mnists_counts(capsys):
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    assert "source mnist" in out and "60,000 images" in out and "10,000 images" in out
    assert "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte" in out


def test_training_refuses_the_sample_in_one_sentence(project, capsys):
    assert main(["train", "mlp_baseline"]) == 2
    assert re.fullmatch(
        r"Error: MNIST cannot be loaded .* only where asked for \(--allow-sample\)\.\n", capsys.readouterr().err
    )


def test_training_records_and_skips_what_is_recorded(project, capsys, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    for _ in range(2):
        assert main(["train", "mlp_baseline", "--seeds", "3", "5", "--device", "cpu", "--allow-sample"]) == 0
        out = capsys.readouterr().out
        assert "mlp_baseline, seed 3" in out and "mlp_baseline, seed 5" in out and "sklearn-digits (QUICK)" in out
        monkeypatch.setattr("mnist_helpers.experiments.run.run", None)  # a second training would fail


def test_training_a_variant_shows_its_ablation(project, capsys, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    assert main(["train", "mlp_step", "--device", "cpu", "--allow-sample"]) == 0
    out = capsys.readouterr().out
    assert "test not scored (sklearn-digits)" in out and "| `mlp_step` |  | not scored |" in out


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TrainingError("epoch 2, batch 7: the loss is nan"), 2, "Error: epoch 2, batch 7: the loss is nan\n"),
        (OSError(28, "the disk is full"), 2, "Error: [Errno 28] the disk is full\n"),
        (KeyboardInterrupt(), 130, "Interrupted: what is finished is kept; the same command goes on from there.\n"),
    ],
)
def test_mistakes_end_in_one_sentence(monkeypatch, capsys, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("mnist_helpers.experiments.run.record_run", fail)
    assert main(["train", "mlp_baseline"]) == code
    assert capsys.readouterr().err == message


def test_seeds_and_counts_are_whole_numbers(capsys):
    wrong = [(["train", "mlp_baseline", "--seeds"], ("-1", "1.5", "one"), "a seed is a whole number from 0 on")]
    for option in ("trials", "workers", "epochs", "limit", "grace"):
        wrong.append((["sweep", "network", f"--{option}"], ("0", "-1", "2.5"), "a whole number from 1 on is wanted"))
    for command, numbers, sentence in wrong:
        for number in numbers:
            with pytest.raises(SystemExit):
                main([*command[:-1], f"{command[-1]}={number}"])
            assert f"{sentence}, not '{number}'" in capsys.readouterr().err


def test_of_several_processes_the_first_alone_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("mnist_helpers.experiments.distributed.rank", lambda: 1)
    monkeypatch.setattr(
        "mnist_helpers.experiments.run.record_run",
        lambda *_, **__: warnings.warn("the same for all", stacklevel=1),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["train", "mlp_baseline", "--device", "cpu"]) == 0
    assert capsys.readouterr() == ("", "")


def test_sweep_hands_on_what_it_is_told(monkeypatch, capsys):
    told = []
    monkeypatch.setattr(
        "mnist_helpers.experiments.sweep.sweep", lambda *given, **options: told.append((given, options)) or "study"
    )
    monkeypatch.setattr("mnist_helpers.experiments.sweep.study_table", lambda study: f"the table of the {study}")
    assert main(["sweep", "network"]) == 0
    assert capsys.readouterr().out == "\nthe table of the study\n"
    command = (
        "sweep network --trials 7 --workers 3 --storage sqlite:///a.db --name mine --epochs 4 --limit 500 --seed 2"
    )
    command += " --grace 9 --device cpu --allow-sample"
    assert main([*command.split(), "--space", "lr=0.01..0.1 batch_size=32,64"]) == 0
    plain = {"storage": None, "name": None, "limit": None, "seed": 0, "grace": 120, "device": None}
    chosen = {"storage": "sqlite:///a.db", "name": "mine", "limit": 500, "seed": 2, "grace": 9, "device": "cpu"}
    assert told == [
        (("network", None, 20, 1), plain | {"allow_sample": False}),
        (
            (vary(RECIPES["network"], {"epochs": 4}), {"lr": (0.01, 0.1), "batch_size": [32, 64]}, 7, 3),
            chosen | {"allow_sample": True},
        ),
    ]


def test_what_is_wrong_with_a_sweep_is_one_sentence(project, monkeypatch, capsys):
    def fail(*_, **__):
        raise SearchError("the study cannot begin")

    for arguments in (["--space", "lr=..fast"], []):
        assert main(["sweep", "network", *arguments]) == 2
    monkeypatch.setattr("mnist_helpers.experiments.sweep.sweep", fail)
    assert main(["sweep", "network"]) == 2
    space, data, study = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Error: 'lr=\.\.fast' is no part of a search space: .*", space) and "--allow-sample" in data
    assert study == "Error: the study cannot begin"


def test_without_optuna_a_sweep_says_how_to_get_it(project, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mnist_helpers.experiments.sweep")
    assert main(["sweep", "network", "--allow-sample"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch("Error: Optuna is not installed: python -m pip install 'optuna>=.*'", error)


def test_notebooks_outside_a_project_are_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_DATA", raising=False)
    assert main(["notebooks"]) == 2
    assert "has no notebooks: run this inside the project's folder" in capsys.readouterr().err


def test_an_unknown_recipe_lists_those_that_there_are(capsys):
    for command in (["train", "resnet9000"], ["sweep", "resnet9000"], ["results", "--compare", "lenet5", "resnet9000"]):
        assert main(command) == 2
        sentence = capsys.readouterr().err
        assert "there is no recipe 'resnet9000': choose one of mlp_baseline" in sentence and "lenet5" in sentence


def test_output_that_nobody_takes_ends_without_a_traceback(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    outputs = [(lambda: open(writer, "w"), 141, "")]  # as `results | head` ends
    if Path("/dev/full").exists():
        outputs.append((lambda: open("/dev/full", "w"), 2, "Error: [Errno 28] No space left on device\n"))
    for opened, code, message in outputs:
        with monkeypatch.context() as patch, opened() as stream:  # to close it would fail, if something were left in it
            patch.setattr(sys, "stdout", stream)
            assert main(["results"]) == code
        assert capsys.readouterr().err == message


def test_commands_work_without_streams(monkeypatch, capsys):
    for stream in ("stderr", "stdout"):
        monkeypatch.setattr(sys, stream, None)
        assert main(["predict", "none.png"]) == 2
        assert capsys.readouterr() == ("", ""), "what is said on stderr is no output"
    assert main(["results"]) == 0


def test_what_the_outputs_encoding_lacks_is_written_in_ascii(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["results"]) == 0
    assert rb"| 98.21 \xb1 0.09 |" in output.buffer.getvalue()


def test_help_says_how_the_command_was_called(monkeypatch, capsys):
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["mnist-helpers"]
    assert script == f"{main.__module__}:{main.__name__}"
    for path, name in {"/bin/mnist-helpers": "mnist-helpers", "/a/__main__.py": "python -m mnist_helpers"}.items():
        monkeypatch.setattr(sys, "argv", [path])
        with pytest.raises(SystemExit):
            main(["--help"])
        assert capsys.readouterr().out.startswith(f"usage: {name} [-h] COMMAND ...")


def test_predict_prints_digits_line_by_line(tmp_path, capsys):
    pages = {"one.png": written([3, 0, 7]), "two.png": written([2, 5, 9, 4, 8, 0])}
    files = [str(tmp_path / name) for name in pages]
    for file, page in zip(files, pages.values()):
        Image.fromarray(page.image).save(file)
    assert main(["predict", files[0]]) == 0
    assert capsys.readouterr().out == "307\n"
    assert main(["predict", *files, "--model", "resnet_small"]) == 0
    assert capsys.readouterr().out == f"{files[0]}:\n307\n{files[1]}:\n2594\n80\n"
    assert main(["predict", files[1], "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["file"] == files[1] and answer["text"] == "2594\n80" and len(answer["digits"]) == 6
    assert answer["digits"][5]["digit"] == 0 and answer["digits"][5]["line"] == 1
    assert match_boxes(pages["two.png"].boxes, [one["box"] for one in answer["digits"]]).tolist() == list(range(6))
    assert all(sum(one["probabilities"]) == pytest.approx(1, abs=1e-3) for one in answer["digits"])


def test_predict_reads_the_other_files_and_names_each_that_it_cannot(tmp_path, capsys):
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(written([3, 0, 7]).image).save(tmp_path / "page.png")
    Image.new("L", (100, 100), 255).save(tmp_path / "blank.png")
    files = [str(tmp_path / name) for name in ("none.png", "page.png", "empty.jpg", "blank.png")]
    assert main(["predict", *files]) == 2
    out, err = capsys.readouterr()
    assert out == f"{files[1]}:\n307\n{files[3]}:\n"
    assert err.splitlines() == [
        f"Error: {files[0]}: there is no such file",
        f"Error: {files[2]} is empty",
        f"{files[3]}: no digits were found",
    ]
    assert main(["predict", files[1], "--model", "none"]) == 2
    assert capsys.readouterr().err.startswith("Error: no weights of 'none' are saved")
