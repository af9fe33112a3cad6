"""Every figure that the notebooks' prose states about recorded runs, compared with the records.

Such a figure is followed by a comment that readers do not see and that says what it is:
98.18 ± 0.08 %<!--mlp_baseline validation-->, or 0.28<!--mlp_plateau - mlp_baseline validation-->, and with "low",
"high" or "p" at the end, the ends of that paired difference's confidence interval and its p-value; ", five seeds"
behind all that takes the first five alone, ", new seeds" the others. "printed" promises that the figure stands in an
output of the same notebook.
"""

import re
from pathlib import Path
from statistics import mean, stdev

import nbformat
import pytest

from mnist_helpers.experiments.records import full_runs
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.experiments.tables import recorded_difference

ROOT = Path(__file__).parent.parent
NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
CLAIM = re.compile(
    rf"(?P<figure>{NUMBER})(?:\s±\s(?P<deviation>{NUMBER}))?(?:\s(?:%|points))?<!--(?P<what>.*?)-->"
    r"(?:\*\*)?(?:\sover\s(?P<seeds>\w+)(?:\sseeds)?)?"
)
BARE = re.compile(rf"p\s=\s{NUMBER}(?!\d|\.\d|<!--)|{NUMBER}(?:\s±\s{NUMBER})?\s?(?:%|percent|points)(?!\w|<!--)")
FIELDS = {"validation": "validation_accuracy", "test": "test_accuracy", "loss": "validation_loss"}
WORDS = {"three": 3, "four": 4, "five": 5, "ten": 10, "fifteen": 15}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Figures that no record holds: properties of methods, of the chance level, of a single run that says so
OTHERS = {
    "01_eda": {"95 %", "80.5 %", "97.0 %"},
    "02_baseline": {"30 %", "99.95 %", "100.0%", "95 %", "99.5 %", "10 %", "12 %", "5 %", "17 %"},
    "03_scheduler_revision": {"30 %", "95 %", "5 %", "0.13 points", "0.16 points", "p = 0.06", "98.41 %", "98.40 %"},
    "04_cnn_improvement": {"0.2 points", "96 %", "98.2 %", "98.6 %", "99.2 %", "99.22 %", "99.51 %", "99.7 %"},
    "05_evaluation": {
        "0.1 points",
        "0.27 points",
        "0.3 points",
        "0.4 points",
        "2.4 points",
        "80 %",
        "95 %",
        "98.05 %",
        "99.05 %",
        "99.10 %",
        "99.65 %",
        "99.77 %",
        "99.90 %",
    },
    "06_hyperparameter_search": {"100 %"},
    "07_speed_and_records": {"99 %", "99.5 %", "99.63 %", "99.68 %", "99.7 %", "99.74 %"},
    "08_your_own_digits": {
        *("88.7 %", "92.5 %", "92.9 %", "96.0 %", "96.8 %", "98.3 %", "98.82 %", "98.88 %", "99 %", "99.5 %")
    },
}


def prose(path):
    """Return the notebook's Markdown."""
    notebook = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def printed(path):
    """Return the text of the notebook's outputs."""
    outputs = [one for cell in nbformat.read(path, as_version=4).cells for one in cell.get("outputs", ())]
    return "\n".join(one.get("text") or one.get("data", {}).get("text/markdown", "") for one in outputs)


def expected(runs, what):
    """Return (figure, standard deviation or None, number of seeds) that the comment `what` promises."""
    what, _, seeds = what.partition(", ")
    part = {"": slice(None), "five seeds": slice(5), "new seeds": slice(5, None)}[seeds]
    runs = {name: records[part] for name, records in runs.items()}
    if match := re.fullmatch(r"(\w+) published", what):
        return RECIPES[match[1]].published_accuracy, None, 1
    if match := re.fullmatch(r"([\w.]+) - ([\w.]+) (\w+)(?: (low|high|p))?", what):
        first, second, field, part = match.groups()
        difference, n_seeds = recorded_difference(first, second, runs, FIELDS[field])
        return getattr(difference, {"p": "p_value", None: "mean"}.get(part, part)), None, n_seeds
    name, field = re.fullmatch(r"([\w.]+) (\w+)", what).groups()
    found = [run[FIELDS[field]] for run in runs[name]]
    return mean(found), stdev(found), len(found)


def check(text, runs, outputs=""):
    """Raise AssertionError, naming it, for the first figure in `text` that its comment's record contradicts."""
    for claim in CLAIM.finditer(text):
        if claim["what"] == "printed":
            for stated in filter(None, (claim["figure"], claim["deviation"])):
                assert re.search(rf"(?<![\d.]){re.escape(stated)}(?!\.?\d)", outputs), claim[0]
            continue
        figure, deviation, n_seeds = expected(runs, claim["what"])
        assert n_seeds == 1 or n_seeds >= 5 or claim["seeds"], f"too few runs for {claim[0]}: say how many"
        assert WORDS.get(claim["seeds"], n_seeds) == n_seeds, claim[0]
        for stated, true in ((claim["figure"], figure), (claim["deviation"], deviation)):
            if stated is not None:
                decimals = len(stated.partition(".")[2])
                assert stated.replace(",", "") == f"{true:.{decimals}f}", claim[0]
    assert text.count("<!--") == len(CLAIM.findall(text)), "a comment that belongs to no figure"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_in_the_prose_are_those_of_the_records(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(prose(path), full_runs(), printed(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_result_is_stated_without_its_source(path):
    bare = {re.sub(r"\s", " ", found) for found in BARE.findall(re.sub(r"```.*?```", "", prose(path), flags=re.DOTALL))}
    assert bare == OTHERS[path.stem]


RIGHT = "98.19 ± 0.08 %<!--mlp_baseline validation--> over ten seeds"


@pytest.mark.parametrize(
    "wrong",
    [
        RIGHT.replace("98.19", "98.20"),
        RIGHT.replace("0.08", "0.09"),
        RIGHT.replace("ten", "five"),
        RIGHT.replace("baseline", "plateau"),
        RIGHT.replace("validation", "test"),
        RIGHT.replace("validation", "validation, five seeds"),
        "0.28 points<!--mlp_baseline - mlp_plateau validation-->",
        "p = 0.5<!--mlp_plateau - mlp_baseline validation p-->",
        "about <!--mlp_baseline validation-->",
    ],
)
def test_wrong_claims_are_caught(monkeypatch, wrong):
    monkeypatch.chdir(ROOT)
    runs = full_runs()
    check(RIGHT, runs)
    with pytest.raises(AssertionError):
        check(wrong, runs)


@pytest.mark.parametrize(("figure", "right"), [("7.5", True), ("17.5", False), ("7.51", False), ("7", False)])
def test_printed_figures_stand_in_the_outputs_as_whole_numbers(figure, right):
    claim = f"It is {figure} %<!--printed-->."
    if right:
        check(claim, {}, "so 7.5, 8.0")
    else:
        with pytest.raises(AssertionError):
            check(claim, {}, "so 7.5, 8.0")


@pytest.mark.parametrize("bare", ["91.19 ± 0.08 %", "91.19%", "91 %", "91.2 percent", "9.99 points", "p = 0.9"])
def test_bare_figures_are_found(bare):
    assert BARE.findall(f"It reaches {bare}, they say.") == [bare]
    assert BARE.findall(f"It reaches {bare}<!--mlp_baseline validation-->, they say.") == []
