"""Nearest neighbours among many pictures, by exhaustive search."""

import torch

CHUNK = 1000  # queries at a time: with 60,000 references their distances take 240 MB


@torch.no_grad()
def nearest(
    queries: torch.Tensor, references: torch.Tensor | None = None, k: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (distances, numbers) of the `k` references nearest to each query, nearest first.

    Args:
        queries: float tensor (Q, D), on any device.
        references: float tensor (R, D) on the same device. None: the queries themselves, each apart from itself.
        k: how many.

    Returns:
        Euclidean distances, float (Q, k), and the references' numbers, int64 (Q, k).

    Raises:
        ValueError: `k` is less than 1, or more than there are references.
    """
    among_themselves = references is None
    references = queries if references is None else references
    if not 1 <= k <= len(references) - among_themselves:
        raise ValueError(f"{k} nearest neighbours of each cannot be found among {len(references)}")
    squares = references.square().sum(dim=1)  # (R,)
    distances, numbers = [], []
    for start in range(0, len(queries), CHUNK):
        chunk = queries[start : start + CHUNK]  # (C, D)
        # |q - r|^2 = |q|^2 - 2 q.r + |r|^2, and |q|^2 does not change the order
        partial = torch.addmm(squares, chunk, references.T, alpha=-2)  # (C, R)
        if among_themselves:
            own = torch.arange(len(chunk), device=chunk.device)
            partial[own, start + own] = torch.inf
        found = partial.topk(k, largest=False) if k > 1 else partial.min(dim=1, keepdim=True)
        distances.append((found.values + chunk.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt())
        numbers.append(found.indices)
    return torch.cat(distances), torch.cat(numbers)


def distances_to(picture: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean distance, float (N,), of a picture uint8 (H, W) to each of many, uint8 (N, H, W).

    Pixels count from 0 to 1. The many become floats in parts, since all at once take four times their memory.
    """
    pixels, squares = picture.flatten().float(), torch.empty(len(pictures))
    # One part for all: to get memory takes longer than to fill it
    part = torch.empty(min(CHUNK, len(pictures)), len(pixels))
    for start in range(0, len(pictures), CHUNK):
        chunk = pictures[start : start + CHUNK].flatten(1)  # (C, D)
        squares[start : start + CHUNK] = part[: len(chunk)].copy_(chunk).sub_(pixels).square_().sum(dim=1)
    return squares.sqrt() / 255
