"""The networks of experiments, made to be measured: random weights, nothing downloaded, no dataset opened."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse._util import import_object
from torch import Tensor

from segfolio import initial_weights
from segfolio.data.datasets import Shapes
from segfolio.data.image_space import RGB, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Size
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.prompted import Prompted
from segfolio.family_of_config import family_of_config
from segfolio.inspection.command import data_module
from segfolio.layers.prompting import OBJECT, PromptInput, SelectingNetwork
from segfolio.ledger.paper import paper_of, read_experiment
from segfolio.ledger.speed import EVERYTHING, Speed, network_hash
from segfolio.runs import experiment_name
from segfolio.speed.measure import Mode
from segfolio.upgrade import upgrade

_GOLDEN = 0.618034


@dataclass(frozen=True)
class SpeedRow:
    """A time that an experiment states, its network not yet built.

    Attributes:
        name: `<paper>/<variant>`, with the prompts where it states several times.
        size: height and width of the images.
        network: `network_hash` of it.
    """

    name: str
    path: Path
    content: dict[str, Any]
    speed: Speed
    size: Size
    network: str

    @classmethod
    def read(cls, path: Path) -> "list[SpeedRow]":
        """Raises a `SegfolioError` for a file that is no experiment, states no time, or no image size."""
        content = read_experiment(path)
        paper = paper_of(content, path)
        if paper is None or not paper.speeds:
            raise SegfolioError(
                f"{path} states no time; give experiments with paper.speed, as {{table: Table 1, fps: 20, size: "
                "[512, 512]}"
            )
        found = []
        for speed in paper.speeds:
            if speed.size is None:
                raise SegfolioError(
                    f"{path}: paper.speed has no image size; add size: [height, width] as the row says, or leave it out"
                )
            height, width = speed.size
            name, network = experiment_name(path) + speed.asked, network_hash(content, speed)
            found.append(cls(name, path, content, speed, (height, width), network))
        return found

    def family(self) -> Family:
        """With random weights, in evaluation.

        Raises:
            SegfolioError: what is wrong with the config.
        """
        content = upgrade(self.content)
        labels, space = known(content, self.path)
        model = initial_weights.without(content["model"])
        family: Family = family_of_config(model, self.path, labels, space, Family)
        return family.eval()


def known(content: dict[str, Any], path: Path) -> tuple[LabelSpace, ImageSpace]:
    """Classes and images of a config's dataset: by its class alone, or, where they are in its files, by these.

    Raises:
        SegfolioError: no dataset, or files that are needed and not there.
    """
    data = content.get("data") or {}
    name = data.get("dataset") or ""
    name = name.get("class_path", "") if isinstance(name, dict) else str(name)
    try:
        dataset = import_object(name)
    except (ImportError, AttributeError, ValueError):
        raise SegfolioError(f"{path}: data.dataset is {name or 'missing'}, expected the class of a dataset") from None
    labels, space = getattr(dataset, "labels", None), getattr(dataset, "image_space", None)
    if isinstance(labels, LabelSpace) and isinstance(space, ImageSpace) and not data.get("remap"):
        return labels, space
    module = data_module(content, path)
    return module.labels, module.image_space


def images(batch: int, size: Size, space: ImageSpace, device: torch.device) -> Tensor:
    """Drawn ones `[batch, C, H, W]`, on which a search for regions finds what it does on photographs; noise where they
    are not 8-bit RGB."""
    if space == RGB:
        drawn = Shapes(size=size, train=batch)
        return torch.stack([torch.as_tensor(drawn.read(index).image) for index in range(batch)]).to(device)
    low, high = space.value_range
    return (low + (high - low) * torch.rand(batch, space.channels, *size)).to(device)


def forward(family: Family, given: Tensor, mode: Mode, prompts: int | str = 1) -> Callable[[], object]:
    """A pass over images, from the dataset's values to the network's answer: scores, objects, or the masks of points.

    Args:
        prompts: points of each image, of which the first one or the only one is in its middle; or `everything`, what
            the family finds where nobody asks, to run lengths. With random weights hardly a mask is good enough for
            everything mode; of a `SelectingNetwork` all are.

    Raises:
        SegfolioError: prompts of a network that is not prompted.
    """
    family = family.to(given.device)
    mode.prepared(family.network)
    if mode.channels_last:
        given = given.contiguous(memory_format=torch.channels_last)
    if isinstance(family.network, SelectingNetwork):
        network = family.network  # random weights find nothing else, and there would be nothing to draw
        network.score_threshold = network.prompt_score_threshold = 0.0
    if isinstance(family, Prompted):
        if prompts == EVERYTHING:
            batch = Batch(given, [str(i) for i in range(len(given))], [(given.shape[-2], given.shape[-1])] * len(given))
            return partial(_inferred, lambda: family.predict_with.predict(family, batch))
        assert isinstance(prompts, int)
        points = _spread(given, prompts)
        return partial(_inferred, lambda: family.network(family.normalize(given), points))
    if prompts != 1:
        raise SegfolioError(
            f"{type(family.network).__name__} is not prompted; paper.speed.prompts is for networks that are"
        )
    return partial(_inferred, lambda: family(given))


def _inferred(run: Callable[[], object]) -> object:
    with torch.inference_mode():
        return run()


def _spread(given: Tensor, count: int) -> PromptInput:
    """As many points in each image, apart from each other in both directions; of one, in the middle."""
    steps = torch.arange(count, device=given.device, dtype=torch.float32)
    places = torch.stack([(steps + 0.5) / count, (0.5 + _GOLDEN * steps) % 1], 1)
    points = places * torch.tensor([given.shape[-1], given.shape[-2]], device=given.device)
    image = torch.arange(len(given), device=given.device).repeat_interleave(count)
    return PromptInput(image, points.repeat(len(given), 1)[:, None], torch.full_like(image, OBJECT)[:, None])
