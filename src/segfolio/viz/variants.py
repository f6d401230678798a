"""Networks by their names, and what they look at, for commands that draw pictures of them."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from segfolio.data.dataset import files_by_id
from segfolio.data.formats.images import read_image
from segfolio.data.image_space import IMAGENET_MEAN, IMAGENET_STD
from segfolio.data.sample import to_image
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.layers.hollow import hollow
from segfolio.listing import architecture_classes, class_path
from segfolio.runs import run_of
from segfolio.upgrade import upgrade
from segfolio.viz.overlay import fit
from segfolio.weights.files import read_file
from segfolio.weights.hub import read_repository
from segfolio.yaml_file import read_yaml

Variant = tuple[Any, Mapping[str, Any]]
"""A class and the arguments of one of its variants."""

RANDOM = "random"
"""In place of weights: none."""
CLASSES = 21
"""Of a network without weights."""
_NOISE = 4


@dataclass(frozen=True)
class Normalisation:
    """What a network expects of images from 0 to 1.

    Attributes:
        source: the experiment that says so.
    """

    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    source: str = "ImageNet"

    @classmethod
    def of(cls, family: Mapping[str, Any], source: str) -> Self:
        """That of the arguments of a family. One value is that of all channels."""
        mean, std = family.get("mean") or IMAGENET_MEAN, family.get("std") or IMAGENET_STD
        return cls(list(mean) * 3 if len(mean) == 1 else mean, list(std) * 3 if len(std) == 1 else std, source)

    def done(self, image: Tensor) -> Tensor:
        """`[3, H, W]` as the network sees it."""
        return (image - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def undone(self, image: Tensor) -> Tensor:
        return image * torch.tensor(self.std)[:, None, None] + torch.tensor(self.mean)[:, None, None]


def check(output: Path, size: int) -> None:
    """
    Raises:
        SegfolioError: an output that is no picture, a size that is none.
    """
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise SegfolioError(f"--output {output} is no name of a picture; give one that ends in .png or .jpg")
    if size < 1:
        raise SegfolioError(f"--size is {size}, expected 1 or more")


def variants_of(names: Sequence[str]) -> dict[str, Variant]:
    """Those of `names`, as `segfolio architectures` lists them.

    Raises:
        SegfolioError: a name that there is not.
    """
    variants = {name: (cls, variant) for cls in architecture_classes() for name, variant in cls.variants.items()}
    if unknown := [name for name in names if name not in variants]:
        raise SegfolioError(
            f"there is no architecture {unknown[0]!r}{did_you_mean(unknown[0], variants)}; `segfolio architectures` "
            "lists all names"
        )
    return {name: variants[name] for name in names}


def built(name: str, cls: Any, variant: Mapping[str, Any], weights: str | None) -> nn.Module:
    """The network in evaluation, on RGB, whatever the variant's images are, with as many classes as its weights have.

    Args:
        weights: as the network's argument of that name; of a run's checkpoint the network is as the run's config says.

    Raises:
        SegfolioError: weights that are not to be had, of another network, or of one that takes none.
    """
    takes = inspect.signature(cls).parameters
    if weights is not None and "weights" not in takes:
        raise SegfolioError(f"{name} takes no weights; leave out --weights, or give `{RANDOM}` for it")
    of_run = _architecture(model) if (model := _model_of_run(weights)) else {}
    if of_run and of_run.get("class_path") != class_path(cls):
        raise SegfolioError(f"{weights} is of a run of {of_run.get('class_path')}; {name} is {class_path(cls)}")
    arguments = {**variant, **(of_run.get("init_args") or {}), **({"in_channels": 3} if "in_channels" in takes else {})}
    if "weights" in takes:
        arguments["weights"] = None
    state = _state(weights)
    classes = CLASSES if state is None else classes_in(state, lambda classes: cls(classes, **arguments))
    torch.manual_seed(0)
    network: nn.Module = cls(classes, **{**arguments, **({} if weights is None else {"weights": weights})})
    return network.eval().requires_grad_(False)


def classes_in(state: Mapping[str, Tensor], make: Callable[[int], nn.Module]) -> int:
    """How many classes the network has that a state dict is of, whatever its names are: with which all shapes that
    follow the number of classes are among those of the state. `CLASSES` where it has none of these layers."""
    with hollow():
        few, more = ([tuple(v.shape) for v in make(count).state_dict().values()] for count in (CLASSES, CLASSES + 1))
    growing = [(a, b) for a, b in zip(few, more, strict=True) if a != b]
    here = Counter(tuple(value.shape) for value in state.values())
    here -= Counter(a for a, b in zip(few, more, strict=True) if a == b)

    def fits(classes: int) -> bool:
        steps = classes - CLASSES
        return Counter(tuple(x + steps * (y - x) for x, y in zip(a, b, strict=True)) for a, b in growing) <= here

    sides = {side - beside for shape in here for side in shape for beside in (0, 1)}  # one may be "no object"
    return next((side for side in sorted(sides) if side > 0 and growing and fits(side)), CLASSES)


def normalisation(cls: Any, variant: Mapping[str, Any], weights: str | None) -> Normalisation:
    """As the run of the weights was normalised; else as the experiment in the folder `experiments` that has the
    variant's arguments, and of several the one most like it otherwise; else as ImageNet."""
    if model := _model_of_run(weights):
        return Normalisation.of(model.get("init_args") or {}, "its run")
    defaults = {name: each.default for name, each in inspect.signature(cls).parameters.items() if name != "weights"}
    best = (-1, Normalisation())
    for file in sorted(Path("experiments").glob("*/*.yaml")):
        if class_path(cls) not in file.read_text():
            continue
        model = read_yaml(file, "model").get("model") or {}
        network = _architecture(model)
        if network.get("class_path") == class_path(cls):
            has = {**_plain(defaults), **(network.get("init_args") or {})}
            like = sum(has[name] == value for name, value in _plain(defaults).items())
            if like > best[0] and all(has.get(name) == value for name, value in _plain(variant).items()):
                best = like, Normalisation.of(model.get("init_args") or {}, f"{file.parent.name}/{file.stem}")
    return best[1]


