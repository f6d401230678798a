"""Networks that are looked at and never run: modules whose tensors have shapes and no values."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FILLS = {
    *(getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")),
    *(Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_),
    *(Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_),  # of which `trunc_normal_` is made
}


@contextmanager
def hollow() -> Iterator[None]:
    """What is made in this context lies on the device `meta`, in half the time that `torch.device("meta")` takes.

    Torch spends the other half on filling tensors that have no values.
    """
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves tensors on the device `meta` as they are, where others are filled in place."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _FILLS and (tensor := args[0] if args else given["tensor"]).is_meta:
            return tensor
        return func(*args, **given)
