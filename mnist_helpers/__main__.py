"""The command line: `python -m mnist_helpers COMMAND`."""

import argparse
import json
import sys
import warnings

from .checkpoints import CheckpointError
from .data import DataError, load_data
from .recipes import RECIPES
from .results import comparison, record_run, result_rows, results_table
from .training import TrainingError

MISTAKES = (CheckpointError, DataError, TrainingError, ValueError, OSError)  # what a user can mend


def main(arguments=None):
    """Run one command and return its exit code: 0, 2 after a mistake said in one sentence, 130 after Ctrl-C."""
    warnings.showwarning = lambda message, *_, **__: print(f"Warning: {message}", file=sys.stderr)
    options = parse(arguments)
    try:
        options.command(options)
    except MISTAKES as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: what was finished before is kept, this run is not.", file=sys.stderr)
        return 130
    return 0


def parse(arguments=None):
    """Return the command line's options; `command` is the function to call with them."""
    parser = argparse.ArgumentParser(
        prog="python -m mnist_helpers", description="Handwritten digits, honestly measured."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="find MNIST (or download it), verify it, and say what is there")
    data.set_defaults(command=show_data)

    train = commands.add_parser("train", help="train a recipe and record the runs; recorded seeds are skipped")
    train.add_argument("recipe", choices=RECIPES, metavar="RECIPE", help=", ".join(RECIPES))
    train.add_argument(
        "--seeds", type=seed, nargs="+", default=[0], metavar="SEED", help="one run for each (default 0)"
    )
    train.add_argument("--device", help="cuda, mps or cpu (default: the best one here)")
    train.add_argument("--allow-sample", action="store_true", help="without MNIST, train on the scikit-learn digits")
    train.set_defaults(command=train_recipe)

    results = commands.add_parser("results", help="print the results table")
    results.add_argument("--json", action="store_true", help="as a list of objects")
    results.add_argument("--study", default="", help="the variants of a study, such as schedules; on validation only")
    results.add_argument(
        "--compare", nargs=2, choices=RECIPES, metavar="RECIPE", help="paired differences of the first and the second"
    )
    results.set_defaults(command=show_results)

    notebooks = commands.add_parser("notebooks", help="execute all notebooks into runs/ (QUICK=1: briefly)")
    notebooks.add_argument("--publish", action="store_true", help="then promote the full run into the tracked files")
    notebooks.set_defaults(command=run_notebooks)

    stamp = commands.add_parser("stamp", help="write the repository's address from pyproject.toml where it belongs")
    stamp.set_defaults(command=stamp_address)
    return parser.parse_args(arguments)


def seed(text):
    """Return a seed from the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 on, not {text!r}")
    return int(text)


def show_data(_):
    """Print source, folder, counts and checksums of both parts."""
    for train in (True, False):
        digits = load_data(train=train)
        counts = " ".join(str(n) for n in digits.labels.bincount(minlength=10).tolist())
        print(f"{'train' if train else 'test':5}  source {digits.source}, folder {digits.folder}")
        print(f"       {len(digits):,} images of 28x28; of the digits 0 to 9: {counts}")
        for name, checksum in digits.checksums.items():
            print(f"       SHA-256 {checksum}  {name}")


def train_recipe(options):
    """Train and record one run for each seed, then print the table's rows of this recipe."""
    for number in options.seeds:
        print(f"{options.recipe}, seed {number}", flush=True)
        record = record_run(options.recipe, number, device=options.device, allow_sample=options.allow_sample)
        test = "not scored" if record["test_accuracy"] is None else f"{record['test_accuracy']:.2f} %"
        print(
            f"  validation {record['validation_accuracy']:.2f} %, test {test} "
            f"({record['source']}), {record['seconds']:.1f} s of training on {record['device']}",
            flush=True,
        )
    rows = result_rows(study=RECIPES[options.recipe].study)
    print(f"\n{results_table([row for row in rows if row['recipe'] == options.recipe])}")


def show_results(options):
    """Print the results table as Markdown or JSON."""
    if options.compare:
        print(comparison(*options.compare))
        return
    rows = result_rows(study=options.study)
    print(json.dumps(rows, indent=1) if options.json else results_table(rows))


def run_notebooks(options):
    """Execute all notebooks, and publish the run where that was asked for."""
    from . import notebooks  # here: it needs Jupyter, and the other commands do not

    try:
        notebooks.publish() if options.publish else notebooks.execute_all()
    except notebooks.NotebookError as error:
        raise ValueError(error) from error


def stamp_address(_):
    """Stamp the repository's address and print which files changed."""
    from . import notebooks

    print("\n".join(f"changed {path}" for path in notebooks.stamp()) or "nothing to change")


if __name__ == "__main__":
    sys.exit(main())
