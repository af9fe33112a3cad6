import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from faults import Malicious

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.scores import predict
from mnist_helpers.experiments.records import full_runs
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.files import sha256
from mnist_helpers.models import MODELS, build_model, mlp_baseline, network
from mnist_helpers.models.saved import CheckpointError, load_model, load_once, read_card, save_model
from mnist_helpers.notebooks import LARGEST

ROOT = Path(__file__).parent.parent.parent

CARD = {"model": "mlp_baseline", "model_arguments": {"width": 8}, "seed": 3}


@pytest.fixture
def model():
    with seeded(0):
        return mlp_baseline(width=8)


@pytest.fixture
def saved(project, model):
    save_model(model, project / "saved_models" / "small.pth", CARD)
    return project / "saved_models" / "small.pth"


def forge(path, content):
    """Replace the weights and put the matching checksum into the card."""
    path.write_bytes(content)
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "sha256": sha256(content)}))


@pytest.mark.parametrize("by_path", [False, True])
def test_load_rebuilds_what_was_saved(saved, model, by_path):
    loaded = load_model(saved if by_path else "small", device="cpu")
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert read_card("small")["seed"] == 3 and read_card("small")["format"] == 1


def test_half_takes_half_the_space_and_loads_as_float32(saved, model, project):
    save_model(model, project / "half.pth", CARD, half=True)
    loaded = load_model(project / "half.pth", device="cpu")
    assert loaded.card == read_card(project / "half.pth") and loaded.card["weights"] == "float16"
    for name, value in model.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], expected) and loaded.state_dict()[name].dtype == value.dtype
    assert read_card(saved)["weights"] == "float32"
    assert (project / "half.pth").stat().st_size < 0.7 * saved.stat().st_size


def test_the_file_is_a_plain_state_dict(saved, model):
    state = torch.load(saved, weights_only=True)
    assert list(state) == list(model.state_dict())


def test_this_machines_runs_come_before_the_committed_models(saved, model, project):
    save_model(model, project / "runs" / "saved_models" / "small.pth", {**CARD, "seed": 4})
    assert read_card("small")["seed"] == 4


def test_weights_saved_under_another_name_are_found_by_their_recipe(saved, model, project):
    save_model(model, project / "saved_models" / "Published.pth", {**CARD, "recipe": "mlp_plateau", "seed": 7})
    (project / "saved_models" / "A.pth").touch()  # neither weights without a card nor odd cards are a hindrance
    for number, text in enumerate(("no card", "[1]", "{}")):
        (project / "saved_models" / f"B{number}.pth").touch()
        (project / "saved_models" / f"B{number}.json").write_text(text)
    assert read_card("mlp_plateau") == read_card("Published") and read_card("Published")["seed"] == 7
    assert torch.equal(load_model("mlp_plateau", "cpu")[1].weight, model[1].weight)
    with pytest.raises(CheckpointError, match="no weights of 'mlp_baseline' are saved in .*: A, B0, B1, B2, Publ"):
        load_model("mlp_baseline")
    save_model(model, project / "saved_models" / "A_copy.pth", {**CARD, "recipe": "small", "seed": 8})
    assert read_card("small")["seed"] == 3, "a file of that name comes before a recipe's"


def test_a_card_that_could_not_rebuild_its_model_is_not_written(project, model):
    with pytest.raises(ValueError, match="no model 'unheard_of'"):
        save_model(model, project / "a.pth", {**CARD, "model": "unheard_of"})
    with pytest.raises(
        ValueError, match="this model cannot be saved with this card: .* its 1.weight is 8x784, and 9x784 here"
    ):
        save_model(model, project / "a.pth", {**CARD, "model_arguments": {"width": 9}})
    with pytest.raises(ValueError, match="not in a.json"):
        save_model(model, project / "a.json", CARD)
    with pytest.raises(
        ValueError, match="this model cannot be saved with this card: it has no model and no model_arguments"
    ):
        save_model(model, project / "a.pth", {"seed": 1})
    assert not list(project.glob("a.*"))


def test_missing_model_is_named(project):
    with pytest.raises(CheckpointError, match="no weights of 'nothing' are saved in"):
        load_model("nothing")
    for missing in ("no/nothing.pth", project / "nothing.pth"):
        with pytest.raises(CheckpointError, match="nothing.json: there is no such file"):
            load_model(missing)


