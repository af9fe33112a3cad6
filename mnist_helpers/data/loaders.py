"""From uint8 digits to normalised batches: the split, the device-resident loader, and its plain DataLoader twin."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..environment import choose_device, combine_seeds, whole_number
from .augment import Augmentation
from .digits import NO_DIGIT, Digits

NORMALISATIONS = {  # name -> (mean, standard deviation) of pixels scaled to 0-1
    "half": (0.5, 0.5),  # to [-1, 1], as the source projects did
    "mnist": (0.1307, 0.3081),  # the training images' own: mean 0, standard deviation 1
    "unit": (0.0, 1.0),  # from 0 to 1
    "raw": (0.0, 1 / 255),  # from 0 to 255, as stored
}

LOWEST_PIXEL, HIGHEST_PIXEL = -1.5, 350.0  # after any of these, brightened images included
# Between the darkest pixel and the brightest of a batch; divided by 255 once more, it is 0.004 to 0.03
LEAST_RANGE = 0.1

SPLIT: dict[str, Any] = {"validation_fraction": 0.2, "seed": 42}  # of every system, see `stratified_split`


def stratified_split(
    labels: Tensor | np.ndarray,
    validation_fraction: float = SPLIT["validation_fraction"],
    seed: int = SPLIT["seed"],
) -> tuple[Tensor, Tensor]:
    """Split example numbers into (training, validation) int64 tensors with the same share of each class in both.

    60,000 labels give 48,000 and 12,000. Same labels, fraction and seed: the same split, always.
    """
    from sklearn.model_selection import train_test_split  # here: slow to import

    numbers = np.arange(len(labels))
    training, validation = train_test_split(
        numbers, test_size=validation_fraction, stratify=np.asarray(labels), random_state=seed
    )
    return torch.from_numpy(training), torch.from_numpy(validation)


def mean_and_std(normalisation: str) -> tuple[float, float]:
    """Return a normalisation's (mean, standard deviation); raises ValueError for an unknown one."""
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"there is no normalisation {normalisation!r}: choose one of {', '.join(NORMALISATIONS)}")
    return NORMALISATIONS[normalisation]


def check_range(augmentation: Augmentation, std: float) -> None:
    """Raise ValueError if an augmentation's changes of appearance would meet images that do not go from 0 to 1."""
    if augmentation.appearance and std != 1:
        raise ValueError("an augmentation changes the appearance of images from 0 to 1: use the normalisation 'unit'")


def warn_of_odd_pixels(batch: Any) -> None:
    """Warn where a batch's images have pixels that no normalisation here gives, as when it was applied twice."""
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else None
    if not torch.is_tensor(images) or not images.is_floating_point() or not images.numel():
        return
    low, high = (one.item() for one in images.aminmax())
    if low < LOWEST_PIXEL or high > HIGHEST_PIXEL:
        warnings.warn(
            f"the first batch has pixels from {low:.3g} to {high:.3g}, which no normalisation here gives: were the "
            "images normalised twice, or not scaled to 0-1 before?",
            stacklevel=2,
        )
    elif high - low < LEAST_RANGE:
        warnings.warn(
            f"the first batch has pixels from {low:.3g} to {high:.3g}, which hardly differ: were the images divided by "
            "255 twice?",
            stacklevel=2,
        )


def check_reusable(loader: Iterable | None) -> None:
    """Raise ValueError if a loader is an iterator, which gives its batches only once."""
    if isinstance(loader, Iterator):
        kind = type(loader).__name__
        raise ValueError(f"the loader is a {kind}, which gives its batches only once: give a DataLoader or a list")


class EpochSampler(Sampler[int]):
    """Gives each epoch's order of n examples, a function of (seed, epoch) alone; unshuffled, it is 0 to n - 1.

    Each pass moves on to the next epoch; `set_epoch` chooses one, as with torch's `DistributedSampler`.
    """

    def __init__(self, n: int, *, shuffle: bool = False, seed: int = 0) -> None:
        self.n, self.shuffle, self.seed, self.epoch = n, shuffle, whole_number("seed", seed), 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass shows."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return the current epoch's order as an int64 tensor (n,), and move on to the next epoch."""
        # The 1 keeps this stream apart from the one that dropout draws from in the same epoch.
        generator = torch.Generator().manual_seed(combine_seeds(self.seed, self.epoch, 1))
        self.epoch += 1
        return torch.randperm(self.n, generator=generator) if self.shuffle else torch.arange(self.n)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.n


