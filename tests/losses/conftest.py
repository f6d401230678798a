"""One small scene: random logits, a target with a third of its pixels ignored (255), pixel weights."""

import pytest
import torch
from torch import Generator, Tensor


@pytest.fixture
def generator() -> Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def logits(generator: Generator) -> Tensor:
    """`[2, 3, 8, 9]`."""
    return 3 * torch.randn(2, 3, 8, 9, generator=generator)


@pytest.fixture
def target(generator: Generator) -> Tensor:
    """`[2, 8, 9]`."""
    classes = torch.randint(0, 3, (2, 8, 9), generator=generator)
    return classes.masked_fill(torch.rand(2, 8, 9, generator=generator) < 1 / 3, 255)


@pytest.fixture
def weight(generator: Generator) -> Tensor:
    """`[2, 8, 9]`."""
    return 0.1 + torch.rand(2, 8, 9, generator=generator)
