"""Other ink, other ground and dirt: how whole batches of digits may look different, on the device where they lie.

None of these is a function of MNIST-C (Mu and Gilmer 2019), which the project only scores with. Some families overlap:
`darken_part` with its stripe, `slow_ground` with its fog, `change_range` with its brightness, `strokes_across` with its
zigzag and dotted line, `noise` and `specks` with its shot and impulse noise, `blur` with its motion blur, `hollow`
with its Canny edges, `spots` with its spatter, `roughen` with its glass blur. Every function takes images float
(N, 1, H, W) from 0, ground, to 1, ink, and returns such images.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Distortion = Callable[[Tensor, torch.Generator], Tensor]


def thicken(images: Tensor, generator: torch.Generator) -> Tensor:
    """Broaden strokes by up to 2.5 pixels on either side (Castro and others, "Morpho-MNIST", 2019)."""
    return _morphed(images, generator, steps=5, change=_dilated)


def thin(images: Tensor, generator: torch.Generator) -> Tensor:
    """Take up to one pixel off strokes on either side and make the rest as dark as before (Morpho-MNIST)."""
    thinned = _morphed(images, generator, steps=2, change=lambda large: -_dilated(-large))
    peaks, before = thinned.amax((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(peaks > 0.25 * before, thinned * before / peaks.clamp_min(1e-3), images)


def hollow(images: Tensor, generator: torch.Generator) -> Tensor:
    """Leave the strokes' outlines: what dilation adds, with some of what erosion takes away."""
    inner = -_dilated(-images)
    share = _uniform(images, generator, 0.0, 1.0)
    return (_dilated(images) - inner) * share + (images - inner) * (1 - share)


def blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur with a Gaussian of 0.4 to 3 pixels along one direction and of up to 1.5 across."""
    along = _uniform(images, generator, 0.4, 3.0)
    across = along.clamp_max(1.5) * _uniform(images, generator, 0.2, 1.0)
    angle = _uniform(images, generator, 0.0, math.pi)
    down, right = torch.meshgrid(*[torch.arange(-4.0, 5.0, device=images.device)] * 2, indexing="ij")
    u, v = right * angle.cos() + down * angle.sin(), down * angle.cos() - right * angle.sin()
    kernels = torch.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))  # (N, 1, 9, 9)
    return _filtered(images, kernels / kernels.sum((2, 3), keepdim=True))


def random_filter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mix images with themselves through a random 3x3 filter ("RandConv", Xu and others 2021)."""
    kernels = torch.randn(len(images), 1, 3, 3, generator=generator, device=generator.device).to(images) / 3
    share = _uniform(images, generator, 0.2, 0.8)
    return (share * images + (1 - share) * _filtered(images, kernels)).clamp(0, 1)


def coarsen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bring images to 9 to 20 pixels a side and back, as small pictures that were enlarged are."""
    side = int(torch.randint(9, 21, (), generator=generator, device=generator.device))
    small = F.interpolate(images, size=(side, side), mode="area")
    return F.interpolate(small, size=images.shape[-2:], mode=("bilinear", "nearest")[side % 2])


def roughen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Take each pixel from a random neighbour up to 1 or 2 pixels away: rims as on coarse paper."""
    n, _, height, width = images.shape
    reach = 1 + int(torch.randint(2, (), generator=generator, device=generator.device))
    drawn = torch.rand(2, n, height, width, generator=generator, device=generator.device).to(images)
    down, right = ((2 * reach + 1) * drawn - reach).floor().long().unbind(0)
    rows = (torch.arange(height, device=images.device)[:, None] + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right).clamp(0, width - 1)
    moved = images.flatten(1).gather(1, (rows * width + columns).flatten(1)).view_as(images)
    return torch.lerp(images, moved, _uniform(images, generator, 0.5, 1.0))


def change_range(images: Tensor, generator: torch.Generator) -> Tensor:
    """Give the ground a value from 0 to 0.7 and the ink one that is from 0.15 larger to 1."""
    low = _uniform(images, generator, 0.0, 0.7)
    high = low + 0.15 + (0.85 - low) * _uniform(images, generator, 0.0, 1.0)
    return low + (high - low) * images


def change_gamma(images: Tensor, generator: torch.Generator) -> Tensor:
    """Raise values to a power from 0.3 to 3.3."""
    return images.clamp_min(0) ** _uniform(images, generator, -1.2, 1.2).exp()


