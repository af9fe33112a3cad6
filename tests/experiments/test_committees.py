from dataclasses import replace

import pytest
import torch

from mnist_helpers.__main__ import main
from mnist_helpers.evaluation.scores import score_on_test
from mnist_helpers.experiments import committees, records
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.models.averaged import committee
from mnist_helpers.models.saved import CheckpointError, load_model

pytestmark = pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")


@pytest.fixture
def trio(project, monkeypatch):
    """A committee recipe of three small members, two of them alike."""
    one, other = replace(RECIPES["speed_99"], name="one"), replace(RECIPES["tiny_2k"], name="other")
    members = one, other, one
    networks = [(member.model, member.model_arguments) for member in members]
    names = tuple(member.name for member in members)
    committee = {"model": "committee_of", "model_arguments": {"members": networks}, "members": names}
    trio = replace(members[0], name="trio", **committee)
    for recipe in (one, other, trio):
        monkeypatch.setitem(RECIPES, recipe.name, recipe)
    return trio


def test_a_committee_is_scored_as_its_members_together(trio):
    record = committees.record_committee(trio, 1, device="cpu", allow_sample=True, progress=False)
    members = ("one", 2), ("other", 1), ("one", 3)
    made = {(one["recipe"], one["seed"]): one for one in records.load_records()}
    paths = [records.member_path(made[member]) for member in members]
    scores = [score_on_test(load_model(path, "cpu"), source="sklearn-digits") for path in paths]
    together = committee([score.logits for score in scores])
    assert record["test_predictions"] == "".join(str(digit) for digit in together.argmax(1).tolist())
    alone = [one for one in records.load_records() if one["recipe"] in trio.members]
    assert sorted((one["recipe"], one["seed"]) for one in alone) == sorted(members)
    for total in ("seconds", "epochs", "parameters"):
        assert record[total] == pytest.approx(sum(one[total] for one in alone), abs=0.02), total


def test_members_are_trained_once(trio, monkeypatch):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    trained, run = [], records.run

    def counted(recipe, *given, **more):
        trained.append(recipe.name)
        return run(recipe, *given, **more)

    monkeypatch.setattr(records, "run", counted)
    records.record_run("other", 0, **options)
    first = committees.record_committee(trio, 0, **options)
    assert trained == ["other", "trio", "one", "one"], "the committee's other members alone"
    assert committees.record_committee(trio, 0, **options) == first and len(trained) == 4


def test_a_member_whose_weights_are_gone_is_named(trio):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    records.member_path(records.record_run("one", 0, **options)).unlink()
    with pytest.raises(CheckpointError, match="one-sklearn-digits-[0-9]+-cpu-seed0"):
        committees.record_committee(trio, 0, **options)


def test_the_command_line_trains_committees_too(trio, capsys):
    assert main(["train", "trio", "--device", "cpu", "--allow-sample"]) == 0
    out = capsys.readouterr().out
    assert "trio, seed 0" in out and "validation not scored, test " in out
    assert {one["recipe"] for one in records.load_records()} == {"one", "other", "trio"}


@pytest.mark.parametrize("recipe", [one for one in RECIPES.values() if one.members], ids=lambda one: one.name)
def test_members_see_images_as_their_committee_does(recipe):
    members = [RECIPES[name] for name in recipe.members]
    assert {member.normalisation for member in members} == {recipe.normalisation}
    assert [(one.model, one.model_arguments) for one in members] == recipe.model_arguments["members"]


def test_several_processes_are_told_to_leave_it_to_one(trio, monkeypatch):
    monkeypatch.setattr(committees, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="train trio without torchrun"):
        committees.record_committee(trio, 0, device="cpu", allow_sample=True)


def test_no_committee_takes_the_weights_of_another_run_of_its_member(trio):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    whole = records.record_run("one", 0, **options)
    weights = load_model(records.member_path(whole), "cpu").state_dict()
    short = records.record_run("one", 0, limit=100, **options)
    assert records.member_path(short) != records.member_path(whole)
    ours = load_model(records.member_path(whole), "cpu").state_dict()
    assert all(torch.equal(ours[name], weights[name]) for name in weights)
