"""Pieces of ink in which digits touch, made of single digits: what the network that finds cuts is trained on.

`python -m mnist_helpers.handwriting.learn.touching` trains it anew, on training digits alone.
"""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from ...data.digits import Digits, load_mnist
from ...data.loaders import SPLIT, stratified_split
from ...environment import choose_device, has_bfloat16, seeded
from ...files import sha256, write_atomically
from ...models import count_parameters, evaluation_mode
from ..boundary import BoundaryNet
from ..cuts import HEIGHT, WEIGHTS, scaled
from ..segmentation import trimmed
from .oddities import odd_drawing

WIDTH = 64  # columns of the windows that are trained on: two digits and a little
EXAMPLES, EPOCHS, BATCH = 50_000, 6, 64
ODD_EVERY = 6  # one example in 6 is no digit, and has no boundary
EDGE_WEIGHT = 3.0  # in the loss, of points on a boundary; there are few


def touching_piece(images: np.ndarray, seed: int | list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (ink, boundary), bool (32, W) each: a piece of ink, and where in it a digit ends and another begins.

    All digits are written by one hand: with one slant and one pen, and each a little larger or smaller, higher or
    lower than the others. The pen may be broken, the page soft and rough. What does not hang together with the
    largest piece is left out, so that there may be no boundary in it.

    Args:
        images: uint8 (N, 28, 28), the digits from left to right; one alone has no boundary.
    """
    random = np.random.default_rng(seed)
    digits = _written(images, random)
    sheet, owners = _joined(digits, random)
    rough = cv2.GaussianBlur(sheet, (0, 0), random.uniform(0.3, 2.0))
    grain = cv2.GaussianBlur(random.standard_normal(sheet.shape).astype(np.float32), (0, 0), 1.5)
    mask = rough + random.choice([0.0, 0.0, 0.8]) * grain > random.uniform(0.3, 0.55)
    if random.random() < 0.15:  # a break, or a printed line taken out
        row, gap = int(random.uniform(0.1, 0.9) * len(mask)), int(random.integers(2, 6))
        mask[row : row + gap] = False
    if random.random() < 0.08:  # what is left of a printed line
        row, column = (int(random.uniform(0.1, 0.9) * side) for side in mask.shape)
        mask[row : row + int(random.integers(1, 4)), column : column + int(random.integers(8, 50))] = True
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if len(stats) == 1:
        return np.zeros((HEIGHT, 8), bool), np.zeros((HEIGHT, 8), bool)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height = stats[largest, :4].tolist()
    window = slice(top, top + height), slice(left, left + width)
    ink = scaled(pieces[window] == largest)
    shown = owners & (pieces == largest)
    shown = shown[shown.sum(axis=(1, 2)) > 0.2 * owners.sum(axis=(1, 2))]
    owner = cv2.resize(_nearest(shown[:, *window]), ink.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return ink, _changes(owner)


def examples(digits: Digits, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (ink float32 (n, 32, 64), boundaries float32 (n, 32, 64)): touching digits, single ones and no digits."""
    random = np.random.default_rng(seed)
    inks, boundaries = np.zeros((2, n, HEIGHT, WIDTH), np.float32)
    for number in range(n):
        if number < n // ODD_EVERY:
            ink = scaled(trimmed(0, 0, odd_drawing(random) > 128, number).mask)
            boundary = np.zeros_like(ink)
        else:
            chosen = random.choice(len(digits), random.choice([1, 2, 3], p=[0.3, 0.55, 0.15]))
            ink, boundary = touching_piece(digits.images.numpy()[chosen], [seed, number])
        start = int(random.integers(min(0, WIDTH - ink.shape[1]), max(0, WIDTH - ink.shape[1]) + 1))
        shown = slice(max(0, -start), max(0, -start) + WIDTH)
        ink, boundary = ink[:, shown], boundary[:, shown]
        inks[number, :, max(0, start) :][:, : ink.shape[1]] = ink
        boundaries[number, :, max(0, start) :][:, : ink.shape[1]] = boundary
    return torch.from_numpy(inks), torch.from_numpy(boundaries)


def train(path: Path = WEIGHTS) -> None:
    """Train the network on training digits, print its loss on validation digits, and save it at `path`."""
    digits = load_mnist()
    training, validation = (digits.take(part) for part in stratified_split(digits.labels))
    learn, check = examples(training, EXAMPLES, seed=1_000_000), examples(validation, EXAMPLES // 20, seed=2_000_000)
    with seeded(0):
        model = BoundaryNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-4)
    steps = EPOCHS * math.ceil(EXAMPLES / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    bfloat16 = has_bfloat16(choose_device("cpu"))
    for epoch in range(EPOCHS):
        model.train()
        for chosen in torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(epoch)).split(BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                outputs = model(learn[0][chosen, None])
            optimizer.zero_grad()
            _loss(outputs.float(), learn[1][chosen]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad(), evaluation_mode(model):
            loss = _loss(torch.cat([model(part[:, None]) for part in check[0].split(500)]), check[1]).item()
        print(f"epoch {epoch + 1}: loss {loss:.4f} on pieces made of validation digits", flush=True)
    card = {
        "recipe": "touching",
        "settings": {"epochs": EPOCHS},
        "parameters": count_parameters(model),
        "examples": EXAMPLES,
        "validation_loss": loss,
        "split": SPLIT,
        "data": digits.checksums,
    }
    torch.save(model.half().state_dict(), path)
    card["sha256"] = sha256(path.read_bytes())
    write_atomically(path.with_suffix(".json"), json.dumps(card, indent=1) + "\n")


def _loss(logits, boundaries):
    return F.binary_cross_entropy_with_logits(logits, boundaries, pos_weight=torch.tensor(EDGE_WEIGHT))


def _written(images, random):
    """Return digits enlarged, float32 (h, w) from 0 to 1 and cut to their ink, all by one hand."""
    slant, size, pen = random.normal(0, 0.2), random.uniform(32, 60), int(random.integers(-3, 6))
    written = []
    for image in images:
        tall, wide = size / 20 * random.uniform(0.85, 1.15, 2)
        turn = random.normal(0, 0.08) + slant
        matrix = np.array([[wide, -turn * tall, 0], [random.normal(0, 0.05) * wide, tall, 0]])
        matrix[:, 2] = 64 - matrix[:, :2] @ (14, 14)
        large = cv2.warpAffine(image.astype(np.float32) / 255, matrix, (128, 128), flags=cv2.INTER_CUBIC)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(pen) + 1, abs(pen) + 1))
        changed = cv2.dilate(large, disc) if pen > 0 else cv2.erode(large, disc)
        large = changed if (changed > 0.5).sum() > 0.3 * (large > 0.5).sum() else large
        rows, columns = (np.nonzero((large > 0.2).any(axis=axis))[0] for axis in (1, 0))
        written.append(large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].clip(0, 1))
    return written


