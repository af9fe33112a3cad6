"""Markdown tables: the results, recipes on validation, and paired differences, made from the records of runs."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..environment import project_root
from ..evaluation.significance import PairedDifference, paired_difference, wilson_interval
from .records import KEY, Record, full_runs, load_records
from .systems import RECIPES

Records = dict[str, list[Record]]  # recipe's name -> its records, as `full_runs` returns them
Row = dict[str, Any]
MARKS = "<!-- results:start -->", "<!-- results:end -->"  # around the table in README.md and in docs/results.md
HIGHLIGHTS = {  # README's rows: a system's name -> what it is to somebody who has not met it
    "mlp_plateau": "a multilayer perceptron with a learning-rate schedule",
    "lenet5": "LeCun's convolutional network of 1998",
    "speed_99": "a small network trained for one epoch",
    "any_hand": "reads anybody's digits, and tells what is none",
    "record": "the most accurate single network in the results table",
}


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with these column heads; a row has a cell for each."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def recorded_difference(
    first: str, second: str, recorded: Records, quantity: str = "validation_accuracy"
) -> tuple[PairedDifference, int]:
    """Return (paired difference, number of seeds): how far the recipe `first` lies above `second`.

    Args:
        recorded: as `full_runs` returns it; a seed counts where both recipes have it.
        quantity: a field of the records.

    Raises:
        ValueError: fewer than two seeds have this quantity for both; see also `significance.paired_difference`.
    """
    pairs = _pairs(first, second, recorded, quantity)
    if len(pairs) < 2:
        raise ValueError(f"{first} and {second} have no two seeds in common whose {quantity} is recorded")
    return paired_difference(*zip(*pairs)), len(pairs)


def _pairs(first: str, second: str, recorded: Records, quantity: str) -> list[tuple[float, float]]:
    """Return two recipes' figures, a pair for each seed that has both."""
    one, other = (
        {record["seed"]: record[quantity] for record in recorded[name] if record[quantity] is not None}
        for name in (first, second)
    )
    return [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]


def differences_table(
    pairs: Iterable[tuple[str, str]], recorded: Records | None = None, quantity: str = "validation_accuracy"
) -> str:
    """Return a Markdown table of `recorded_difference`s; `pairs` are (first, second) by name."""
    recorded = full_runs() if recorded is None else recorded
    unit, places = (" (points)", 3) if quantity.endswith("accuracy") else ("", 4)
    rows = []
    for first, second in pairs:
        found, n_seeds = recorded_difference(first, second, recorded, quantity)
        mean, low, high = (f"{value:+.{places}f}" for value in (found.mean, found.low, found.high))
        rows.append([f"`{first}` - `{second}`", mean, f"{low} to {high}", f"{found.p_value:.2g}", str(n_seeds)])
    return markdown_table(
        [f"{quantity.replace('_', ' ')}{unit}", "mean", "95 % interval", "p (paired t-test)", "seeds"], rows
    )


def validation_table(names: Iterable[str], recorded: Records | None = None) -> str:
    """Return a Markdown table of recipes on validation: mean ± sample standard deviation over the recorded seeds.

    `recorded` is as `full_runs` returns it, the committed records unless given. Raises ValueError for a recipe without
    one.
    """
    recorded = full_runs() if recorded is None else recorded
    rows = []
    for name in names:
        if not recorded.get(name):
            raise ValueError(f"no full run of {name!r} is recorded")
        figures = [
            _mean_and_std([one[quantity] for one in recorded[name]], places)
            for quantity, places in (("validation_accuracy", 2), ("validation_loss", 4))
        ]
        last = recorded[name][-1]
        rows.append([f"`{name}`", *figures, str(len(recorded[name])), str(last["epochs"]), f"{last['parameters']:,}"])
    return markdown_table(
        ["recipe", "validation accuracy (%)", "validation loss", "seeds", "epochs", "parameters"], rows
    )


def _mean_and_std(figures: list[float | None], places: int) -> str:
    """Return the text of figures on validation, which are None where no images were held back."""
    known = [one for one in figures if one is not None]
    if not known:
        return "none held back"
    return f"{mean(known):.{places}f}" + (f" ± {stdev(known):.{places}f}" if len(known) > 1 else "")


def comparison(first: str, second: str) -> str:
    """Return tables of the paired differences between two recipes, on validation and, where both are scored, on test.

    All recorded runs count, this machine's too, for each kind of device separately. Raises ValueError if no device has
    two seeds of both.
    """
    records, parts = load_records(), []
    for device in sorted({one["device"] for one in records}):
        recorded = full_runs(records, device)
        for quantity in ("validation_accuracy", "test_accuracy"):
            if len(_pairs(first, second, recorded, quantity)) > 1:
                parts.append(f"on {device}\n\n{differences_table([(first, second)], recorded, quantity)}")
    if not parts:
        raise ValueError(f"{first} and {second} have not been run with two seeds in common: train them first")
    return "\n\n".join(parts)


def result_rows(records: list[Record] | None = None, ablation: str = "") -> list[Row]:
    """Return the table's rows as dicts, JSON-ready: one for each (recipe, source, quick, trained_on, device).

    Accuracies are percent: the mean over `seeds`, and the sample standard deviation (None for a single run);
    `seconds` is the mean of training alone, `threads` the CPU threads that the runs used. A recipe without a record
    has a row too, its figures None.

    Args:
        records: those of `load_records` unless given.
        ablation: "" for the systems of the results table, else the ablation whose variants are wanted, which are
            scored on validation only.

    Raises:
        ValueError: no such ablation.
    """
    order = [name for name, recipe in RECIPES.items() if recipe.ablation == ablation]
    if not order:
        known = sorted({recipe.ablation for recipe in RECIPES.values()} - {""})
        raise ValueError(f"there is no ablation {ablation!r}: choose one of {', '.join(known)}")
    records = [one for one in (load_records() if records is None else records) if one["recipe"] in order]
    records.sort(key=lambda one: (*(str(one[key]) for key in KEY), one["seed"]))
    rows = [_row(list(group)) for _, group in groupby(records, key=lambda one: tuple(one[key] for key in KEY))]
    measured = {row["recipe"] for row in rows}
    rows += [_empty_row(name) for name in order if name not in measured]
    return sorted(rows, key=lambda row: order.index(row["recipe"]))


