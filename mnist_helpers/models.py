"""Every architecture, one function or class each. Images (B, 1, 28, 28) float in, logits (B, 10) out."""

import math

import torch
from torch import nn


def network(widths=(128, 64), dropout=0.0, batch_norm=False):
    """Return the plain multilayer perceptron of the source project: linear layers with ReLU between them.

    784-128-64-10 has 784*128+128 + 128*64+64 + 64*10+10 = 109,386 parameters.

    Args:
        widths: neurons in each hidden layer.
        dropout: the share of each hidden layer's outputs that training silences at random (Srivastava et al. 2014).
        batch_norm: bring each hidden neuron's sums to a common scale (Ioffe and Szegedy 2015), 2 parameters a neuron.
    """
    layers, inputs = [nn.Flatten()], 784  # (B, 1, 28, 28) -> (B, 784)
    for width in widths:
        layers.append(nn.Linear(inputs, width))  # (B, width)
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU())
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 10))  # (B, 10) logits


def improved_network(widths=(128, 64), dropout=0.2, batch_norm=True):
    """Return `network` with dropout and batch normalisation after each hidden layer: 109,770 parameters."""
    return network(widths, dropout, batch_norm)


def mlp_baseline(width=256, dropout=0.3):
    """Return the baseline perceptron: two hidden layers of `width`, each with batch normalisation, ReLU and dropout.

    With width 256 it has 784*256+256 + 512 + 256*256+256 + 512 + 256*10+10 = 270,346 parameters.
    """
    return network((width, width), dropout, batch_norm=True)


def lenet5(outputs=10):
    """Return LeNet-5 with today's parts (ReLU, max-pooling, full connections): 61,706 parameters, `outputs` logits.

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
        nn.Linear(84, outputs),  # (B, 10) logits
    )


def cnn_dropout():
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


def cnn_tuned():
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


def keras_cnn():
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
CONV_BN_RELU = (
    *((32, 3, 2), (32, 3, 1), (64, 1, 1), (64, 3, 2), (128, 1, 1), (128, 3, 1), (128, 1, 1), (128, 3, 2)),
    *((256, 1, 1), (256, 3, 1), (256, 1, 1), (256, 3, 1), (512, 1, 1), (512, 3, 1), (512, 1, 1), (512, 3, 2)),
    *((1024, 1, 1), (1024, 3, 1), (1024, 1, 1)),
)


def conv_bn_relu(width=1.0):
    """Return the Conv-BN-ReLU network of the source project: 19 convolutions, 17,798,506 parameters at width 1.

    Every convolution has padding 1, the 1x1 ones too, so that these let the feature maps grow by 2.

    Args:
        width: all channel counts are multiplied by it.
    """
    layers, inputs = [], 1
    for channels, kernel, stride in CONV_BN_RELU:
        outputs = round(channels * width)
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


class Residual(nn.Module):
    """Two 3x3 convolutions whose result is added to their input (He, Zhang, Ren and Sun 2016), or to its projection."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.change = nn.Sequential(*_conv_block(inputs, outputs, stride), *_conv_block(outputs, outputs)[:-1])
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images):
        """Return (B, outputs, H / stride, W / stride)."""
        return torch.relu(self.change(images) + self.shortcut(images))


def resnet_small(width=16, outputs=10):
    """Return a small residual network: three stages of `width`, 2 and 4 times as many channels; `outputs` logits."""
    return nn.Sequential(
        *_conv_block(1, width),  # (B, 16, 28, 28)
        nn.MaxPool2d(2),  # (B, 16, 14, 14)
        Residual(width, width),
        Residual(width, 2 * width, stride=2),  # (B, 32, 7, 7)
        Residual(2 * width, 4 * width, stride=2),  # (B, 64, 4, 4)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),  # (B, 64)
        nn.Linear(4 * width, outputs),  # (B, 10) logits
    )


