"""Every architecture, one function or class each. Images (B, 1, 28, 28) float in, logits (B, 10) out."""

from torch import nn


def network(widths=(128, 64)):
    """Return the plain multilayer perceptron of the source project: linear layers with ReLU between, no regularisation.

    784-128-64-10 has 784*128+128 + 128*64+64 + 64*10+10 = 109,386 parameters.
    """
    sizes = (784, *widths)
    hidden = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        hidden += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], 10))


def mlp_baseline(width=256, dropout=0.3):
    """Return the baseline perceptron: two hidden layers, each with batch normalisation, ReLU and dropout.

    With width 256 it has 784*256+256 + 512 + 256*256+256 + 512 + 256*10+10 = 270,346 parameters.
    """
    return nn.Sequential(
        nn.Flatten(),  # (B, 1, 28, 28) -> (B, 784)
        nn.Linear(784, width),  # (B, 256)
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),  # (B, 256)
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, 10),  # (B, 10) logits
    )


MODELS = {model.__name__: model for model in (network, mlp_baseline)}


def build_model(name, **arguments):
    """Return a freshly initialised model by its name in `MODELS`; raises ValueError for an unknown one."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name](**arguments)


def count_parameters(model):
    """Return how many numbers training may change in `model`."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
