"""Two processes that train together. Started by torchrun, this file is also what they run: see `work_together`."""

import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from mnist_helpers import __main__ as cli
from mnist_helpers.data.digits import Digits
from mnist_helpers.data.loaders import ResidentLoader
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.scores import evaluate
from mnist_helpers.experiments import distributed, records, setup
from mnist_helpers.experiments import run as runs
from mnist_helpers.experiments.distributed import (
    all_reduce_mean,
    broadcast,
    first_on_its_machine,
    global_mean,
    process_group,
    rank,
    to_ddp,
    world_size,
)
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.run import record_run, run
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.models import lenet5, network
from mnist_helpers.training import loop as training
from mnist_helpers.training.resume import save_state

SEED = 5
RUNS = {  # recipe -> digits: 193 of 242 are for training, so that the second process gets nothing of the last batch
    "network": 242,
    "lenet5": 204,  # 163, of whose last batch the first process gets 18 and the second 17
    "mlp_baseline": 204,
}
SIZES = (1 + 64, 3, 41, 203)  # of sets that are evaluated
BROKEN = vary(RECIPES["lenet5"], {"epochs": 4, "batch_size": 16})


def make_digits(n):
    """Return synthetic digits: class k has a bright bar in row 2k, and noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 10
    images = torch.randint(0, 60, (n, 28, 28), generator=generator, dtype=torch.uint8)
    images[torch.arange(n), 2 * labels + 4, 4:24] = 255
    return Digits(images, labels, "synthetic", "memory", {"images": "none"})


def short(name):
    return vary(RECIPES[name], {"epochs": 2})


def gradients(model, shard=(0, 1), loss_function=F.cross_entropy):
    """Return (loss, gradients by name) of a model on a ragged batch of 5."""
    ((images, labels),) = ResidentLoader(make_digits(5), 64, device="cpu", shard=shard)
    loss = loss_function(model(images), labels)
    loss.backward()
    return loss.item(), {name.removeprefix("module."): one.grad for name, one in model.named_parameters()}


def fresh(architecture):
    with seeded(SEED):
        return architecture()


def refuse(*_, **__):
    raise AssertionError("the second process has written something")


def work_together(folder):
    """Do in each of two processes what the tests look at afterwards; at last, the second one is killed in training."""
    torch.set_num_threads(1)
    found = {}
    with process_group("cpu") as device:
        found |= {
            "device": str(device),
            "rank": rank(),
            "world_size": world_size(),
            "broadcast": broadcast({"from": rank()}),
        }
        with first_on_its_machine(), open(folder / "order.txt", "a") as file:
            file.write(str(rank()))
        os.environ |= {"QUICK": "1", "WORLD_SIZE": "1"}  # a process group is made once: this one is taken for it
        assert cli.main(["train", "network", "--seeds", "3", "--device", "cpu", "--allow-sample"]) == 0
        del os.environ["QUICK"]
        if rank():
            records.write_atomically = runs.save_model = training.save_state = refuse
        shard = rank(), world_size()
        found["loss"], grads = gradients(to_ddp(fresh(lenet5)), shard, global_mean(F.cross_entropy))
        torch.save(grads, folder / f"gradients-{rank()}.pt")
        for n in SIZES:
            loader = ResidentLoader(make_digits(n), 64, device="cpu", shard=shard)
            found[f"evaluate {n}"] = all_reduce_mean(
                evaluate(fresh(network), loader, global_mean(F.cross_entropy)), loader
            )
        for name, n in RUNS.items():
            finished = run(short(name), make_digits(n), SEED, device=device, progress=False)
            found[name] = [asdict(epoch) for epoch in finished.history.epochs]
            found[f"{name} is recorded"] = finished.record is not None
            torch.save(finished.model.state_dict(), folder / f"{name}-{rank()}.pt")
        first, again = (
            record_run(short("network"), SEED, digits=make_digits(204), device=device, progress=False) for _ in range(2)
        )
        found["records"] = [first, again]
        state = folder / f"machine-{rank()}" / "state.pt"  # as on two machines without a shared folder
        if rank():
            save_state(state, {"epochs": [1, 2]})
        with warnings.catch_warnings(record=True) as caught:
            found["state"] = broadcast(setup._first_state(state))
        found["warnings"] = [str(one.message) for one in caught]
        (folder / f"found-{rank()}.json").write_text(json.dumps(found))
        if rank():
            train_one_epoch, begun = training.train_one_epoch, []

            def killed_in_the_third(*given, **options):
                begun.append(1)
                if len(begun) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return train_one_epoch(*given, **options)

            training.train_one_epoch = killed_in_the_third
        record_run(BROKEN, SEED, digits=make_digits(203), device=device, progress=False)
        (folder / "survived").touch()


def torchrun(*command, folder):
    """Run two processes in full mode in a folder, and return torchrun's exit code and what was printed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {name: value for name, value in os.environ.items() if name not in ("QUICK", "MNIST_DATA")}
    options = {"cwd": folder, "env": environment | {"OMP_NUM_THREADS": "1"}, "text": True}
    with open(folder / "printed.txt", "w+") as file:
        process = subprocess.Popen([*launcher, *map(str, command)], stdout=file, stderr=subprocess.STDOUT, **options)
        try:
            code = process.wait(timeout=180)
        except subprocess.TimeoutExpired:
            process.terminate()  # upon which it ends the two
            process.wait()
            raise
        file.seek(0)
        return code, file.read()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Let two processes work together, and return what each of them found, and how that ended."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "pyproject.toml").write_text('[project]\nname = "mnist_helpers"\n')
    code, printed = torchrun(Path(__file__), folder, folder=folder)
    found = [folder / f"found-{number}.json" for number in (0, 1)]
    assert all(path.exists() for path in found), printed
    return SimpleNamespace(
        folder=folder, code=code, printed=printed, found=[json.loads(path.read_text()) for path in found]
    )


