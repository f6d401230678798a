"""Who sees which sample when: a function of seed and epoch, never of processes or workers."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from segfolio.errors import SegfolioError


class Draw(NamedTuple):
    """One training sample: which image, and the key of the random stream that augments it."""

    image: int
    key: tuple[int, int, int]
    """(seed, epoch, position in the epoch)."""


class TrainSampler(Sampler[Draw]):
    """Shuffled draws, equal on any number of processes.

    An epoch is one permutation, cut into global batches of `batch_size * world_size * accumulate` draws;
    a rest smaller than that is left to the next epoch's shuffle. Within each step the processes take
    neighbouring slices, so that one process with batch 4, two with batch 2, and one with batch 2 and two
    accumulated steps see the same draws in the same order.

    Args:
        length: images in the split.
        batch_size: of one process and one forward pass.
        accumulate: forward passes per optimiser step.
        resume: epoch and forward passes of it that are done already; that epoch starts behind them.

    Raises:
        SegfolioError: the split is smaller than one global batch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        resume: tuple[int, int] = (0, 0),
    ) -> None:
        self.step = batch_size * world_size
        self.epoch_length = length - length % (self.step * accumulate)
        if self.epoch_length == 0:
            raise SegfolioError(
                f"the training split has {length} images, fewer than the {self.step * accumulate} of one step "
                f"(batch_size {batch_size} x {world_size} processes x {accumulate} accumulated); lower data.batch_size"
            )
        self.length, self.batch_size, self.seed, self.rank, self.world_size = length, batch_size, seed, rank, world_size
        self.resume = resume
        self.epoch = resume[0]  # workers ask for the first draws before Lightning sets the epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        """Draws of this process in a whole epoch, resumed or not: an epoch keeps its length."""
        return self.epoch_length // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        done = self.resume[1] if self.epoch == self.resume[0] else 0
        for start in range(done * self.step + self.rank * self.batch_size, self.epoch_length, self.step):
            for position in range(start, start + self.batch_size):
                yield Draw(int(order[position]), (self.seed, self.epoch, position))


class EvaluationSampler(Sampler[int]):
    """Every image exactly once over all processes, which take turns; shares differ by at most one turn.

    Args:
        turn: neighbouring images that stay together; the size of a batch where batches must not depend on
            the number of processes.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1, turn: int = 1) -> None:
        starts = range(rank * turn, length, world_size * turn)
        self.share = [i for start in starts for i in range(start, min(start + turn, length))]

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)