def test_where_only_the_card_is_kept_it_can_be_read_and_the_sentence_says_so(saved):
    saved.unlink()
    assert read_card("small")["seed"] == 3
    with pytest.raises(CheckpointError, match="only the card of small is kept .*small.json.*, not its weights"):
        load_model("small")


def test_damaged_weights_are_refused(saved):
    content = saved.read_bytes()
    saved.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    with pytest.raises(CheckpointError, match="small.pth is damaged"):
        load_model("small")


def test_weights_that_are_none_are_refused(saved):
    for content in (b"", b"no weights", b"PK\x03\x04 torn"):
        forge(saved, content)
        with pytest.raises(CheckpointError, match="small.pth holds no weights that can be read"):
            load_model("small")


def test_code_in_a_pickle_never_runs(saved, project):
    torch.save({"0": Malicious()}, saved)
    forge(saved, saved.read_bytes())
    with seeded(0):
        own = mlp_baseline(width=8)
    for options in ({}, {"model": own}):
        with pytest.raises(CheckpointError, match="small.pth holds no weights that can be read") as caught:
            load_model(saved, **options)
        assert "weights_only" not in str(caught.value), "torch's advice to run the code is not passed on"
    assert not (project / "pwned").exists()
    pickle.loads(pickle.dumps(Malicious()))  # what plain unpickling would have done
    assert (project / "pwned").exists()


def test_another_architecture_is_refused_naming_the_difference(saved):
    card = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps({**card, "model_arguments": {"width": 9}}))
    with pytest.raises(CheckpointError, match="its 1.weight is 8x784, and 9x784 here") as caught:
        load_model("small")
    assert len(str(caught.value).splitlines()) == 1


def test_a_card_that_is_none_is_refused(saved):
    for text in ("", "[]", "{}", "{", "null", '{"format": 2}'):
        saved.with_suffix(".json").write_text(text)
        with pytest.raises(CheckpointError, match="small.json (is no card|has format 2, and this version reads 1)"):
            load_model("small")


def test_plain_state_dicts_fill_a_given_network_whatever_was_wrapped_around_it(tmp_path, model):
    for prefix in ("", "module.", "net.", "_orig_mod."):
        torch.save({prefix + name: value for name, value in model.state_dict().items()}, tmp_path / "net.pth")
        with seeded(1):
            other = mlp_baseline(width=8)
        assert load_model(tmp_path / "net.pth", "cpu", model=other) is other and not other.training
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def wrappers_within(name, number):
    """Return a name with wrappers before some of its parts, which ones the number tells; a different name for each."""
    parts = [p for part in name.split(".") for p in (*(("module",), ("_orig_mod",), (), ())[number % 4], part)]
    return ".".join((*(("_orig_mod", "module"), ("module",), ())[number % 3], *parts))


def test_wrappers_in_any_mixture_and_order_are_no_part_of_a_name(tmp_path, model):
    state = model.state_dict()
    mixed = {wrappers_within(name, number): value for number, (name, value) in enumerate(state.items())}
    assert len({name.split(".")[0] for name in mixed}) > 2
    for names in (mixed, {f"net.{name}": value for name, value in mixed.items()}):
        torch.save(names, tmp_path / "net.pth")
        with seeded(1):
            other = mlp_baseline(width=8)
            other[1] = torch.compile(other[1])
        load_model(tmp_path / "net.pth", "cpu", model=torch.nn.DataParallel(torch.compile(other)))
        for (name, value), loaded in zip(state.items(), other.state_dict().values(), strict=True):
            assert torch.equal(value, loaded), name


def test_a_network_with_compiled_parts_is_saved_without_the_wrappers_names(project, model):
    names = list(model.state_dict())
    for part in (1, 9):
        model[part] = torch.compile(model[part])
    assert list(model.state_dict()) != names
    for wrapped in (model, torch.compile(model), torch.compile(torch.nn.DataParallel(model))):
        save_model(wrapped, project / "small.pth", CARD)
        assert list(torch.load(project / "small.pth")) == names
        assert torch.equal(load_model(project / "small.pth", "cpu")[1].weight, model[1].weight)


