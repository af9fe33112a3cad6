"""The results table and comparisons of recipes, made from the records of their runs."""

from itertools import groupby
from statistics import mean, stdev

from ..environment import project_root
from ..evaluation.significance import paired_difference, wilson_interval
from .recipes import RECIPES
from .records import KEY, full_runs, load_records

MARKS = "<!-- results:start -->", "<!-- results:end -->"  # around the table in README.md


def recorded_difference(first, second, runs, quantity="validation_accuracy"):
    """Return (paired difference, number of seeds): how far the recipe `first` lies above `second`.

    Args:
        runs: as `full_runs` returns them; a seed counts where both recipes have it.
        quantity: a field of the records.

    Raises:
        ValueError: fewer than two seeds have this quantity for both; see also `statistics.paired_difference`.
    """
    pairs = _pairs(first, second, runs, quantity)
    if len(pairs) < 2:
        raise ValueError(f"{first} and {second} have no two seeds in common whose {quantity} is recorded")
    return paired_difference(*zip(*pairs)), len(pairs)


def _pairs(first, second, runs, quantity):
    """Return two recipes' figures, a pair for each seed that has both."""
    figures = [
        {one["seed"]: one[quantity] for one in runs[name] if one[quantity] is not None} for name in (first, second)
    ]
    return [(figures[0][seed], figures[1][seed]) for seed in sorted(figures[0].keys() & figures[1].keys())]


def differences_table(pairs, runs=None, quantity="validation_accuracy"):
    """Return a Markdown table of `recorded_difference`s; `pairs` are (first, second) by name."""
    runs, places = full_runs() if runs is None else runs, 3 if quantity.endswith("accuracy") else 4
    unit = " (points)" if quantity.endswith("accuracy") else ""
    lines = [f"| {quantity.replace('_', ' ')}{unit} | mean | 95 % interval | p (paired t-test) | seeds |"]
    lines.append("|---|---|---|---|---|")
    for first, second in pairs:
        found, n_seeds = recorded_difference(first, second, runs, quantity)
        mean, low, high = (f"{value:+.{places}f}" for value in (found.mean, found.low, found.high))
        lines.append(f"| `{first}` - `{second}` | {mean} | {low} to {high} | {found.p_value:.2g} | {n_seeds} |")
    return "\n".join(lines)


def validation_table(names, runs=None):
    """Return a Markdown table of recipes on validation: mean ± sample standard deviation over the recorded seeds.

    `runs` are as `full_runs` returns them, the committed ones unless given. Raises ValueError for a recipe without one.
    """
    runs = full_runs() if runs is None else runs
    lines = ["| recipe | validation accuracy (%) | validation loss | seeds | epochs | parameters |"]
    lines.append("|---|---|---|---|---|---|")
    for name in names:
        if not runs.get(name):
            raise ValueError(f"no full run of {name!r} is recorded")
        figures = []
        for quantity, places in (("validation_accuracy", 2), ("validation_loss", 4)):
            found = [one[quantity] for one in runs[name]]
            spread = f" ± {stdev(found):.{places}f}" if len(found) > 1 else ""
            figures.append(f"{mean(found):.{places}f}{spread}")
        last = runs[name][-1]
        lines.append(
            f"| `{name}` | {' | '.join(figures)} | {len(runs[name])} | {last['epochs']} | {last['parameters']:,} |"
        )
    return "\n".join(lines)


def comparison(first, second):
    """Return tables of the paired differences between two recipes, on validation and, where both are scored, on test.

    All recorded runs count, this machine's too, for each kind of device by itself. Raises ValueError if no device has
    two seeds of both.
    """
    records, parts = load_records(), []
    for device in sorted({one["device"] for one in records}):
        runs = full_runs(records, device)
        for quantity in ("validation_accuracy", "test_accuracy"):
            if len(_pairs(first, second, runs, quantity)) > 1:
                parts.append(f"on {device}\n\n{differences_table([(first, second)], runs, quantity)}")
    if not parts:
        raise ValueError(f"{first} and {second} have not been run with two seeds in common: train them first")
    return "\n\n".join(parts)


