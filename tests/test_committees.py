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
    member = replace(RECIPES["speed_99"], name="member")
    arguments = {"model": member.model, "model_arguments": member.model_arguments, "n_members": 2}
    pair = replace(member, name="pair", model="committee_of", model_arguments=arguments, member="member")
    monkeypatch.setitem(RECIPES, "member", member)
    monkeypatch.setitem(RECIPES, "pair", pair)
    return pair


def test_a_committee_is_scored_as_its_members_together(pair):
    record = committees.record_committee(pair, 1, device="cpu", allow_sample=True, progress=False)
    cpu = torch.device("cpu")
    members = [load_model(records.member_path(RECIPES["member"], seed, cpu), "cpu") for seed in (2, 3)]
    scores = [score_on_test(member, source="sklearn-digits") for member in members]
    together = committee([score.logits for score in scores])
    assert record["test_predictions"] == "".join(str(digit) for digit in together.argmax(1).tolist())
    alone = records.load_records()
    seconds = [one["seconds"] for one in alone if one["recipe"] == "member"]
    assert len(seconds) == 2 and record["seconds"] == pytest.approx(sum(seconds), abs=0.02)
    assert record["epochs"] == 2 and record["parameters"] == 2 * alone[0]["parameters"]
    assert {one["seed"] for one in alone if one["recipe"] == "member"} == {2, 3}


def test_members_are_trained_once(pair, monkeypatch):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    trained, run = [], records.run

    def counted(recipe, *given, **more):
        trained.append(recipe.name)
        return run(recipe, *given, **more)

    monkeypatch.setattr(records, "run", counted)
    records.record_run("member", 1, **options)
    first = committees.record_committee(pair, 0, **options)
    assert trained == ["member", "pair", "member"], "the committee's other member alone"
    assert committees.record_committee(pair, 0, **options) == first and len(trained) == 3


def test_a_member_whose_weights_are_gone_is_named(pair):
    options = {"device": "cpu", "allow_sample": True, "progress": False}
    records.record_run("member", 0, **options)
    records.member_path(RECIPES["member"], 0, torch.device("cpu")).unlink()
    with pytest.raises(CheckpointError, match="member-cpu-seed0"):
        committees.record_committee(pair, 0, **options)


def test_the_command_line_trains_committees_too(pair, capsys):
    assert main(["train", "pair", "--device", "cpu", "--allow-sample"]) == 0
    out = capsys.readouterr().out
    assert "pair, seed 0" in out and "validation not scored, test " in out
    assert {one["recipe"] for one in records.load_records()} == {"member", "pair"}


def test_several_processes_are_told_to_leave_it_to_one(pair, monkeypatch):
    monkeypatch.setattr(committees, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="train pair without torchrun"):
        committees.record_committee(pair, 0, device="cpu", allow_sample=True)
