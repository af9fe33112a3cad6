"""The command line: `mnist-helpers COMMAND`, or `python -m mnist_helpers COMMAND`.

Each command imports what it needs, so that --help answers without loading PyTorch.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .files import are_open


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    It is 0; 2 after a mistake, said in one sentence; 130 after Ctrl-C; or 141, as for other programs, if whoever reads
    the output has closed it, like `head`.
    """
    warnings.showwarning = print_warning
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what its encoding lacks, as stderr does
    with unwritable_output_dropped():
        options = parse(arguments)
        try:
            code = options.command(options) or 0
            flush_output()
            return code
        except BrokenPipeError:
            return 141
        except mistakes() as error:
            say(f"Error: {error}")
            return 2
        except KeyboardInterrupt:
            begins = "begins anew" if getattr(options, "card", None) else "goes on from there"
            say(f"Interrupted: what is finished is kept; the same command {begins}.")
            return 130


def say(text: str) -> None:
    """Print a line on stderr, if there is one and it can be written to."""
    if are_open(sys.stderr):
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def flush_output() -> None:
    """Write what was printed, so that it fails, if it does, where it is noticed."""
    if are_open(sys.stdout):
        sys.stdout.flush()


@contextlib.contextmanager
def unwritable_output_dropped() -> Iterator[None]:
    """After the `with` block, give up what stdout does not take, or else Python complains about it when it ends."""
    try:
        yield
    finally:
        try:
            flush_output()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning in one line; of several processes that train together, only the first prints it."""
    if os.environ.get("RANK", "0") == "0":  # torchrun numbers its processes
        say(f"Warning: {message}")


def mistakes() -> tuple[type[Exception], ...]:
    """Return the exceptions whose message tells users what they can mend."""
    from .data.digits import DataError
    from .models.saved import CheckpointError
    from .training.loop import TrainingError

    return CheckpointError, DataError, TrainingError, ValueError, OSError


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options; `command` is the function to call with them."""
    called = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=called if called == "mnist-helpers" else "python -m mnist_helpers",
        description="Handwritten digits, honestly measured.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="find MNIST (or download it), verify it, and say what is there")
    data.set_defaults(command=show_data)

    train = commands.add_parser("train", help="train a recipe and record the runs; recorded seeds are skipped")
    train.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="such as lenet5 or speed_99; an unknown name lists them all"
    )
    train.add_argument("--card", metavar="FILE", help="instead: the run of this record or card again, from the start")
    train.add_argument("--seeds", type=seed, nargs="+", metavar="SEED", help="one run for each (default 0)")
    train.add_argument("--device", help="cuda, mps or cpu (default: the best one here)")
    train.add_argument("--allow-sample", action="store_true", help="without MNIST, train on the scikit-learn digits")
    train.add_argument("--checkpoints", metavar="FOLDER", help="for states of unfinished training (default: in runs/)")
    train.set_defaults(command=train_recipe)

    sweep = commands.add_parser("sweep", help="search a recipe's hyperparameters by Optuna, with several workers")
    sweep.add_argument("recipe", metavar="RECIPE", help="as for train")
    sweep.add_argument("--trials", type=count, default=20, metavar="N", help="finished trials in all (default 20)")
    sweep.add_argument("--workers", type=count, default=1, metavar="K", help="processes here, one thread each")
    sweep.add_argument(
        "--storage",
        metavar="URL_OR_PATH",
        help="database, such as postgresql://..., which several machines may share, or the path of an SQLite file",
    )
    sweep.add_argument("--space", metavar="SPACE", help='such as "lr=0.001..0.1 batch_size=32,64"')
    sweep.add_argument("--name", help="of the study in the storage (default: the recipe's, with its changes)")
    sweep.add_argument("--epochs", type=count, metavar="N", help="of each trial (default: the recipe's)")
    sweep.add_argument("--limit", type=count, metavar="N", help="train on N images only, validate on N/4")
    sweep.add_argument("--seed", type=seed, default=0, help="of the trials' training (default 0)")
    sweep.add_argument(
        "--grace", type=count, default=120, metavar="S", help="seconds without a heartbeat until a trial is begun again"
    )
    sweep.add_argument("--device", help="cuda, mps or cpu (default: the best one here)")
    sweep.add_argument("--allow-sample", action="store_true", help="without MNIST, use the scikit-learn digits")
    sweep.set_defaults(command=sweep_recipe)

    reading = commands.add_parser("predict", help="read the handwritten digits in photographs and other pictures")
    reading.add_argument("files", nargs="+", metavar="FILE", help="PNG, JPEG, WebP, TIFF, GIF or BMP")
    reading.add_argument("--one", action="store_true", help="each picture shows one digit, on any ground")
    reading.add_argument("--json", action="store_true", help="boxes and probabilities too, as a list of objects")
    reading.add_argument("--model", metavar="NAME", help="a saved model's name or path (default: the best one)")
    reading.set_defaults(command=read_files)

    results = commands.add_parser("results", help="print the results table")
    results.add_argument("--json", action="store_true", help="as a list of objects")
    results.add_argument("--ablation", default="", help="its variants, such as those of schedules; on validation only")
    results.add_argument("--compare", nargs=2, metavar="RECIPE", help="paired differences of the first and the second")
    results.set_defaults(command=show_results)

    notebooks = commands.add_parser("notebooks", help="execute all notebooks into runs/ (QUICK=1: the short version)")
    notebooks.add_argument("--publish", action="store_true", help="then promote the full run into the tracked files")
    notebooks.set_defaults(command=run_notebooks)
    return parser.parse_args(arguments)


