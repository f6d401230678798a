"""What a network is by itself, without weights and without a run: parameters, FLOPs, layers.

Networks are looked at as `layers.hollow` makes them. One multiply-add is one FLOP.
"""

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segfolio.errors import SegfolioError, did_you_mean

_ATEN: Any = torch.ops.aten
_CONVOLUTION = "ConvolutionBackward0"


def parameters(network: nn.Module, of: str = "") -> int:
    """How many numbers a network learns, or a part of it; what several layers share counts once.

    Args:
        of: the part, as paths of modules and parameters: `encoder.blocks + encoder.stem`, `decoder -
            decoder.classifier`; `- decoder` is all but the decoder.

    Raises:
        SegfolioError: a path of neither.
    """
    whole = not of or of.lstrip().startswith("-")
    counted: set[nn.Parameter] = set(network.parameters()) if whole else set()
    for sign, path in re.findall(r"([+-]?)\s*([^\s+-]+)", of):
        counted = counted - _part(network, path) if sign == "-" else counted | _part(network, path)
    return sum(p.numel() for p in counted)


def _part(network: nn.Module, path: str) -> set[nn.Parameter]:
    modules, single = dict(network.named_modules()), dict(network.named_parameters())
    if path in single:
        return {single[path]}
    if path not in modules:
        children = ", ".join(name for name, _ in network.named_children())
        near = did_you_mean(path, filter(None, (*modules, *single))) or f"; it has {children}"
        raise SegfolioError(f"{type(network).__name__} has no part {path!r}{near}")
    return set(modules[path].parameters())


def flops(run: Callable[[], Any], fvcore: bool = False) -> int:
    """The FLOPs of what is called: convolutions, matrix products and attention, as torch counts them.

    Args:
        fvcore: count as fvcore does, which Detectron2's papers use: normalisations (2 of each value where their
            statistics are kept, else 5), bilinear interpolation and sampling (4 of each value) and adaptive pooling
            (1) as well. Attention counts as its two matrix products, which the papers' code wrote
            out; deformable attention as its sampling, where fvcore does not see that of a custom operator.
    """
    with FlopCounterMode(display=False, custom_mapping=_FVCORE if fvcore else None) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2  # torch counts a multiply-add as two


def layers(scores: Tensor) -> int:
    """The convolutions with weights to be learnt on the longest way from the image to a network's output.

    Args:
        scores: the output, with the graph of what made it.
    """
    depth: dict[Any, int] = {None: 0}
    waiting = [scores.grad_fn]
    while waiting:
        node: Any = waiting[-1]
        before = [function for function, _ in node.next_functions] if node not in depth else []
        if unknown := [function for function in before if function not in depth]:
            waiting += unknown
            continue
        waiting.pop()
        if node not in depth:
            learns = node.name() == _CONVOLUTION and before[1] is not None
            depth[node] = max((depth[function] for function in before), default=0) + learns
    return depth[scores.grad_fn]


def _of_input(factor: int) -> Callable[..., int]:
    """So many multiply-adds for each value that goes in, in torch's convention."""
    return lambda shape, *rest, **kwargs: 2 * factor * prod(shape)


def _of_output(factor: int) -> Callable[..., int]:
    return lambda *args, out_shape, **kwargs: 2 * factor * prod(out_shape)


_FVCORE: dict[Any, Callable[..., int]] = {
    _ATEN._native_batch_norm_legit_no_training: _of_input(2),
    _ATEN.native_layer_norm: _of_input(5),
    _ATEN.native_group_norm: _of_input(5),
    _ATEN.upsample_bilinear2d: _of_output(4),
    _ATEN._adaptive_avg_pool2d: _of_input(1),
    _ATEN.grid_sampler_2d: _of_output(4),
}