def _joined(digits, random):
    """Return (ink float32 (H, W), ink of each digit alone bool (N, H, W)) of digits set until they touch or overlap."""
    tallest = max(digit.shape[0] for digit in digits)
    margin = 4
    room = sum(digit.shape[1] for digit in digits) + 6 * len(digits) + 2 * margin
    layers = np.zeros((len(digits), 2 * tallest + 2 * margin, room), np.float32)
    tops = [margin + round(tallest / 2 + random.normal(0, 0.12) * tallest) for _ in digits]
    left = margin
    for number, (digit, top) in enumerate(zip(digits, tops)):
        top = int(np.clip(top, margin, layers.shape[1] - digit.shape[0] - margin))
        if number:
            deep = random.uniform(-0.04, 0.14) * tallest
            left = max(left + margin, _contact(layers[number - 1], digit, top) - round(deep))
        left = min(left, room - digit.shape[1])
        layers[number, top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    ink = layers > 0.5
    return layers.max(axis=0), ink & (ink.sum(axis=0) == 1)


def _contact(layer, digit, top):
    """Return the column from which a digit's ink touches, but does not cross, what stands in a layer to its left."""
    ends = [np.nonzero(row)[0][-1:] for row in layer[top : top + len(digit)] > 0.5]
    starts = [np.nonzero(row)[0][:1] for row in digit > 0.5]
    reach = [int(end[0] - start[0]) for end, start in zip(ends, starts) if len(end) and len(start)]
    return max(reach) + 1 if reach else int(np.nonzero(layer.any(axis=0))[0][-1])


def _nearest(owners):
    """Return for each point the number of the layer, bool (N, H, W), whose ink is the nearest: uint8 (H, W)."""
    away = [cv2.distanceTransform((~owner).astype(np.uint8), cv2.DIST_L2, 5) for owner in owners]
    return np.argmin(away, axis=0).astype(np.uint8) if len(away) else np.zeros(owners.shape[1:], np.uint8)


def _changes(owner):
    """Return the points beside which another owner begins, bool (h, w)."""
    changes = np.zeros(owner.shape, bool)
    level, upright = owner[:, 1:] != owner[:, :-1], owner[1:] != owner[:-1]
    changes[:, 1:] |= level
    changes[:, :-1] |= level
    changes[1:] |= upright
    changes[:-1] |= upright
    return changes


if __name__ == "__main__":
    train()
