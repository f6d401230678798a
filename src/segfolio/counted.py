"""The figures of `paper.static`, of an experiment's network as it is built for a run, without weights.

The ledger imports it when something is to be counted, and not before: it takes seconds.
"""

import importlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from segfolio import initial_weights
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.families.built import built
from segfolio.inference.mask_classification import semantic_scores
from segfolio.layers import counting
from segfolio.layers.hollow import hollow
from segfolio.layers.outputs import MaskOutput, PixelOutput

_SIDE = 512  # of the image on which layers are counted


def counted(
    architecture: Any, dataset: Any, remapped: bool, family: str | None, asked: Mapping[str, Any]
) -> dict[str, float]:
    """Our figures by name.

    Args:
        architecture: of the experiment, as a config has it.
        dataset: whose classes the network has, as a config has it, unless they are `remapped`.
        family: the class path of the model.
        asked: the fields of a `Counting`, of which `printed` holds the names of the figures alone.

    Raises:
        SegfolioError: a network that cannot be built, a part that it does not have, a figure that it does not tell.
    """
    classes = asked["classes"] or _classes(dataset, remapped, str(family))
    if not architecture:
        raise SegfolioError("paper.static counts no network; add network: {class_path: ..., init_args: {...}}")
    network, found = _hollow(architecture, classes), {}
    for name in asked["printed"]:
        if name == "parameters":
            found[name] = float(counting.parameters(network, asked["of"]))
        elif name == "parameters_saved":
            more = counting.parameters(_hollow(asked["against"], classes), asked["of"])
            found[name] = 1 - counting.parameters(network, asked["of"]) / more
        elif name == "flops":
            found[name] = float(_flops(network, asked))
        elif name == "layers":
            found[name] = float(_layers(network))
        else:
            found[name] = float(_geometry(network)[name == "stride"])
    return found


def _classes(dataset: Any, remapped: bool, family: str) -> int:
    """Those of the dataset's class, for which no file is looked at."""
    path = str(dataset.get("class_path") if isinstance(dataset, dict) else dataset)
    labels = getattr(_class(path, "data.dataset"), "labels", None)
    if remapped or not isinstance(labels, LabelSpace):
        raise SegfolioError(
            f"paper.static cannot know the number of classes, which {'data.remap' if remapped else path} tells with "
            "the data alone; add classes: 80, or whatever it is"
        )
    return sum(labels.is_thing) if family.endswith(".Detection") else labels.num_classes


def _class(path: str, key: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise SegfolioError(f"{key} is {path!r}, which is no class that can be imported; correct the path") from None


def _hollow(architecture: Any, classes: int) -> nn.Module:
    """The network of a config, with shapes and no values, in evaluation."""
    given = dict(architecture) if isinstance(architecture, dict) else {"class_path": architecture}
    cls = _class(str(given["class_path"]), "model.architecture")
    given["init_args"] = dict(given.get("init_args") or {})
    initial_weights.leave_out({"architecture": given})
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--architecture", type=Callable[[int], nn.Module])
    try:
        config = parser.parse_object({"architecture": given})
    except ArgumentError as error:
        said = " ".join(str(error).split())
        raise SegfolioError(f"model.architecture, a {cls.__name__}, cannot be built: {said}") from None
    with hollow():
        network: Any = built(parser.instantiate(config).architecture, classes)
    return (network.annealed() if hasattr(network, "annealed") else network).eval()  # as a training leaves it


def _flops(network: nn.Module, asked: Mapping[str, Any]) -> int:
    size = height, width = asked["crop"]
    through = asked["through"]
    images = 2 if through == "training" else 1  # as batch normalisation asks for

    def run() -> None:
        with torch.device("meta"):
            output = network.train(through == "training")(_images(network, images, height, width))
            if through == "scores":
                if not isinstance(output, MaskOutput):
                    raise SegfolioError(
                        f"paper.static counts through: scores, which are made of queries; {type(network).__name__} "
                        "has none, leave it out"
                    )
                deque(semantic_scores(output.class_logits[0], output.mask_logits[0], size), maxlen=0)

    try:
        return counting.flops(run, fvcore=asked["operators"] == "fvcore") // images
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise SegfolioError(
            f"paper.static states flops, which cannot be counted of {type(network).__name__} without a run "
            f"({' '.join(str(error).split())[:80]}); leave them out"
        ) from error


def _layers(network: nn.Module) -> int:
    with torch.device("meta"), torch.enable_grad():
        output = network.requires_grad_()(_images(network, 1, _SIDE, _SIDE))
    return counting.layers(output.logits if isinstance(output, PixelOutput) else output)


def _images(network: nn.Module, number: int, height: int, width: int) -> torch.Tensor:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    return torch.empty(number, getattr(network, "in_channels", first.in_channels), height, width)


def _geometry(network: Any) -> tuple[int, int]:
    if not hasattr(network, "geometry"):
        raise SegfolioError(
            f"paper.static states receptive_field or stride, and {type(network).__name__} has no geometry() that tells "
            "them; write one, or leave them out"
        )
    field: tuple[int, int] = network.geometry()
    return field