def result_rows(records=None, study=""):
    """Return the table's rows as dicts, JSON-ready: one for each (recipe, source, quick, trained_on, device).

    Accuracies are percent: the mean over `seeds`, and the sample standard deviation (None for a single run);
    `seconds` is the mean of training alone, `threads` the CPU threads that the runs used. A recipe without a record
    has a row too, its figures None.

    Args:
        records: those of `load_records` unless given.
        study: "" for the systems of the results table; else the study whose variants are wanted, which are scored on
            validation only (see `recipes.Recipe`).

    Raises:
        ValueError: no such study.
    """
    order = [name for name, recipe in RECIPES.items() if recipe.study == study]
    if not order:
        studies = sorted({recipe.study for recipe in RECIPES.values()} - {""})
        raise ValueError(f"there is no study {study!r}: choose one of {', '.join(studies)}")
    records = [one for one in (load_records() if records is None else records) if one["recipe"] in order]
    records.sort(key=lambda one: (order.index(one["recipe"]), *(str(one[key]) for key in KEY), one["seed"]))
    rows = [_row(list(runs)) for _, runs in groupby(records, key=lambda one: tuple(one[key] for key in KEY))]
    missing = set(order) - {row["recipe"] for row in rows}
    rows += [_empty_row(name) for name in order if name in missing]
    return sorted(rows, key=lambda row: order.index(row["recipe"]))


def results_table(rows=None):
    """Return the results table, or other rows of `result_rows`, as Markdown."""
    rows = result_rows() if rows is None else rows
    lines = [
        "| system | published, test % | ours, test % | ours, validation % | seeds | parameters | epochs | seconds "
        "| device | trained on | published protocol |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        published = "" if row["published_accuracy"] is None else f"{row['published_accuracy']:.2f}"
        cells = [f"`{row['recipe']}`", published]
        if row["seeds"]:
            cells += [_cell(row, "test"), _cell(row, "validation"), str(len(row["seeds"]))]
            seconds = f"{row['seconds']:.0f}" if row["seconds"] >= 10 else f"{row['seconds']:.1f}"
            threads = f"{' or '.join(map(str, row['threads']))} thread{'s' * (row['threads'] != [1])}"
            device = f"cpu, {threads}" if row["device"] == "cpu" else row["device"]
            cells += [f"{row['parameters']:,}", str(row["epochs"]), seconds, device]
            cells.append(f"{row['trained_on']:,} {row['source']}{' (QUICK)' if row['quick'] else ''}")
        else:
            cells += ["not measured"] + [""] * 7
        lines.append(f"| {' | '.join(cells)} | {row['note']} |")
    return "\n".join(lines)


def readme_with_table(readme):
    """Return the text of README.md with the table between `MARKS` made anew from the committed records."""
    start, end = (readme.index(mark) for mark in MARKS)
    rows = result_rows(load_records([project_root() / "records"]))
    return f"{readme[:start]}{MARKS[0]}\n{results_table(rows)}\n{readme[end:]}"


def _row(runs):
    first = runs[0]
    comparable = {} if first["source"] == "mnist" and not first["quick"] else {"published_accuracy": None, "note": ""}
    row = {**_empty_row(first["recipe"]), **comparable}
    for part in ("validation", "test"):
        accuracies = [one[f"{part}_accuracy"] for one in runs]
        if None not in accuracies:  # a study's variants are not scored on test
            row[f"{part}_accuracy_mean"] = mean(accuracies)
            row[f"{part}_accuracy_std"] = stdev(accuracies) if len(runs) > 1 else None
    return {
        **row,
        "test_images": len(first["test_predictions"] or ""),
        "seeds": [one["seed"] for one in runs],
        "seconds": mean(one["seconds"] for one in runs),
        "threads": sorted({one["threads"] for one in runs}),
        **{key: first[key] for key in ("parameters", "epochs", *KEY[1:])},
    }


def _empty_row(name):
    recipe = RECIPES[name]
    unknown = (
        "validation_accuracy_mean validation_accuracy_std test_accuracy_mean test_accuracy_std test_images seeds "
        "parameters epochs seconds threads device trained_on source quick"
    )
    known = {"recipe": name, "published_accuracy": recipe.published_accuracy, "note": recipe.note, "seeds": []}
    return dict.fromkeys(unknown.split()) | known


def _cell(row, part):
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
