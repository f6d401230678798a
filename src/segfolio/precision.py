"""Float32 that is float32: what a run may compute faster, and what it may not."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32, whose 10 bits of mantissa are as few as those of float16; and what is made is float32.

    For differences of large numbers: costs, distances, sums over thousands of pixels. It holds for what is computed
    inside; gradients of it are computed as the run has it.
    """
    before, made = torch.get_float32_matmul_precision(), torch.get_default_dtype()  # float16 where a run is `16-true`
    torch.set_float32_matmul_precision("highest")
    torch.set_default_dtype(torch.float32)
    try:
        with without_autocast(device):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_default_dtype(made)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """What is computed inside is so in the type of its inputs; there is no autocast on `meta` to be turned off."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def as_weights(x: Tensor, part: nn.Module) -> Tensor:
    """What was computed in float32, in the type of the weights of the part that takes it: bfloat16 in `bf16-true`."""
    weights = next(part.parameters(), None)
    return x if weights is None else x.to(weights.dtype)


def float32_in_words() -> str:
    """How float32 is computed, for the record: `matrix products high, convolutions TF32`."""
    convolutions = "TF32" if torch.backends.cudnn.allow_tf32 else "float32"
    return f"matrix products {torch.get_float32_matmul_precision()}, convolutions {convolutions}"