def load(together, name):
    """Return what each process saved under a name."""
    return [torch.load(together.folder / f"{name}-{number}.pt", weights_only=True) for number in (0, 1)]


def test_each_process_knows_its_place(together):
    for number, found in enumerate(together.found):
        assert (found["rank"], found["world_size"], found["device"]) == (number, 2, "cpu")
        assert found["broadcast"] == {"from": 0}
    assert (together.folder / "order.txt").read_text() == "01", "the first had ended before the second began"


def test_gradients_are_those_of_the_mean_over_the_whole_batch(together):
    _, expected = gradients(fresh(lenet5))
    for found in load(together, "gradients"):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_the_loss_that_each_process_sees_is_its_own(together):
    losses = [found["loss"] for found in together.found]
    assert losses == pytest.approx([gradients(fresh(lenet5), (number, 2))[0] for number in (0, 1)])
    assert (3 * losses[0] + 2 * losses[1]) / 5 == pytest.approx(gradients(fresh(lenet5))[0])


@pytest.mark.parametrize("n", SIZES)
def test_evaluation_counts_each_example_once(together, n):
    loss, accuracy = evaluate(fresh(network), ResidentLoader(make_digits(n), 64, device="cpu"))
    for found in together.found:
        assert found[f"evaluate {n}"] == pytest.approx([loss, accuracy], rel=1e-6)
        right = found[f"evaluate {n}"][1] * n / 100
        assert right == pytest.approx(round(right), abs=1e-9), "a whole number of examples"


@pytest.mark.parametrize("name", ["network", "lenet5"])
def test_two_processes_take_the_steps_of_one(together, project, name):
    alone = run(short(name), make_digits(RUNS[name]), SEED, device="cpu", progress=False)
    for found, state in zip(together.found, load(together, name)):
        for epoch, expected in zip(found[name], alone.history.epochs, strict=True):
            for part in ("train", "validation"):
                assert epoch[f"{part}_loss"] == pytest.approx(getattr(expected, f"{part}_loss"), rel=1e-4)
                assert epoch[f"{part}_accuracy"] == pytest.approx(getattr(expected, f"{part}_accuracy"), abs=1e-9)
        for key, value in alone.model.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_all_processes_end_with_the_same_network_and_figures(together, name):
    first, second = load(together, name)
    assert first.keys() == second.keys() and not [key for key in first if key.startswith("module.")]
    learnt = [key for key in first if "running" not in key and "tracked" not in key]
    assert all(torch.equal(first[key], second[key]) for key in learnt)
    histories = [[dict(epoch, seconds=0) for epoch in found[name]] for found in together.found]
    assert histories[0] == histories[1] and len(histories[0]) == 2


