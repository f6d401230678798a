"""Parts that are computed a second time: what is kept of what they get, and what their statistics see."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.layers.again import see_once, through
from segfolio.layers.dilation import PooledBatchNorm
from tests.architectures.transformer.test_memory import saved_bytes
from tests.families.test_per_pixel import family


class Sums(nn.Module):
    """The sum of maps, each of which goes through a normalisation and a ReLU."""

    def __init__(self, norm: type[nn.BatchNorm2d], checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing, self.norm = checkpointing, norm(4)
        see_once(self)

    def forward(self, images: Tensor) -> Tensor:
        maps = [images * factor for factor in (1.0, 2.0, 3.0)]
        return through(self, self._sum, maps, beside=maps[-1])

    def _sum(self, maps: list[Tensor], beside: Tensor) -> Tensor:
        return sum((self.norm(each).relu().square() for each in maps), beside.square())


def test_all_that_a_part_gets_is_kept_as_saved_tensors_and_nothing_else() -> None:
    images = torch.randn(2, 4, 8, 8, requires_grad=True)
    assert saved_bytes(Sums(nn.BatchNorm2d, checkpointing=True), images) == 3 * images.nbytes
    assert saved_bytes(Sums(nn.BatchNorm2d, checkpointing=False), images) >= 6 * images.nbytes


def test_normalisations_that_are_synchronised_see_a_batch_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a trainer puts in the places of others, without what these were told."""
    architecture = partial(SegFormer, **SegFormer.tiny, checkpointing=True)
    model = family(architecture=architecture)

    def told() -> int:
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        assert norms
        assert all(len(norm._forward_pre_hooks) == len(norm._forward_hooks) for norm in norms)
        return min(len(norm._forward_pre_hooks) for norm in norms)

    assert told() == 1
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert told() == 0
    monkeypatch.setattr(model, "_trainer", SimpleNamespace(fast_dev_run=True))
    for _ in range(2):
        model.on_train_start()
        assert told() == 1


def test_statistics_see_a_batch_once_a_lone_value_as_well() -> None:
    """Of which `PooledBatchNorm` takes no statistics, the first time nor the second."""
    for norm, size, counted in ((nn.BatchNorm2d, 8, 3), (PooledBatchNorm, 8, 3), (PooledBatchNorm, 1, 0)):
        found = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            network, images = Sums(norm, checkpointing), torch.randn(1, 4, size, size, requires_grad=True)
            network(images).sum().backward()
            found.append(SimpleNamespace(grad=images.grad, **network.norm.state_dict()))
        plain, sparing = found
        assert int(sparing.num_batches_tracked) == int(plain.num_batches_tracked) == counted
        torch.testing.assert_close(sparing.running_mean, plain.running_mean)
        torch.testing.assert_close(sparing.grad, plain.grad)
