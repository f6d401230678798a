"""A sample whose colours tell its classes, and ways to look at what became of it."""

import numpy as np
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Segments, Target, to_image

COLORS = np.array([(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 20), (128, 30, 128)], np.uint8)


def blocks(size: tuple[int, int] = (120, 160), block: int = 20, ignore_index: int = 255) -> Sample:
    """Blocks of random classes, the colour of a pixel being its class's, and a segment per class."""
    grid = np.random.default_rng(0).integers(0, len(COLORS), (-(-size[0] // block), -(-size[1] // block)))
    ids = np.kron(grid, np.ones((block, block), np.int64))[: size[0], : size[1]]
    masks = torch.from_numpy(ids == np.arange(len(COLORS))[:, None, None])
    segments = Segments(Mask(masks), torch.arange(len(COLORS)), torch.zeros(len(COLORS), dtype=torch.bool))
    semantic = Mask(torch.from_numpy(ids.astype(np.uint8 if ignore_index < 256 else np.uint16)))
    target = Target(semantic, segments, ignore_index=ignore_index)
    return Sample(to_image(COLORS[ids]), "blocks", size, target)


def semantic(sample: Sample) -> np.ndarray:
    assert sample.target is not None
    assert sample.target.semantic is not None
    return sample.target.semantic.numpy()


def segments(sample: Sample) -> Segments:
    assert sample.target is not None
    assert sample.target.segments is not None
    return sample.target.segments