def test_batch_normalisation_trains_too_and_is_measured_with_the_first_processs_averages(together, project):
    first, second = load(together, "mlp_baseline")
    averages = [key for key in first if "running" in key]
    assert averages and all(torch.equal(first[key], second[key]) for key in averages)
    losses = [epoch["train_loss"] for epoch in together.found[0]["mlp_baseline"]]
    alone = run(short("mlp_baseline"), make_digits(204), SEED, device="cpu", progress=False).history["train_loss"]
    assert losses[1] < losses[0] and losses == pytest.approx(alone, rel=0.25)


def test_the_first_process_alone_writes(together):
    assert [found["network is recorded"] for found in together.found] == [True, False]
    first, *others = (record for found in together.found for record in found["records"])
    assert others == 3 * [first], "each process returns it, and trains it once"
    assert first["processes"] == 2 and first["threads"] == 1 and first["trained_on"] == 163
    (path,) = (together.folder / "runs" / "records").rglob("network*.json")
    assert json.loads(path.read_text()) == first


def test_a_state_that_only_another_machine_has_is_said(together):
    first, second = together.found
    assert first["state"] is second["state"] is None and second["warnings"] == []
    (warning,) = first["warnings"]
    assert warning.startswith("training begins anew, though process 1 has a state after epoch 2 on its machine: ")
    assert f"copy it to {together.folder / 'machine-0' / 'state.pt'} here, or start that machine first" in warning


def test_a_process_that_dies_ends_the_job(together):
    assert together.code not in (0, None) and not (together.folder / "survived").exists()
    assert "SIGKILL" in together.printed


def test_one_process_goes_on_where_two_were_broken_off(together, monkeypatch, project):
    alone = run(BROKEN, make_digits(203), SEED, device="cpu", progress=False)
    monkeypatch.chdir(together.folder)
    (state,) = Path("runs").rglob("*.pt")
    assert state.parent.name.startswith(f"{BROKEN.name}-cpu-seed{SEED}-")
    begun, train_one_epoch = [], training.train_one_epoch

    def counted(*given, **options):
        begun.append(1)
        return train_one_epoch(*given, **options)

    monkeypatch.setattr(training, "train_one_epoch", counted)
    made = []
    monkeypatch.setattr(runs, "run", lambda *given, **options: made.append(run(*given, **options)) or made[0])
    record = record_run(BROKEN, SEED, digits=make_digits(203), device="cpu", progress=False)
    assert 1 <= len(begun) <= 3, "the first epoch at least is not trained again"
    assert record["processes"] == 1 and [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3, 4]
    for column in ("train_loss", "validation_loss"):
        found = [epoch[column] for epoch in record["history"]]
        assert found == pytest.approx(alone.history[column], rel=1e-3)
    for column in ("train_accuracy", "validation_accuracy"):
        assert [epoch[column] for epoch in record["history"]] == pytest.approx(alone.history[column], abs=1e-9)
    weights = made[0].model.state_dict()
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
    assert not list(Path("runs/unfinished").iterdir())


def test_torchrun_on_the_command_line_leaves_one_record_and_prints_once(together):
    (path,) = (together.folder / "runs" / "quick" / "records").rglob("*.json")
    record = json.loads(path.read_text())
    assert record["processes"] == 2 and record["threads"] == 1 and record["seed"] == 3
    assert record["epochs"] == 2 and record["trained_on"] == 1149 and len(record["test_predictions"]) == 360
    assert together.printed.count("network, seed 3\n") == together.printed.count("| `network` |") == 1


def test_a_process_alone_needs_nobody():
    model = fresh(network)
    with process_group("cpu") as device:
        assert str(device) == "cpu" and (rank(), world_size()) == (0, 1)
        assert to_ddp(model) is model and broadcast(model) is model
        with first_on_its_machine():
            pass
        assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="this machine has 1 GPUs, and process 2 needs one of its own: give torchrun"):
        with process_group():
            pass
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    work_together(Path(sys.argv[1]))
