"""The network that tells one whole digit from anything else: its examples and its training.

`python -m mnist_helpers.digit_or_not` trains it anew, on training digits alone.
"""

import cv2
import numpy as np
import torch

from .boxes import boxes_of, overlaps
from .candidates import find_candidates
from .checkpoints import save_model
from .data import Digits, load_mnist
from .environment import seeded
from .evaluation import evaluate
from .handwriting import WEIGHTS
from .loaders import SPLIT, ResidentLoader, stratified_split
from .mnist_form import to_mnist_form
from .models import build_model, count_parameters
from .pages import random_page
from .training import fit

LETTERS = {  # their strokes on a field of 4 by 4; no D, O, S, Z and the like, which look like digits
    "A": ["04 20 44", "12 32"],
    "E": ["40 00 04 44", "02 32"],
    "F": ["40 00 04", "02 32"],
    "H": ["00 04", "40 44", "02 42"],
    "K": ["00 04", "40 02 44"],
    "M": ["04 10 23 30 44"],
    "N": ["04 00 44 40"],
    "P": ["04 00 30 41 32 02"],
    "R": ["04 00 30 41 32 02 44"],
    "T": ["00 40", "20 24"],
    "V": ["00 24 40"],
    "W": ["00 14 21 34 40"],
    "X": ["00 44", "40 04"],
    "k": ["10 14", "32 13 34"],
    "m": ["04 01 11 14 14 21 31 34"],
    "n": ["14 11 31 34"],
    "h": ["10 14 12 32 34"],
    "r": ["14 11 12 31"],
    "t": ["20 23 34", "11 31"],
    "w": ["01 14 22 34 41"],
    "plus": ["20 24", "02 42"],
    "equals": ["01 41", "03 43"],
    "percent": ["40 04", "00 10 11 01 00", "33 43 44 34 33"],
    "hash": ["10 14", "30 34", "01 41", "03 43"],
    "question": ["01 10 30 31 22 23", "24 24"],
    "less": ["40 02 44"],
    "star": ["20 24", "01 43", "41 03"],
}
PAGES, DIGITS, ODD, EPOCHS = 320, 40_000, 15_000, 7  # of the training


def page_examples(digits, seeds):
    """Return (forms uint8 (N, 28, 28), labels int64 (N,)) of candidates on pages: 1 for a whole digit, 0 for another.

    A candidate counts as whole where its box and a digit's share at least 0.8 of what both cover, and as something
    else where no digit's shares 0.65; what lies between is left out.
    """
    forms, labels = [], []
    for seed in seeds:
        page = random_page(digits, seed, touching=0.5)
        lattices, back, scale = find_candidates(page.image)
        for lattice in lattices:
            shared = overlaps(boxes_of(lattice.parts, back, scale), page.boxes).max(axis=1, initial=0)
            clear = (shared >= 0.8) | (shared < 0.65)
            forms += [form for form, keep in zip(lattice.forms, clear) if keep]
            labels += (shared[clear] >= 0.8).tolist()
    return np.array(forms, dtype=np.uint8).reshape(-1, 28, 28), np.array(labels, dtype=np.int64)


def odd_shapes(n, seed):
    """Return n shapes that are no digits, uint8 (n, 28, 28) in MNIST's form: letters, scribbles, blots and dashes."""
    random = np.random.default_rng(seed)
    shapes = []
    while len(shapes) < n:
        picture = np.zeros((96, 96), np.uint8)
        kind = random.choice(["letter", "letter", "scribble", "blot", "dashes"])
        width = int(random.integers(2, 11))
        if kind == "letter":
            for stroke in LETTERS[random.choice(list(LETTERS))]:
                points = np.array([(int(point[0]), int(point[1])) for point in stroke.split()], dtype=float)
                points = 24 + 12 * (points + random.normal(0, 0.2, points.shape))
                cv2.polylines(picture, [np.round(points).astype(np.int32)], False, 255, width, cv2.LINE_AA)
        elif kind == "scribble":
            points = random.integers(15, 80, (int(random.integers(4, 12)), 2)).astype(np.int32)
            cv2.polylines(picture, [points], False, 255, width, cv2.LINE_AA)
        elif kind == "blot":
            for _ in range(int(random.integers(1, 4))):
                axes = random.integers(10, 30, 2).tolist()
                cv2.ellipse(picture, random.integers(35, 60, 2).tolist(), axes, random.uniform(0, 180), 0, 360, 255, -1)
        else:
            for _ in range(int(random.integers(1, 3))):
                (x, y), slope = random.integers(20, 70, 2).tolist(), random.uniform(-0.4, 0.4)
                reach = int(random.integers(8, 40))
                cv2.line(picture, (x - reach, int(y - reach * slope)), (x + reach, int(y + reach * slope)), 255, width)
        bend = np.eye(2, 3) + random.uniform(-0.2, 0.2, (2, 3))
        bend[:, 2] = np.array((48, 48)) - bend[:, :2] @ (48, 48)
        shapes.append(to_mnist_form(cv2.warpAffine(picture, bend, (96, 96))))
    return np.array(shapes, dtype=np.uint8).reshape(-1, 28, 28)


