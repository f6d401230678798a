"""`built`: a network of its constructor's arguments, or the sentence that says why there is none."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from segfolio.errors import SegfolioError


def built(architecture: Callable[[int], nn.Module], num_classes: int) -> nn.Module:
    """The network of so many classes.

    Raises:
        SegfolioError: a value that the constructor refuses, a size below 1 with which it fails, a network of which a
            layer has no width.
    """
    small = [
        f"{name}: {value}" for name, value in arguments_of(architecture).items() if type(value) is int and value < 1
    ]
    given = f" with {', '.join(small)}" if small else ""
    if any(each.startswith("in_channels:") for each in small):
        raise SegfolioError(f"model.architecture cannot be built{given}; give the channels of the images, at least 1")
    try:
        network = architecture(num_classes)
    except SegfolioError:
        raise
    except Exception as error:
        if not small and not isinstance(error, ValueError):
            raise  # of the network's code
        raise SegfolioError(f"model.architecture cannot be built{given}: {error}") from error
    weights = {name: p for name, p in network.named_parameters() if name.endswith("weight")}  # tokens may be none
    if empty := [name for name, weight in weights.items() if not weight.numel()]:
        raise SegfolioError(
            f"{type(network).__name__}{given} has layers without a channel ({empty[0]}); give widths of at least 1"
        )
    return network


def arguments_of(function: Any) -> Mapping[str, Any]:
    """Those that are bound by name, also of what a partial function is called with."""
    if not isinstance(function, partial):
        return {}
    inner = [function.func, *function.args]
    return {key: value for each in inner for key, value in arguments_of(each).items()} | function.keywords
