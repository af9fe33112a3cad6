"""Every figure in the notebooks' prose says where it is from, in a comment behind it that readers do not see.

98.18 ± 0.08 %<!--mlp_baseline validation--> is the mean of a recipe's records (validation, test or loss), and
0.28 points<!--mlp_plateau - mlp_baseline validation--> a paired difference of two; with "low", "high" or "p" at the
end, the ends of its confidence interval and its p-value. Behind all that, ", five seeds" takes the first five alone and
", new seeds" the others. 98.05 %<!--mlp_baseline published--> is the recipe's. These are compared with the records.
    printed     stands in an output of the same notebook, which is compared, too
    observed    was seen in a run that no record holds, as the sentence says
    cited       others published it, as the sentence says
    level       no measurement: a threshold, a confidence level, a setting, a result of arithmetic
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
    rf"(?P<figure>{NUMBER})(?:\s±\s(?P<deviation>{NUMBER}))?(?:\s?(?:%|percent|points))?<!--(?P<what>.*?)-->"
    r"(?:\*\*)?(?:\sover\s(?P<seeds>\w+)(?:\sseeds)?)?"
)
BARE = re.compile(rf"p\s=\s{NUMBER}(?!\d|\.\d|<!--)|{NUMBER}(?:\s±\s{NUMBER})?\s?(?:%|percent|points)(?!\w|<!--)")
FIELDS = {"validation": "validation_accuracy", "test": "test_accuracy", "loss": "validation_loss"}
WORDS = {"three": 3, "four": 4, "five": 5, "ten": 10, "fifteen": 15}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
UNCHECKED = {"observed", "cited", "level"}


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
    match = re.fullmatch(r"([\w.]+) (\w+)", what)
    assert match, f"no such source of a figure: {what}"
    name, field = match.groups()
    found = [run[FIELDS[field]] for run in runs[name]]
    return mean(found), stdev(found), len(found)


def check(text, runs, outputs=""):
    """Raise AssertionError, naming it, for the first figure in `text` that its comment's record contradicts."""
    for claim in CLAIM.finditer(text):
        if claim["what"] in UNCHECKED:
            continue
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
    assert BARE.findall(re.sub(r"```.*?```", "", prose(path), flags=re.DOTALL)) == []


RIGHT = "98.19 ± 0.08 %<!--mlp_baseline validation--> over ten seeds"


WRONG = [
    RIGHT.replace("98.19", "98.20"),
    RIGHT.replace("0.08", "0.09"),
    RIGHT.replace("ten", "five"),
    RIGHT.replace("baseline", "plateau"),
    RIGHT.replace("validation", "test"),
    RIGHT.replace("validation", "validation, five seeds"),
    RIGHT.replace("mlp_baseline validation", "observd"),
    "0.28 points<!--mlp_baseline - mlp_plateau validation-->",
    "p = 0.5<!--mlp_plateau - mlp_baseline validation p-->",
    "about <!--mlp_baseline validation-->",
]


def test_wrong_claims_are_caught(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = full_runs()
    check(RIGHT, runs)
    for wrong in WRONG:
        with pytest.raises(AssertionError):
            check(wrong, runs)


def test_printed_figures_stand_in_the_outputs_as_whole_numbers():
    check("It is 7.5 %<!--printed-->.", {}, "so 7.5, 8.0")
    for wrong in ("17.5", "7.51", "7"):
        with pytest.raises(AssertionError):
            check(f"It is {wrong} %<!--printed-->.", {}, "so 7.5, 8.0")


def test_bare_figures_are_found():
    for bare in ("91.19 ± 0.08 %", "91.19%", "91 %", "91.2 percent", "9.99 points", "p = 0.9"):
        assert BARE.findall(f"It reaches {bare}, they say.") == [bare]
        assert BARE.findall(f"It reaches {bare}<!--mlp_baseline validation-->, they say.") == []
