"""Where the code runs: device, seeding, quick mode, and the project's folders."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")
PACKAGE = Path(__file__).parent


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """Return the `torch.device` called `name`, or else the best one here: cuda, then mps, then cpu.

    Raises:
        ValueError: this machine, or its PyTorch, has no such device.
    """
    if name is not None:
        try:
            numbers = torch.zeros(1, device=name)
            numbers.item()  # the device "meta" computes, but gives no number
            return numbers.device
        except (RuntimeError, AssertionError, ImportError, TypeError) as error:  # whatever PyTorch lacks for it
            reason = str(error).splitlines()[0].split(". ")[0]  # some go on with a list of all that there is
            raise ValueError(f"device {name!r} cannot be used here ({reason}): try 'cpu', or leave it out") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16 products; without them, these are slow.

    The processor is asked, and nothing is timed, so every run on a machine gets the same answer and the same numbers.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities: Mapping[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # PyTorch 2.10 has no such function
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """Return a whole number as an int; raises ValueError, which begins with `name`, unless it is `least` or more."""
    try:
        number = index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be a whole number of {least} or more, not {value!r}")
    return number


def combine_seeds(*parts: int) -> int:
    """Mix non-negative integers, such as (seed, epoch), into one 64-bit seed.

    Neighbouring inputs give unrelated outputs (numpy's `SeedSequence`), so epoch 1 of seed 0 shares nothing with
    epoch 0 of seed 1. Raises ValueError for what is no seed.
    """
    return int(np.random.SeedSequence([whole_number("seed", part) for part in parts]).generate_state(1, np.uint64)[0])


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed torch from `parts` within the `with` block, then give the caller's random state back unchanged."""
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(combine_seeds(*parts))
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


def quick_mode() -> bool:
    """Tell whether the environment variable QUICK asks for short runs that only show that everything works."""
    return os.environ.get("QUICK", "") not in ("", "0")


def quick(full: T, short: T) -> T:
    """Return `full`, or `short` in quick mode: `EPOCHS = quick(15, short=2)`."""
    return short if quick_mode() else full


def project_root() -> Path:
    """Return the folder of the project that the working directory lies in, or the working directory itself."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_project(folder)), here)


def published_folder(name: str) -> Path:
    """Return the folder of what is published with the project, `name` being "saved_models" or "records".

    It lies in the project that the working directory lies in. From anywhere else, it is that of the project that the
    package lies in (an editable installation), or else the part that the package itself carries.
    """
    for project in (project_root(), PACKAGE.parent):
        if _is_project(project):
            return project / name
    return PACKAGE / name


def _is_project(folder: Path) -> bool:
    """Tell whether a folder is this project's; a pyproject.toml of any other kind is passed over."""
    settings = folder / "pyproject.toml"
    try:
        if not settings.is_file():  # a pipe would never end
            return False
        with open(settings, "rb") as file:
            return b'name = "mnist_helpers"' in file.read(100_000)
    except OSError:
        return False


def data_folder() -> Path:
    """Return the folder where downloaded data are kept (ignored by git)."""
    return project_root() / "data"


def runs_folder() -> Path:
    """Return the folder where runs write (ignored by git); quick runs write to one of their own."""
    return project_root() / "runs" / quick("", short="quick")
