"""Trained weights on disk: a state dict (`.pth`) and a JSON card beside it that tells how to rebuild the model."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..environment import choose_device, project_root, runs_folder, seeded
from ..files import previous_of, sha256, write_atomically
from . import build_model, unwrapped

FORMAT = 1  # of the cards; a reader refuses others

NO_CARD = (OSError, ValueError, KeyError, TypeError, RecursionError)  # what reading a file that is no card raises


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
    path = Path(path)
    if path.suffix != ".pth":
        raise ValueError(f"weights are saved in a .pth file, not in {path.name}")
    state = {name: value.detach().cpu() for name, value in unwrapped(model).state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    try:
        _rebuild(card).load_state_dict(state)  # what could not be loaded again must not be written
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"the card does not describe this model: {_first_line(error)}") from error
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    card = {"format": FORMAT, **card, "weights": "float16" if half else "float32", "sha256": sha256(content)}
    previous = previous_of(path)  # what the old card describes, until the new card is there
    write_atomically(path, content, previous if _is_described(path) else None)
    write_atomically(path.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    previous.unlink(missing_ok=True)


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
    try:
        with torch.device("meta"):  # without memory: a card may ask for any width
            outline = _rebuild(card)
    except Exception as error:  # whatever arguments that do not fit provoke in building the model
        raise CheckpointError(f"{path.with_suffix('.json')} describes no model: {_first_line(error)}") from error
    state, model = _fitting(_unpack(content, path), outline, path), _rebuild(card)
    model.load_state_dict(state)
    model.card = card  # type: ignore[assignment]
    return model.to(choose_device(device)).eval()


def load_once(name: str | Path) -> nn.Module:
    """Return `load_model(name)`, kept for the next call until the file changes. It is shared: to ask, not to train."""
    path = _find(name)
    return _kept(path, path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=2)
def _kept(path: Path, changed: int) -> nn.Module:
    return load_model(path)


def read_card(name: str | Path) -> dict[str, Any]:
    """Return the card of a saved model as a dict; `name` and errors as for `load_model`."""
    return _read_card(_find(name))


def load_safely(content: bytes, path: Path) -> Any:
    """Return what torch saved in a file of this content; code in it is never run."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an unsuitable file provokes within torch, whose advice is to run the code
        raise CheckpointError(
            f"{path} holds no weights that can be read: it is damaged, was not written by torch.save, or holds more "
            f"than tensors and plain values ({type(error).__name__})"
        ) from error


def read_file(path: Path) -> bytes:
    """Return a file's bytes, or raise CheckpointError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _find(name: str | Path) -> Path:
    """Return the path of the weights of this name, whether they are there or only their card."""
    if str(name).endswith(".pth"):
        return Path(name)
    folders = (runs_folder() / "saved_models", project_root() / "saved_models")
    found = [path for folder in folders for path in sorted(folder.glob("*.*"))]
    saved = dict.fromkeys(path.with_suffix(".pth") for path in found if path.suffix in (".pth", ".json"))
    for path in saved:
        if path.stem == name:
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
        card = json.loads(read_file(file))
        version = card["format"]
    except NO_CARD as error:
        raise CheckpointError(f"{file} is no card: {_first_line(error)}") from error
    if version != FORMAT:
        raise CheckpointError(f"{file} has format {version}, and this version reads {FORMAT}")
    return card


def _card_entry(path: Path, key: str) -> Any:
    """Return what the card beside the weights at `path` says of `key`, or None."""
    try:
        return json.loads(path.with_suffix(".json").read_bytes())[key]
    except NO_CARD:
        return None


def _unpack(content: bytes, path: Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a weights file."""
    state = load_safely(content, path)
    if not isinstance(state, dict) or not state or not all(_is_plain(*one) for one in state.items()):
        raise CheckpointError(f"{path} holds no state dict: save weights with torch.save(model.state_dict(), path)")
    return state


def _is_plain(name: Any, value: Any) -> bool:
    """Tell whether an entry is a layer's name and its numbers, each of which takes its place in the file."""
    if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_nested or value.is_quantized:
        return False
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_complex():
        return False
    return value.nbytes <= value.untyped_storage().nbytes()  # else few bytes could ask for any memory


def _fitting(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the state dict under the model's names, or say which layer is the first that differs or is no number."""
    ours, first = model.state_dict(), next(iter(state))
    own_first = next(iter(ours), "")
    prefix = first.removesuffix(own_first) if first.endswith(own_first) else ""
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    for name, value in ours.items():
        if name not in state:
            raise CheckpointError(f"{path} does not fit this model: it has no {name}, which is {_shape(value)} here")
        if state[name].shape != value.shape:
            raise CheckpointError(
                f"{path} does not fit this model: its {name} is {_shape(state[name])}, and {_shape(value)} here"
            )
        if not state[name].isfinite().all():
            raise CheckpointError(f"{path} holds infinite numbers or NaN in {name}: its training has diverged")
    if surplus := [name for name in state if name not in ours]:
        raise CheckpointError(f"{path} does not fit this model, which has no {surplus[0]}")
    return state


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
    return path.exists() and sha256(path.read_bytes()) == _card_entry(path, "sha256")


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "a single number"


def _rebuild(card: dict[str, Any]) -> nn.Module:
    """Return the card's architecture with weights that are about to be replaced."""
    with seeded(0):
        return build_model(card["model"], **card["model_arguments"])


def _first_line(error: Exception) -> str:
    """Return an error's type and its first informative line (torch begins with a heading)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[min(1, len(lines) - 1)] if lines else ''}"
