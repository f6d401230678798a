"""The first layer of a network, and weights of RGB for images of other channels."""

import warnings

from timm.models import adapt_input_conv
from torch import Tensor, nn

from segfolio.words import counted

_RGB = 3


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """The one that sees the image, with its name: the first that the network lists; None where there is none."""
    found = ((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    return next(found, None)


def fitted(state_dict: dict[str, Tensor], network: nn.Module, source: str) -> dict[str, Tensor]:
    """`state_dict` with the weights of the first convolution for as many channels as it has in `network`.

    They are timm's and segmentation_models.pytorch's: of one channel the sum over RGB, of N channels red, green, blue,
    red, ..., times 3 / N, so that activations keep their scale. It warns of it, naming `source`.
    """
    found = first_convolution(network)
    if found is None or (key := f"{found[0]}.weight") not in state_dict:
        return state_dict
    (_, layer), given = found, state_dict[key]
    if layer.in_channels == _RGB or given.ndim != 4 or given.shape[1] != _RGB or layer.groups != 1:
        return state_dict
    tell_fitted(source, layer.in_channels)
    return {**state_dict, key: adapt_input_conv(layer.in_channels, given)}


def tell_fitted(source: str, channels: int) -> None:
    """Warn that weights of RGB are made to fit images of other channels."""
    how = "summed over RGB" if channels == 1 else f"repeated and scaled by 3/{channels}"
    warnings.warn(
        f"{source} is of RGB images and these have {counted(channels, 'channel')}: the weights of the first "
        f"convolution are {how}",
        stacklevel=3,
    )
