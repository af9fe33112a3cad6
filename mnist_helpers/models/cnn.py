"""Plain convolutional networks. Images (B, 1, 28, 28) float in, logits (B, 10) out."""

from collections.abc import Sequence

from torch import nn


def lenet5() -> nn.Sequential:
    """Return LeNet-5 with today's parts (ReLU, max-pooling, full connections): 61,706 parameters.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998).
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),  # (B, 6, 28, 28)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (B, 6, 14, 14)
        nn.Conv2d(6, 16, 5),  # (B, 16, 10, 10)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (B, 16, 5, 5)
        nn.Flatten(),  # (B, 400)
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),  # (B, 10) logits
    )


def cnn_dropout() -> nn.Sequential:
    """Return the first dropout CNN of the source project, without an activation between its convolutions.

    Its text says two max-pools; the 3,136 = 16*14*14 inputs of its first linear layer mean one.
    """
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),  # (B, 8, 28, 28)
        nn.Dropout2d(0.4),
        nn.MaxPool2d(2),  # (B, 8, 14, 14)
        nn.Conv2d(8, 16, 3, padding=1),  # (B, 16, 14, 14)
        nn.Dropout2d(0.2),
        nn.Flatten(),  # (B, 3136)
        *_linear_layers((3136, 784, 196, 49), (0.6, 0.3, 0.15)),
    )


def cnn_tuned() -> nn.Sequential:
    """Return the second dropout CNN of the source project: pooled twice, with smaller linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),  # (B, 8, 28, 28)
        nn.Dropout2d(0.4),
        nn.AvgPool2d(2),  # (B, 8, 14, 14)
        nn.Conv2d(8, 16, 3, padding=1),  # (B, 16, 14, 14)
        nn.Dropout2d(0.2),
        nn.MaxPool2d(2),  # (B, 16, 7, 7)
        nn.Flatten(),  # (B, 784)
        *_linear_layers((784, 512, 128, 64), (0.5, 0.3, 0.15)),
    )


def keras_cnn() -> nn.Sequential:
    """Return the Keras-style CNN of the source project: two convolutions, one pooling, one linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 3),  # (B, 64, 26, 26)
        nn.ReLU(),
        nn.Conv2d(64, 32, 3),  # (B, 32, 24, 24)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (B, 32, 12, 12)
        nn.Flatten(),  # (B, 4608)
        nn.Linear(4608, 10),  # (B, 10) logits
    )


# (channels, kernel side, stride) of each convolution, as published
CONV_BN_RELU = [(32, 3, 2), (32, 3, 1), (64, 1, 1), (64, 3, 2), (128, 1, 1), (128, 3, 1), (128, 1, 1), (128, 3, 2)]
CONV_BN_RELU += [(256, 1, 1), (256, 3, 1), (256, 1, 1), (256, 3, 1), (512, 1, 1), (512, 3, 1), (512, 1, 1), (512, 3, 2)]
CONV_BN_RELU += [(1024, 1, 1), (1024, 3, 1), (1024, 1, 1)]


def conv_bn_relu(width: float = 1.0) -> nn.Sequential:
    """Return the Conv-BN-ReLU network of the source project: 19 convolutions, 17,798,506 parameters at width 1.

    Every convolution has padding 1, even the 1x1 ones, which therefore enlarge the feature maps by 2.

    Args:
        width: all channel counts are multiplied by it.
    """
    layers: list[nn.Module] = []
    inputs = 1
    for channels, kernel, stride in CONV_BN_RELU:
        outputs = round(channels * width)
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def _linear_layers(widths: Sequence[int], dropouts: Sequence[float]) -> list[nn.Module]:
    """Return linear layers of these widths with ReLU and dropout between them, and a last one to ten logits."""
    layers: list[nn.Module] = []
    for inputs, outputs, dropout in zip(widths, widths[1:], dropouts):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return [*layers, nn.Linear(widths[-1], 10)]
