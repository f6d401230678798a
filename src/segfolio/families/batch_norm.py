"""Batch normalisation where a paper departs from training it and from running averages."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segfolio.errors import SegfolioError


@contextmanager
def batch_statistics(network: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Normalise by the statistics of the batch at hand and leave the running ones as they are.

    Raises:
        SegfolioError: synchronised batch normalisation.
    """
    layers = _of_one_process(network) if enabled else []
    state = [(layer, layer.training, layer.track_running_stats) for layer in layers]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer, training, track in state:
            layer.training, layer.track_running_stats = training, track


def freeze(network: nn.Module) -> None:
    """Keep the running statistics, and the affine parameters from training; to be repeated after `train()`."""
    for layer in _layers(network):
        layer.eval().requires_grad_(False)


def batch_share(network: nn.Module, batch_size: int, processes: int, accumulate: int) -> int | None:
    """Of how many images of an optimiser step a batch normalisation sees the statistics at once.

    It is asked when a fit starts, of the layers that normalise by their batch then: one that is frozen later counts,
    though the steps after that do not depend on it; one that is trained only later does not count.

    Returns:
        The least of all layers that normalise by their batch; None where none does.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    if not layers:
        return None
    synchronised = all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    return batch_size // accumulate // (1 if synchronised else processes)


@torch.no_grad()
def recompute_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running statistics by plain means over `batches`, over all processes.

    As SegNet's authors do after training (1511.00561, section 3): the mean of the batches' means and of their
    unbiased variances; every batch counts alike.

    Args:
        batches: normalised images `[B, C, H, W]` of this process.

    Raises:
        SegfolioError: synchronised batch normalisation.
    """
    layers = _of_one_process(network)
    if not layers:
        return
    momenta, modes = [layer.momentum for layer in layers], {m: m.training for m in network.modules()}
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
        layer.train()
    for images in batches:
        network(images)
    for layer in layers:
        _average_over_processes(layer)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for module, mode in modes.items():
        module.training = mode


def _layers(network: nn.Module) -> list[_BatchNorm]:
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def _of_one_process(network: nn.Module) -> list[_BatchNorm]:
    """Layers that do not wait for other processes, which may have another number of batches."""
    layers = _layers(network)
    if any(isinstance(layer, nn.SyncBatchNorm) for layer in layers):
        raise SegfolioError(
            "trainer.sync_batchnorm is true, but model.bn_mode `recompute` and `batch` normalise by the batch of each "
            "process; leave one of the two out"
        )
    return layers


def _average_over_processes(layer: _BatchNorm) -> None:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    seen = layer.num_batches_tracked.clone()
    distributed.all_reduce(seen)
    for statistic in (layer.running_mean, layer.running_var):
        statistic.mul_(layer.num_batches_tracked)
        distributed.all_reduce(statistic)
        statistic.div_(seen)
    layer.num_batches_tracked.copy_(seen)