def test_counts_of_batches_that_an_old_file_does_not_have_begin_at_zero(saved, model):
    state = {name: value for name, value in model.state_dict().items() if "num_batches_tracked" not in name}
    torch.save(state, saved)
    forge(saved, saved.read_bytes())
    for options in ({}, {"model": mlp_of_ones()}):
        loaded = load_model(saved, "cpu", **options).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in state.items())
        assert loaded["2.num_batches_tracked"] == 0 and loaded["2.num_batches_tracked"].dtype == torch.int64
    torch.save({name: value for name, value in state.items() if "running" not in name}, saved)
    forge(saved, saved.read_bytes())
    with pytest.raises(CheckpointError, match="it has no 2.running_mean"):
        load_model(saved, "cpu")


def mlp_of_ones():
    with seeded(1):
        model = mlp_baseline(width=8)
    for value in model.state_dict().values():
        value.fill_(1)
    return model


def test_a_name_with_its_ending_is_found_too_unless_such_a_file_is_here(saved, model, project):
    assert torch.equal(load_model("small.pth", "cpu")[1].weight, model[1].weight)
    assert read_card("small.pth") == read_card("small")
    save_model(mlp_of_ones(), project / "small.pth", CARD)
    assert (load_model("small.pth", "cpu")[1].weight == 1).all() and (load_model("small", "cpu")[1].weight != 1).any()
    with pytest.raises(CheckpointError, match="no weights of 'nothing' are saved in .*; those that are: small"):
        load_model("nothing.pth")


def test_no_name_leads_out_of_the_folders(saved, project):
    save_model(mlp_of_ones(), project / "outside.pth", CARD)
    for name in (
        "../outside",
        "saved_models/../outside",
        "",
        ".",
        "..",
        "CON",
        "a\0",
        "a\0.pth",
        "x" * 5000,
        "x" * 5000 + ".pth",
    ):
        with pytest.raises(CheckpointError, match="no weights of .* are saved in"):
            load_model(name, "cpu")
    with pytest.raises(CheckpointError, match="cannot be read|there is no such file"):
        load_model(f"saved_models/{'x' * 5000}.pth")
    assert load_once_says("saved_models/a\0.pth") and load_once_says(f"saved_models/{'x' * 5000}.pth")


def load_once_says(name):
    with pytest.raises(CheckpointError) as caught:
        load_once(name)
    return len(str(caught.value).splitlines()) == 1


def test_every_architecture_is_loaded_as_it_was_saved(project):
    images = torch.linspace(0, 1, 2 * 784).reshape(2, 1, 28, 28)
    small = {"conv_bn_relu": {"width": 0.125}, "shift_averaged": {"model": "lenet5"}}
    for name in MODELS:
        with seeded(0):
            model = build_model(name, **small.get(name, {})).eval()
        save_model(model, project / "one.pth", {"model": name, "model_arguments": small.get(name, {})})
        loaded = load_model(project / "one.pth", "cpu")
        assert torch.equal(loaded(images), model(images)), name
        for (one, ours), theirs in zip(model.named_parameters(), loaded.parameters(), strict=True):
            assert ours.stride() == theirs.stride() and theirs.requires_grad and theirs.device.type == "cpu", one


@pytest.mark.filterwarnings("ignore:Complex modules:UserWarning")
def test_what_could_not_be_loaded_again_is_not_saved(saved, model):
    before = saved.read_bytes()
    for value, half in ((torch.nan, False), (1e6, True)):  # too large for float16
        with torch.no_grad():
            model[1].weight[0, 0] = value
        with pytest.raises(ValueError, match="this model cannot be saved .* holds infinite numbers or NaN in 1.weight"):
            save_model(model, saved, CARD, half=half)
    model[1].weight = torch.nn.Parameter(torch.zeros(8, 784, dtype=torch.complex64))
    with pytest.raises(ValueError, match="this model cannot be saved .* tensors and plain values: '.*Complex"):
        save_model(model, saved, CARD)
    assert saved.read_bytes() == before