class ResidentLoader:
    """Batches from a uint8 tensor that lies on the device: no copying and no work per image, so far faster.

    Iterate over it like a DataLoader: (images float32 (B, 1, 28, 28) normalised, labels int64 (B,)). The ragged last
    batch is kept. An `augmentation` distorts the images anew in each epoch, as a function of (seed, epoch). `mean` and
    `std` are the normalisation's, to undo it with; `source` is the digits'.

    With `shard` (i, k), for the i-th of k processes, it gives every k-th example of each batch, beginning with the
    i-th: the shares of all processes are the batches of one. Of the `n_examples`, `n_examples_here` come here.

    `n_labels` is 11 where pictures of no digit are among the examples, whose label is 10. `n_drawn` counts the examples
    that were drawn rather than taken from a set.

    Raises:
        ValueError: a label is none of the labels; an unknown normalisation; a batch size or
            seed that is none; too few examples for so many processes.
    """

    def __init__(
        self,
        digits: Digits,
        batch_size: int = 64,
        normalisation: str = "half",
        *,
        shuffle: bool = False,
        seed: int = 0,
        device: str | torch.device | None = None,
        augmentation: Augmentation | None = None,
        shard: tuple[int, int] = (0, 1),
        n_labels: int = 10,
        n_drawn: int = 0,
    ) -> None:
        device = choose_device(device)
        if len(digits) and (digits.labels.min() < 0 or digits.labels.max() >= n_labels):  # a GPU would not say so
            low, high = digits.labels.min(), digits.labels.max()
            raise ValueError(f"the labels go from {low} to {high}, and must be 0 to {n_labels - 1}")
        self.images = digits.images.flatten(1).to(device)  # (N, 784) uint8: whole rows are the fastest to gather
        self.labels = digits.labels.to(device)  # (N,)
        self.batch_size = batch_size = whole_number("batch_size", batch_size, 1)
        self.mean, self.std = mean_and_std(normalisation)
        if augmentation is not None:
            check_range(augmentation, self.std)
        self.source, self.augmentation, self.shard = digits.source, augmentation, shard
        self.sampler = EpochSampler(len(digits), shuffle=shuffle, seed=seed)
        self.n_examples, self.n_drawn = len(digits), n_drawn
        batches, rest = divmod(len(digits), batch_size)
        self.n_examples_here = batches * len(range(batch_size)[self._share]) + len(range(rest)[self._share])
        if len(digits) and not self.n_examples_here:
            raise ValueError(
                f"{len(digits)} examples in batches of {batch_size} cannot be shared by {shard[1]} processes: "
                "take fewer processes or a larger batch"
            )

    def __len__(self) -> int:
        return math.ceil(self.n_examples / self.batch_size)

    @property
    def _share(self) -> slice:
        return slice(self.shard[0], None, self.shard[1])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device, process = self.images.device, self.shard[:1] if self.shard[0] else ()
        seeds = (self.sampler.seed, self.sampler.epoch, 2, *process)
        order = self.sampler.order().to(device)
        if not len(order):
            return  # where torch would give one batch of no images
        generator = torch.Generator(device).manual_seed(combine_seeds(*seeds))
        for chosen in order.split(8 * self.batch_size):  # eight batches at a time: fewer, larger operations
            shares = [batch[self._share] for batch in chosen.split(self.batch_size)]
            sizes, chosen = [len(share) for share in shares], torch.cat(shares)
            images = self.images.index_select(0, chosen).float().view(-1, 1, 28, 28)  # of uint8: less to gather
            if (factor := 1 / (255 * self.std)) != 1:
                images = images.mul_(factor)
            if self.augmentation is not None:
                images = self.augmentation(images, 0.0, generator)  # before the mean is taken off: background is 0
            if self.mean:
                images = images.sub_(self.mean / self.std)
            yield from zip(images.split(sizes), self.labels[chosen].split(sizes))


