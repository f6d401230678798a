"""Whether images, mean, standard deviation and network agree, before training."""

import inspect
from collections.abc import Sequence

from torch import nn

from segfolio.data.image_space import ImageSpace
from segfolio.errors import SegfolioError
from segfolio.weights.input_layer import first_convolution
from segfolio.words import counted


def check_input(network: nn.Module, space: ImageSpace, mean: Sequence[float], std: Sequence[float]) -> None:
    """A network whose first-listed convolution is not the one that sees the image says `in_channels` itself.

    Raises:
        SegfolioError: a mean or a standard deviation of another number of channels than the images have, a deviation
            that is not above 0, a mean that no image can have, a network that takes another number.
    """
    of = f"the images have {counted(space.channels, 'channel')}"
    for name, values in (("mean", mean), ("std", std)):
        if (number := len(values or ())) != space.channels:
            raise SegfolioError(
                f"model.{name} has {counted(number, 'value')}, but {of}; give one for each (the "
                "default is ImageNet's, of RGB; `segfolio inspect CONFIG` measures that of a dataset)"
            )
    if min(std) <= 0:
        raise SegfolioError(f"model.std is {list(std)}; images are divided by it: give values above 0")
    most = space.most
    if most is not None and not 0 <= max(mean) <= most:
        raise SegfolioError(
            f"model.mean is {list(mean)}, but no value of the images is above {most:g} in units of their value range, "
            f"{space.value_range[0]:g} to {space.value_range[1]:g}; give it in these units, as `segfolio inspect` does"
        )
    first = first_convolution(network)
    takes = getattr(network, "in_channels", first[1].in_channels if first else space.channels)
    if takes != space.channels:
        kind = type(network)
        if "in_channels" in inspect.signature(kind).parameters:
            what = f"give the architecture in_channels: {space.channels}"
        else:
            what = f"take an architecture with in_channels, or images of {takes} (channels: {takes} of the dataset)"
        raise SegfolioError(f"{kind.__name__} takes images of {counted(takes, 'channel')}, but {of}; {what}")
