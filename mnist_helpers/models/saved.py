"""Trained weights on disk: a state dict (`.pth`) and a JSON card beside it that tells how to rebuild the model."""

import functools
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..environment import choose_device, published_folder, runs_folder
from ..files import file_name, previous_of, read_regular, sha256, user_path, write_atomically
from . import outline, unwrapped
from .archive import LARGEST_FILE, ArchiveError, read_archive
from .cards import check_fields, read_object

FORMAT = 1  # of the cards; a reader refuses others
DESCRIBED = ("model", "model_arguments")
WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile add to the names of layers


class CheckpointError(RuntimeError):
    """Saved weights or their card are missing, damaged, or do not fit."""


def save_model(model: nn.Module, path: str | Path, card: dict[str, Any], *, half: bool = False) -> None:
    """Write a model's weights to `path` (`.pth`) and its card beside it (`.json`), each atomically.

    Args:
        model: what `torch.compile`, DataParallel or DistributedDataParallel wrapped around it is left out.
        card: what to remember, JSON-ready; it must hold "model" (a name in `models.MODELS`) and "model_arguments",
            from which `load_model` rebuilds the architecture. "format", the weights' number format "weights" and
            their "sha256" are added.
        half: write float16 numbers, which take half the space; `load_model` makes float32 of them again.

    Raises:
        ValueError: `path` does not end in `.pth`, or the card does not describe this model.
        OSError: the folder cannot be written to or the disk is full.
    """
    path = user_path(path)
    if path.suffix != ".pth":
        raise ValueError(f"weights are saved in a .pth file, not in {path.name}")
    state = {name: value.detach().cpu() for name, value in unwrapped(model).state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    buffer = io.BytesIO()
    card = {"format": FORMAT, **card, "weights": "float16" if half else "float32"}
    try:  # what could not be loaded again must not be written
        check_fields(card, DESCRIBED)
        state = _fitting(state, _outline(card, path), path)
        torch.save(state, buffer)
        _unpack(buffer.getvalue(), path)
    except (CheckpointError, ValueError) as error:
        raise ValueError(f"this model cannot be saved with this card: {error}") from error
    _write_pair(path, buffer.getvalue(), card)


def copy_saved(source: Path, target: Path) -> None:
    """Copy the weights at `source` and their card to `target`, which can be loaded at any moment; errors as above."""
    card = _read_card(source)
    _write_pair(target, _described_content(source, card), card)


def load_model(
    name: str | Path, device: str | torch.device | None = None, *, model: nn.Module | None = None
) -> nn.Module:
    """Return a saved model with its weights, in evaluation mode, on `device` (the best one here unless named).

    It is rebuilt from its card, which becomes the model's attribute `card`.

    Args:
        name: a recipe's name or a file's, looked up among this machine's runs and then in `saved_models/`; or a path
            to a `.pth`.
        model: a network of yours to put the weights into; then no card is needed. The weights may have been saved with
            `torch.save(net.state_dict(), path)`, and their names may have a prefix, as from a wrapped network.

    Raises:
        CheckpointError: nothing of that name is saved, or what is saved is damaged or does not fit; the first layer
            that differs is named. A `model` that was given is left as it was.
    """
    path = _find(name)
    if model is not None:
        network = unwrapped(model)
        network.load_state_dict(_fitting(_unpack(read_file(path), path), network, path))
        return model.to(choose_device(device)).eval()
    card = _read_card(path)
    content = _described_content(path, card)
    model = _outline(card, path)
    state = _fitting(_unpack(content, path), model, path)
    model = model.to_empty(device="cpu")
    model.load_state_dict(state)
    model.card = card  # type: ignore[assignment]
    return model.to(choose_device(device)).eval()


def load_once(name: str | Path) -> nn.Module:
    """Return `load_model(name)`, kept for the next call until the file changes. It is shared: to ask, not to train."""
    path = _find(name)
    return _kept(path, path.stat().st_mtime_ns if os.path.isfile(path) else 0)


@functools.lru_cache(maxsize=2)
def _kept(path: Path, changed: int) -> nn.Module:
    return load_model(path)


def read_card(name: str | Path) -> dict[str, Any]:
    """Return the card of a saved model as a dict; `name` and errors as for `load_model`."""
    return _read_card(_find(name))


def load_safely(content: bytes, path: Path) -> Any:
    """Return what torch saved in a file of this content; code in it is never run."""
    try:
        if len(content) > LARGEST_FILE:
            raise ArchiveError(f"it has {len(content):,} bytes, and more than {LARGEST_FILE:,} are not read")
        return read_archive(content)
    except ArchiveError as error:
        raise CheckpointError(f"{path} holds no weights that can be read: {error}") from error


def read_file(path: Path) -> bytes:
    """Return a regular file's bytes, or raise CheckpointError."""
    try:
        return read_regular(path, LARGEST_FILE)
    except OSError as error:
        raise CheckpointError(str(error)) from error


def _find(name: str | Path) -> Path:
    """Return the path of the weights of this name, whether they are there or only their card."""
    path = user_path(name)
    if path.suffix == ".pth":
        if path.name != str(name) or os.path.lexists(path) or os.path.lexists(path.with_suffix(".json")):
            return path
        name = path.stem  # no such file is here, but one of that name may be saved
    folders = (runs_folder() / "saved_models", published_folder("saved_models"))
    found = [path for folder in folders for path in sorted(folder.glob("*.*"))]
    saved = dict.fromkeys(path.with_suffix(".pth") for path in found if path.suffix in (".pth", ".json"))
    for path in saved:
        if path.stem in (name, file_name(str(name))):
            return path
    for path in saved:
        if _card_entry(path, "recipe") == name:
            return path
    known = ", ".join(dict.fromkeys(path.stem for path in saved)) or "none"
    raise CheckpointError(f"no weights of {name!r} are saved in {folders[0]} or {folders[1]}; those that are: {known}")


def _read_card(path: Path) -> dict[str, Any]:
    """Return the card beside the weights at `path`."""
    file = path.with_suffix(".json")
    try:
        card = read_object(file)
        check_fields(card, ["format"], {})
        if card["format"] == FORMAT:
            check_fields(card, DESCRIBED)
    except OSError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"{file} is no card: {error}") from error
    if card["format"] != FORMAT:
        raise CheckpointError(f"{file} has format {card['format']!r:.100}, and this version reads {FORMAT}")
    return card


