"""Every architecture by its name, one function or class each. Images (B, 1, 28, 28) float in, logits (B, 10) out."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from ..environment import seeded
from .averaged import Committee, ShiftAveraged
from .cnn import cnn_dropout, cnn_tuned, conv_bn_relu, keras_cnn, lenet5
from .fast import fast_cnn
from .initialisation import glorot_initialisation, normal_initialisation
from .mlp import improved_network, mlp_baseline, network
from .residual import densenet_small, resnet_small


def shift_averaged(
    model: str = "fast_cnn", model_arguments: Mapping[str, Any] | None = None, diagonals: bool = False
) -> ShiftAveraged:
    """Return `ShiftAveraged` around the model of this name in `MODELS`."""
    return ShiftAveraged(build_model(model, **(model_arguments or {})), diagonals)


def committee_of(members: Sequence[tuple[str, Mapping[str, Any]]] = 5 * (("fast_cnn", {}),)) -> Committee:
    """Return a `Committee`; `members` is a list of (name in `MODELS`, its arguments)."""
    return Committee(build_model(model, **arguments) for model, arguments in members)


INITIALISATIONS = {"normal": normal_initialisation, "glorot": glorot_initialisation}

PERCEPTRONS = network, improved_network, mlp_baseline
CONVOLUTIONAL = lenet5, cnn_dropout, cnn_tuned, keras_cnn, conv_bn_relu, resnet_small, densenet_small, fast_cnn
OTHERS = shift_averaged, committee_of
MAX_PARTS = 1000  # weights and biases of a model's layers
MAX_DEPTH = 50  # of lists and objects among a model's arguments
LARGEST_MODEL = 1_000_000_000  # bytes
MODELS: dict[str, Callable[..., nn.Module]] = {model.__name__: model for model in PERCEPTRONS + CONVOLUTIONAL + OTHERS}


def build_model(name: str, **arguments: Any) -> nn.Module:
    """Return a freshly initialised model by its name in `MODELS`; raises ValueError for an unknown one."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name](**arguments).to(memory_format=torch.channels_last)  # convolutions train up to a quarter faster


def outline(name: str, **arguments: Any) -> nn.Module:
    """Return what `build_model` does on the device "meta": with shapes and names, but without memory for its numbers.

    Raises:
        ValueError: the model would have too many layers or take too much memory; as for `build_model`.
    """
    _check_arguments(arguments)
    with seeded(0), torch.device("meta"), _LimitedParts():  # the caller's random state stays as it is
        model = build_model(name, **arguments)
    if (size := sum(value.nbytes for value in model.state_dict().values())) > LARGEST_MODEL:
        raise ValueError(f"the model would take {size:,} bytes, and at most {LARGEST_MODEL:,} are allowed")
    return model


def _check_arguments(value: Any, depth: int = 0) -> int:
    """Return how many values a model's arguments hold; raises ValueError for too many, or nested too deep."""
    if not isinstance(value, (dict, list, tuple)):
        return 1
    if depth > MAX_DEPTH:
        raise ValueError(f"the model's arguments are nested more than {MAX_DEPTH} deep")
    n = 0
    for one in value.values() if isinstance(value, dict) else value:
        n += _check_arguments(one, depth + 1)
        if n > MAX_PARTS:
            raise ValueError(f"the model would have more than {MAX_PARTS:,} arguments")
    return n + 1


class _LimitedParts(TorchFunctionMode):
    """Counts what this thread's layers are made of within the `with` block, and ends it when that is too much."""

    def __init__(self) -> None:
        super().__init__()
        self.n_parts = 0

    def __torch_function__(
        self, function: Callable, types: object, given: tuple = (), options: dict[str, Any] | None = None
    ) -> Any:
        """Do what was called."""
        self.n_parts += function is torch.empty
        if self.n_parts > MAX_PARTS:
            raise ValueError(f"the model would have more than {MAX_PARTS:,} weights and biases of layers")
        return function(*given, **(options or {}))


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network itself where DataParallel, DistributedDataParallel or `torch.compile` is wrapped around it."""
    dynamo: Any = sys.modules.get("torch._dynamo")  # importing it takes seconds; before that, nothing is compiled
    while True:
        if isinstance(model, (nn.DataParallel, DistributedDataParallel)):
            model = model.module
        elif dynamo is not None and isinstance(model, dynamo.OptimizedModule):
            model = model._orig_mod
        else:
            return model


def device_of(model: nn.Module) -> torch.device:
    """Return the device that a model's parameters lie on, or else its buffers; the CPU for one without any numbers."""
    return next(chain(model.parameters(), model.buffers()), torch.empty(0, device="cpu")).device


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers training may change in `model`."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode within the `with` block, then each of its modules back as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