def single_digits(digits, n, seed):
    """Return n digits, uint8 (n, 28, 28): one half as they are, the other slanted and with other strokes."""
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    chosen = digits.images[torch.randperm(len(digits), generator=generator)[:n]]
    forms = chosen.numpy().copy()
    for number in range(len(forms) // 2):
        large = cv2.resize(forms[number], (84, 84), interpolation=cv2.INTER_CUBIC)
        turn = cv2.getRotationMatrix2D((42, 42), random.uniform(-15, 15), 1.0)
        turn[0, 1] += random.uniform(-0.25, 0.25)
        change = random.choice([cv2.dilate, cv2.erode])
        large = change(cv2.warpAffine(large, turn, (84, 84)), np.ones((2, 2)), iterations=int(random.integers(0, 5)))
        forms[number] = to_mnist_form(large)
    return forms


def softened(forms, seed):
    """Return forms, uint8 (N, 28, 28), every other one out of focus by up to 1.3 pixels: digits and others alike."""
    random, soft = np.random.default_rng(seed), forms.copy()
    for number in np.nonzero(random.random(len(forms)) < 0.5)[0]:
        blurred = cv2.GaussianBlur(forms[number], (0, 0), random.uniform(0.3, 1.3)).astype(np.float32)
        soft[number] = np.round(blurred * (255 / max(1.0, blurred.max())))
    return soft


def examples(digits, pages, n_digits, n_odd, seed):
    """Return `Digits` whose labels say whether they are whole digits (1) or not (0), from pages and single shapes."""
    on_pages, labels = page_examples(digits, range(seed, seed + pages))
    singles, odd = single_digits(digits, n_digits, seed), odd_shapes(n_odd, seed)
    images = softened(np.concatenate([on_pages, singles, odd]), seed)
    labels = np.concatenate([labels, np.ones(len(singles), np.int64), np.zeros(len(odd), np.int64)])
    return Digits(torch.from_numpy(images), torch.from_numpy(labels), digits.source, digits.folder, digits.checksums)


def train(path=WEIGHTS):
    """Train the network on training digits, print how it does on validation digits, and save it at `path`."""
    digits = load_mnist()
    training, validation = (digits.take(part) for part in stratified_split(digits.labels))
    learn = examples(training, PAGES, DIGITS, ODD, seed=1_000_000)
    check = examples(validation, PAGES // 10, DIGITS // 10, ODD // 10, seed=2_000_000)
    arguments = {"width": 16, "outputs": 2}
    with seeded(0):
        model = build_model("resnet_small", **arguments)
    loaders = [ResidentLoader(part, 128, "mnist", part is learn, device="cpu") for part in (learn, check)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    steps = EPOCHS * len(loaders[0])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    print(f"{len(learn):,} examples, {learn.labels.float().mean():.0%} of them digits", flush=True)
    fit(model, *loaders, optimizer, EPOCHS, scheduler=schedule, progress=False)
    loss, accuracy = evaluate(model, loaders[1])
    print(f"on {len(check):,} examples made of validation digits: {accuracy:.2f} % right, loss {loss:.4f}")
    card = {
        "recipe": "digit_or_not",
        "settings": {"normalisation": "mnist", "epochs": EPOCHS},
        "model": "resnet_small",
        "model_arguments": arguments,
        "parameters": count_parameters(model),
        "examples": len(learn),
        "validation_accuracy": accuracy,
        "validation_loss": loss,
        "split": SPLIT,
        "data": digits.checksums,
    }
    save_model(model, path, card, half=True)


if __name__ == "__main__":
    train()
