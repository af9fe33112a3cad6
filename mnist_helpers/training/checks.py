"""Checks before the first real training: does the forward pass hold, can the network learn at all, at what rate?

All three work on copies: model, optimizer, loader and random state are left as they were, bit for bit.
"""

import copy
import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..data.neighbours import nearest
from ..environment import seeded
from ..models import count_parameters
from .loop import History, TrainingError, epochs

CHANCE = math.log(10)  # the loss of a network that gives each of the ten digits the same probability
SMOOTHING = 0.9  # of the loss from batch to batch in the range test
FITTED = 99.0  # percent of a small training set that a network in order can learn by heart


@dataclass(frozen=True)
class Layer:
    """One layer of a network: its name in it, its kind, the shape of its output for a batch, its parameters."""

    name: str
    kind: str
    shape: tuple
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

    layers: list
    n_parameters: int
    loss: float
    findings: list

    @property
    def passed(self):
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self):
        lines = [f"{'layer':24} {'kind':20} {'output':20} {'parameters':>12}"]
        for layer in self.layers:
            shape = "(" + ", ".join(["B", *map(str, layer.shape[1:])]) + ")"
            lines.append(f"{layer.name:24} {layer.kind:20} {shape:20} {layer.n_parameters:12,}")
        lines.append(f"{self.n_parameters:,} parameters")
        lines.append(f"loss of the first batch {self.loss:.3f}; ln 10 = {CHANCE:.3f} is chance")
        return "\n".join(lines + (self.findings or ["Nothing is wrong with the forward pass."]))


def forward_check(model, loader, seed=0):
    """Send the loader's first batch through an untrained network and return the `ForwardCheck`.

    Args:
        model: any module from images (B, 1, 28, 28) to logits (B, 10).
        loader: gives (images, labels); it is left at the epoch where it was.
        seed: of dropout.

    Raises:
        ValueError: the forward pass breaks off, and at which layer; or its output is not (B, 10).
    """
    with _apart(model, None, loader, seed) as (model, _):
        images, labels = _first_batch(model, loader)
        layers, entered = [], []
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


def _watch_layers(model, layers, entered):
    """Have each layer without layers of its own write down its name when it begins, and itself when it ends."""
    handles = []
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


def _forward_findings(logits, loss):
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
    def passed(self):
        """Whether the network learned the images by heart."""
        return not self.verdict

    def __str__(self):
        losses = " ".join(f"{loss:.3f}" for loss in self.history["train_loss"])
        accuracies = " ".join(f"{accuracy:.1f}" for accuracy in self.history["validation_accuracy"])
        verdict = self.verdict or "The network learns these images by heart, as it should."
        return f"loss in each epoch        {losses}\naccuracy after each (%)   {accuracies}\n{verdict}"


def backward_check(model, loader, optimizer, n_epochs=10, seed=0):
    """Let a network learn a small training set by heart, and return the `BackwardCheck`, which says why if it cannot.

    Args:
        model: any module from images (B, 1, 28, 28) to logits (B, 10).
        loader: about 1,000 images with labels in small batches, 20 say.
        optimizer: over the model's parameters.
        n_epochs: how often it sees them at most; 99 % read rightly, without dropout, is enough.
        seed: of dropout.
    """
    with _apart(model, optimizer, loader, seed) as (model, optimizer):
        before, history = _flat(model), History()
        silent = _without_gradient(model, *_first_batch(model, loader))
        agreement, moved = _neighbours_agree(loader), math.nan
        try:
            for result in epochs(model, loader, loader, optimizer, n_epochs, seed=seed):
                history.epochs.append(result)
                if len(history) == 1:
                    moved = ((_flat(model) - before).norm() / before.norm()).item()
                if result.validation_accuracy >= FITTED:
                    break
        except TrainingError as error:
            history.stopped = str(error)
        return BackwardCheck(history, _verdict(history, silent, agreement, moved))


def _without_gradient(model, images, labels):
    """Return the names of parameters that no gradient reaches, on one batch."""
    model.train().zero_grad()
    F.cross_entropy(model(images), labels).backward()
    names = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()]
    model.zero_grad()
    return names


def _neighbours_agree(loader):
    """Return the share of images with their nearest neighbour's label: about 0.9 for 1,000 digits, 0.1 by chance."""
    images, labels = zip(*loader)
    labels = torch.cat(labels)
    if len(labels) < 200:  # too few for the most similar to be similar
        return 1.0
    _, numbers = nearest(torch.cat(images).flatten(1).float())
    return (labels[numbers[:, 0]] == labels).float().mean().item()


def _verdict(history, silent, agreement, moved):
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
    if history["validation_accuracy"][-1] >= FITTED:
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


@dataclass(frozen=True)
class RateTest:
    """What `lr_find` saw: `rates` and the smoothed `losses` at them, and the `suggestion`, a learning rate."""

    rates: list
    losses: list
    suggestion: float


def lr_find(model, loader, optimizer, low=1e-6, high=10.0, n_steps=100, seed=0):
    """Raise the learning rate from batch to batch and return the `RateTest`; see `plots.rate_test`.

    The rate grows by the same factor with each of `n_steps` batches, from `low` to `high`, and ends early when the
    loss has risen to four times its least value. Suggested is the rate at which the smoothed loss falls fastest.

    Args:
        model, loader, optimizer: as for training; the loader begins anew where it has fewer batches.
        seed: of dropout.

    Raises:
        ValueError: the loss cannot be computed at the lowest rate already or never falls, or the range is empty.

    Source: Smith, "Cyclical learning rates for training neural networks" (2017).
    """
    if not 0 < low < high or n_steps < 10:
        raise ValueError(f"a range test needs 0 < low < high and 10 steps or more, not {low:g}, {high:g} and {n_steps}")
    with _apart(model, optimizer, loader, seed) as (model, optimizer):
        model.train()
        rates, losses, average = [], [], 0.0
        for step, (images, labels) in zip(range(n_steps), _again_and_again(loader)):
            rate = low * (high / low) ** (step / (n_steps - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            device = next(model.parameters()).device
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            average = SMOOTHING * average + (1 - SMOOTHING) * loss.item()
            smooth = average / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if len(losses) < 3:
        raise ValueError(f"the loss is no use from a rate of {low:g} on: run forward_check first, or begin lower")
    slopes = np.gradient(np.array(losses), np.log(rates))[
        : np.argmin(losses) + 1
    ]  # what falls after a rise is no guide
    if slopes.min() >= 0:
        raise ValueError("the loss falls at no learning rate: run backward_check, which says what may be wrong")
    return RateTest(rates, losses, rates[int(slopes.argmin())])


def _again_and_again(loader):
    while True:
        yield from loader


def _first_batch(model, loader):
    device = next(model.parameters()).device
    images, labels = next(iter(loader))
    return images.to(device), labels.to(device)


def _flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@contextmanager
def _apart(model, optimizer, loader, seed):
    """Give copies of model and optimizer that belong together, and put the loader and the random state back after."""
    sampler = getattr(loader, "sampler", None)
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