def _card_entry(path: Path, key: str) -> Any:
    """Return what the card beside the weights at `path` says of `key`, or None."""
    try:
        return read_object(path.with_suffix(".json")).get(key)
    except (OSError, ValueError):
        return None


def _unpack(content: bytes, path: Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a weights file."""
    state = load_safely(content, path)
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict: save weights with torch.save(model.state_dict(), path)")
    return state


def _fitting(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the state dict under the model's names, or say which layer is the first that differs or is no number."""
    ours, theirs = _by_plain_name(model.state_dict()), _by_plain_name(state)
    first, own_first = next(iter(theirs)), next(iter(ours), "")
    prefix = first.removesuffix(own_first) if first.endswith(own_first) else ""
    theirs = {name.removeprefix(prefix): value for name, value in theirs.items()}
    for name, value in ours.items():
        if name not in theirs and name.split(".")[-1] == "num_batches_tracked":  # a count that old files do not have
            theirs[name] = torch.zeros_like(value, device="cpu")
        if name not in theirs:
            raise CheckpointError(f"{path} does not fit this model: it has no {name}, which is {_shape(value)} here")
        if theirs[name].shape != value.shape:
            raise CheckpointError(
                f"{path} does not fit this model: its {name} is {_shape(theirs[name])}, and {_shape(value)} here"
            )
        if not theirs[name].isfinite().all():
            raise CheckpointError(f"{path} holds infinite numbers or NaN in {name}: its training has diverged")
    if surplus := [name for name in theirs if name not in ours]:
        raise CheckpointError(f"{path} does not fit this model, which has no {surplus[0]}")
    return dict(zip(model.state_dict(), (theirs[name] for name in ours)))


def _by_plain_name(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict, in its order, without the wrappers in its names, unless two layers would then be one."""
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): state[name] for name in state}
    return plain if len(plain) == len(state) else dict(state)


def _described_content(path: Path, card: dict[str, Any]) -> bytes:
    """Return the content of the weights that a card describes, whatever a process that was killed left of a pair."""
    for one in (path, previous_of(path)):
        if one.exists() and sha256(content := read_file(one)) == card.get("sha256"):
            return content
    if not path.exists():
        raise CheckpointError(f"only the card of {path.stem} is kept ({path.with_suffix('.json')}), not its weights")
    raise CheckpointError(f"{path} is damaged or is not the file its card describes: its SHA-256 differs")


def _is_described(path: Path) -> bool:
    """Tell whether there are weights at `path` that the card beside them describes."""
    try:
        return sha256(read_file(path)) == _card_entry(path, "sha256")
    except CheckpointError:
        return False


def _write_pair(path: Path, content: bytes, card: dict[str, Any]) -> None:
    """Write weights and their card; what the old card describes stays beside them until the new card is there."""
    previous = previous_of(path)
    write_atomically(path, content, previous if _is_described(path) else None)
    write_atomically(path.with_suffix(".json"), json.dumps({**card, "sha256": sha256(content)}, indent=1) + "\n")
    previous.unlink(missing_ok=True)


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "a single number"


def _outline(card: dict[str, Any], path: Path) -> nn.Module:
    """Return the card's architecture without memory for its numbers."""
    try:
        return outline(card["model"], **card["model_arguments"])
    except Exception as error:  # whatever arguments that do not fit provoke in building the model
        raise CheckpointError(f"{path.with_suffix('.json')} describes no model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Return an error's type and its first informative line (torch begins with a heading)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[min(1, len(lines) - 1)] if lines else ''}"