def seed(text: str) -> int:
    """Return a seed from the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 on, not {text!r}")
    return int(text)


def count(text: str) -> int:
    """Return a whole number from 1 on, from the command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is wanted, not {text!r}")
    return int(text)


def show_data(_: argparse.Namespace) -> None:
    """Print source, folder, counts and checksums of both parts."""
    from .data.digits import load_data

    for train in (True, False):
        digits = load_data(train=train)
        counts = " ".join(str(n) for n in digits.labels.bincount(minlength=10).tolist())
        print(f"{'train' if train else 'test':5}  source {digits.source}, folder {digits.folder}")
        print(f"       {len(digits):,} images of 28x28; of the digits 0 to 9: {counts}")
        for name, checksum in digits.checksums.items():
            print(f"       SHA-256 {checksum}  {name}")


def train_recipe(options: argparse.Namespace) -> None:
    """Train and record one run for each seed, then print the table's rows of this recipe."""
    from .experiments.distributed import process_group, rank
    from .experiments.run import record_run
    from .experiments.systems import find_recipe
    from .experiments.tables import result_rows, results_table

    if (options.recipe is None) == (options.card is None):
        raise ValueError("name a recipe, or with --card the file of a run: one of the two")
    if options.card and (options.seeds or options.allow_sample):
        raise ValueError("--card names seed and digits: leave out --seeds and --allow-sample")
    if options.card:
        train_again(options)
        return
    recipe = find_recipe(options.recipe)
    with process_group(options.device) as device:
        for number in options.seeds or [0]:
            if rank() == 0:
                print(f"{recipe.name}, seed {number}", flush=True)
            kept = {"allow_sample": options.allow_sample, "checkpoints": options.checkpoints}
            made = record_run(recipe, number, device=device, **kept)
            if rank() == 0:
                print_run(made)
        if rank() != 0:
            return
    rows = [row for row in result_rows(ablation=recipe.ablation) if row["recipe"] == recipe.name]
    print(f"\n{results_table(rows)}")


def train_again(options: argparse.Namespace) -> None:
    """Train the run of a record or card once more, on as many threads, and say how close it came."""
    import torch

    from .experiments.distributed import process_group, rank
    from .experiments.records import described_run
    from .experiments.run import record_run

    card, described = described_run(options.card)
    torch.set_num_threads(card.get("threads", torch.get_num_threads()))
    with process_group(options.device or described["device"]) as device:
        made = record_run(**described | {"device": device}, checkpoints=options.checkpoints)
    if rank() == 0:
        print_run(made)
        print(f"  {'to the last digit' if same_figures(made, card) else 'not exactly'} what {options.card} says")


