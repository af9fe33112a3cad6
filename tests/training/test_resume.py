import re

import pytest
import torch
from faults import Malicious, start, wait

from mnist_helpers import files
from mnist_helpers.environment import seeded
from mnist_helpers.models import mlp_baseline
from mnist_helpers.models.saved import CheckpointError
from mnist_helpers.training.resume import load_state, save_state


def test_a_state_of_training_comes_back_as_it_was(tmp_path):
    with seeded(0):
        model = mlp_baseline(width=8)
    state = {"epochs": [{"epoch": 1, "train_loss": 0.1 + 0.2}], "states": [model.state_dict(), None, [1e-3, True, ""]]}
    save_state(tmp_path / "new" / "state.pt", state)
    found = load_state(str(tmp_path / "new" / "state.pt"))
    assert found["epochs"] == state["epochs"] and found["states"][1:] == state["states"][1:]
    assert all(torch.equal(found["states"][0][name], value) for name, value in model.state_dict().items())
    assert load_state(tmp_path / "none.pt") is None


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_state_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch, broken):
    save_state(tmp_path / "state.pt", {"epoch": 1})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, broken, fail)
    with pytest.raises(OSError, match="is full: free"):
        save_state(tmp_path / "state.pt", {"epoch": 2})
    assert load_state(tmp_path / "state.pt") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


NUMBERS = torch.arange(1000.0)


def flipped(content):
    """Flip one bit of a number in a tensor, which torch alone would load."""
    place = content.index(NUMBERS.numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-40],
    "a flipped bit": flipped,
    "something else": lambda content: b"PK\x03\x04 torn",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_instead_of_a_damaged_state_the_one_before_is_taken(tmp_path, damage):
    path = tmp_path / "state.pt"
    for epoch in (1, 2, 3):
        save_state(path, {"epoch": epoch, "numbers": NUMBERS})
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{path} is damaged, or no .*: remove it; {path}.previous is taken instead"):
        assert load_state(path)["epoch"] == 2
    files.previous_of(path).unlink()
    with pytest.raises(CheckpointError, match="state.pt is damaged, or no state of training "):
        load_state(path)


def test_what_is_no_state_of_this_version_is_refused(tmp_path):
    for content in ({"format": 4, "epochs": []}, {"0.weight": NUMBERS}, [1, 2]):
        torch.save(content, tmp_path / "state.pt")
        with pytest.raises(CheckpointError, match="state.pt is no state of training that this version reads"):
            load_state(tmp_path / "state.pt")


def test_code_in_a_state_never_runs(project):
    torch.save({"epoch": Malicious()}, project / "state.pt")
    with pytest.raises(CheckpointError, match="state.pt is damaged, or no state of training "):
        load_state("state.pt")
    assert not (project / "pwned").exists()


def test_states_whose_names_differ_after_a_dot_have_files_of_their_own(tmp_path):
    for name in ("lr_0.1", "lr_0.01"):
        for epoch in (1, 2):
            save_state(tmp_path / name, {"run": name, "epoch": epoch})
    (tmp_path / "lr_0.1").unlink()
    assert load_state(tmp_path / "lr_0.1") == {"run": "lr_0.1", "epoch": 1}


def test_what_could_not_be_read_again_is_not_written_and_said_in_our_words(tmp_path):
    save_state(tmp_path / "state.pt", {"epoch": 1})
    with pytest.raises(CheckpointError, match="could not be read again, so it is not kept: .*holds more") as caught:
        save_state(tmp_path / "state.pt", {"epoch": Malicious()})
    assert not re.search("weights_only|\n", str(caught.value))
    assert load_state(tmp_path / "state.pt") == {"epoch": 1}


def test_two_processes_that_save_one_state_both_succeed(tmp_path):
    path = tmp_path / "state.pt"

    def save():
        for epoch in range(100):
            save_state(path, {"epoch": epoch, "numbers": NUMBERS})
        return "saved"

    assert [wait(*process) for process in [start(save), start(save)]] == ["saved", "saved"]
    assert load_state(path)["epoch"] == 99 and len(list(tmp_path.iterdir())) == 2