def results_table(rows: list[Row] | None = None) -> str:
    """Return the results table, or other rows of `result_rows`, as Markdown."""
    heads = ["system", "published, test %", "ours, test %", "ours, validation %", "seeds", "parameters", "epochs"]
    heads += ["seconds", "device", "trained on", "published protocol"]
    return markdown_table(heads, [_cells(row) for row in (result_rows() if rows is None else rows)])


def highlights_table(rows: list[Row]) -> str:
    """Return the `HIGHLIGHTS` among rows of `result_rows` as a short Markdown table."""
    heads = ["network", "what it is", "test accuracy, %", "runs", "parameters", "seconds of training"]
    found = [row for name in HIGHLIGHTS for row in rows if row["recipe"] == name]
    return markdown_table(heads, [_short_cells(row) for row in found])


def pages_with_tables() -> dict[Path, str]:
    """Return {path: text} of README.md and docs/results.md, with the tables made anew from the committed records."""
    rows = result_rows(load_records([project_root() / "records"]))
    tables = {"README.md": highlights_table(rows), "docs/results.md": results_table(rows)}
    return {project_root() / name: _with_table(project_root() / name, table) for name, table in tables.items()}


def _with_table(path: Path, table: str) -> str:
    """Return a page's text with this table between its `MARKS`."""
    text = path.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in MARKS)
    return f"{text[:start]}{MARKS[0]}\n{table}\n{text[end:]}"


def _row(records: list[Record]) -> Row:
    """Return the row of records that differ in nothing but the seed."""
    first = records[0]
    row = _empty_row(first["recipe"])
    if first["source"] != "mnist" or first["quick"]:
        row |= {"published_accuracy": None, "note": ""}  # of something else
    for part in ("validation", "test"):
        accuracies = [one[f"{part}_accuracy"] for one in records]
        if None not in accuracies:  # where images were held back; where the recipe is scored on test
            row[f"{part}_accuracy_mean"] = mean(accuracies)
            row[f"{part}_accuracy_std"] = stdev(accuracies) if len(records) > 1 else None
    return {
        **row,
        "test_images": len(first["test_predictions"] or ""),
        "seeds": [one["seed"] for one in records],
        "seconds": mean(one["seconds"] for one in records),
        "threads": sorted({one["threads"] for one in records}),
        **{key: first[key] for key in ("parameters", "epochs", *KEY[1:])},
    }


def _empty_row(name: str) -> Row:
    recipe = RECIPES[name]
    unknown = (
        "validation_accuracy_mean validation_accuracy_std test_accuracy_mean test_accuracy_std test_images seeds "
        "parameters epochs seconds threads device trained_on source quick"
    )
    known = {"recipe": name, "published_accuracy": recipe.published_accuracy, "note": recipe.note}
    return {**dict.fromkeys(unknown.split()), **known, "seeds": []}


def _cells(row: Row) -> list[str]:
    """Return the cells of a row of the results table."""
    published = "" if row["published_accuracy"] is None else f"{row['published_accuracy']:.2f}"
    if not row["seeds"]:
        return [f"`{row['recipe']}`", published, "not measured", *[""] * 7, row["note"]]
    device = row["device"] if row["device"] != "cpu" else f"cpu, {_threads(row)}"
    return [
        f"`{row['recipe']}`",
        published,
        _accuracy(row, "test"),
        _accuracy(row, "validation"),
        str(len(row["seeds"])),
        f"{row['parameters']:,}",
        str(row["epochs"]),
        _seconds(row),
        device,
        f"{row['trained_on']:,} {row['source']}{' (QUICK)' if row['quick'] else ''}",
        row["note"],
    ]


def _short_cells(row: Row) -> list[str]:
    """Return the cells of a row of `highlights_table`, without figures where none are recorded."""
    names = [f"`{row['recipe']}`", HIGHLIGHTS[row["recipe"]]]
    if not row["seeds"]:
        return [*names, "not measured", "", "", ""]
    where = _threads(row) if row["device"] == "cpu" else row["device"]
    figures = [_accuracy(row, "test"), str(len(row["seeds"])), f"{row['parameters']:,}", f"{_seconds(row)}, {where}"]
    return [*names, *figures]


def _seconds(row: Row) -> str:
    return f"{row['seconds']:.0f}" if row["seconds"] >= 10 else f"{row['seconds']:.1f}"


def _threads(row: Row) -> str:
    return f"{' or '.join(map(str, row['threads']))} thread{'s' * (row['threads'] != [1])}"


def _accuracy(row: Row, part: str) -> str:
    """Return the text of a row's accuracy on "validation" or "test"."""
    accuracy, deviation = row[f"{part}_accuracy_mean"], row[f"{part}_accuracy_std"]
    if accuracy is None:
        return "not scored" if part == "test" else "none held back"
    if deviation is not None:
        return f"{accuracy:.2f} ± {deviation:.2f}"
    if part == "validation":
        return f"{accuracy:.2f}"
    low, high = wilson_interval(round(accuracy * row["test_images"] / 100), row["test_images"])
    return f"{accuracy:.2f} (one run; 95 % interval {low:.2f} to {high:.2f})"
