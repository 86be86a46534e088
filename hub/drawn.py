"""Pictures drawn by code, to ask a model about where there are no photos: extremes, noise, scenes of plain shapes."""

from __future__ import annotations

import numpy as np

COLOURS = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255))  # each fills a picture


def drawn(count: int, size: int) -> np.ndarray:
    """Return pictures, the same each time: uint8 (count, S, S, 3), in the order of `kinds`."""
    rng = np.random.default_rng(0)
    makers = {"extremes": _extreme, "noise": _noise, "scenes": _scene}
    pictures = [makers[kind](rng, size, place) for kind, many in kinds(count).items() for place in range(many)]
    return np.stack(pictures).astype(np.uint8)


def kinds(count: int) -> dict[str, int]:
    """Return how many of so many drawn pictures are of which kind.

    >>> kinds(8)
    {'extremes': 6, 'noise': 1, 'scenes': 1}
    """
    extremes = min(count, len(COLOURS) + 1)
    noise = (count - extremes) // 2
    return {"extremes": extremes, "noise": noise, "scenes": count - extremes - noise}


def _extreme(rng: np.random.Generator, size: int, place: int) -> np.ndarray:
    """All of one colour: black, white, red, green, blue; then a chessboard of single pixels."""
    if place < len(COLOURS):
        return np.broadcast_to(np.array(COLOURS[place]), (size, size, 3))
    board = np.indices((size, size)).sum(axis=0) % 2 * 255
    return np.repeat(board[..., None], 3, axis=-1)


def _noise(rng: np.random.Generator, size: int, place: int) -> np.ndarray:
    return rng.integers(0, 256, (size, size, 3))


def _scene(rng: np.random.Generator, size: int, place: int) -> np.ndarray:
    """A ramp from one colour to another, some discs on it, and a little noise."""
    rows, columns = np.indices((size, size)) / size
    top, bottom = rng.uniform(0, 256, (2, 3))
    picture = top * rows[..., None] + bottom * (1 - rows[..., None])
    for _ in range(4):
        row, column, radius = rng.uniform(0, 1, 3)
        picture[(rows - row) ** 2 + (columns - column) ** 2 < (radius / 2) ** 2] = rng.uniform(0, 256, 3)
    return (picture + rng.normal(0, 10, picture.shape)).clip(0, 255)
