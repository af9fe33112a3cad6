"""Where in a loader training is, told when something goes wrong there."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from ..data.loaders import warn_of_odd_pixels

Batches = Iterable[tuple[Tensor, Tensor]]  # images (B, 1, 28, 28) float, labels (B,) int64


class TrackedBatches:
    """A loader's batches. As text, how far one has come: "batch 7: images float32 (64, 1, 28, 28), labels ..."."""

    def __init__(self, loader: Batches, name: str = "batch", *, check_pixels: bool = False) -> None:
        self.loader, self.name, self.check_pixels = loader, name, check_pixels
        self.number = 0
        self.current: Any = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            self.number, self.current = self.number + 1, batch
            if self.check_pixels and self.number == 1:
                warn_of_odd_pixels(batch)
            yield batch
            self.current = None  # until the next one is there, what goes wrong is the loader's

    def __str__(self) -> str:
        if self.current is None:
            return f"after {self.name} {self.number}"
        return f"{self.name} {self.number}: {_described(self.current)}"


def _described(batch: Any) -> str:
    """Return a batch's dtypes and shapes, or its type where it is no pair."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        return f"a {type(batch).__name__}, not a pair (images, labels)"
    parts = []
    for name, part in zip(("images", "labels"), batch):
        dtype = str(getattr(part, "dtype", type(part).__name__)).removeprefix("torch.")
        parts.append(f"{name} {dtype} {tuple(getattr(part, 'shape', ()))}")
    return ", ".join(parts)
