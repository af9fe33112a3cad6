"""Read composed pages whose layout is known, and print how many digits were found and how many of them read right.

Run from anywhere in the project: python benchmarks/pages.py. It needs MNIST. The pages are made of validation digits;
with --test of test digits, which is for a finished reader, and the outcome is kept in records/pages.json. A digit
counts as found if its box and the box of an answer share at least half of what both cover. An answer that belongs to no
digit counts as false.
"""

import json
import platform
import time

import numpy as np
import torch
from timing import command_line

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.loaders import stratified_split
from mnist_helpers.environment import project_root
from mnist_helpers.evaluation.scores import DEFAULT_MODEL, score_on_test
from mnist_helpers.evaluation.significance import wilson_interval
from mnist_helpers.files import write_atomically
from mnist_helpers.handwriting import read_digits
from mnist_helpers.handwriting.learn.pages import found_and_right, random_page
from mnist_helpers.models.saved import load_model

FIRST_SEED = {False: 0, True: 500_000}  # of the pages, from validation and from test digits


def main():
    """Compose, read, count and print."""
    parser = command_line(__doc__)
    parser.add_argument("--pages", type=int, default=100, help="of 24 digits each (default 100)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a saved model's name or path (default %(default)s)")
    parser.add_argument("--test", action="store_true", help="pages of test digits, once, for a finished reader")
    options = parser.parse_args()
    model = load_model(options.model, device="cpu")
    if options.test:
        digits = score_on_test(model).digits
    else:
        digits = load_mnist()
        digits = digits.take(stratified_split(digits.labels)[1])
    first = FIRST_SEED[options.test]
    counts = count(digits, range(first, first + options.pages), model)
    print(f"{options.pages} pages of {'test' if options.test else 'validation'} digits, read by {options.model}")
    for name, part in counts["digits"].items():
        shares = [f"{what} {share(part[what], part['written'])}" for what in ("found", "right")]
        print(f"{name:9} {part['written']:6,} digits: {', '.join(shares)}")
    print(f"false answers: {counts['false']}; {counts['seconds_a_page']:.2f} s a page")
    if options.test:
        record = {"model": options.model, "pages": options.pages, "first_seed": first, **counts}
        record["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
        write_atomically(project_root() / "records" / "pages.json", json.dumps(record, indent=1) + "\n")


def count(digits, seeds, model):
    """Return counts over random pages: of all digits, those that touch another, and those that stand apart."""
    touching, found, right, false, spent = [], [], [], 0, 0.0
    for seed in seeds:
        page = random_page(digits, seed)
        start = time.perf_counter()
        reading = read_digits(page.image, model)
        spent += time.perf_counter() - start
        is_found, is_right = found_and_right(page, reading)
        touching += page.touching.tolist()
        found += is_found.tolist()
        right += is_right.tolist()
        false += len(reading) - int(is_found.sum())
    touching, found, right = (np.array(one) for one in (touching, found, right))
    parts = {"all": np.ones(len(found), bool), "touching": touching, "apart": ~touching}
    digits = {
        name: {"written": int(part.sum()), "found": int(found[part].sum()), "right": int(right[part].sum())}
        for name, part in parts.items()
    }
    return {"digits": digits, "false": false, "seconds_a_page": round(spent / len(seeds), 3)}


def share(part, whole):
    """Return a share in percent with its 95 % interval, as text."""
    if not whole:
        return "of none"
    low, high = wilson_interval(part, whole)
    return f"{100 * part / whole:.2f} % ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
