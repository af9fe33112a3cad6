"""The state of unfinished training on disk: kept after each epoch, checked when it is read, continued from."""

import io
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..files import previous_of, user_path, write_atomically
from ..models.archive import ArchiveError, read_archive
from ..models.saved import CheckpointError, load_safely, read_file
from .history import EpochResult, History
from .settings import check_settings, plain

FORMAT = 3  # of the states; a reader refuses others


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write a state of training, a dict of tensors and plain values, to `path` with `torch.save`, atomically.

    The file before it is kept as `.previous`: a drive that is mounted or synchronised can lose what was written last.

    Raises:
        CheckpointError: the state holds something that could not be read again; nothing is written.
        OSError: the folder of `path` cannot be written to or the disk is full.
    """
    path, buffer = user_path(path), io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()
    try:
        load_safely(content, path)
    except CheckpointError as error:
        raise CheckpointError(f"the state of training could not be read again, so it is not kept: {error}") from error
    write_atomically(path, content, previous_of(path))


def load_state(path: str | Path) -> dict[str, Any] | None:
    """Return the state of training in `path`, or None if there is none.

    Where it is damaged, the one before it serves, with a warning.

    Raises:
        CheckpointError: there are files, and all are damaged.
    """
    path = user_path(path)
    files = [file for file in (path, previous_of(path)) if file.exists()]
    for file in files:
        try:
            return _read(file)
        except CheckpointError as error:
            if file is files[-1]:
                raise
            warnings.warn(f"{error}; {files[-1]} is taken instead", stacklevel=2)
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return the state in a file; raise CheckpointError where it is damaged or something else."""
    content = read_file(path)
    try:
        state = read_archive(content)
    except ArchiveError as error:
        raise CheckpointError(f"{path} is damaged, or no state of training ({error}): remove it") from error
    if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path} is no state of training that this version reads: remove it")
    return state


def state_of(history: History, parts: list[Any], seed: int = 0, before: int = 0, begun: Any = None) -> dict[str, Any]:
    """Return what training needs to go on; `parts` are [model, optimizer, scheduler or None].

    `before` is how many of the history's epochs belong to the training that this one continues; `begun` are the
    settings that it began with, see `settings.settings_of`.
    """
    return {
        "epochs": [asdict(result) for result in history.epochs],
        "best_state": history.best_state,
        "classes": _classes(parts),
        "states": plain(_states(parts)),
        "seed": plain(seed),
        "before": before,
        "begun": plain(begun),
    }


def take_up(
    state: dict[str, Any], parts: list[Any], seed: int = 0, after: Sequence[EpochResult] = (), settings: Any = None
) -> History:
    """Put `parts` into the state that `state_of` returned, and return its history.

    Args:
        seed: of the training that goes on.
        after: the epochs of the training that it continues.
        settings: of `parts`, see `settings.settings_of`: those that the state began with, where both are known.

    Raises:
        CheckpointError: the state belongs to something else; `parts` are as they were.
    """
    ours = deepcopy(_states(parts))
    try:
        if state["classes"] != _classes(parts):  # schedules take any state without a complaint
            raise ValueError(f"of {', '.join(state['classes'])}")
        history = History([EpochResult(**epoch) for epoch in state["epochs"]], state["best_state"])
        _check_run(state, history.epochs, seed, list(after))
        check_settings(state, settings)
        _put(parts, state["states"])
    except CheckpointError:
        raise
    except Exception as error:  # whatever a state that does not fit provokes
        _put(parts, ours)
        raise CheckpointError(
            "the state of training belongs to another model, optimizer or schedule: remove it, or train without resume"
        ) from error
    return history


def _check_run(state: dict[str, Any], epochs: list[EpochResult], seed: int, after: list[EpochResult]) -> None:
    """Raise CheckpointError if the state has another seed, or continues another training than these epochs."""
    advice = "remove it, keep each training's state in a file of its own, or train without resume"
    if state["seed"] != seed:
        raise CheckpointError(f"the state of training has seed {state['seed']}, not {seed}: {advice}")
    if state["before"] != len(after) or epochs[: len(after)] != after:
        raise CheckpointError(f"the state of training continues other epochs than those of `after`: {advice}")


def _classes(parts: list[Any]) -> list[str]:
    return [type(part).__name__ for part in parts]


def _states(parts: list[Any]) -> list[dict[str, Any] | None]:
    return [None if part is None else part.state_dict() for part in parts]


def _put(parts: list[Any], states: list[dict[str, Any] | None]) -> None:
    for part, state in zip(parts, states, strict=True):
        if part is not None or state is not None:
            part.load_state_dict(state)
