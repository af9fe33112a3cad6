"""The state of unfinished training on disk: kept after each epoch, checked when it is read, taken up again."""

import io
import os
import warnings
from dataclasses import asdict
from pathlib import Path

import torch

from .checkpoints import CheckpointError, load_safely, read_file
from .files import sha256, write_atomically
from .history import EpochResult, History

SEAL = b"state of training 1 "  # format 1; the SHA-256 of what follows stands behind it, then a new line


def save_state(path, state, copy=None):
    """Write a state of training, a dict of tensors and plain values, to `path` with its checksum, atomically.

    The file before it is kept as `.previous`. `copy` is a folder for a second copy, on a mounted drive say: a failure
    there is a warning.
    """
    path, buffer = Path(path), io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    sealed = SEAL + sha256(content).encode() + b"\n" + content
    write_atomically(path, sealed, path.with_suffix(".previous"))
    if copy is not None:
        second = Path(copy) / path.name
        try:
            write_atomically(second, sealed, second.with_suffix(".previous"))
        except OSError as error:
            warnings.warn(f"no second copy of the state of training: {error.strerror}", stacklevel=2)


def load_state(path, copy=None):
    """Return the state of training in `path`, else in the folder `copy`, or None if there is none in either.

    Where the last one is damaged or missing, the one before it serves, with a warning for each damaged file.

    Raises:
        CheckpointError: there are files, and all are damaged.
    """
    paths = [Path(path)] + ([] if copy is None else [Path(copy) / Path(path).name])
    faults = []
    for one in paths + [one.with_suffix(".previous") for one in paths]:
        if not os.path.exists(one):  # unlike Path.exists, this takes a drive that has gone for empty
            continue
        try:
            state = _unsealed(read_file(one), one)
        except CheckpointError as error:
            faults.append(error)
            continue
        for fault in faults:
            warnings.warn(f"{fault}; {one} is taken instead", stacklevel=2)
        return state
    if faults:
        raise faults[0]
    return None


def state_of(history, parts):
    """Return what training needs to go on; `parts` are model, optimizer, scheduler and others that have a state."""
    return {
        "epochs": [asdict(result) for result in history.epochs],
        "best_state": history.best_state,
        "parts": [part and part.state_dict() for part in parts],
        "classes": [type(part).__name__ for part in parts],
    }


def take_up(state, parts):
    """Put `parts` into the state that `state_of` returned, and return its history.

    Raises:
        CheckpointError: it is the state of something else.
    """
    try:
        if state["classes"] != [type(part).__name__ for part in parts]:  # schedules take any state without a complaint
            raise ValueError(f"of {', '.join(state['classes'])}")
        for part, found in zip(parts, state["parts"], strict=True):
            if part is not None or found is not None:
                part.load_state_dict(found)
        return History([EpochResult(**epoch) for epoch in state["epochs"]], state["best_state"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            "the state of training is that of another model, optimizer or schedule: remove it, or train without resume"
        ) from error


def _unsealed(content, path):
    """Return the state in a file's content, whose checksum is compared first."""
    seal, _, content = content.partition(b"\n")
    if seal != SEAL + sha256(content).encode():
        raise CheckpointError(f"{path} is damaged, or no state of training that this version reads: remove it")
    return load_safely(content, path)
