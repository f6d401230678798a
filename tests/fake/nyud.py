"""NYU Depth v2: `nyu_depth_v2_labeled.mat`, `splits.mat` and `classMapping40.mat`."""

from pathlib import Path

import numpy as np
import scipy.io

from segfolio.data.datasets.nyud import NYUD
from tests.fake import blocks, noisy
from tests.fake.matlab import write_hdf5

CLASSES = np.array([40, 40, 3, 22, 5, 1, 2])  # of the file's labels 1 to 7


def write(root: Path, train: int = 4, test: int = 2, size: tuple[int, int] = (64, 96)) -> None:
    """Frames 1, 2, ... of which the last are for test; every block is an object of its own."""
    rng = np.random.default_rng(0)
    labels = np.stack([blocks(rng, list(range(len(CLASSES) + 1)), size) for _ in range(train + test)], -1)
    numbers = np.kron(np.arange(1, size[0] * size[1] // 256 + 1).reshape(size[0] // 16, -1), np.ones((16, 16), int))
    write_frames(root, rng, labels, np.where(labels > 0, numbers[..., None], 0))
    frames = np.arange(1, train + test + 1, dtype=np.uint16)[:, None]
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": frames[:train], "testNdxs": frames[train:]})
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": CLASSES[None].astype(np.uint8)})


def write_frames(root: Path, rng: np.random.Generator, labels: np.ndarray, numbers: np.ndarray) -> None:
    """Frames that follow `[H, W, N]` labels, and objects' numbers."""
    colors = np.array([(0, 0, 0), *(NYUD.labels.palette[c - 1] for c in CLASSES), (0, 0, 0)])
    images = noisy(rng, colors[labels].transpose(0, 1, 3, 2))
    variables = {"images": images, "labels": labels.astype(np.uint16), "instances": numbers.astype(np.uint8)}
    write_hdf5(root / "nyu_depth_v2_labeled.mat", variables)
