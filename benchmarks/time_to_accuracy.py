"""Seconds of training until an accuracy on the test set, ours and two peers'.

Time is training alone, with the digits on the device as uint8. Two times are reported beside it: making the model and
placing the data, and the warm-up (two rounds over twenty batches by a network that is thrown away). The systems take
turns, so a drift of the machine's speed affects all. Needs MNIST, no network. `--save` keeps the figures in
records/time_to_accuracy.json, from which notebook 07 draws its picture.
"""

import json
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from timing import command_line
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.environment import choose_device, has_bfloat16, seeded
from mnist_helpers.evaluation.scores import score_on_test
from mnist_helpers.experiments.run import seconds_per_epoch
from mnist_helpers.experiments.setup import fit_setup, prepare
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.training.loop import fit

FILE = Path(__file__).parent.parent / "records" / "time_to_accuracy.json"


def ours(name, digits, device, seed):
    """Return (model, a function that trains it and returns its history, normalisation) of a recipe."""
    setup = prepare(RECIPES[name], digits, seed, device)
    return setup.model, partial(fit_setup, setup, progress=False), RECIPES[name].normalisation


def one_epoch_peer(digits, device, seed):
    """Return the same of the one-epoch network of tuomaso/train_mnist_fast (99.04 % in 0.762 s on a GTX 1660 Ti)."""
    with seeded(seed):
        model = nn.Sequential(
            nn.Conv2d(1, 24, 5),  # (B, 24, 24, 24)
            nn.MaxPool2d(2),  # (B, 24, 12, 12)
            nn.ReLU(),
            nn.Conv2d(24, 32, 3),  # (B, 32, 10, 10)
            nn.MaxPool2d(2),  # (B, 32, 5, 5)
            nn.ReLU(),
            nn.Flatten(),  # (B, 800)
            nn.Linear(800, 256),
            nn.ReLU(),
            nn.Linear(256, 10),
        ).to(device)
    loader, _ = make_loaders(digits, 256, "mnist", seed, device, all_images=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, betas=(0.7, 0.9))
    schedule = OneCycleLR(optimizer, 0.01, total_steps=len(loader), cycle_momentum=False)
    return (
        model,
        partial(fit, model, loader, None, optimizer, 1, scheduler=schedule, seed=seed, progress=False),
        "mnist",
    )


def pytorch_example(digits, device, seed):
    """Return the same of PyTorch's own MNIST example: the first of its 14 epochs, through a plain DataLoader."""
    with seeded(seed):
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3),  # (B, 32, 26, 26)
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),  # (B, 64, 24, 24)
            nn.ReLU(),
            nn.MaxPool2d(2),  # (B, 64, 12, 12)
            nn.Dropout(0.25),
            nn.Flatten(),  # (B, 9216)
            nn.Linear(9216, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        ).to(device)
    loader, _ = make_loaders(digits, 64, "mnist", seed, plain=True, all_images=True)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)  # StepLR(1, gamma=0.7) moves after the first epoch
    return model, partial(fit, model, loader, None, optimizer, 1, seed=seed, progress=False), "mnist"


def measure(system, digits, device, seed):
    """Return (seconds to make a system ready, seconds of training, accuracy on the test set)."""
    start = time.perf_counter()
    model, train, normalisation = system(digits, device, seed)
    ready = time.perf_counter() - start
    return ready, train().seconds, score_on_test(model, normalisation).accuracy


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
    parser = command_line(__doc__)
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
    measure(one_epoch_peer, digits.take(torch.arange(5120)), device, 0)  # warms up
    for seed in range(options.seeds):
        for name, system in systems.items():
            runs[name].append(measure(system, digits, device, seed))
            print(f"{name:16} seed {seed}: {runs[name][-1][1]:8.2f} s, {runs[name][-1][2]:.2f} %", flush=True)
    runs["PyTorch example, 1 of 14 epochs"] = [measure(pytorch_example, digits, device, 0)]
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
