"""Several processes that train one network together (torch.distributed), started by torchrun.

Each process takes its share of every batch, and the gradients are averaged over the whole batch. So a network without
batch normalisation, dropout and augmentation takes the steps that one process would take. With them it does not:
dropout and augmentation are drawn in each process separately. Batch normalisation uses the statistics of the whole
batch on GPUs (SyncBatchNorm), but on CPUs those of each process's share, and the first process's running averages;
there, a share of a single example is an error, as a batch of one is elsewhere.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.loaders import ResidentLoader
from ..environment import choose_device

LossFunction = Callable[[Tensor, Tensor], Tensor]


def rank() -> int:
    """Return this process's number among those that train together: 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: str | None = None) -> Iterator[torch.device]:
    """Join the other processes that torchrun started, if it did, and give the device to train on.

    GPUs talk through nccl, one for each process; CPUs through gloo.

    Args:
        device: "cuda" or "cpu"; the best one here unless named. Without torchrun, any that `choose_device` knows.

    Raises:
        ValueError: this machine has no such device, or fewer GPUs than processes; WORLD_SIZE is set, and the rest of
            what torchrun sets is not; or the processes do not find one another.
    """
    chosen = choose_device(device)
    if _n_started() == 1:
        yield chosen
        return
    if chosen.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"this machine has {torch.cuda.device_count()} GPUs, and process {local + 1} needs one of its own: "
                "give torchrun a smaller --nproc_per_node, or train with --device cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    else:
        chosen = torch.device("cpu")  # gloo knows no other
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except RuntimeError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ValueError(f"the processes do not find one another at {place}: {str(error).splitlines()[0]}") from error
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def _n_started() -> int:
    """Return how many processes torchrun has started, or 1 without it."""
    facts = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")}
    if facts["WORLD_SIZE"] in ("", "1"):
        return 1
    advice = "start the processes with torchrun, or unset WORLD_SIZE"
    for name, value in facts.items():
        if not value.isdecimal():
            raise ValueError(f"the environment variable {name} should be a number, not {value!r}: {advice}")
    if not os.environ.get("MASTER_ADDR"):
        raise ValueError(f"the environment variable MASTER_ADDR should be a host's name: {advice}")
    if int(facts["RANK"]) >= int(facts["WORLD_SIZE"]):
        raise ValueError(
            f"RANK is {facts['RANK']} and WORLD_SIZE {facts['WORLD_SIZE']}, so there is no such process: {advice}"
        )
    return int(facts["WORLD_SIZE"])


@contextmanager
def first_on_its_machine() -> Iterator[None]:
    """Let one process of each machine run the `with` block, which may download, before the others run it."""
    waits = world_size() > 1 and os.environ["LOCAL_RANK"] != "0"
    if waits:
        dist.barrier()
    yield
    if world_size() > 1 and not waits:
        dist.barrier()


def to_ddp(model: nn.Module) -> nn.Module:
    """Return the model as it is trained: with several processes, such that `backward` averages their gradients."""
    if world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cuda":
        return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(model), device_ids=[device])
    return DistributedDataParallel(model)


def global_mean(loss_function: LossFunction) -> LossFunction:
    """Return a loss function whose averaged gradients are those of the mean over the batches of all processes.

    Without it, a process whose share of the last batch is smaller would have the same weight as the others. Its value
    is still this process's own mean.
    """

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        mean = loss_function(outputs, targets) if len(targets) else outputs.sum()
        if not mean.requires_grad:  # evaluation
            return mean
        total = torch.tensor(float(len(targets)), device=outputs.device)
        dist.all_reduce(total)
        weighted = mean * (len(targets) * world_size() / total)
        return weighted + (mean - weighted).detach()

    return loss


def all_reduce_mean(result: tuple[float, float], loader: ResidentLoader) -> tuple[float, float]:
    """Return the (mean loss, accuracy) over the examples of all processes, from this one's and its loader."""
    n = loader.n_examples_here
    device = loader.labels.device
    sums = torch.tensor([result[0] * n, result[1] * n, n], dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    loss, accuracy, n = sums.tolist()
    return loss / n, accuracy / n


def gather(value: Any) -> list[Any]:
    """Return what each process calls this with, in their order; any values that can be pickled."""
    values = [value]
    if world_size() > 1:
        values *= world_size()
        dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """Return what the first process calls this with; any value that can be pickled."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
