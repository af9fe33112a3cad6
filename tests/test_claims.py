"""Every figure that the notebooks' prose states about recorded runs, compared with the records.

Such a figure is followed by a comment that readers do not see and that says what it is:
98.18 ± 0.08 %<!--mlp_baseline validation-->, or 0.28<!--mlp_plateau - mlp_baseline validation-->, and with "low",
"high" or "p" at the end, the ends of that paired difference's confidence interval and its p-value; ", five seeds"
behind all that leaves the other seeds out.
"""

import re
from pathlib import Path
from statistics import mean, stdev

import nbformat
import pytest

from mnist_helpers.recipes import RECIPES
from mnist_helpers.results import full_runs, recorded_difference

ROOT = Path(__file__).parent.parent
CLAIM = re.compile(r"(?P<figure>-?[\d.,]*\d)(?: ± (?P<deviation>[\d.]+))?(?:\s(?:%|points))?<!--(?P<what>.*?)-->")
FIELDS = {"validation": "validation_accuracy", "test": "test_accuracy", "loss": "validation_loss"}


def prose(path):
    """Return the notebook's Markdown."""
    notebook = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def expected(runs, what):
    """Return (figure, standard deviation or None) that the comment `what` promises."""
    if what.endswith(", five seeds"):
        what, runs = what.removesuffix(", five seeds"), {name: records[:5] for name, records in runs.items()}
    if match := re.fullmatch(r"(\w+) published", what):
        return RECIPES[match[1]].published_accuracy, None
    if match := re.fullmatch(r"([\w.]+) - ([\w.]+) (\w+)(?: (low|high|p))?", what):
        first, second, field, part = match.groups()
        difference, n_seeds = recorded_difference(first, second, runs, FIELDS[field])
        assert n_seeds >= 5
        return getattr(difference, {"p": "p_value", None: "mean"}.get(part, part)), None
    name, field = re.fullmatch(r"([\w.]+) (\w+)", what).groups()
    found = [run[FIELDS[field]] for run in runs[name]]
    assert len(found) >= 5, f"{name} has too few runs for a claim"
    return mean(found), stdev(found)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_figures_in_the_prose_are_those_of_the_records(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs, text = full_runs(), prose(path)
    for claim in CLAIM.finditer(text):
        for stated, true in zip((claim["figure"], claim["deviation"]), expected(runs, claim["what"])):
            if stated is not None:
                decimals = len(stated.partition(".")[2])
                assert stated.replace(",", "") == f"{true:.{decimals}f}", claim[0]
    assert text.count("<!--") == len(CLAIM.findall(text)), "a comment that belongs to no figure"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_accuracy_is_stated_without_its_source(path):
    unfolded = re.sub(r"<details>.*?</details>", "", prose(path), flags=re.DOTALL)  # solutions have no records
    bare = re.findall(r"\d\d\.\d+\s%(?!<!--)", unfolded)
    assert not bare or bare == ["99.95 %"], bare  # the one that explains how probabilities are rounded


def test_wrong_claims_are_caught(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = full_runs()
    figure, deviation = expected(runs, "mlp_baseline validation")
    assert 90 < figure < 100 and 0 < deviation < 1
    claim = CLAIM.fullmatch("98.18 ± 0.08 %<!--mlp_baseline validation-->")
    assert claim.groups() == ("98.18", "0.08", "mlp_baseline validation")
    low, mean_, high = (
        expected(runs, f"mlp_plateau - mlp_baseline validation{part}")[0] for part in (" low", "", " high")
    )
    assert low < mean_ < high
    assert 0 < expected(runs, "mlp_plateau - mlp_baseline validation p")[0] < 1
    assert expected(runs, "mlp_plateau published") == (98.38, None)