class Dense(nn.Module):
    """Convolutions that each see everything before them, concatenated (Huang, Liu, van der Maaten, Weinberger 2017)."""

    def __init__(self, inputs, growth, n_layers):
        super().__init__()
        blocks = [_conv_block(inputs + layer * growth, growth) for layer in range(n_layers)]
        self.layers = nn.ModuleList(nn.Sequential(*block) for block in blocks)

    def forward(self, images):
        """Return (B, inputs + n_layers * growth, H, W)."""
        for layer in self.layers:
            images = torch.cat([images, layer(images)], dim=1)
        return images


def densenet_small(growth=12):
    """Return a small densely connected network: two dense blocks with a pooling transition between them."""
    first = 2 * growth + 4 * growth
    second = first // 2 + 4 * growth
    return nn.Sequential(
        *_conv_block(1, 2 * growth),  # (B, 24, 28, 28)
        nn.MaxPool2d(2),  # (B, 24, 14, 14)
        Dense(2 * growth, growth, 4),  # (B, 72, 14, 14)
        nn.Conv2d(first, first // 2, 1, bias=False),  # (B, 36, 14, 14)
        nn.BatchNorm2d(first // 2),
        nn.ReLU(),
        nn.AvgPool2d(2),  # (B, 36, 7, 7)
        Dense(first // 2, growth, 4),  # (B, 84, 7, 7)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),  # (B, 84)
        nn.Linear(second, 10),  # (B, 10) logits
    )


class BoundaryNet(nn.Module):
    """A small U-Net: for each point of a picture (B, 1, 32, W) the logit of lying on a boundary, (B, 32, W).

    W is a multiple of 8. Each of the three levels below sees twice as far as the one above it.

    Source: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation" (2015).
    """

    def __init__(self, width=8):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.down = nn.ModuleList(
            nn.Sequential(*_conv_block(inputs, outputs), *(_conv_block(outputs, outputs) if inputs > 1 else []))
            for inputs, outputs in zip([1, *widths], widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(*_conv_block(below + beside, beside)) for below, beside in zip(widths[1:], widths)
        )
        self.pool, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, images):
        """Return the logits."""
        maps = [self.down[0](images)]  # (B, 8, 32, W), then (B, 16, 16, W / 2), (B, 32, 8, W / 4), (B, 48, 4, W / 8)
        for level in self.down[1:]:
            maps.append(level(self.pool(maps[-1])))
        found = maps.pop()
        for level in reversed(self.up):
            found = level(torch.cat([self.enlarge(found), maps.pop()], dim=1))
        return self.last(found)[:, 0]


def boundary_net(width=8):
    """Return a `BoundaryNet` with `width` channels at full resolution."""
    return BoundaryNet(width)


class FirstConv(nn.Conv2d):
    """A convolution of a single channel, in float32 whatever the precision of what follows it.

    With one input channel there is little to multiply, and CPUs are several times slower at it in bfloat16.
    """

    def forward(self, images):
        """Return the feature maps in the precision of the surrounding autocast."""
        device = images.device.type
        with torch.autocast(device, enabled=False):
            maps = super().forward(images)
        return maps.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else maps


def fast_cnn(widths=(16, 32, 32), pool_after=0, dropout=0.0, depthwise_head=False):
    """Return a network made for speed: little is computed at a high resolution, and pooled before it is activated.

    The first convolution takes every second place; maps are 12x12, then 6x6, at the end 3x3. Where the factors of
    batch normalisation are positive, pooling before it and the activation gives what pooling after them does, for a
    quarter of the work.

    Args:
        widths: channels of the first convolution (6x6), and of each 3x3 convolution after it.
        pool_after: the convolution (0 is the first) after which maps are pooled to 6x6; after the last, to 3x3.
        dropout: the share of the last layer's inputs that training silences at random.
        depthwise_head: weight the places of each channel's 3x3 map by a 3x3 filter of its own, instead of giving all
            of them to the last layer: far fewer parameters.
    """
    layers = []
    for place, (inputs, outputs) in enumerate(zip((1, *widths), widths)):
        if place == 0:
            layers.append(FirstConv(1, outputs, 6, stride=2, bias=False))  # (B, 16, 12, 12)
        else:
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        if place in (pool_after, len(widths) - 1):
            layers.append(nn.MaxPool2d(2))  # (B, 16, 6, 6), at last (B, 32, 3, 3)
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    features = 9 * widths[-1]
    if depthwise_head:
        features = widths[-1]
        layers += [nn.Conv2d(features, features, 3, groups=features, bias=False), nn.BatchNorm2d(features)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, 10))  # (B, 10) logits


class ShiftAveraged(nn.Module):
    """A network that, when it is not training, averages its answers to an image and to four shifts of it by a pixel.

    The image itself counts twice. The answers are averaged as logarithms of probabilities, (B, 10). What a shift pushes
    out at one edge comes in at the other: the outermost pixels of digits in MNIST's form are background.
    """

    SHIFTS = (0, 0), (0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        """Return logits (B, 10) while training, and else averaged logarithms of probabilities, which serve as such."""
        if self.training:
            return self.network(images)
        views = [torch.roll(images, shift, (2, 3)) for shift in self.SHIFTS]
        return torch.stack([self.network(view).log_softmax(dim=1) for view in views]).mean(dim=0)


def shift_averaged(model="fast_cnn", model_arguments=None):
    """Return `ShiftAveraged` around the model of this name in `MODELS`."""
    return ShiftAveraged(MODELS[model](**(model_arguments or {})))


def committee(logits):
    """Return the logarithms of a committee's probabilities (N, 10), the mean of its members'; they serve as logits.

    `logits` is a list of the members', each (N, 10), for the same images in the same order; at least one.
    """
    logarithms = torch.stack([one.log_softmax(dim=1) for one in logits])  # (members, N, 10)
    return logarithms.logsumexp(dim=0) - math.log(len(logits))


class Committee(nn.Module):
    """Networks that answer together, see `committee`."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images):
        """Return the logarithms of the mean probabilities (B, 10); they serve as logits."""
        return committee([member(images) for member in self.members])


def committee_of(model="fast_cnn", model_arguments=None, n_members=5):
    """Return a `Committee` of `n_members` models of this name in `MODELS`."""
    return Committee(MODELS[model](**(model_arguments or {})) for _ in range(n_members))


def _conv_block(inputs, outputs, stride=1):
    """Return a 3x3 convolution, batch normalisation and ReLU; the normalisation makes a bias superfluous."""
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _linear_layers(widths, dropouts):
    """Return linear layers of these widths with ReLU and dropout between them, and a last one to ten logits."""
    layers = []
    for inputs, outputs, dropout in zip(widths, widths[1:], dropouts):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return [*layers, nn.Linear(widths[-1], 10)]


@torch.no_grad()
def normal_initialisation(model):
    """Draw each linear layer's weights from N(0, 1 / sqrt(n)), n its number of inputs, and set its biases to 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def glorot_initialisation(model):
    """Draw all weights evenly from Glorot and Bengio's range (2010) and set biases to 0, as Keras does by default."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


INITIALISATIONS = {"normal": normal_initialisation, "glorot": glorot_initialisation}
MODELS = {
    model.__name__: model
    for model in (
        *(network, improved_network, mlp_baseline, lenet5, cnn_dropout, cnn_tuned, keras_cnn),
        *(conv_bn_relu, resnet_small, densenet_small, boundary_net, fast_cnn, shift_averaged, committee_of),
    )
}


def build_model(name, **arguments):
    """Return a freshly initialised model by its name in `MODELS`; raises ValueError for an unknown one."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name](**arguments).to(memory_format=torch.channels_last)  # convolutions train up to a quarter faster


def count_parameters(model):
    """Return how many numbers training may change in `model`."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
