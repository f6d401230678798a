"""Parts of a network that are computed a second time, so that less is kept for the backward pass."""

from typing import Any

from torch.utils.checkpoint import checkpoint

from segfolio.errors import SegfolioError


def through(network: Any, part: Any, *given: Any, **named: Any) -> Any:
    """What `part` makes of what is given: which, where `network.checkpointing` and it is trained, is kept alone."""
    if network.checkpointing and network.training:
        return checkpoint(part, *given, use_reentrant=False, **named)
    return part(*given, **named)


def keep_less(encoder: Any) -> None:
    """In training, each block of a backbone, transformers' or timm's, keeps its input alone and is computed again in
    the backward pass; running statistics of batch normalisations see each batch twice.

    Raises:
        SegfolioError: a backbone of timm's that cannot.
    """
    body = getattr(encoder, "_backbone", None)
    if body is None:
        encoder.activation_checkpointing_enable({"use_reentrant": False})
        return
    try:
        body.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise SegfolioError("timm cannot compute the blocks of this backbone again; leave checkpointing out") from error