def test_only_regular_files_are_read(saved, model):
    card = saved.with_suffix(".json")
    for path, load in (
        (saved, lambda: load_model(saved, "cpu", model=model)),
        (card, lambda: load_model(saved, "cpu")),
    ):
        path.rename("kept")
        for make, said in (
            (os.mkfifo, "is no regular file"),
            (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
            (Path.mkdir, "is a folder, not a file"),
            (lambda path: path.symlink_to("nowhere"), "there is no such file"),
            (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2 * 10**9), "has 2,000,000,000 bytes"),
        ):
            make(path)
            with pytest.raises(CheckpointError, match=f"{path.name}.* {said}"):
                load()
            with pytest.raises(CheckpointError, match="no weights of 'other' are saved"):
                load_model("other")  # which asks every card for its recipe
            path.rmdir() if path.is_dir() else path.unlink()
        Path("kept").rename(path)


def test_what_is_wrapped_around_a_network_is_not_saved(project, model):
    for wrapped in (torch.nn.DataParallel(model), torch.compile(model)):
        save_model(wrapped, project / "small.pth", CARD)
        assert list(torch.load(project / "small.pth")) == list(model.state_dict())
        with seeded(1):
            other = mlp_baseline(width=8)
        load_model(project / "small.pth", "cpu", model=torch.nn.DataParallel(other))
        assert torch.equal(other[1].weight, model[1].weight)


def test_a_network_of_ones_own_with_an_attribute_module_is_filled_as_a_whole(tmp_path, model):
    with seeded(1):
        own, other = (torch.nn.ModuleDict({"module": model, "head": torch.nn.Linear(10, 10)}) for _ in range(2))
    assert not torch.equal(other["head"].weight, own["head"].weight)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    load_model(tmp_path / "own.pth", "cpu", model=other)
    assert torch.equal(other["head"].weight, own["head"].weight)


def test_the_first_layer_that_differs_is_named_and_nothing_is_changed(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "net.pth")
    for build, message in (
        (lambda: mlp_baseline(width=9), "its 1.weight is 8x784, and 9x784 here"),
        (lambda: network((8, 8, 8), 0.3, True), "it has no 9.running_mean|its 9.weight is 10x8, and 8x8 here"),
        (lambda: network((8, 8)), "it has no 3.weight|its 3.weight is"),
        (lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 8)), "which has no 2.weight"),
    ):
        with seeded(1):
            other = build()
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(CheckpointError, match=f"net.pth does not fit this model.*({message})"):
            load_model(tmp_path / "net.pth", "cpu", model=other)
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_what_is_no_state_dict_is_refused(tmp_path, model):
    torch.save({"epoch": 3, "weights": model.state_dict()}, tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match="whole.pth holds no state dict: save weights with"):
        load_model(tmp_path / "whole.pth", "cpu", model=model)


@pytest.mark.mnist
@pytest.mark.parametrize("n", [1000, pytest.param(10_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("path", sorted((ROOT / "saved_models").glob("*.pth")), ids=lambda path: path.stem)
def test_the_committed_networks_repeat_their_recorded_predictions(path, n):
    card = read_card(path)
    recipe = RECIPES[card["recipe"]]
    assert path.stem == (recipe.saved_as or recipe.name) and card["settings"] == recipe.settings()
    (file,) = (ROOT / "records" / recipe.name).glob(f"mnist-*-seed{card['seed']}.json")
    record = json.loads(file.read_text())
    assert record["test_accuracy"] == card["test_accuracy"]
    answers, _ = predict(load_mnist(train=False).images[:n], load_model(path, device="cpu"))
    assert "".join(str(answer) for answer in answers.tolist()) == record["test_predictions"][:n]


def test_every_measured_system_has_its_network_and_together_they_are_small(monkeypatch):
    monkeypatch.chdir(ROOT)
    measured = {name for name, found in full_runs().items() if found and not RECIPES[name].ablation}
    cards = [json.loads(path.read_text()) for path in (ROOT / "saved_models").glob("*.json")]
    assert {card["recipe"] for card in cards} == measured
    promised = (
        "model model_arguments seed data split test_accuracy validation_accuracy seconds device precision versions"
    )
    assert not [(card["recipe"], key) for card in cards for key in promised.split() if key not in card]
    sizes = [path.stat().st_size for path in (ROOT / "saved_models").glob("*.pth")]
    assert len(sizes) == len(cards) and max(sizes) <= LARGEST and sum(sizes) <= 25e6
