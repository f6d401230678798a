"""Parts of a network that are computed a second time, so that less is kept for the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from segfolio.errors import SegfolioError


def through(network: Any, part: Any, *given: Any, **named: Any) -> Any:
    """What `part` makes of what is given: which, where `network.checkpointing` and it is trained, is kept alone.
    Running statistics of batch normalisations see it once."""
    if not (network.checkpointing and network.training):
        return part(*given, **named)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(part)

    return checkpoint(part, *given, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _statistics_kept(part: Any) -> Iterator[None]:
    modules = part.modules() if isinstance(part, nn.Module) else ()
    norms = [module for module in modules if isinstance(module, _BatchNorm) and module.momentum is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def keep_less(encoder: Any) -> None:
    """In training, each block of a backbone, transformers' or timm's, keeps its input alone and is computed again in
    the backward pass; running statistics of batch normalisations see each batch twice.

    Raises:
        SegfolioError: a backbone of timm's that cannot.
    """
    body = getattr(encoder, "_backbone", encoder)  # timm's within transformers', or by itself
    if body is encoder and hasattr(encoder, "activation_checkpointing_enable"):
        encoder.activation_checkpointing_enable({"use_reentrant": False})
        return
    try:
        body.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise SegfolioError("timm cannot compute the blocks of this backbone again; leave checkpointing out") from error
