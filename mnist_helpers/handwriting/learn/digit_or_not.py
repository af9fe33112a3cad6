"""The network that tells one whole digit from anything else: its examples and its training.

`python -m mnist_helpers.handwriting.learn.digit_or_not` trains it anew, on training digits and on a scripted hand.
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch

from ...data.digits import Digits, load_mnist
from ...data.form import to_mnist_form
from ...data.loaders import SPLIT, ResidentLoader, stratified_split
from ...data.strokes import draw, write
from ...environment import seeded
from ...evaluation.scores import evaluate
from ...models import build_model, count_parameters
from ...models.saved import save_model
from ...training.loop import fit
from ..boxes import boxes_of, overlaps
from ..candidates import find_candidates
from ..cuts import MIN_WIDTH
from ..reading import WEIGHTS
from .oddities import odd_page, odd_shapes
from .pages import random_page

PAGES = 800  # to take examples from
DIGITS, WRITTEN, ODD = 40_000, 5_000, 15_000  # further examples: MNIST's digits, the scripted hand's, other shapes
EPOCHS = 8
PEN_WIDTHS = 0.025, 0.11  # of the scripted hand, × its paper's side


def page_examples(digits: Digits, seeds: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (forms uint8 (N, 28, 28), labels int64 (N,)) of candidates on pages: 1 for a whole digit, else 0.

    A candidate counts as whole where it overlaps a digit by at least 0.8, see `boxes.overlaps`, and as something else
    where it overlaps none by 0.65. What lies between is left out. For every third seed there is also a page without
    digits. Shapes on it that are as narrow as a 1 are left out, too.
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
        if seed % 3 == 0:
            lattices, *_ = find_candidates(odd_page(seed))
            pairs = [pair for lattice in lattices for pair in zip(lattice.parts, lattice.forms)]
            odd = [form for part, form in pairs if part.width > MIN_WIDTH * part.height]
            forms, labels = forms + odd, labels + [0] * len(odd)
    return np.array(forms, dtype=np.uint8).reshape(-1, 28, 28), np.array(labels, dtype=np.int64)


def single_digits(digits: Digits, n: int, seed: int) -> np.ndarray:
    """Return n digits, uint8 (n, 28, 28): one half as they are, the other slanted and with other strokes."""
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    chosen = digits.images[torch.randperm(len(digits), generator=generator)[:n]]
    forms = chosen.numpy().copy()
    for number in range(len(forms) // 2):
        large = cv2.resize(forms[number], (84, 84), interpolation=cv2.INTER_CUBIC)
        turn = cv2.getRotationMatrix2D((42, 42), random.uniform(-15, 15), 1.0)
        turn[0, 1] += random.uniform(-0.25, 0.25)
        change = (cv2.dilate, cv2.erode)[random.choice(2)]
        large = change(cv2.warpAffine(large, turn, (84, 84)), np.ones((2, 2)), iterations=int(random.integers(0, 5)))
        forms[number] = to_mnist_form(large)
    return forms


def written_digits(n: int, seed: int) -> np.ndarray:
    """Return n digits of `strokes.HAND`, uint8 (n, 28, 28), by pens of all widths: a hand that MNIST does not know.

    Its 1s have an upstroke, its 7s a bar.
    """
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    drawn = [draw(write(number % 10, generator), pen=random.uniform(*PEN_WIDTHS)) for number in range(n)]
    return np.array([to_mnist_form(picture) for picture in drawn], dtype=np.uint8).reshape(-1, 28, 28)


def softened(forms: np.ndarray, seed: int) -> np.ndarray:
    """Return forms, uint8 (N, 28, 28), every other one out of focus by up to 1.3 pixels: digits and others alike."""
    random, soft = np.random.default_rng(seed), forms.copy()
    for number in np.nonzero(random.random(len(forms)) < 0.5)[0]:
        blurred = cv2.GaussianBlur(forms[number], (0, 0), random.uniform(0.3, 1.3)).astype(np.float32)
        soft[number] = np.round(blurred * (255 / max(1.0, blurred.max())))
    return soft


def examples(digits: Digits, pages: int, n_digits: int, n_written: int, n_odd: int, seed: int) -> Digits:
    """Return `Digits` whose labels say whether they are whole digits (1) or not (0), from pages and single shapes."""
    on_pages, labels = page_examples(digits, range(seed, seed + pages))
    singles = np.concatenate([single_digits(digits, n_digits, seed), written_digits(n_written, seed)])
    odd = odd_shapes(n_odd, seed)
    images = softened(np.concatenate([on_pages, singles, odd]), seed)
    labels = np.concatenate([labels, np.ones(len(singles), np.int64), np.zeros(len(odd), np.int64)])
    return Digits(torch.from_numpy(images), torch.from_numpy(labels), digits.source, digits.folder, digits.checksums)


def train(path: Path = WEIGHTS) -> None:
    """Train the network on training digits, print how it does on validation digits, and save it at `path`."""
    digits = load_mnist()
    training, validation = (digits.take(part) for part in stratified_split(digits.labels))
    learn = examples(training, PAGES, DIGITS, WRITTEN, ODD, seed=1_000_000)
    check = examples(validation, PAGES // 10, DIGITS // 10, WRITTEN // 10, ODD // 10, seed=2_000_000)
    arguments = {"model": "resnet_small", "model_arguments": {"width": 16, "outputs": 2}}
    with seeded(0):
        model = build_model("shift_averaged", **arguments)  # averaging over shifts makes it surer
    train_loader = ResidentLoader(learn, 128, "mnist", shuffle=True, device="cpu")
    validation_loader = ResidentLoader(check, 128, "mnist", device="cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    steps = EPOCHS * len(train_loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    print(f"{len(learn):,} examples, {learn.labels.float().mean():.0%} of them digits", flush=True)
    fit(model, train_loader, validation_loader, optimizer, EPOCHS, scheduler=schedule, progress=False)
    loss, accuracy = evaluate(model, validation_loader)
    print(f"on {len(check):,} examples made of validation digits: {accuracy:.2f} % right, loss {loss:.4f}")
    card = {
        "recipe": "digit_or_not",
        "settings": {"normalisation": "mnist", "epochs": EPOCHS},
        "model": "shift_averaged",
        "model_arguments": arguments,
        "parameters": count_parameters(model),
        "examples": len(learn),
        "of_them_written": WRITTEN,
        "validation_accuracy": accuracy,
        "validation_loss": loss,
        "split": SPLIT,
        "data": digits.checksums,
    }
    save_model(model, path, card, half=True)


if __name__ == "__main__":
    train()
