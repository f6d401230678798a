"""Receptive field, stride and alignment of a network, read from its layers without running it."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
POINTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Hardswish,
    nn.BatchNorm2d,
    nn.Dropout,
    nn.Dropout2d,
)
FUNCTIONS: set[Callable[..., Any]] = {
    torch.cat,
    torch.add,
    torch.mul,
    torch.relu,
    F.relu,
    operator.add,
    operator.mul,
}


class Field(NamedTuple):
    """The input pixels that an output pixel sees, along the height.

    Attributes:
        first: input row where the field of output row 0 starts; negative within the padding.
        last: input row where it ends, inclusive.
        stride: input rows from one output row to the next.
    """

    first: int
    last: int
    stride: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def centre(self) -> float:
        """Input row at the centre of the field of output row 0; whole or a half."""
        return (self.first + self.last) / 2


def receptive_field(module: nn.Module) -> tuple[int, int]:
    """Receptive field and stride of `module`, in input pixels along the height.

    Raises:
        TypeError: a layer whose reach is not known, e.g. attention, or interpolation.
    """
    field = trace_field(module)
    return field.size, field.stride


def trace_field(module: nn.Module) -> Field:
    """The `Field` of `module`'s output; where branches meet, the field that covers them all.

    Each window of `k` pixels, dilated by `d`, over an input of stride `j` widens the field by `(k - 1) d j`.

    Raises:
        TypeError: a layer whose reach is not known.
        ValueError: branches of different strides meet.
    """
    root = nn.Sequential(module)  # so that a single layer is traced like any other
    graph = fx.symbolic_trace(root).graph
    layers = dict(root.named_modules())
    fields: dict[fx.Node, Field] = {}
    for node in graph.nodes:
        inputs = [fields[n] for n in node.all_input_nodes if n in fields]
        if node.op == "placeholder":
            fields[node] = Field(0, 0, 1)
        elif node.op == "call_module":
            fields[node] = _through(layers[node.target], inputs[0])
        elif node.op == "output":
            return inputs[0]
        elif node.op == "call_function" and node.target in FUNCTIONS:
            if len({field.stride for field in inputs}) > 1:
                raise ValueError(f"branches of strides {[field.stride for field in inputs]} meet at {node.name}")
            fields[node] = Field(min(f.first for f in inputs), max(f.last for f in inputs), inputs[0].stride)
        elif node.op != "get_attr":
            raise TypeError(f"the receptive field through {node.target} is not known")
    raise ValueError("the module returns nothing")


def _through(layer: nn.Module, field: Field) -> Field:
    first, last, stride = field
    if isinstance(layer, POINTWISE):
        return field
    if isinstance(layer, nn.ZeroPad2d):
        padding, kernel, dilation, step = layer.padding[2], 1, 1, 1  # left, right, top, bottom
    elif isinstance(layer, WINDOWS):
        padding, kernel, step = (_rows(getattr(layer, name)) for name in ("padding", "kernel_size", "stride"))
        dilation = _rows(getattr(layer, "dilation", 1))
    else:
        raise TypeError(f"the receptive field through {type(layer).__name__} is not known")
    first -= padding * stride
    last += ((kernel - 1) * dilation - padding) * stride
    return Field(first, last, stride * step)


def _rows(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else value[0]
