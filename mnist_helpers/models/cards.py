"""What cards and records may say: every field that is read from one, checked as a whole when the file is read."""

import json
import reprlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files import read_regular

LARGEST = 4_000_000  # bytes of a card or record: thousands of epochs


class Rule(NamedTuple):
    """What a field's value must be, in words and as a test."""

    wanted: str
    holds: Callable[[Any], bool]


def _number(low: float, high: float, *, whole: bool = False) -> Rule:
    kinds = (int,) if whole else (int, float)
    wanted = f"a {'whole ' * whole}number from {low:,} to {high:,}"
    return Rule(wanted, lambda value: type(value) in kinds and low <= value <= high)  # NaN is in no range


def _or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.wanted}, or null", lambda value: value is None or rule.holds(value))


TEXT = Rule(
    "text in one line of at most 300 characters, without |, < and >",
    lambda value: isinstance(value, str) and len(value) <= 300 and value.isprintable() and not set(value) & set("|<>"),
)
OBJECT = Rule("an object", lambda value: isinstance(value, dict))
SETTINGS = Rule(
    "an object, whose normalisation is a name",
    lambda value: isinstance(value, dict) and isinstance(value.get("normalisation", ""), str),
)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
CHECKSUM = Rule(
    "64 hexadecimal digits",
    lambda value: isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"),
)
ANSWERS = Rule(
    "a text of digits", lambda value: isinstance(value, str) and set(value) <= set("0123456789x")
)  # x: no digit
COUNT = _number(1, 10**15, whole=True)
SECONDS = _number(0, 1e12)
LOSS = _number(-0.01, 1e30)  # sums of rounded logarithms may lie below 0
PERCENT = _number(0, 100)
EPOCH = {
    "epoch": COUNT,
    "train_loss": LOSS,
    "train_accuracy": PERCENT,
    "validation_loss": _or_null(LOSS),
    "validation_accuracy": _or_null(PERCENT),
    "learning_rate": _number(0, 1e30),
    "seconds": SECONDS,
}
EPOCHS = Rule(
    "a list of epochs",
    lambda value: (
        isinstance(value, list) and all(isinstance(one, dict) and one.keys() == EPOCH.keys() for one in value)
    ),
)
FIELDS = {
    **dict.fromkeys(("recipe", "varied", "source", "device", "device_name", "precision", "stopped"), TEXT),
    **dict.fromkeys(("model", "weights"), TEXT),
    **dict.fromkeys(("model_arguments", "changes", "versions", "data", "split"), OBJECT),
    **dict.fromkeys(("n_digits", "trained_on", "parameters"), COUNT),
    **dict.fromkeys(("validation_accuracy", "test_accuracy"), _or_null(PERCENT)),
    **dict.fromkeys(("validation_loss", "test_loss"), _or_null(LOSS)),
    "settings": SETTINGS,
    "seed": _number(0, 2**63 - 1, whole=True),
    "quick": FLAG,
    "limit": _or_null(COUNT),
    "threads": _number(1, 1024, whole=True),
    "processes": _number(1, 10**6, whole=True),
    "epochs": _number(0, 10**9, whole=True),
    "seconds": SECONDS,
    "test_predictions": _or_null(ANSWERS),
    "history": EPOCHS,
    "sha256": CHECKSUM,
}


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ValueError: there is none in it.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(read_regular(path, LARGEST))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"it is {reprlib.repr(found)}, not an object")
    return found


def check_fields(
    found: Mapping[str, Any], required: Collection[str] = (), rules: Mapping[str, Rule] = FIELDS, within: str = ""
) -> None:
    """Raise ValueError, with the field's name, if one is missing or is not what its rule wants."""
    if missing := sorted(set(required) - set(found)):
        raise ValueError(f"it has no {' and no '.join(missing)}")
    for name, value in found.items():
        if name in rules and not rules[name].holds(value):
            raise ValueError(f"{within}{name} is {reprlib.repr(value)}, and not {rules[name].wanted}")
    if rules is FIELDS:
        for number, epoch in enumerate(found.get("history", ())):
            check_fields(epoch, rules=EPOCH, within=f"history[{number}].")
