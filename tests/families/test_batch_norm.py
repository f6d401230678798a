import copy

import torch
from torch import nn

from segfolio.families.batch_norm import batch_statistics, recompute_statistics


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
