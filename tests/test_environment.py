import numpy as np
import pytest
import torch

from mnist_helpers.environment import (
    choose_device,
    combine_seeds,
    has_bfloat16,
    project_root,
    quick,
    runs_folder,
    seeded,
)


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


def test_device_by_name():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cuda", "mps", "cpu")
    for name in ("abacus", "xpu:7"):
        with pytest.raises(
            ValueError, match=f"device '{name}' cannot be used here .*: try 'cpu', or leave it out"
        ) as caught:
            choose_device(name)
        assert len(str(caught.value).splitlines()) == 1


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
