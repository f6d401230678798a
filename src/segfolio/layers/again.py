"""Parts of a network that are computed a second time, so that less is kept for the backward pass."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from segfolio.errors import SegfolioError


def through(network: Any, part: Any, *given: Any, **named: Any) -> Any:
    """What `part` makes of what is given. Where `network.checkpointing` and it is trained, only what is given is kept,
    and the rest computed again in the backward pass; see `see_once`."""
    if not (network.checkpointing and network.training):
        return part(*given, **named)
    tensors, shape = tree_flatten((given, named))  # each kept as a saved tensor, also those of a list

    def run(*tensors: Any) -> Any:
        given, named = tree_unflatten(tensors, shape)
        return part(*given, **named)

    return checkpoint(run, *tensors, use_reentrant=False)


def see_once(network: nn.Module) -> None:
    """Running statistics of batch normalisations see a batch once, though parts are computed a second time. What was
    told so already may be told again."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and _hold not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_hold)
            module.register_forward_hook(_release, always_call=True)  # torch leaves by an error once it has all


def _hold(norm: Any, _: Any) -> None:
    if norm.training and torch._C._current_graph_task_id() != -1:  # in a backward pass
        counted = norm.num_batches_tracked
        norm.held, norm.momentum = (norm.momentum, None if counted is None else counted.clone()), 0.0


def _release(norm: Any, *_: Any) -> None:
    if hasattr(norm, "held"):
        norm.momentum, counted = norm.held
        del norm.held
        if counted is not None:
            norm.num_batches_tracked.copy_(counted)


def keep_less(encoder: Any) -> None:
    """In training, each block of a backbone, transformers' or timm's, keeps its input alone and is computed again in
    the backward pass; see `see_once`.

    Raises:
        SegfolioError: a backbone of timm's that cannot.
    """
    see_once(encoder)
    body = getattr(encoder, "_backbone", encoder)  # timm's within transformers', or by itself
    if body is encoder and hasattr(encoder, "activation_checkpointing_enable"):
        encoder.activation_checkpointing_enable({"use_reentrant": False})
        return
    try:
        body.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise SegfolioError("timm cannot compute the blocks of this backbone again; leave checkpointing out") from error
