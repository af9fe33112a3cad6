"""The state of unfinished training on disk: kept after each epoch, checked when it is read, taken up again."""

import io
import os
import warnings
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ..files import previous_of, sha256, write_atomically
from ..models.saved import CheckpointError, load_safely, read_file
from .history import EpochResult, History

SEAL = b"state of training 2 "  # format 2; the SHA-256 of what follows stands behind it, then a new line


def save_state(path, state, copy=None):
    """Write a state of training, a dict of tensors and plain values, to `path` with its checksum, atomically.

    The file before it is kept as `.previous`. `copy` is a folder for a second copy, on a mounted drive say: a failure
    there is a warning, and so is a folder that does not exist, since a drive that has gone must not be replaced.

    Raises:
        CheckpointError: the state holds something that could not be read again; nothing is written.
        OSError: the folder of `path` cannot be written to or the disk is full.
    """
    path, buffer = Path(path), io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    try:
        load_safely(content, path)
    except CheckpointError as error:
        raise CheckpointError(f"the state of training could not be read again, so it is not kept: {error}") from error
    sealed = SEAL + sha256(content).encode() + b"\n" + content
    write_atomically(path, sealed, previous_of(path))
    if copy is not None and (failure := _copy_failure(Path(copy) / path.name, sealed)):
        warnings.warn(f"no second copy of the state of training: {failure}", stacklevel=2)


def _copy_failure(path, sealed):
    """Write a second copy, and return why that failed, or None."""
    if not os.path.isdir(path.parent):  # unlike Path.is_dir, this takes a drive that has gone for no folder
        return f"there is no folder {path.parent}"
    try:
        write_atomically(path, sealed, previous_of(path))
    except OSError as error:
        return error.strerror
    return None


def load_state(path, copy=None):
    """Return the state of training in `path` or in the folder `copy`, or None if there is none in either.

    Of these two and the ones before them, the one with the most epochs serves, with a warning for each damaged file.

    Raises:
        CheckpointError: there are files, and all are damaged.
    """
    paths = [Path(path)] + ([] if copy is None else [Path(copy) / Path(path).name])
    states, faults = [], []
    for one in paths + [previous_of(one) for one in paths]:
        if not os.path.exists(one):  # unlike Path.exists, this takes a drive that has gone for empty
            continue
        try:
            states.append((one, _unsealed(read_file(one), one)))
        except CheckpointError as error:
            faults.append(error)
    if faults and not states:
        raise faults[0]
    taken, state = max(states, key=lambda one: len(one[1].get("epochs", ())), default=(None, None))
    for fault in faults:
        warnings.warn(f"{fault}; {taken} is taken instead", stacklevel=2)
    return state


def state_of(history, parts, seed=0, before=0):
    """Return what training needs to go on; `parts` are model, optimizer, scheduler and others that have a state.

    `before` is how many of the history's epochs belong to the training that this one continues.
    """
    return {
        "epochs": [asdict(result) for result in history.epochs],
        "best_state": history.best_state,
        "parts": [part and _plain(part.state_dict()) for part in parts],
        "classes": [type(part).__name__ for part in parts],
        "seed": _plain(seed),
        "before": before,
    }


def take_up(state, parts, seed=None, after=()):
    """Put `parts` into the state that `state_of` returned, and return its history.

    Args:
        seed: of the training that goes on; any unless given.
        after: the epochs of the training that it continues.

    Raises:
        CheckpointError: it is the state of something else; `parts` are as they were.
    """
    ours = [part and deepcopy(part.state_dict()) for part in parts]
    try:
        if state["classes"] != [type(part).__name__ for part in parts]:  # schedules take any state without a complaint
            raise ValueError(f"of {', '.join(state['classes'])}")
        history = History([EpochResult(**epoch) for epoch in state["epochs"]], state["best_state"])
        _refuse_another_run(state, history, seed, after)
        _put(parts, state["parts"])
        return history
    except CheckpointError:
        raise
    except Exception as error:  # whatever a state that does not fit provokes
        _put(parts, ours)
        raise CheckpointError(
            "the state of training is that of another model, optimizer or schedule: remove it, or train without resume"
        ) from error


def _refuse_another_run(state, history, seed, after):
    """Raise CheckpointError if the state is of another seed, or continues another training than these epochs."""
    advice = "remove it, keep each training's in a file of its own, or train without resume"
    if seed is not None and state["seed"] != seed:
        raise CheckpointError(f"the state of training is that of seed {state['seed']}, not {seed}: {advice}")
    if state["before"] != len(after) or history.epochs[: len(after)] != list(after):
        raise CheckpointError(f"the state of training is that of one that continues another (`after`): {advice}")


def _put(parts, states):
    for part, state in zip(parts, states, strict=True):
        if part is not None or state is not None:
            part.load_state_dict(state)


def _plain(value):
    """Return a state with NumPy's numbers, which `load_safely` does not read, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {name: _plain(one) for name, one in value.items()}
    return type(value)(_plain(one) for one in value) if type(value) in (list, tuple) else value


def _unsealed(content, path):
    """Return the state in a file's content, whose checksum is compared first."""
    seal, _, content = content.partition(b"\n")
    state = load_safely(content, path) if seal == SEAL + sha256(content).encode() else None
    if not isinstance(state, dict) or not isinstance(state.get("epochs", []), list):
        raise CheckpointError(f"{path} is damaged, or no state of training that this version reads: remove it")
    return state
