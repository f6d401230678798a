"""Who sees which sample when: a function of seed and epoch, never of processes or workers."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler, SequentialSampler

from segfolio.errors import SegfolioError


class Draw(NamedTuple):
    """One draw of training: which clip (of a dataset of images: which image), and the key of its random stream."""

    clip: int
    key: tuple[int, int, int]
    """(seed, epoch, position in the epoch)."""


class TrainSampler(Sampler[Draw]):
    """Shuffled draws, equal however a step is divided.

    An epoch is one permutation, cut into steps of `batch_size` draws; a rest smaller than that is left to the next
    epoch's shuffle. A step is divided into passes, and a pass into neighbouring slices for the processes, so that one
    process, two processes, and two accumulated passes of one process see the same draws in the same order.

    Args:
        length: clips or images in the split.
        batch_size: of one optimiser step.
        accumulate: forward passes per optimiser step.
        resume: epoch and forward passes of it that are done already; that epoch starts behind them.

    Attributes:
        share: draws of one process and one forward pass.

    Raises:
        SegfolioError: processes and passes do not divide the batch, the split is smaller than it.
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
        if batch_size < 1:
            raise SegfolioError(f"data.batch_size is {batch_size}; give at least the 1 image of a step")
        if batch_size % (world_size * accumulate):
            divisors = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
            raise SegfolioError(
                f"data.batch_size {batch_size} is that of an optimiser step, which {world_size} x {accumulate} parts "
                "(processes x accumulated passes) do not divide; choose trainer.devices and "
                f"trainer.accumulate_grad_batches so that their product is one of {divisors}, or another batch"
            )
        if length < batch_size:
            raise SegfolioError(
                f"the training split has {length} images or clips, fewer than the {batch_size} of one step; lower "
                "data.batch_size"
            )
        self.epoch_length = length - length % batch_size
        self.pass_size, self.share = batch_size // accumulate, batch_size // (world_size * accumulate)
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.resume = resume
        self.epoch = resume[0]  # workers ask for the first draws before Lightning sets the epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        """Draws of this process in a whole epoch, resumed or not: an epoch keeps its length."""
        return self.epoch_length // self.world_size

    @property
    def shuffle(self) -> int:
        """Which one this epoch has, of order and random streams."""
        return self.epoch

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.shuffle]).permutation(self.length)
        done = self.resume[1] if self.epoch == self.resume[0] else 0
        for start in range(done * self.pass_size + self.rank * self.share, self.epoch_length, self.pass_size):
            for position in range(start, start + self.share):
                yield Draw(int(order[position]), (self.seed, self.shuffle, position))


class OverfitSampler(TrainSampler, SequentialSampler):  # type: ignore[misc]  # as which Lightning leaves it as it is
    """In every epoch the draws of the first: `trainer.overfit_batches` trains on the same batches again and again."""

    @property
    def shuffle(self) -> int:
        return 0


class EvaluationSampler(SequentialSampler):
    """Every image, or clip, exactly once over all processes, which take turns; shares differ by at most one turn.

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
