"""`PromptSampling`: which objects of an image are trained on, and where a simulated user points."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.image_space import ImageSpace
from segfolio.data.prompts import OBJECT, Prompts
from segfolio.data.sample import Sample
from segfolio.data.segments import Segments, is_id_map
from segfolio.errors import SegfolioError

_LOOKED_AT = 16  # images of a split, before training


class FirstPrompt(NamedTuple):
    """What all objects of an optimiser step are asked for with.

    Attributes:
        kind: of the prompt.
        ambiguous: it is answered by several masks, not by one.
    """

    kind: Literal["point", "box"]
    ambiguous: bool


class Split(Protocol):
    """As `SegmentationDataset`."""

    image_space: ImageSpace

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class PromptSampling:
    """A family's `preparation`: an image's objects, and all that is random about asking for them (SAM, arXiv
    2304.02643, appendix A, "Training algorithm").

    Of a sample's segments at most `max_objects` are chosen at random, before any mask is decoded; they travel as id
    maps. Each gets a point, uniform in its mask, and a noisy box; which of the two is asked with first is the same for
    all images of a step, see `first_prompt`. Where the later clicks are to fall depends on the answers: the sample
    brings `extras["clicks"]`, `[max_objects, rounds]` float32, of each round the place in the error region, from 0 to
    1, or -1 in a round without a new point. So all that is random is of the sample's own stream.

    Crowds, objects that have a box alone, and those too small or too large are left out; an image without any has no
    prompts. Semantic maps and weights, which nothing here reads, stay behind.

    Args:
        max_objects: of an image (SAM: 64 of a GPU).
        clicks: rounds that correct the answer before by a click.
        pauses: rounds in which the network is given its own answer and no new point: the last, and any others at random
            among the clicks.
        min_area: in pixels of the sample, below which an object is left out.
        max_area: as a part of the image, above which it is.
        box_noise: standard deviation of each side of a box, in parts of the box's extent in that direction.
        most_box_noise: in pixels.
        box_probability: of a step whose first prompts are boxes.
        box_ambiguity: probability that these are answered by several masks, as points are, and not by one. SAM's
            several masks of a box begin what appendix D.4 tests; its users ask for one.

    Raises:
        SegfolioError: an argument outside its range.
    """

    max_objects: int = 64
    clicks: int = 8
    pauses: int = 2
    min_area: int = 10
    max_area: float = 0.9
    box_noise: float = 0.1
    most_box_noise: float = 20.0
    box_probability: float = 0.5
    box_ambiguity: float = 0.5

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_objects", 1, np.inf),
            ("clicks", 0, np.inf),
            ("pauses", 0, np.inf),
            ("min_area", 1, np.inf),
            ("max_area", 0, 1),
            ("box_noise", 0, 1),
            ("most_box_noise", 0, np.inf),
            ("box_probability", 0, 1),
            ("box_ambiguity", 0, 1),
        ):
            if not least <= (value := getattr(self, name)) <= most:
                raise SegfolioError(
                    f"{name} of PromptSampling is {value}, expected {least} "
                    + ("or more" if most == np.inf else f"to {most}")
                )

    @property
    def rounds(self) -> int:
        """Those after the first prompt."""
        return self.clicks + self.pauses

    def first_prompt(self, seed: int, step: int) -> FirstPrompt:
        """In all processes and passes."""
        box, several = np.random.default_rng([seed, step]).random(2) < (self.box_probability, self.box_ambiguity)
        return FirstPrompt("box", bool(several)) if box else FirstPrompt("point", True)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        target = sample.target
        if target is None or target.segments is None:
            raise SegfolioError(f"{sample.image_id} has no objects to prompt for; its dataset has none, or no truth")
        chosen = self._chosen(target.segments, rng)
        masks = chosen.masks.numpy()
        if isinstance(chosen.form, list):
            chosen = chosen.with_masks(chosen.masks)
        prompts = Prompts(
            of=torch.arange(len(chosen)),
            points=points_in(masks, rng),
            kinds=torch.full((len(chosen), 1), OBJECT),
            boxes=noisy_boxes(masks, rng, self.box_noise, self.most_box_noise),
        )
        target = replace(target, semantic=None, segments=chosen.compact(), weight=None)
        return replace(sample, target=target, prompts=prompts, extras={"clicks": self._clicks(rng)})

    def _chosen(self, segments: Segments, rng: np.random.Generator) -> Segments:
        areas, (height, width) = areas_of(segments), segments.size
        wanted = (areas >= self.min_area) & (areas <= self.max_area * height * width) & ~segments.crowd.numpy()
        if segments.box_only is not None:
            wanted &= ~segments.box_only.numpy()
        places = rng.permutation(np.flatnonzero(wanted))[: self.max_objects]
        return segments[torch.from_numpy(np.sort(places))]

    def _clicks(self, rng: np.random.Generator) -> Tensor:
        places = rng.random((self.max_objects, self.rounds), np.float32)
        if self.pauses:
            places[:, rng.permutation(self.rounds - 1)[: self.pauses - 1]] = -1
            places[:, -1] = -1
        return torch.from_numpy(places)


def areas_of(segments: Segments) -> npt.NDArray[np.int64]:
    """Pixels of each segment, `[N]`; no mask is decoded."""
    if isinstance(segments.form, list):
        return rle.areas(segments.form)
    if is_id_map(segments.form):
        return np.bincount(segments.form.numpy().reshape(-1), minlength=len(segments) + 1)[1:]
    return segments.form.sum((1, 2)).numpy()


def noisy_boxes(masks: rle.Bools, rng: np.random.Generator, noise: float, most: float) -> Tensor:
    """`[P, 4]` around each mask, each side moved, inside the image; NaN around an empty one.

    Args:
        noise: standard deviation, in parts of the box's extent in that direction.
        most: in pixels.
    """
    size = np.array(masks.shape[:0:-1] * 2)  # of x, y, x, y
    moves, exact = rng.normal(0.0, noise, (len(masks), 4)), np.full((len(masks), 4), np.nan)
    for box, mask in zip(exact, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    extent = np.tile(exact[:, 2:] - exact[:, :2], 2)
    moved = (exact + (moves * extent).clip(-most, most)).clip(0, size)
    upright = (moved[:, :2] < moved[:, 2:]).all(1, keepdims=True)
    return torch.from_numpy(np.where(upright, moved, exact)).float()


def points_in(masks: rle.Bools, rng: np.random.Generator) -> Tensor:
    """`[P, 1, 2]`: the centre of a pixel of each mask, all with equal probability; of an empty one of any pixel."""
    points = np.zeros((len(masks), 1, 2), np.float32)
    for point, mask, place in zip(points, masks, rng.random(len(masks)), strict=True):
        inside = np.flatnonzero(mask if mask.any() else ~mask)
        y, x = divmod(inside[int(place * len(inside))], mask.shape[1])
        point[0] = x + 0.5, y + 0.5
    return torch.from_numpy(points)


def check_objects(dataset: Split, name: str) -> None:
    """Before training: whether there are objects to ask for, as far as a few images of the split show.

    Warns of images that look as if they had been normalised, which the family does: around 0, in units of their
    deviation, and below the range of values that the dataset says.

    Args:
        name: of the split.

    Raises:
        SegfolioError: an annotation without objects; an image where there are none is as good as any.
    """
    for index in range(0, len(dataset), max(1, len(dataset) // _LOOKED_AT))[:_LOOKED_AT]:
        sample = dataset[index]
        if sample.target is None or sample.target.segments is None:
            raise SegfolioError(
                f"a promptable network is asked for objects, but {name} {sample.image_id} has none in its annotation; "
                "take a dataset of instances (some read them with instances: true)"
            )
        low, high = dataset.image_space.value_range
        if sample.image.is_floating_point() and sample.image.min() < low:
            mean, deviation = float(sample.image.mean()), float(sample.image.std())
            if abs(mean) < 1 and 0.5 < deviation < 2:
                rank_zero_warn(
                    f"{name} {sample.image_id} has values of mean {mean:.2g} and deviation {deviation:.2g}, and below "
                    f"the dataset's range of {low:g} to {high:g}: if it has been normalised, it is a second time by "
                    "model.mean and model.std; give these 0 and 1 in the units of that range, or images as they are"
                )
                return
