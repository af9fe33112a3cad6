import pytest
import torch
from faults import Malicious

from mnist_helpers import files
from mnist_helpers.environment import seeded
from mnist_helpers.models import mlp_baseline
from mnist_helpers.models.saved import CheckpointError
from mnist_helpers.training.resume import SEAL, load_state, save_state


def test_a_state_of_training_comes_back_as_it_was(tmp_path):
    with seeded(0):
        model = mlp_baseline(width=8)
    state = {"epochs": [{"epoch": 1, "train_loss": 0.1 + 0.2}], "parts": [model.state_dict(), None, [1e-3, True, ""]]}
    save_state(tmp_path / "new" / "state.pt", state)
    found = load_state(str(tmp_path / "new" / "state.pt"))
    assert found["epochs"] == state["epochs"] and found["parts"][1:] == state["parts"][1:]
    assert all(torch.equal(found["parts"][0][name], value) for name, value in model.state_dict().items())
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


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-40],
    "a flipped bit": lambda content: content[:-300] + bytes([content[-300] ^ 1]) + content[-299:],
    "a newer format": lambda content: content.replace(SEAL, b"state of training 3 "),
    "without a checksum": lambda content: content.partition(b"\n")[2],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_instead_of_a_damaged_state_the_copy_or_the_one_before_is_taken(tmp_path, damage):
    path, copy = tmp_path / "state.pt", tmp_path / "drive"
    copy.mkdir()
    for epoch in (1, 2, 3):
        save_state(path, {"epoch": epoch}, copy if epoch == 3 else None)
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    with pytest.warns(UserWarning, match=rf"{path} is damaged, or no .*: remove it; {path}.previous is"):
        assert load_state(path) == {"epoch": 2}
    with pytest.warns(UserWarning, match=f"{copy / 'state.pt'} is taken instead"):
        assert load_state(path, copy) == {"epoch": 3}
    files.previous_of(path).unlink()
    with pytest.raises(CheckpointError, match="state.pt is damaged, or no state of training that this version reads"):
        load_state(path)
    path.unlink()
    assert load_state(path, copy) == {"epoch": 3}, "as on a new machine"


def test_code_in_a_state_never_runs(project):
    torch.save({"epoch": Malicious()}, project / "plain.pt")
    content = (project / "plain.pt").read_bytes()
    (project / "state.pt").write_bytes(SEAL + files.sha256(content).encode() + b"\n" + content)
    with pytest.raises(CheckpointError, match="state.pt holds no weights that can be read"):
        load_state("state.pt")
    assert not (project / "pwned").exists()


def test_a_second_copy_that_fails_is_a_warning(tmp_path):
    (tmp_path / "drive").write_text("a drive that has gone")
    with pytest.warns(UserWarning, match="no second copy of the state of training: there is no folder .*drive"):
        save_state(tmp_path / "state.pt", {"epoch": 1}, tmp_path / "drive")
    assert load_state(tmp_path / "state.pt", tmp_path / "drive") == {"epoch": 1}


def test_of_several_states_the_one_with_the_most_epochs_is_taken(tmp_path):
    """As on a machine that was started again from an old image, while the drive has the newer copy."""
    path, drive = tmp_path / "state.pt", tmp_path / "drive"
    drive.mkdir()
    states = [{"epochs": [{}] * n} for n in range(4)]
    save_state(path, states[1], drive)
    save_state(path, states[3], drive)
    save_state(path, states[2])
    assert load_state(path, drive) == states[3] and load_state(path) == states[3]
    files.previous_of(path).write_bytes(b"torn")
    assert len((drive / "state.pt").read_bytes()) > 100
    with pytest.warns(UserWarning, match=f"state.pt.previous is damaged, .*; {drive / 'state.pt'} is taken instead"):
        assert load_state(path, drive) == states[3]


def test_a_drive_that_is_not_mounted_is_not_made_on_the_local_disk(tmp_path):
    with pytest.warns(UserWarning, match="no second copy of the state of training: there is no folder .*drive$"):
        save_state(tmp_path / "state.pt", {"epoch": 1}, tmp_path / "drive")
    assert not (tmp_path / "drive").exists()


def test_states_whose_names_differ_after_a_dot_have_files_of_their_own(tmp_path):
    for name in ("lr_0.1", "lr_0.01"):
        for epoch in (1, 2):
            save_state(tmp_path / name, {"run": name, "epoch": epoch})
    (tmp_path / "lr_0.1").unlink()
    assert load_state(tmp_path / "lr_0.1") == {"run": "lr_0.1", "epoch": 1}


def test_what_could_not_be_read_again_is_not_written_and_said_in_our_words(tmp_path):
    save_state(tmp_path / "state.pt", {"epoch": 1})
    with pytest.raises(
        CheckpointError, match="could not be read again, so it is not kept: .*there is .* in it"
    ) as caught:
        save_state(tmp_path / "state.pt", {"epoch": Malicious()})
    assert "weights_only" not in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert load_state(tmp_path / "state.pt") == {"epoch": 1}
