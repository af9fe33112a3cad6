"""Seconds of training until an accuracy on the test set, ours and two peers': python benchmarks/time_to_accuracy.py.

    python benchmarks/time_to_accuracy.py [RECIPE ...] [--seeds N] [--save]

Time is training alone, the digits lying on the device as uint8; making the model and placing the data, and the warm-up
(two rounds over twenty batches by a network that is thrown away), are reported beside it. Seeds take turns with the
peers', so that a drift of the machine's speed meets all. Needs MNIST, no network. `--save` keeps the figures in
records/time_to_accuracy.json, from which notebook 07 draws its picture.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.environment import choose_device, has_bfloat16, seeded
from mnist_helpers.evaluation.scores import score_on_test
from mnist_helpers.experiments.run import fit_setup, prepare, seconds_per_epoch
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.training.loop import fit

FILE = Path(__file__).parent.parent / "records" / "time_to_accuracy.json"


def ours(name, digits, device, seed):
    """Train a recipe; return (seconds of making ready, seconds of training, accuracy on the test set)."""
    start = time.perf_counter()
    setup = prepare(RECIPES[name], digits, seed, device)
    ready = time.perf_counter() - start
    history = fit_setup(setup, progress=False)
    return ready, history.seconds, score_on_test(setup.model, RECIPES[name].normalisation).accuracy


def one_epoch_peer(digits, device, seed):
    """Train the one-epoch network of tuomaso/train_mnist_fast (99.04 % in 0.762 s on a GTX 1660 Ti), as published."""
    start = time.perf_counter()
    with seeded(seed):
        model = nn.Sequential(
            *(nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU()),  # (B, 24, 12, 12)
            *(nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU()),  # (B, 32, 5, 5)
            *(nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10)),
        ).to(device)
    loader, _ = make_loaders(digits, 256, "mnist", seed, device, all_images=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, betas=(0.7, 0.9))
    schedule = OneCycleLR(optimizer, 0.01, total_steps=len(loader), cycle_momentum=False)
    ready = time.perf_counter() - start
    history = fit(model, loader, None, optimizer, 1, scheduler=schedule, seed=seed, progress=False)
    return ready, history.seconds, score_on_test(model, "mnist").accuracy


def pytorch_example(digits, device, seed):
    """Train PyTorch's own MNIST example for the first of its 14 epochs, through a plain DataLoader."""
    start = time.perf_counter()
    with seeded(seed):
        model = nn.Sequential(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),  # (B, 64, 12, 12)
            *(nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
        ).to(device)
    loader, _ = make_loaders(digits, 64, "mnist", seed, plain=True, all_images=True)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)  # StepLR(1, gamma=0.7) moves after the first epoch
    ready = time.perf_counter() - start
    history = fit(model, loader, None, optimizer, 1, seed=seed, progress=False)
    return ready, history.seconds, score_on_test(model, "mnist").accuracy


def summary(runs):
    """Return the figures of one system over its seeds, JSON-ready."""
    ready, seconds, accuracies = zip(*runs)
    spread = statistics.stdev(accuracies) if len(runs) > 1 else None
    return {
        "seeds": len(runs),
        "seconds": statistics.median(seconds),
        "slowest": max(seconds),
        "fastest": min(seconds),
        "accuracy": statistics.mean(accuracies),
        "deviation": spread,
        "ready": statistics.median(ready),
    }


def main():
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="speed_99 unless given")
    parser.add_argument("--seeds", type=int, default=10, help="of ours and the one-epoch peer; the example has one")
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {FILE.name}")
    options = parser.parse_args()
    digits, device = load_mnist(), choose_device()
    names = options.recipes or ["speed_99"]
    systems = {name: partial(ours, name) for name in names} | {"one-epoch peer": one_epoch_peer}
    print(f"on {device}, {torch.get_num_threads()} threads; bfloat16: {'yes' if has_bfloat16(device) else 'no'}")
    warm_up = {}
    for name in names:
        start = time.perf_counter()
        seconds_per_epoch(name, digits)
        warm_up[name] = time.perf_counter() - start
    runs = {name: [] for name in systems}
    one_epoch_peer(digits.take(torch.arange(5120)), device, 0)  # warms up
    for seed in range(options.seeds):
        for name, train in systems.items():
            runs[name].append(train(digits, device, seed))
            print(f"{name:16} seed {seed}: {runs[name][-1][1]:8.2f} s, {runs[name][-1][2]:.2f} %", flush=True)
    runs["PyTorch example, 1 of 14 epochs"] = [pytorch_example(digits, device, 0)]
    found = {name: summary(one) | {"warm_up": warm_up.get(name)} for name, one in runs.items()}
    peer = found["one-epoch peer"]["seconds"]
    print("\n| system | median s | fastest to slowest | test % | seeds | ready s | warm-up s | peer's s / ours |")
    print("|---|---|---|---|---|---|---|---|")
    for name, one in found.items():
        spread = "" if one["deviation"] is None else f" ± {one['deviation']:.2f}"
        warm = "" if one["warm_up"] is None else f"{one['warm_up']:.1f}"
        print(
            f"| {name} | {one['seconds']:.2f} | {one['fastest']:.2f} to {one['slowest']:.2f} "
            f"| {one['accuracy']:.2f}{spread} | {one['seeds']} | {one['ready']:.2f} | {warm} "
            f"| {peer / one['seconds']:.2f} |"
        )
    if options.save:
        kept = json.loads(FILE.read_text()) if FILE.exists() else {}
        kept[device.type] = kept.get(device.type, {}) | found
        FILE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
