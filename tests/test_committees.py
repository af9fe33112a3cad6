from dataclasses import replace

import pytest
import torch

from mnist_helpers import committees, records
from mnist_helpers.__main__ import main
from mnist_helpers.checkpoints import CheckpointError, load_model
from mnist_helpers.evaluation import score_on_test
from mnist_helpers.models.averaged import committee
from mnist_helpers.recipes import RECIPES

pytestmark = pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")


@pytest.fixture
def pair(project, monkeypatch):
    """A committee recipe of two small members."""
    members = replace(RECIPES["speed_99"], name="one"), replace(RECIPES["tiny_2k"], name="other")
    networks = [(member.model, member.model_arguments) for member in members]
    committee = {"model": "committee_of", "model_arguments": {"members": networks}, "members": ("one", "other")}
    pair = replace(members[0], name="pair", **committee)
    for recipe in (*members, pair):
        monkeypatch.setitem(RECIPES, recipe.name, recipe)
    return pair


def test_a_committee_is_scored_as_its_members_together(pair):
    record = committees.record_committee(pair, 1, device="cpu", allow_sample=True, progress=False)
    paths = [records.member_path(RECIPES[name], 1, torch.device("cpu")) for name in pair.members]
    scores = [score_on_test(load_model(path, "cpu"), source="sklearn-digits") for path in paths]
    together = committee([score.logits for score in scores])
    assert record["test_predictions"] == "".join(str(digit) for digit in together.argmax(1).tolist())
    alone = [one for one in records.load_records() if one["recipe"] in pair.members]
    assert len(alone) == 2 and {one["seed"] for one in alone} == {1}
    for total in ("seconds", "epochs", "parameters"):
        assert record[total] == pytest.approx(sum(one[total] for one in alone), abs=0.02), total


def test_members_are_trained_once(pair, monkeypatch):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    trained, run = [], records.run

    def counted(recipe, *given, **more):
        trained.append(recipe.name)
        return run(recipe, *given, **more)

    monkeypatch.setattr(records, "run", counted)
    records.record_run("other", 0, **options)
    first = committees.record_committee(pair, 0, **options)
    assert trained == ["other", "pair", "one"], "the committee's other member alone"
    assert committees.record_committee(pair, 0, **options) == first and len(trained) == 3


def test_a_member_whose_weights_are_gone_is_named(pair):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    records.record_run("one", 0, **options)
    records.member_path(RECIPES["one"], 0, torch.device("cpu")).unlink()
    with pytest.raises(CheckpointError, match="one-cpu-seed0"):
        committees.record_committee(pair, 0, **options)


def test_the_command_line_trains_committees_too(pair, capsys):
    assert main(["train", "pair", "--device", "cpu", "--allow-sample"]) == 0
    out = capsys.readouterr().out
    assert "pair, seed 0" in out and "validation not scored, test " in out
    assert {one["recipe"] for one in records.load_records()} == {"one", "other", "pair"}


@pytest.mark.parametrize("recipe", [one for one in RECIPES.values() if one.members], ids=lambda one: one.name)
def test_members_see_images_as_their_committee_does(recipe):
    members = [RECIPES[name] for name in recipe.members]
    assert {member.normalisation for member in members} == {recipe.normalisation}
    assert [(one.model, one.model_arguments) for one in members] == recipe.model_arguments["members"]


def test_several_processes_are_told_to_leave_it_to_one(pair, monkeypatch):
    monkeypatch.setattr(committees, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="train pair without torchrun"):
        committees.record_committee(pair, 0, device="cpu", allow_sample=True)