def pictures(path: Path | None, size: int) -> list[Tensor]:
    """`[3, size, size]` each, from 0 to 1: the middle of an image or of each of a folder, as large as it can be; noise
    of ImageNet's mean and deviation if no path is given."""
    if path is None:
        generator, usual = torch.Generator().manual_seed(0), Normalisation()
        return [usual.undone(torch.randn(3, size, size, generator=generator)) for _ in range(_NOISE)]
    found = []
    for file in sorted(files_by_id(path).values()) if path.is_dir() else [path]:
        pixels = read_image(file)
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        middle = fit(pixels[top : top + side, left : left + side], (size, size))
        found.append(to_image(middle).as_subclass(Tensor) / 255)
    return found


def for_each(names: Sequence[str], weights: Sequence[str]) -> list[str | None]:
    """The weights of each name; None where they are random.

    Raises:
        SegfolioError: neither one for all nor one for each.
    """
    if len(weights) not in (0, 1, len(names)):
        raise SegfolioError(
            f"--weights gives {len(weights)} for {len(names)} networks; give one for all or one for each, `{RANDOM}` "
            "for a network without any"
        )
    each = weights if len(weights) == len(names) else [*weights, RANDOM][:1] * len(names)
    return [None if given == RANDOM else given for given in each]


def _state(weights: str | None) -> dict[str, Tensor] | None:
    """That of a file, of a folder or of a repository of the hub; None of names that mean a backbone's."""
    if weights is None or not (Path(weights).exists() or "/" in weights):
        return None
    return read_file(Path(weights)) if Path(weights).is_file() else read_repository(weights)


def _model_of_run(weights: str | None) -> dict[str, Any]:
    """The block `model` of the run that a checkpoint is of; empty of other weights."""
    run = run_of(Path(weights)) if weights is not None and Path(weights).is_file() else None
    return upgrade(read_yaml(run / "config.yaml", "model")).get("model") or {} if run else {}


def _architecture(model: Mapping[str, Any]) -> dict[str, Any]:
    found = (model.get("init_args") or {}).get("architecture") or {}
    return found if isinstance(found, dict) else {"class_path": found}


def _plain(variant: Mapping[str, Any]) -> dict[str, Any]:
    """As YAML has it: lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in variant.items()}