def slow_ground(images: Tensor, generator: torch.Generator) -> Tensor:
    """Lay an uneven ground of up to 0.9 under the ink, from noise of 2 to 6 pixels a side, enlarged."""
    sides = torch.randint(2, 7, (2,), generator=generator, device=generator.device).tolist()
    noise = torch.rand(len(images), 1, *sides, generator=generator, device=generator.device).to(images)
    ground = F.interpolate(noise, size=images.shape[-2:], mode="bicubic").clamp(0, 1)
    ground = ground * _uniform(images, generator, 0.2, 0.9)
    fog = _uniform(images, generator, 0.0, 1.0) < 0.5
    return torch.where(fog, ground + (1 - ground) * images, torch.maximum(images, ground))


def invert(images: Tensor, generator: torch.Generator) -> Tensor:
    """Exchange ink and ground."""
    return 1 - images


def darken_part(images: Tensor, generator: torch.Generator) -> Tensor:
    """Exchange ink and ground on one side of a random line, or on both sides of a band."""
    angle = _uniform(images, generator, 0.0, 2 * math.pi)
    down, right = _places(images)
    across, edge = right * angle.cos() + down * angle.sin(), _uniform(images, generator, -8.0, 10.0)
    beyond = torch.where(_uniform(images, generator, 0.0, 1.0) < 0.5, across, across.abs()) > edge
    return torch.where(beyond, 1 - images, images)


def ruled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw lines 4 to 16 pixels apart, parallel or crossed, under the ink, as on squared paper."""
    angle, period = _uniform(images, generator, -0.2, 0.2), _uniform(images, generator, 4.0, 16.0)
    width, shade = _uniform(images, generator, 0.6, 2.0), _uniform(images, generator, 0.1, 0.7)
    crossed = _uniform(images, generator, 0.0, 1.0)
    down, right = _places(images)
    first = _lines(right * angle.sin() + down * angle.cos(), period, width)
    second = _lines(right * angle.cos() - down * angle.sin(), period, width)
    lines = torch.where(crossed < 0.33, first, torch.where(crossed < 0.5, second, torch.maximum(first, second)))
    return torch.maximum(images, shade * lines)


def noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise with a standard deviation of up to 0.35, fine or coarse, or multiply by it."""
    height, width = images.shape[-2:]
    grain = 1 + int(torch.randint(2, (), generator=generator, device=generator.device))
    size = (len(images), 1, math.ceil(height / grain), math.ceil(width / grain))
    drawn = torch.randn(size, generator=generator, device=generator.device).to(images)
    drawn = drawn.repeat_interleave(grain, 2).repeat_interleave(grain, 3)[..., :height, :width]
    drawn = drawn * _uniform(images, generator, 0.02, 0.35)
    multiplied = _uniform(images, generator, 0.0, 1.0) < 0.3
    return (images + torch.where(multiplied, 1.5 * drawn * images, drawn)).clamp(0, 1)


def specks(images: Tensor, generator: torch.Generator) -> Tensor:
    """Replace up to a fifth of all pixels by random values."""
    drawn = torch.rand(2, *images.shape, generator=generator, device=generator.device).to(images)
    values = torch.where(_uniform(images, generator, 0.0, 1.0) < 0.5, drawn[1].round(), drawn[1])
    return torch.where(drawn[0] < _uniform(images, generator, 0.01, 0.2), values, images)


def cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cover a rectangle of 3 to 10 pixels a side with one value (DeVries and Taylor 2017)."""
    down, right = _places(images)
    across = (right - _uniform(images, generator, -10.0, 10.0)).abs() < _uniform(images, generator, 1.5, 5.0)
    along = (down - _uniform(images, generator, -10.0, 10.0)).abs() < _uniform(images, generator, 1.5, 5.0)
    return torch.where(across & along, _uniform(images, generator, -0.5, 1.0).clamp_min(0), images)


def strokes_across(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a bent line, whole or dotted, in ink or as a gap, across the image."""
    n, height, width = len(images), *images.shape[-2:]
    drawn = torch.rand(2, 7, n, 1, 1, 1, generator=generator, device=generator.device).to(images) - 0.5
    corners = [list(places * side) for places, side in zip(drawn, (width, height))]  # 7 places right, 7 down
    steps = torch.linspace(-0.5, 0.5, 7).tolist()
    spread = _uniform(images, generator, 0.1, 0.8)  # from a wavering line to a scrawl
    turned = _uniform(images, generator, 0.0, 1.0) < 0.5
    for number, step in enumerate(steps):  # from one side to the other
        x, y = corners[0][number], corners[1][number]
        ahead, aside = step * width + 0.15 * x, spread * y + spread.flip(0) * 8
        corners[0][number], corners[1][number] = torch.where(turned, aside, ahead), torch.where(turned, ahead, aside)
    down, right = _places(images)
    distance = torch.full_like(images, math.inf)
    for x, y, next_x, next_y in zip(*corners, corners[0][1:], corners[1][1:]):
        across, along = next_x - x, next_y - y
        length = (across**2 + along**2).clamp_min(1e-6)
        share = ((right - x) * (across / length) + (down - y) * (along / length)).clamp_(0, 1)  # (N, 1, H, W)
        squared = (right - x - share * across).square_() + (down - y - share * along).square_()
        distance = torch.minimum(distance, squared)
    pen = _uniform(images, generator, 0.3, 1.5)
    line = (pen + 0.5 - distance.sqrt()).clamp(0, 1)
    gaps = _lines(right + down, _uniform(images, generator, 3.0, 6.0), torch.full_like(pen, 2.0))
    line = torch.where(_uniform(images, generator, 0.0, 1.0) < 0.4, line * gaps, line)
    value = _uniform(images, generator, -0.3, 1.4).clamp(0, 1)
    return images * (1 - line) + value * line


