import copy

import pytest
import torch
from torch import nn

from segfolio.errors import SegfolioError
from segfolio.families.batch_norm import batch_share, batch_statistics, freeze, recompute_statistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)).eval()


def test_recomputed_statistics_are_the_plain_mean_over_batches():
    net = network()
    batches = [torch.randn(2, 3, 8, 8) + i for i in range(3)]
    features = [net[0](b).detach() for b in batches]
    recompute_statistics(net, batches)
    mean = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    variance = torch.stack([f.var((0, 2, 3), unbiased=True) for f in features]).mean(0)
    torch.testing.assert_close(net[1].running_mean, mean)
    torch.testing.assert_close(net[1].running_var, variance)


def test_recomputing_leaves_modes_momentum_and_weights():
    net = network()
    before = copy.deepcopy([p.detach() for p in net.parameters()])
    net[1].momentum = 0.3
    recompute_statistics(net, [torch.randn(2, 3, 8, 8)])
    assert net[1].momentum == 0.3
    assert not any(m.training for m in net.modules())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_batch_statistics_normalise_the_batch_and_leave_the_running_ones():
    net = network()
    images = torch.randn(4, 3, 8, 8) * 5 + 2
    stored = net[1].running_mean.clone()
    with batch_statistics(net):
        out = net[1](net[0](images))
        assert not net[2].training  # dropout stays off
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert torch.equal(net[1].running_mean, stored)
    assert net[1].track_running_stats
    assert not net[1].training


def test_what_is_frozen_is_not_trained():
    net = network().train()
    freeze(net)
    assert [p.requires_grad for p in net[1].parameters()] == [False, False]
    stored = copy.deepcopy(net[1].state_dict())
    images = torch.randn(4, 3, 8, 8) * 5 + 2
    expected = copy.deepcopy(net).eval()[:2](images)
    torch.testing.assert_close(net[:2](images), expected)
    assert all(torch.equal(value, stored[name]) for name, value in net[1].state_dict().items())
    assert net[0].weight.requires_grad
    assert net[2].training


def test_layers_that_wait_for_other_processes_are_refused():
    """Processes may have another number of batches, and would wait for ever."""
    net = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    with pytest.raises(
        SegfolioError, match=r"trainer.sync_batchnorm is true, but model.bn_mode `recompute` and `batch`"
    ):
        recompute_statistics(net, [])
    with pytest.raises(SegfolioError, match=r"trainer.sync_batchnorm"), batch_statistics(net):
        pass
    freeze(net)  # waits for none
    assert not net[1].weight.requires_grad


@pytest.mark.parametrize(
    ("processes", "accumulate", "plain", "synchronised"), [(1, 1, 16, 16), (8, 1, 2, 16), (1, 4, 4, 4), (2, 4, 2, 4)]
)
def test_normalisations_see_the_images_that_come_at_once(processes, accumulate, plain, synchronised):
    net = network().train()
    assert batch_share(net, 16, processes, accumulate) == plain
    both = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert batch_share(both, 16, processes, accumulate) == synchronised
    assert batch_share(nn.Sequential(both, nn.BatchNorm2d(2)), 16, processes, accumulate) == plain


def test_where_none_is_trained_by_its_batch_there_is_no_share():
    net = network().train()
    freeze(net)
    assert batch_share(net, 16, 8, 1) is None
    assert batch_share(nn.Sequential(nn.GroupNorm(1, 4), nn.InstanceNorm2d(4)).train(), 16, 8, 1) is None
