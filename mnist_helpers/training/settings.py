"""What optimizer and schedule were made with: what goes on must go on with the same."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np

from ..models.saved import CheckpointError

STEPS_COMPARED = 100  # of a schedule's function, which cannot be compared but by its values
NO_SETTINGS = {  # in the states of optimizers and schedules: what changes in training, or only how fast it goes
    *("foreach", "fused", "capturable", "differentiable"),
    *("last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step"),
    *("T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter"),
}
DERIVED = {"base_lrs", "end_step"}  # named only where nothing else differs


def settings_of(optimizer: Any, scheduler: Any, per_batch: bool) -> dict[str, Any]:
    """Return a copy of what an optimizer and a schedule, or None, are made with, in the form of their states."""
    schedule = None if scheduler is None else _schedule(scheduler)
    return deepcopy({"groups": _groups(optimizer.param_groups), "schedule": schedule, "per_batch": per_batch})


def _groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings in an optimizer's groups; of a rate or momentum that a schedule moves, where it began."""
    settings = [dict(group) for group in groups]
    for group in settings:
        del group["params"]
        if "initial_lr" in group:
            group["lr"] = group.pop("initial_lr")
        if "max_momentum" in group:
            group.pop("momentum", None)
            group["betas"] = group.get("betas", ())[1:]
    return settings


def _schedule(scheduler: Any) -> dict[str, Any]:
    """Return a schedule's state, and with it what states lack: the classes of its parts, its functions by values."""
    settings = {"schedule": type(scheduler).__name__, **scheduler.state_dict()}
    if isinstance(settings.get("milestones"), Counter):
        settings["milestones"] = sorted(settings["milestones"].elements())
    functions = [*getattr(scheduler, "lr_lambdas", ()), getattr(scheduler, "_scale_fn_custom", None)]
    settings["lr_lambda"] = [_values(function) for function in functions if callable(function)]
    if "_schedulers" in settings:
        settings["_schedulers"] = [_schedule(part) for part in scheduler._schedulers]
    return settings


def _values(function: Callable[[int], Any]) -> list[Any]:
    """Return what a schedule's function gives for its first steps, as far as it can."""
    values = []
    with suppress(Exception):  # after its last step it may raise anything
        for step in range(STEPS_COMPARED):
            values.append(function(step))
    return values


def check_settings(state: dict[str, Any], ours: dict[str, Any] | None) -> None:
    """Raise CheckpointError where the training that a state is of began with other settings than `ours`.

    Optimizer and schedule may be new, or those that were used until the state was kept.
    """
    begun = state.get("begun")
    if begun is None or ours is None:
        return
    _, optimizer, schedule = state["states"]
    now = {"groups": _groups(optimizer["param_groups"]), "schedule": schedule}
    found: dict[str, str] = {}
    for name, old, new in _differences("", begun, now, ours):
        found.setdefault(name, f"{name.strip('_')} {old}, not {new}")
    named = [text for name, text in found.items() if name not in DERIVED] or [*found.values()]
    if named:
        raise CheckpointError(
            f"the state of training has {'; '.join(named)}: give the settings that it began with, remove it, or train "
            "without resume"
        )


def _differences(name: str, begun: Any, now: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, begun, ours) of each setting that is neither what it was at the beginning nor what it is now."""
    if type(begun) is type(ours) is dict:
        now = now if type(now) is dict else {}
        for key in (key for key in begun if key in ours and key not in NO_SETTINGS):
            yield from _differences(key, begun[key], now.get(key, begun[key]), ours[key])
    elif _alike(begun, ours) or (name == "lr_lambda" and isinstance(begun, list)):
        for parts in zip(begun, now if _alike(begun, now) else begun, ours):
            yield from _differences(name, *parts)
    elif not any(bool(ours == one) for one in (begun, now)):
        yield "learning rate lr" if name == "lr" else name, begun, ours


def _alike(one: Any, other: Any) -> bool:
    """Tell whether both are lists or tuples, and equally long."""
    return isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other)


def plain(value: Any) -> Any:
    """Return a state with NumPy's numbers, which `load_safely` does not read, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {name: plain(one) for name, one in value.items()}
    return type(value)(plain(one) for one in value) if type(value) in (list, tuple) else value