def spots(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add three round spots of up to 3 pixels' radius, of ink or none, with soft edges."""
    down, right = _places(images)
    for _ in range(3):
        x, y = (_uniform(images, generator, -14.0, 14.0) for _ in range(2))
        radius = _uniform(images, generator, 0.5, 3.0)
        spot = (radius + 0.5 - ((right - x) ** 2 + (down - y) ** 2).sqrt()).clamp(0, 1)
        images = images * (1 - spot) + _uniform(images, generator, -0.3, 1.3).clamp(0, 1) * spot
    return images


INK: tuple[Distortion, ...] = (thicken, thin, hollow, hollow, blur, blur, roughen, random_filter, coarsen)
GROUND: tuple[Distortion, ...] = (
    change_range,
    change_gamma,
    slow_ground,
    slow_ground,
    invert,
    darken_part,
    darken_part,
    ruled,
)
DIRT: tuple[Distortion, ...] = (noise, specks, cutout, strokes_across, strokes_across, spots)


def vary_appearance(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return images of which each has another ink, another ground and dirt on it, each with a chance of `share`.

    Args:
        images: float (N, 1, H, W) from 0, ground, to 1, ink.
        generator: draws everything, on any device.
    """
    for stage in (INK, GROUND, DIRT):
        draws = torch.rand(len(images), generator=generator, device=generator.device).to(images.device)
        chosen = (draws / share * len(stage)).long()  # one of the stage's distortions; beyond them, none
        for number, distortion in enumerate(stage):
            places = (chosen == number).nonzero()[:, 0]
            if len(places):
                images = images.index_copy(0, places, distortion(images[places], generator))
    return images


def _uniform(images: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Return a number from `low` to `high` for each image, (N, 1, 1, 1)."""
    drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
    return low + (high - low) * drawn.to(images)


def _places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far each pixel lies below (H, 1) and right of (1, W) the centre."""
    height, width = images.shape[-2:]
    down = torch.arange(height, device=images.device, dtype=images.dtype) - (height - 1) / 2
    right = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2
    return down[:, None], right[None]


def _lines(places: Tensor, period: Tensor, width: Tensor) -> Tensor:
    """Return lines across an axis, 1 on them and 0 between them, with soft edges."""
    return ((width + 1) / 2 - ((places + period / 3) % period - period / 2).abs()).clamp(0, 1)


def _dilated(images: Tensor) -> Tensor:
    """Return the largest value of each pixel's 3x3 neighbourhood; on CPUs far faster than max_pool2d."""
    down = F.pad(images, (0, 0, 1, 1), mode="replicate")
    tall = torch.maximum(torch.maximum(down[..., :-2, :], down[..., 2:, :]), images)
    wide = F.pad(tall, (1, 1, 0, 0), mode="replicate")
    return torch.maximum(torch.maximum(wide[..., :-2], wide[..., 2:]), tall)


def _morphed(images: Tensor, generator: torch.Generator, steps: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return images whose strokes change by up to so many steps of half a pixel, each image by its own."""
    large = F.interpolate(images, scale_factor=2, mode="bilinear")
    wanted, result = _uniform(images, generator, 0.3, steps), large
    for step in range(steps):
        larger = change(large)
        result = torch.lerp(result, larger, (wanted - step).clamp(0, 1))
        large = larger
    return F.avg_pool2d(result, 2)


def _filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Return each image (N, 1, H, W) through its own filter (N, 1, k, k)."""
    n, reach = len(images), kernels.shape[-1] // 2
    padded = F.pad(images.transpose(0, 1), [reach] * 4, mode="replicate")
    return F.conv2d(padded, kernels, groups=n).transpose(0, 1)
