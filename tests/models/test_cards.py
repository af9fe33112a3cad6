"""Every field of a card is checked when the card is read, and a fault is one sentence that names file and field."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from mnist_helpers.environment import seeded
from mnist_helpers.models import mlp_baseline
from mnist_helpers.models.cards import EPOCH, FIELDS, LARGEST, check_fields
from mnist_helpers.models.saved import CheckpointError, load_model, read_card, save_model
from mnist_helpers.training.history import EpochResult

ROOT = Path(__file__).parent.parent.parent
CARD = {"model": "mlp_baseline", "model_arguments": {"width": 8}}
ODD = (None, [], [1], {"a": 1}, "text\n", "x" * 1000, -5, 0.5, math.nan, math.inf, 10**400, True)


@pytest.fixture
def saved(tmp_path):
    with seeded(0):
        save_model(mlp_baseline(8), tmp_path / "small.pth", CARD)
    return tmp_path / "small.pth"


def test_the_committed_cards_and_records_say_what_they_may():
    for folder in ("records", "saved_models"):
        found = [
            json.loads(path.read_text()) for path in (ROOT / folder).rglob("*.json") if path.parent.name != "records"
        ]
        for one in found:
            check_fields(one)
            assert set(one) <= {*FIELDS, "format"}, "every field has a rule"
        assert len(found) > 15
    assert list(EPOCH) == [field.name for field in fields(EpochResult)]


def test_a_field_that_is_not_what_it_must_be_is_named(saved):
    card = json.loads(saved.with_suffix(".json").read_text())
    refused = {name: 0 for name in FIELDS}
    for name in FIELDS:
        for value in ODD:
            saved.with_suffix(".json").write_text(json.dumps({**card, name: value}))
            try:
                load_model(saved, "cpu")
            except CheckpointError as error:
                assert len(str(error).splitlines()) == 1 and len(str(error)) < 500
                refused[name] += f"small.json is no card: {name} is " in str(error)
    assert min(refused.values()) >= 7, refused
    epoch = {**dict.fromkeys(EPOCH, 0.5), "epoch": 1}
    check_fields({"history": [epoch]})
    for name in EPOCH:
        for value in ("1", math.nan, [], True):
            with pytest.raises(ValueError, match=rf"history\[1\].{name} is .*, and not a "):
                check_fields({"history": [epoch, {**epoch, name: value}]})
    for history in ([{}], [{**epoch, "more": 1}], [None], "none"):
        with pytest.raises(ValueError, match="history is .*, and not a list of epochs"):
            check_fields({"history": history})


def test_what_the_issue_names_is_refused(saved):
    card = json.loads(saved.with_suffix(".json").read_text())
    for change, said in (
        ({"limit": -5}, "limit is -5, and not a whole number from 1 to"),
        ({"seed": [1]}, r"seed is \[1\], and not a whole number from 0 to"),
        ({"threads": 10**9}, "threads is 1000000000, and not a whole number from 1 to 1,024"),
        ({"settings": {"normalisation": [1]}}, "settings is .*, and not an object, whose normalisation is a name"),
        ({"format": None}, "has format None, and this version reads 1"),
        ({"sha256": 5}, "sha256 is 5, and not 64 hexadecimal digits"),
    ):
        saved.with_suffix(".json").write_text(json.dumps({**card, **change}))
        with pytest.raises(CheckpointError, match=f"small.json .*{said}"):
            read_card(saved)
    saved.with_suffix(".json").write_text(" " * LARGEST + json.dumps(card))
    with pytest.raises(CheckpointError, match="small.json has .* bytes: files of more than 4,000,000"):
        read_card(saved)


def test_a_card_that_could_not_be_read_is_not_written(saved):
    before = saved.read_bytes(), saved.with_suffix(".json").read_bytes()
    with pytest.raises(ValueError, match="this model cannot be saved with this card: seed is 'first', and not"):
        save_model(mlp_of_zeros(), saved, {**CARD, "seed": "first"})
    assert (saved.read_bytes(), saved.with_suffix(".json").read_bytes()) == before


def mlp_of_zeros():
    with seeded(0):
        return mlp_baseline(8)
