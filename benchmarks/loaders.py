"""Compare the device-resident loader with the plain DataLoader: images per second, and epochs of training `network`.

Run from anywhere in the project: python benchmarks/loaders.py. Needs no network; without MNIST it measures the sample.
"""

import statistics

import torch
from timing import command_line, seconds

from mnist_helpers.data.digits import load_data
from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.environment import choose_device, seeded
from mnist_helpers.models import network
from mnist_helpers.training.loop import train_one_epoch

REPEATS = 5  # the two loaders take turns, so a drift of the machine's speed affects both


def read_all(loader):
    """Go through a loader once and do nothing with its batches."""
    for _images, _labels in loader:
        pass


def report(title, plain, resident, n):
    """Print the medians of both and their ratio; each is a list of seconds for n images."""
    plain, resident = statistics.median(plain), statistics.median(resident)
    print(f"{title:28} {n / plain:>16,.0f} {n / resident:>16,.0f} {plain / resident:>8.1f}x")


def main():
    """Measure and print the table."""
    command_line(__doc__).parse_args()
    digits, device = load_data(train=True), choose_device()
    loaders = [make_loaders(digits, plain=plain, device=device)[0] for plain in (True, False)]
    models = []
    for _ in loaders:
        with seeded(0):
            models.append(network().to(device))
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3, fused=True) for model in models]
    reading, training = ([], []), ([], [])
    for repeat in range(REPEATS + 1):
        for kind, loader in enumerate(loaders):
            times = (
                seconds(lambda loader=loader: read_all(loader)),
                seconds(lambda kind=kind, loader=loader: train_one_epoch(models[kind], loader, optimizers[kind])),
            )
            if repeat > 0:  # the first round warms up
                reading[kind].append(times[0])
                training[kind].append(times[1])
    n = len(loaders[0].sampler)
    print(f"{n:,} images of {digits.source}, batches of 64, on {device}, {torch.get_num_threads()} threads\n")
    print(f"{'images per second':28} {'plain DataLoader':>16} {'resident':>16} {'ratio':>9}")
    report("reading alone", *reading, n)
    report("training `network`", *training, n)


if __name__ == "__main__":
    main()
