"""Checks before the first real training: does the forward pass work, and can the network learn at all?

Both work on copies: model, optimizer, loader and random state are left as they were, bit for bit.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..data.loaders import check_reusable
from ..data.neighbours import nearest
from ..environment import seeded
from ..evaluation.scores import check_outputs
from ..models import count_parameters, device_of
from .arguments import check_loss, check_optimizer
from .history import History
from .loop import Batches, TrainingError, epochs

CHANCE = math.log(10)  # nats: the loss of a network that gives each of the ten digits the same probability
LEARNED = 99.0  # percent of a small training set that a sound network can learn by heart


@dataclass(frozen=True)
class Layer:
    """One layer of a network: its name in it, its kind, the shape of its output for a batch, its parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    n_parameters: int


@dataclass(frozen=True)
class ForwardCheck:
    """What `forward_check` saw; printed, it is a table and its findings.

    Attributes:
        layers: one `Layer` each, in the order of the computation.
        n_parameters: of the whole network.
        loss: on the first batch, in nats; about ln 10 = 2.303 is expected of an untrained network.
        findings: what is wrong, a sentence each; empty if all is well.
    """

    layers: list[Layer]
    n_parameters: int
    loss: float
    findings: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        lines = [f"{'layer':24} {'kind':20} {'output':20} {'parameters':>12}"]
        for layer in self.layers:
            shape = "(" + ", ".join(["B", *map(str, layer.shape[1:])]) + ")"
            lines.append(f"{layer.name:24} {layer.kind:20} {shape:20} {layer.n_parameters:12,}")
        lines.append(f"{self.n_parameters:,} parameters")
        lines.append(f"loss of the first batch {self.loss:.3f}; ln 10 = {CHANCE:.3f} is chance")
        return "\n".join(lines + (self.findings or ["Nothing is wrong with the forward pass."]))


def forward_check(model: nn.Module, loader: Batches, seed: int = 0) -> ForwardCheck:
    """Send the loader's first batch through an untrained network and return the `ForwardCheck`.

    Args:
        model: any module from images (B, 1, 28, 28) to logits (B, 10).
        loader: gives (images, labels); it is left at the epoch where it was.
        seed: of dropout.

    Raises:
        ValueError: the forward pass breaks off, and at which layer; its output is not (B, 10); or the loader is empty
            or can be read only once.
    """
    with copies(model, None, loader, seed) as (model, _):
        images, labels = _first_batch(model, loader)
        layers: list[Layer] = []
        entered: list[str] = []
        handles = _watch_layers(model, layers, entered)
        try:
            with torch.no_grad():
                logits = model.train()(images)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            where = f" at layer {entered[-1]}" if entered else ""
            raise ValueError(f"the forward pass breaks off{where}: {str(error).splitlines()[0]}") from error
        finally:
            for handle in handles:
                handle.remove()
        if getattr(logits, "shape", None) != (len(images), 10):
            shape = tuple(getattr(logits, "shape", ())) or type(logits).__name__
            raise ValueError(f"the network's output is {shape}, and not (B, 10) = ({len(images)}, 10)")
        loss = F.cross_entropy(logits, labels).item()
        return ForwardCheck(layers, count_parameters(model), loss, _forward_findings(logits, loss))


def _watch_layers(model: nn.Module, layers: list[Layer], entered: list[str]) -> list[RemovableHandle]:
    """Have each layer without layers of its own write down its name when it begins, and itself when it ends."""
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if next(module.children(), None) is not None:
            continue
        n_parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        kind = type(module).__name__

        def end(_module, _inputs, output, name=name, kind=kind, n_parameters=n_parameters):
            output = output[0] if isinstance(output, tuple) else output  # as of an LSTM
            layers.append(Layer(name, kind, tuple(getattr(output, "shape", ())), n_parameters))

        handles.append(module.register_forward_hook(end))
        handles.append(
            module.register_forward_pre_hook(lambda *_, name=name, kind=kind: entered.append(f"{name} ({kind})"))
        )
    return handles


def _forward_findings(logits: Tensor, loss: float) -> list[str]:
    findings = []
    if not math.isfinite(loss):
        return [f"The loss is {loss}: look for infinities in the images or the initial weights."]
    if logits.min() >= 0 and torch.allclose(logits.sum(dim=1), torch.ones_like(logits[:, 0])):
        findings.append("The outputs are probabilities already: cross-entropy wants logits, without a softmax before.")
    if loss > 1.4 * CHANCE:
        findings.append(
            f"The loss of {loss:.2f} is far above chance: an untrained network is too sure of its answers. Are the "
            "pixels normalised, and the initial weights small?"
        )
    if loss < 0.7 * CHANCE:
        findings.append(f"The loss of {loss:.2f} is far below chance: this network is trained, or sees the labels.")
    return findings


