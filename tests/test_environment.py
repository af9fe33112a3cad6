import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_helpers import environment
from mnist_helpers.environment import (
    choose_device,
    combine_seeds,
    has_bfloat16,
    project_root,
    published_folder,
    quick,
    runs_folder,
    seeded,
)
from mnist_helpers.experiments.distributed import process_group
from mnist_helpers.experiments.tables import result_rows
from mnist_helpers.models.saved import load_model

ROOT = Path(__file__).parent.parent


def test_seeded_repeats_and_differs_between_seeds_and_epochs():
    draws = {}
    for parts in ((0, 1), (1, 0), (0, 2), (0, 1)):
        with seeded(*parts):
            draw = torch.rand(3)
        assert torch.equal(draws.setdefault(parts, draw), draw)
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 3
    assert combine_seeds(0, 1) != combine_seeds(1, 0)


def test_seeded_gives_the_random_state_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ValueError), seeded(0):
        torch.rand(1)
        raise ValueError
    assert torch.equal(torch.get_rng_state(), before)


def test_quick_mode_chooses_the_short_value_and_another_folder(project, monkeypatch):
    assert quick(15, short=2) == 15
    assert runs_folder() == project / "runs"
    monkeypatch.setenv("QUICK", "1")
    assert quick(15, short=2) == 2
    assert runs_folder() == project / "runs" / "quick"
    monkeypatch.setenv("QUICK", "0")
    assert quick(15, short=2) == 15


def test_project_root_is_found_from_a_folder_inside(project, monkeypatch):
    (project / "notebooks").mkdir()
    monkeypatch.chdir(project / "notebooks")
    assert project_root() == project


def test_published_weights_and_records_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert published_folder("records") == ROOT / "records"
    assert load_model("lenet5", "cpu").card["recipe"] == "lenet5"
    assert all(row["seeds"] for row in result_rows() if row["recipe"] != "conv_bn_relu")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "site-packages" / "mnist_helpers")
    assert published_folder("records") == tmp_path / "site-packages" / "mnist_helpers" / "records"
    monkeypatch.chdir(ROOT / "tests")
    assert published_folder("records") == ROOT / "records", "the project that one is in comes first"


def test_a_pyproject_of_any_other_kind_is_passed_over(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    settings = tmp_path / "pyproject.toml"
    for content in ("# für uns".encode("latin-1"), b"\xff\xfe\0", b"", b"#" * 10_000_000):
        settings.write_bytes(content)
        assert project_root() == inner
    settings.unlink()
    settings.mkdir()
    assert project_root() == inner
    settings.rmdir()
    settings.symlink_to(settings)
    assert project_root() == inner
    settings.unlink()
    os.mkfifo(settings)
    assert project_root() == inner
    settings.unlink()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    settings.write_text('name = "mnist_helpers"')
    assert project_root() == tmp_path
    monkeypatch.setattr(environment, "open", refuse, raising=False)
    assert project_root() == inner


def test_what_torchrun_does_not_set_is_one_sentence(monkeypatch):
    whole = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name in whole:
        for value in (None, "", "x", "-1", "2.5"):
            for one, usual in whole.items():
                monkeypatch.setenv(one, usual)
            monkeypatch.setenv(name, value or "") if value is not None else monkeypatch.delenv(name)
            if name == "WORLD_SIZE" and not value:
                with process_group("cpu") as device:
                    assert device == torch.device("cpu")
            elif name != "MASTER_ADDR" or not value:
                with pytest.raises(ValueError, match=f"the environment variable {name} .*: start the processes with"):
                    with process_group("cpu"):
                        pass
    for changed in ({"RANK": "2"}, {"WORLD_SIZE": "0"}):
        for one, usual in (whole | changed).items():
            monkeypatch.setenv(one, usual)
        with pytest.raises(ValueError, match="so there is no such process: start the processes with torchrun"):
            with process_group("cpu"):
                pass


def test_processes_that_do_not_find_one_another_are_one_sentence(monkeypatch):
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "MASTER_ADDR": "h", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))

    def fail(_):
        raise torch.distributed.DistNetworkError("The client socket has failed\nand more")

    monkeypatch.setattr(torch.distributed, "init_process_group", fail)
    with pytest.raises(ValueError, match="find one another at h:1: The client socket has failed$"):
        with process_group("cpu"):
            pass


def test_device_by_name():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cuda", "mps", "cpu")
    for name in ("abacus", "xpu:7", "meta", torch.device("meta"), "hpu", "lazy", "", "cuda:99"):
        with pytest.raises(ValueError) as caught:
            choose_device(name)
        sentence = str(caught.value)
        assert sentence.startswith(f"device {name!r} cannot be used here (")
        assert sentence.endswith("): try 'cpu', or leave it out") and "\n" not in sentence and len(sentence) < 300


def test_bfloat16_is_for_processors_with_instructions_for_it(monkeypatch):
    for capability, expected in {"avx512_bf16": True, "amx_bf16": True, "avx512_f": False}.items():
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=capability: {name: True}, raising=False)
        assert has_bfloat16(torch.device("cpu")) is expected
        assert has_bfloat16(torch.device("mps")) is False
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert has_bfloat16(torch.device("cpu")) is False, "PyTorch 2.10 cannot tell"


def test_what_is_no_seed_is_one_sentence():
    for wrong in (None, -1, 1.5, "0"):
        with pytest.raises(ValueError, match=f"^seed must be a whole number of 0 or more, not {wrong!r}$"):
            combine_seeds(3, wrong)
    assert combine_seeds(np.int64(3), True) == combine_seeds(3, 1)
