import torch
from torch import nn

from segfolio.families.optimization import apply_lr_factors, parameter_groups


def test_biases_get_twice_the_learning_rate_and_no_decay():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, bias=False))
    optimizer = torch.optim.SGD(parameter_groups(net, 2.0, False), lr=0.1, weight_decay=0.5)
    apply_lr_factors(optimizer)
    weights, biases = optimizer.param_groups
    assert [len(g["params"]) for g in (weights, biases)] == [2, 1]
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 0.5)
    assert (biases["lr"], biases["weight_decay"]) == (0.2, 0.0)
    assert "lr_factor" not in biases


def test_frozen_parameters_are_left_out():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    net[0].requires_grad_(False)
    assert [len(g["params"]) for g in parameter_groups(net, 1.0, True)] == [2]
