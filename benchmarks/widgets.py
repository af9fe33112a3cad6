"""Measure the widgets: a step of the browser among 60,000 digits, and the pad from a stroke to the probabilities.

Run from anywhere in the project: python benchmarks/widgets.py. These are the seconds in Python; a page adds its own.
Needs no network; without MNIST it measures the sample.
"""

import statistics

import torch
from timing import command_line, seconds

import mnist_helpers as mh
from mnist_helpers.data.strokes import write
from mnist_helpers.widgets import DigitBrowser, DrawingPad

REPEATS = 30


def report(title, work):
    """Print the median and the longest of `REPEATS` calls of `work`, in milliseconds."""
    work()  # the first call also prepares what later ones reuse
    times = [1000 * seconds(work) for _ in range(REPEATS)]
    print(f"{title:46} {statistics.median(times):8.1f} {max(times):8.1f}")


def main():
    """Measure and print the table."""
    command_line(__doc__).parse_args()
    digits, model = mh.load_data(train=True), mh.load_model("densenet_small", device="cpu")
    # Random logits will do: what is measured does not depend on them
    logits = 3 * torch.randn(len(digits), 10, generator=torch.Generator().manual_seed(0))
    browser, pad = DigitBrowser(digits, logits, model=model, neighbours=digits), DrawingPad(model)
    drawings = [write(digit) for digit in range(10)]
    print(f"{len(digits):,} digits of {digits.source}, {torch.get_num_threads()} threads, milliseconds\n")
    print(f"{'':46} {'median':>8} {'most':>8}")
    report("browser: next digit", browser.step)
    report("browser: next page", lambda: browser.step(24))
    report("browser: filter", lambda: browser.filter(right=False, label=REPEATS % 10))
    report("browser: all, by loss", lambda: browser.filter(order="loss", descending=True))
    browser.look_by("occlusion")
    report("browser: next digit, with occlusion", browser.step)
    report("pad: strokes to probability bars", lambda: pad.draw(drawings[0 if pad.digit else 8]))


if __name__ == "__main__":
    main()
