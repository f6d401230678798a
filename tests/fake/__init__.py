"""Tiny datasets in the layouts of the real ones: each module has `write(root, ...)`."""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint8]


def blocks(rng: np.random.Generator, ids: list[int], size: tuple[int, int], side: int = 16) -> Ids:
    """A map `[H, W]` of square blocks, each of one of `ids`; `size` is made of multiples of `side`."""
    coarse = rng.choice(np.array(ids, np.uint8), (size[0] // side, size[1] // side))
    return np.kron(coarse, np.ones((side, side), np.uint8))


def noisy(rng: np.random.Generator, pixels: npt.NDArray[np.integer], amount: int = 20) -> npt.NDArray[np.uint8]:
    """What a network could learn from: pixels that follow the ids, and noise."""
    return np.clip(pixels + rng.integers(-amount, amount + 1, pixels.shape), 0, 255).astype(np.uint8)
