"""Which family a network is of: what its `forward` says that it returns."""

from typing import Any, get_args, get_type_hints

from torch import Tensor, nn

from segfolio.errors import SegfolioError
from segfolio.layers.detection import Detections
from segfolio.layers.outputs import MaskOutput, PixelOutput
from segfolio.layers.prompting import PromptedMasks

GIVEN: dict[Any, tuple[str, str]] = {  # what a network gives, in words, and the family that is of it
    Tensor: ("scores per pixel", "PerPixel"),
    PixelOutput: ("scores per pixel", "PerPixel"),
    MaskOutput: ("queries with masks", "MaskClassification"),
    list[Detections]: ("detections", "Detection"),
    PromptedMasks: ("masks of prompts", "Promptable"),
}


def of_family(network: nn.Module, family: Any) -> nn.Module:
    """`network`, where it is one of `family`'s; one whose `forward` does not say what it returns is taken as it is.

    Args:
        family: a class that says by `networks_of` which family of `GIVEN` it takes the networks of.

    Raises:
        SegfolioError: a network of another family.
    """
    try:
        returned = get_type_hints(type(network).forward).get("return")
    except NameError:  # of names that are imported for a type checker alone
        return network
    found = [GIVEN[each] for each in (returned, *get_args(returned)) if each in GIVEN]
    if found and family.networks_of not in [of for _, of in found]:
        given, of = found[0]
        raise SegfolioError(
            f"{type(network).__name__} gives {given}, from which {family.__name__} does not learn; take "
            f"segfolio.families.{of}, or another architecture"
        )
    return network
