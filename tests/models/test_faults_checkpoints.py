"""What happens to checkpoints when processes are killed, files rot, and somebody means harm."""

import itertools
import json
import os
import random
import re
import resource
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch
from faults import Malicious, die_at, in_child, mutations, start, wait

from mnist_helpers import files, notebooks
from mnist_helpers.environment import seeded
from mnist_helpers.experiments import records
from mnist_helpers.files import sha256
from mnist_helpers.models import mlp_baseline, network
from mnist_helpers.models.saved import CheckpointError, load_model, save_model
from mnist_helpers.training import resume
from mnist_helpers.training.history import EpochResult, History
from mnist_helpers.training.resume import load_state, save_state, state_of, take_up

ROOT = Path(__file__).parent.parent.parent
CARD = {"model": "mlp_baseline", "model_arguments": {"width": 8}}


def model_of(number, width=8):
    """Return a model all of whose weights are one number."""
    with seeded(0):
        model = mlp_baseline(width)
    for value in model.state_dict().values():
        value.fill_(number)
    return model


def save(number, path):
    save_state(path / "run.pt", {"number": number, "weights": model_of(number).state_dict()})
    save_model(model_of(number), path / "model.pth", {**CARD, "number": number})


def number_of(path):
    """Return which numbers are saved: of a state and of a model, all of whose parts must agree."""
    state, model = load_state(path / "run.pt"), load_model(path / "model.pth", "cpu")
    for number, weights in ((state["number"], state["weights"]), (model.card["number"], model.state_dict())):
        assert all((value == number).all() for value in weights.values())
    return state["number"], model.card["number"]


def killed_after(seconds, work):
    """Kill a forked process so long after its `work(report)` first reported, and return the last report as text."""
    reading, writing = os.pipe()
    child = start(lambda: work(lambda number: os.write(writing, f"{number} ".encode())))
    os.close(writing)
    with open(reading, buffering=1) as pipe:
        first = pipe.read(1)
        time.sleep(seconds)
        os.kill(child[0], signal.SIGKILL)
        assert wait(*child) == signal.SIGKILL
        return (first + pipe.read()).split()[-1]


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.full)])
def test_killed_again_and_again_while_saving_a_whole_checkpoint_always_remains(tmp_path, times):
    chance, halves, found = random.Random(0), 0, (1, 1)
    save(1, tmp_path)
    begun = time.monotonic()
    save(1, tmp_path)
    duration = time.monotonic() - begun
    for _ in range(times):

        def work(report, last=found):
            report(0)
            for number in itertools.count(max(last) + 1):
                save(number, tmp_path)
                report(number)

        reported, before = int(killed_after(chance.uniform(0, 2 * duration), work)), found
        found = number_of(tmp_path)  # without a warning, which would be an error
        assert min(found) >= max(reported, min(before)), "what was saved is not lost"
        halves += found[0] != found[1]
    assert max(found) > times / 4 and halves >= times // 40, "the kills came while it was saving"


@pytest.mark.parametrize("last", [3, pytest.param(4, marks=pytest.mark.full)])
def test_killed_at_each_step_of_saving_again_and_again_a_whole_checkpoint_remains(tmp_path, last):
    for moment in range(99):
        folder = tmp_path / str(moment)
        save(1, folder)

        def work(number, folder=folder, moment=moment):
            die_at(moment, files.os, "fsync", "replace")
            save(number, folder)

        outcomes = []
        for number in range(2, last + 1):
            outcomes.append(in_child(lambda number=number: work(number)))
            assert set(number_of(folder)) <= {*range(1, number + 1)}
        if outcomes[-1] is None:
            break
        assert set(outcomes) <= {None, signal.SIGKILL}  # after a broken save, the next one has fewer steps
    assert moment > 6 and number_of(folder) == (last, last)


@pytest.fixture
def saved(project):
    save_model(model_of(1), project / "small.pth", CARD)
    return project / "small.pth"