@dataclass(frozen=True)
class BackwardCheck:
    """What `backward_check` saw; printed, it is the losses and a verdict.

    Attributes:
        history: the `training.History` of the epochs; training and validation images are the same.
        verdict: "" if the network learns by heart; otherwise what is wrong, in one sentence.
    """

    history: History
    verdict: str

    @property
    def passed(self) -> bool:
        """Whether the network learned the images by heart."""
        return not self.verdict

    def __str__(self) -> str:
        losses = " ".join(f"{loss:.3f}" for loss in self.history["train_loss"])
        accuracies = " ".join(f"{accuracy:.1f}" for accuracy in self.history["validation_accuracy"])
        verdict = self.verdict or "The network learns these images by heart, as it should."
        return f"loss in each epoch        {losses}\naccuracy after each (%)   {accuracies}\n{verdict}"


def backward_check(
    model: nn.Module, loader: Batches, optimizer: Optimizer, n_epochs: int = 10, seed: int = 0
) -> BackwardCheck:
    """Let a network learn a small training set by heart, and return the `BackwardCheck`, which says why if it cannot.

    Args:
        model: any module from images (B, 1, 28, 28) to logits (B, 10).
        loader: about 1,000 images with labels in small batches, 20 say.
        optimizer: over the model's parameters.
        n_epochs: how often it sees them at most; 99 % read correctly, without dropout, is enough.
        seed: of dropout.

    Raises:
        ValueError: the loader is empty or can be read only once.
    """
    with copies(model, optimizer, loader, seed) as (model, optimizer):
        before, history = _flat(model), History()
        silent = _without_gradient(model, *_first_batch(model, loader))
        agreement, moved = _neighbours_agree(loader), math.nan
        try:
            for result in epochs(model, loader, loader, optimizer, n_epochs, seed=seed):
                history.epochs.append(result)
                if len(history) == 1:
                    moved = ((_flat(model) - before).norm() / before.norm()).item()
                if _learned(history):
                    break
        except TrainingError as error:
            history.stopped = str(error)
        return BackwardCheck(history, _verdict(history, silent, agreement, moved))


def _learned(history: History) -> bool:
    return history["validation_accuracy"][-1] >= LEARNED


def _without_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> list[str]:
    """Return the names of parameters that no gradient reaches, on one batch."""
    model.train().zero_grad()
    logits = model(images)
    check_outputs(logits, labels)
    loss = F.cross_entropy(logits, labels)
    check_loss(loss)
    loss.backward()
    names = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()]
    model.zero_grad()
    return names


def _neighbours_agree(loader: Batches) -> float:
    """Return the share of images with their nearest neighbour's label: about 0.9 for 1,000 digits, 0.1 by chance."""
    batches = list(loader)
    labels = torch.cat([labels for _, labels in batches])
    if len(labels) < 200:  # too few for the most similar to be similar
        return 1.0
    _, numbers = nearest(torch.cat([images for images, _ in batches]).flatten(1).float())
    return (labels[numbers[:, 0]] == labels).float().mean().item()


def _verdict(history: History, silent: list[str], agreement: float, moved: float) -> str:
    """Return what is wrong with a network that does not learn by heart, or ""."""
    if agreement < 0.4:
        return (
            f"Only {agreement:.0%} of the images have the label of the image most like them: the labels do not belong "
            "to the images. Were both shuffled alike?"
        )
    if silent:
        return (
            f"No gradient reaches {', '.join(silent[:3])}{' ...' if len(silent) > 3 else ''}: is that part frozen or "
            "detached, or are all its ReLUs dead?"
        )
    if history.stopped:
        return f"The loss is no number any more ({history.stopped}): the learning rate is too high."
    if _learned(history):
        return ""
    losses = history["train_loss"]
    if moved < 0.02:
        return f"The weights moved by only {moved:.1%} in the first epoch: the learning rate is too low."
    if losses[-1] == min(losses) and losses[-1] > 0.7 * losses[0]:
        return "The loss falls, but slowly: the learning rate is too low, or the network hardly can learn."
    if losses[-1] > 0.7 * min(losses[0], CHANCE):
        far = f"by {moved:.0%}" if moved < 10 else "by more than tenfold"
        return f"The weights moved {far} in the first epoch, for nothing: the learning rate is too high."
    return "The loss falls, but not far enough: give it more epochs or another rate, less dropout, or a larger network."


def _first_batch(model: nn.Module, loader: Batches) -> tuple[Tensor, Tensor]:
    device = device_of(model)
    for images, labels in loader:
        return images.to(device), labels.to(device)
    raise ValueError("the loader gave no batch: there is nothing to check")


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@contextmanager
def copies(model: nn.Module, optimizer: Any, loader: Batches, seed: int) -> Iterator[tuple[nn.Module, Any]]:
    """Give copies of model and optimizer that belong together, and put the loader and the random state back after."""
    check_reusable(loader)
    if optimizer is not None:
        check_optimizer(model, optimizer)
    sampler: Any = getattr(loader, "sampler", None)
    epoch, generator = getattr(sampler, "epoch", None), getattr(loader, "generator", None)
    state = generator and generator.get_state()
    with seeded(seed):
        try:
            yield copy.deepcopy((model, optimizer))
        finally:
            if epoch is not None:
                sampler.set_epoch(epoch)
            if generator:
                generator.set_state(state)
