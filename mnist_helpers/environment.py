"""Where the code runs: device, seeding, quick mode, and the project's folders."""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


def choose_device(name=None):
    """Return the `torch.device` called `name`, or else the best one here: cuda, then mps, then cpu.

    Raises:
        ValueError: this machine, or its PyTorch, has no such device.
    """
    if name is not None:
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {name!r} cannot be used here ({reason}): try 'cpu', or leave it out") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bfloat16(device):
    """Tell whether a device multiplies bfloat16 numbers by itself; where it would only imitate that, it is slow.

    This is asked of the processor, not timed: the answer, and so the numbers, are the same in every run.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def combine_seeds(*parts):
    """Mix non-negative integers, such as (seed, epoch), into one 64-bit seed.

    Neighbouring inputs give unrelated outputs (numpy's `SeedSequence`), so epoch 1 of seed 0 shares nothing with
    epoch 0 of seed 1.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


@contextmanager
def seeded(*parts):
    """Seed torch from `parts` within the `with` block, then give the caller's random state back unchanged."""
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(combine_seeds(*parts))
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


def quick_mode():
    """Tell whether the environment variable QUICK asks for short runs that only show that everything works."""
    return os.environ.get("QUICK", "") not in ("", "0")


def quick(full, short):
    """Return `full`, or `short` in quick mode: `EPOCHS = quick(15, short=2)`."""
    return short if quick_mode() else full


def project_root():
    """Return the folder of the project that the working directory lies in, or the working directory itself."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        settings = folder / "pyproject.toml"
        if settings.is_file() and 'name = "mnist_helpers"' in settings.read_text(encoding="utf-8"):
            return folder
    return here


def data_folder():
    """Return the folder where downloaded data are kept (ignored by git)."""
    return project_root() / "data"


def runs_folder():
    """Return the folder where runs write (ignored by git); quick runs write to one of their own."""
    return project_root() / "runs" / quick("", short="quick")