class DigitsDataset(Dataset):
    """Digits one at a time, as `torchvision.datasets.MNIST` gives them: (transform(PIL image), int label)."""

    def __init__(self, digits: Digits, transform: Callable) -> None:
        self.digits, self.transform = digits, transform

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image  # here: only these loaders need it

        image = Image.fromarray(self.digits.images[index].numpy())
        return self.transform(image), int(self.digits.labels[index])


def plain_loader(
    digits: Digits, batch_size: int = 64, normalisation: str = "half", *, shuffle: bool = False, seed: int = 0
) -> DataLoader:
    """Return the `torch.utils.data.DataLoader` that most tutorials use, with `ResidentLoader`'s pixels and order."""
    from torchvision import transforms  # here: slow to import, and only this loader needs it

    mean, std = mean_and_std(normalisation)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((mean,), (std,))])
    loader = DataLoader(
        DigitsDataset(digits, transform),
        batch_size=whole_number("batch_size", batch_size, 1),
        sampler=EpochSampler(len(digits), shuffle=shuffle, seed=seed),
        generator=torch.Generator(),  # else it would draw from the caller's random state
    )
    loader.mean, loader.std, loader.source = mean, std, digits.source  # type: ignore[attr-defined]
    return loader


def make_loaders(
    digits: Digits,
    batch_size: int = 64,
    normalisation: str = "half",
    seed: int = 0,
    device: str | torch.device | None = None,
    *,
    plain: bool = False,
    limit: int | None = None,
    augmentation: Augmentation | None = None,
    shard: tuple[int, int] = (0, 1),
    all_images: bool = False,
    hands: int = 0,
    no_digits: int = 0,
) -> tuple[Any, Any]:
    """Split `digits` 80 : 20 and return (training loader, validation loader); training alone is shuffled.

    Args:
        digits: `Digits`, images uint8 (N, 28, 28) and labels int64 (N,).
        normalisation: a name in `NORMALISATIONS`.
        seed: of the training order; the split is always the same.
        device: where the images lie; the best one here unless named.
        plain: return plain DataLoaders instead of `ResidentLoader`s; they leave the images on the CPU.
        limit: keep only this many training images, and a quarter as many (at least one) for validation.
        augmentation: for the training images; not with `plain`.
        shard: (i, k) for the i-th of k processes, see `ResidentLoader`; not with `plain`.
        all_images: train on the validation images, too, and return None as the validation loader: for a recipe in
            which nothing is left to choose.
        hands, no_digits: train on so many digits of other hands, too, and on pictures of no digit, whose label is 10;
            see `hands.many_hands`. They are drawn anew for each seed; with `limit`, as large a share of them. Not with
            `plain`.

    Raises:
        ValueError: a `limit` below 1; `plain` with what it cannot do; see also `ResidentLoader`.
    """
    if plain and (augmentation is not None or shard != (0, 1) or hands or no_digits):
        raise ValueError("plain loaders neither augment nor share batches, nor add to the digits: leave out plain")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} leaves no image to train on: give 1 or more")
    training, validation = stratified_split(digits.labels)
    if all_images:
        training, validation = torch.cat([training, validation]), validation[:0]
    if limit is not None:
        share = min(1.0, limit / len(training))
        hands, no_digits = round(share * hands), round(share * no_digits)
        training, validation = training[:limit], validation[: max(1, limit // 4)]
    learn, check = digits.take(training), digits.take(validation)
    if hands or no_digits:
        from .hands import many_hands  # here: it imports OpenCV, and few recipes need it

        learn = many_hands(learn, hands, no_digits, seed)
    if plain:
        train_loader: Any = plain_loader(learn, batch_size, normalisation, shuffle=True, seed=seed)
        validation_loader: Any = plain_loader(check, batch_size, normalisation)
    else:
        train_loader = ResidentLoader(
            learn,
            batch_size,
            normalisation,
            shuffle=True,
            seed=seed,
            device=device,
            augmentation=augmentation,
            shard=shard,
            n_labels=NO_DIGIT + 1 if no_digits else NO_DIGIT,
            n_drawn=len(learn) - len(training),
        )
        validation_loader = ResidentLoader(check, batch_size, normalisation, device=device, shard=shard)
    return train_loader, None if all_images else validation_loader
