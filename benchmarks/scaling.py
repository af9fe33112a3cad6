"""What a second worker adds to a sweep, and a second process to one training: python benchmarks/scaling.py [most].

Each worker and each process has one thread. Needs MNIST, no network; writes only to temporary folders.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.experiments.recipes import RECIPES, vary
from mnist_helpers.experiments.sweep import finished, sweep

TRIALS = 12  # of one epoch each: all do the same work, pruned or not
TRAINED = "resnet_small", "lenet5"


@contextmanager
def fresh_project():
    """Change into an empty folder, in which nothing is recorded yet, for the `with` block."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)


def trials_per_minute(n_workers):
    """Return (trials a minute from the first one's begin to the last one's end, seconds of the whole sweep)."""
    recipe = vary(RECIPES["conv_bn_relu_w8"], {"model_arguments": {"width": 1 / 16}, "epochs": 1})
    with fresh_project():
        begin = time.perf_counter()
        study = sweep(recipe, {"lr": (0.01, 0.1)}, TRIALS, n_workers, "sweep.db", limit=10_000, progress=False)
        seconds = time.perf_counter() - begin
        trials = finished(study)
    span = max(trial.datetime_complete for trial in trials) - min(trial.datetime_start for trial in trials)
    return 60 * len(trials) / span.total_seconds(), seconds


def training_seconds(name, n_processes):
    """Return the seconds of the first two epochs of a recipe, which quick mode keeps to 4,000 images each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    with fresh_project() as folder:
        subprocess.run([*command, "-m", "mnist_helpers", "train", name], check=True, capture_output=True)
        (record,) = folder.glob("runs/quick/records/*/*.json")
        return json.loads(record.read_text())["history"][1]["seconds"]


def main(most=2):
    """Measure and print both."""
    os.environ |= {"MNIST_DATA": str(Path(load_mnist().folder).absolute()), "OMP_NUM_THREADS": "1", "QUICK": ""}
    speeds = {}
    for n in range(1, most + 1):
        speeds[n], seconds = trials_per_minute(n)
        ratio = speeds[n] / speeds[1]
        print(f"{n} workers: {speeds[n]:5.1f} trials a minute, {ratio:.2f} times one worker's; {seconds:.0f} s in all")
    os.environ["QUICK"] = "1"
    for name in TRAINED:
        seconds = {n: training_seconds(name, n) for n in range(1, most + 1)}
        for n, one in seconds.items():
            print(f"{name}, {n} processes: {one:.2f} s for 4,000 images, {seconds[1] / one:.2f} times as fast")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