def same_figures(made: dict[str, Any], card: dict[str, Any]) -> bool:
    """Tell whether a record has all that a record or card says of losses, accuracies and predictions, by epoch too."""
    from .experiments.records import recorded_history

    figures = "validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "test_predictions"
    same = all(made.get(figure) == card[figure] for figure in figures if figure in card)
    return same and ("history" not in card or recorded_history(made) == recorded_history(card))  # without seconds


def print_run(record: dict[str, Any]) -> None:
    """Print what a run reached, in one line."""
    validation, test = (
        "not scored" if record[f"{part}_accuracy"] is None else f"{record[f'{part}_accuracy']:.2f} %"
        for part in ("validation", "test")
    )
    print(
        f"  validation {validation}, test {test} "
        f"({record['source']}), {record['seconds']:.1f} s of training on {record['device']}",
        flush=True,
    )


def sweep_recipe(options: argparse.Namespace) -> None:
    """Bring a study of the recipe to its number of trials and print its table."""
    from .experiments.recipe import vary
    from .experiments.systems import find_recipe

    try:
        from .experiments.sweep import SearchError, parse_space, study_table, sweep
    except ImportError as error:  # Optuna is an extra
        raise ValueError(error) from error
    names = "storage", "name", "limit", "seed", "grace", "device", "allow_sample"
    chosen = {name: getattr(options, name) for name in names}
    recipe = vary(find_recipe(options.recipe), {"epochs": options.epochs}) if options.epochs else options.recipe
    try:
        space = parse_space(options.space) if options.space else None
        study = sweep(recipe, space, options.trials, options.workers, **chosen)
    except SearchError as error:
        raise ValueError(error) from error
    print(f"\n{study_table(study)}")


def read_files(options: argparse.Namespace) -> int:
    """Print the digits in each picture, line by line; return 2 if some could not be read, once all others were."""
    from .evaluation.scores import DEFAULT_MODEL
    from .handwriting import read_digit, read_digits
    from .models.saved import load_model

    model, readings, exit_code = load_model(options.model or DEFAULT_MODEL), [], 0
    for file in options.files:
        try:
            reading: Any = read_digit(file, model) if options.one else read_digits(file, model)
        except ValueError as error:
            say(f"Error: {error}")
            exit_code = 2
            continue
        if options.one and reading.several:
            say(f"{file}: it shows several digits: leave out --one")
        if not reading.text:
            say(f"{file}: no digits were found")
        elif not options.one and (unsure := reading.verdicts.count("unsure")):
            say(f"{file}: unsure of {unsure} of {len(reading)} digits")
        if options.json:
            readings.append({"file": file, **reading.as_dict()})
            continue
        if len(options.files) > 1:
            print(f"{file}:")
        if reading.text:
            print(reading.text)
    if options.json:
        print(json.dumps(readings, indent=1))
    return exit_code


def show_results(options: argparse.Namespace) -> None:
    """Print the results table as Markdown or JSON, or the comparison of two recipes."""
    from .experiments.systems import find_recipe
    from .experiments.tables import comparison, result_rows, results_table

    if options.compare:
        if options.json or options.ablation:
            raise ValueError("--compare prints a table of its own: leave out --json and --ablation")
        first, second = (find_recipe(name).name for name in options.compare)
        print(comparison(first, second))
        return
    rows = result_rows(ablation=options.ablation)
    print(json.dumps(rows, indent=1) if options.json else results_table(rows))


def run_notebooks(options: argparse.Namespace) -> None:
    """Execute all notebooks, and publish the run where that was asked for."""
    from . import notebooks

    try:
        if options.publish:
            notebooks.publish()
        else:
            notebooks.execute_all()
    except notebooks.NotebookError as error:
        raise ValueError(error) from error


if __name__ == "__main__":
    sys.exit(main())