def forge(path, state):
    """Replace saved weights by others, and their checksum in the card by the right one."""
    torch.save(state, path)
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "sha256": sha256(path.read_bytes())}))


GOOD = model_of(1).state_dict()
FORGERIES = {
    "NaN": ({**GOOD, "5.bias": torch.full((8,), torch.nan)}, "holds infinite numbers or NaN in 5.bias"),
    "infinity": ({**GOOD, "1.bias": torch.full((8,), torch.inf)}, "holds infinite numbers or NaN in 1.bias"),
    "a missing key": ({name: GOOD[name] for name in list(GOOD)[:-1]}, "it has no 9.bias"),
    "another architecture": (model_of(1, 9).state_dict(), "its 1.weight is 9x784, and 8x784 here"),
    "numbers for names": (dict(enumerate(GOOD.values())), "holds no state dict"),
    "a sparse tensor": ({**GOOD, "1.weight": GOOD["1.weight"].to_sparse()}, "holds no (state dict|weights)"),
    "a tensor without numbers": (
        {**GOOD, "1.weight": GOOD["1.weight"].to("meta")},
        "holds more than tensors and plain values",
    ),
    "complex numbers": ({**GOOD, "1.weight": GOOD["1.weight"].cfloat()}, "holds more than tensors and plain values"),
    "a tensor of any size": ({**GOOD, "1.weight": torch.zeros(1).expand(10**6, 10**6)}, "its tensors are larger"),
    "a tensor that repeats its numbers": (
        {**GOOD, "1.weight": torch.ones(1, 784).expand(8, 784)},
        "its tensors are larger than their numbers in the file",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_wrong_with_weights_is_one_sentence(saved, name):
    state, sentence = FORGERIES[name]
    forge(saved, state)
    for load in (lambda: load_model(saved, "cpu"), lambda: load_model(saved, "cpu", model=model_of(1))):
        with pytest.raises(CheckpointError, match=f"small.pth .*({sentence})") as caught:
            load()
        assert len(str(caught.value).splitlines()) == 1


def test_what_a_gpu_saved_loads_without_one(saved, monkeypatch):
    """The file says "cuda:0" of its numbers, as one that a GPU saved does."""
    if torch.cuda.is_available():
        pytest.skip("with a GPU, plain torch.load finds one")
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    forge(saved, GOOD)
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        torch.load(saved)
    assert (load_model(saved, "cpu").state_dict()["1.weight"] == 1).all()


def test_a_card_may_not_ask_for_any_number_of_members(saved):
    card = json.loads(saved.with_suffix(".json").read_text())
    empty, deep = ["committee_of", {"members": []}], ["lenet5", {}]
    for _ in range(100):
        deep = ["shift_averaged", {"model": deep[0], "model_arguments": deep[1]}]
    for members, reason in (
        ([empty] * 20_000, "more than 1,000 arguments"),
        ([empty], "a committee has at least one member"),
        ([deep], "nested more than 50 deep"),
    ):
        asked = {**card, "model": "committee_of", "model_arguments": {"members": members}}
        saved.with_suffix(".json").write_text(json.dumps(asked))
        start = time.process_time()
        with pytest.raises(CheckpointError, match=f"describes no model: ValueError: .*{reason}"):
            load_model(saved)
        assert time.process_time() - start < 2


def test_a_card_may_not_ask_for_any_memory(saved):
    card = json.loads(saved.with_suffix(".json").read_text())
    load_model(saved, "cpu")  # imports what that needs, which takes memory once

    def work():
        messages, limit = [], resident() + 60_000_000  # two layers of 10,000 neurons would take 431
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        wide = [{"width": width} for width in (10**12, 10_000, -1, "wide")]
        for arguments in (*wide, {"depth": 3}, [1], None, 8):
            saved.with_suffix(".json").write_text(json.dumps({**card, "model_arguments": arguments}))
            with pytest.raises(
                CheckpointError, match="small.json (describes no model|is no card)|its 1.weight is 8x784"
            ) as caught:
                load_model(saved)
            assert len(str(caught.value).splitlines()) == 1
            messages.append(str(caught.value))
        return messages[1]

    assert "its 1.weight is 8x784, and 10000x784 here" in in_child(work), "told without building it"


def test_a_few_bytes_may_not_ask_for_any_memory(saved):
    """A tensor may have one number in the file and any shape; the card beside it asks for that shape."""
    state = {**GOOD, "1.weight": torch.zeros(1).expand(10**4, 784)}
    forge(saved, state)
    card = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps({**card, "model_arguments": {"width": 10**4}}))
    assert saved.stat().st_size < 50_000
    with pytest.raises(
        CheckpointError, match="small.pth holds no weights .* its tensors are larger than their numbers"
    ):
        load_model(saved, "cpu")


def test_a_few_bytes_may_not_become_a_large_model(saved):
    """Layers of one storage, stored or deflated, would each get memory of their own; so would members, and layers."""
    with torch.device("meta"):
        large = network(33 * [1000])
    zeros = torch.zeros(1000, 1000)
    shared = {name: zeros.as_strided(value.shape, value.stride()) for name, value in large.state_dict().items()}
    forge(saved, shared)
    card = json.loads(saved.with_suffix(".json").read_text())
    deflated = saved.with_name("deflated.pth")
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert deflated.stat().st_size < 30_000
    cards = {
        "small": (
            {"model": "network", "model_arguments": {"widths": 33 * [1000]}},
            "its tensors are larger than their",
        ),
        "deflated": ({"model": "network", "model_arguments": {"widths": 33 * [1000]}}, "it is compressed"),
        "layers": (
            {"model": "network", "model_arguments": {"widths": 50_000 * [1]}},
            "more than 1,000 (weights and biases|arguments)",
        ),
        "members": (
            {"model": "committee_of", "model_arguments": {"members": 20_000 * [["fast_cnn", {}]]}},
            "more than 1,000 (weights and biases|arguments)",
        ),
        "committees": (
            {"model": "committee_of", "model_arguments": {"members": 100 * [["committee_of", {}]]}},
            "more than 1,000 (weights and biases|arguments)",
        ),
        "wide": (
            {"model": "network", "model_arguments": {"widths": [400_000]}},
            "would take 1,2.* bytes, and at most 1,0",
        ),
    }

    def work():
        limit = resident() + 100_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for name, (described, said) in cards.items():
            path = saved.with_name("deflated.pth" if name == "deflated" else "small.pth")
            described = {**card, **described, "sha256": sha256(path.read_bytes())}
            path.with_suffix(".json").write_text(json.dumps(described))
            with pytest.raises(CheckpointError, match=f"{path.stem}.(pth|json) .*{said}"):
                load_model(path, "cpu")

    assert in_child(work) is None


def test_killed_at_each_step_of_publishing_the_published_model_can_be_loaded(tmp_path):
    published = tmp_path / "saved_models" / "small.pth"
    for number, path in ((1, published), (2, tmp_path / "runs" / "small.pth")):
        save_model(model_of(number), path, {**CARD, "number": number})

    def work(moment):
        die_at(moment, files.os, "fsync", "replace")
        notebooks._publish_model(tmp_path / "runs" / "small.pth", published.parent)

    numbers = []
    for moment in range(99):
        outcome = in_child(lambda moment=moment: work(moment))
        model = load_model(published, "cpu")
        numbers.append(model.card["number"])
        assert all((value == numbers[-1]).all() for value in model.state_dict().values())
        if outcome is None:
            break
    assert numbers == sorted(numbers) and set(numbers) == {1, 2} and moment > 2
    assert sorted(path.name for path in published.parent.iterdir() if path.name[0] != ".") == [
        "small.json",
        "small.pth",
    ]


def test_weights_too_large_to_publish_leave_published_ones_as_they_are(tmp_path, monkeypatch, capsys):
    runs, published = tmp_path / "runs" / "small.pth", tmp_path / "saved_models"
    save_model(model_of(2), runs, {**CARD, "number": 2})
    monkeypatch.setattr(notebooks, "LARGEST", 1000)
    notebooks._publish_model(runs, published)
    assert [path.name for path in published.iterdir()] == ["small.json"], "the card alone"
    assert "small.pth stays in" in capsys.readouterr().out
    save_model(model_of(1), published / "small.pth", {**CARD, "number": 1})
    notebooks._publish_model(runs, published)
    assert load_model(published / "small.pth", "cpu").card["number"] == 1


def resident():
    """Return the bytes of address space that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def load_model_forged(path):
    """Load weights whose card has their checksum, so that they reach the reader behind it."""
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "sha256": sha256(path.read_bytes())}))
    load_model(path, "cpu")


def load_state_whole(path):
    """Load a state of training: what is not refused is what was saved."""
    state = load_state(path)
    assert state["epochs"][0]["epoch"] == 1 and state["best_state"].keys() == GOOD.keys()
    assert all(torch.equal(state["best_state"][name], value) for name, value in GOOD.items())


def take_up_unchecked(path):
    """Take up a state of training whose checksums are not compared, so that it reaches what stands behind that."""
    zipfile.ZipExtFile._update_crc = lambda archive, content: None  # in a process of its own
    take_up(load_state(path), training_parts())


def training_parts():
    """Return a model, optimizer and schedule."""
    model = model_of(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    return [model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)]


# What is mutated, and how it is read: to which errors that may lead. Other loaders of files can be added here.
LOADERS = {
    "weights": ("small.pth", lambda path: load_model(path, "cpu", model=model_of(1)), CheckpointError),
    "model": ("small.pth", lambda path: load_model(path, "cpu"), CheckpointError),
    "card": ("small.json", lambda path: load_model(path.with_suffix(".pth"), "cpu"), CheckpointError),
    "model with the right checksum": ("small.pth", load_model_forged, CheckpointError),
    "state": ("run.pt", load_state_whole, CheckpointError),
    "state with the right checksum": ("run.pt", take_up_unchecked, CheckpointError),
    "state with code in it": ("code.pt", take_up_unchecked, CheckpointError),
    "record": ("record.json", records._read_record, ValueError),
}


@pytest.mark.parametrize("n", [100, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", LOADERS)
def test_mutated_files_are_refused_or_read(saved, name, n):
    """In a process that may use half a gigabyte and a minute: many damaged files, and code that must not run."""
    model, optimizer, scheduler = parts = training_parts()
    model.eval()(torch.zeros(2, 784)).sum().backward()
    optimizer.step(), scheduler.step()
    state = state_of(History([EpochResult(1, *[0.5] * 6)], GOOD), parts)
    save_state("run.pt", state)
    torch.save({"format": resume.FORMAT, **state, "code": Malicious()}, "code.pt")
    saved.with_name("record.json").write_bytes(
        (ROOT / "records" / "lenet5" / "mnist-48000-cpu-seed0.json").read_bytes()
    )
    file, load, errors = LOADERS[name]
    path = saved.with_name(file)
    whole = path.read_bytes()

    def work():
        limit = resident() + 500_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        refused, start, reasons = 0, time.monotonic(), set()
        for mutated in [*mutations(whole, n), b"[" * 100_000, b'{"a":' * 100_000]:
            path.write_bytes(mutated)
            try:
                load(path)
            except errors as error:
                assert len(str(error).splitlines()) == 1, error
                refused += 1
                reasons.add("checksum" if re.search("SHA-256 differs|BadZipFile", str(error)) else "other")
        assert time.monotonic() - start < 60
        return refused, reasons

    outcome = in_child(work)
    assert isinstance(outcome, tuple) and outcome[0] > n / 5, outcome
    if "right checksum" in name:
        assert outcome[0] < n and "other" in outcome[1], "some are read, and others refused by what reads them"
    assert not (path.parent / "pwned").exists()
