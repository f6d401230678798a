"""The types that travel through the house: `Sample` in, `Batch` through the network, `Prediction` out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from segfolio.data.formats.rle import RLE
from segfolio.data.image_ids import is_image_id
from segfolio.data.prompts import Prompts
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

Size = tuple[int, int]
"""Height, width."""

Extra = Tensor | list[Tensor]


@dataclass
class Federated:
    """What one image was searched for, of a dataset whose images were each searched for some of the classes alone
    (LVIS, arXiv 1908.03195).

    These are the classes of its segments and those that it is known to lack; of all others nothing is known.

    Attributes:
        absent: class indices that it is known to lack.
        not_exhaustive: class indices of which it may have more objects than are annotated.
    """

    absent: tuple[int, ...] = ()
    not_exhaustive: tuple[int, ...] = ()


@dataclass
class Target:
    """The truth of one image; one annotation serves semantic, instance and panoptic tasks.

    Attributes:
        semantic: `[H, W]` uint8 (uint16 where the label space needs it), class indices or `ignore_index`.
        segments: the same image's objects, where the dataset has them.
        weight: `[H, W]` float32, the weight of each pixel in the loss, where the recipe has one; bool where pixels
            count or do not.
        ignore_index: value of a pixel of `semantic` without a class; transforms pad with it.
        number: of the image in its annotation file, where it has one: evaluation goes by it, and results name it.
        federated: None where the image was searched for all classes.
    """

    semantic: Mask | None = None
    segments: Segments | None = None
    weight: Mask | None = None
    ignore_index: int = 255
    number: int | None = None
    federated: Federated | None = None


@dataclass
class Sample:
    """One image and its truth.

    Attributes:
        image: `[C, H, W]` of the channels and the type of the dataset's `ImageSpace`.
        image_id: unique within the dataset; names the files that a prediction is written to.
        original_size: of the image as stored, whatever transforms did since.
        target: None where there is no truth (prediction).
        prompts: what is asked about it, made by the family's `preparation` from what the transforms left.
        extras: what else the `preparation` made of it, by name: views, tokens; views of several sizes are a list.

    Raises:
        SegfolioError: an id that leads out of a folder; `data.image_ids.id_of` makes one of any file's name.
    """

    image: Image
    image_id: str
    original_size: Size
    target: Target | None = None
    prompts: Prompts | None = None
    extras: Mapping[str, Extra] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_image_id(self.image_id):
            raise SegfolioError(f"the image id {self.image_id!r} is no relative path without `..`; rename the image")


@dataclass
class Batch:
    """Samples of one size, stacked, or padded to one. In evaluation the targets keep the images' original sizes.

    Attributes:
        images: `[B, C, H, W]`, see `ImageSpace`.
        targets: one per image, not padded; empty in prediction.
        sizes: of each image in `images`, at the upper left; below and right of it is padding. `[H, W]` if not given.
        prompts: one per image, or empty.
        clips: how many consecutive images are one clip, their sum is B; every image by itself if not given.
        extras: those of the samples, stacked: `[B, ...]`, or of a list one for each of its elements.
    """

    images: Tensor
    image_ids: list[str]
    original_sizes: list[Size]
    targets: list[Target] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    prompts: list[Prompts] = field(default_factory=list)
    clips: list[int] = field(default_factory=list)
    extras: dict[str, Extra] = field(default_factory=dict)

    def __post_init__(self) -> None:
        height, width = self.images.shape[-2:]
        self.sizes = self.sizes or [(height, width)] * len(self)
        self.clips = self.clips or [1] * len(self)

    def __len__(self) -> int:
        return len(self.image_ids)

    def semantic(self) -> Tensor:
        """`[B, H, W]` int64."""
        return torch.stack([_present(t.semantic) for t in self.targets]).long()

    def weight(self) -> Tensor | None:
        """`[B, H, W]` float32, or None where no pixel weights travel."""
        if any(t.weight is None for t in self.targets):
            return None
        return torch.stack([_present(t.weight) for t in self.targets])

    def pin_memory(self) -> "Batch":
        return _pinned(self)


@dataclass
class Instances:
    """Detected objects.

    Attributes:
        rles: N masks.
        labels: `[N]` int64, class indices.
        scores: `[N]` float32 in [0, 1].
        boxes: `[N, 4]` x, y, width, height in pixels, of a network that has boxes of its own.
    """

    rles: list[RLE]
    labels: Tensor
    scores: Tensor
    boxes: Tensor | None = None

    def above(self, score: float) -> "Instances":
        """Those that score at least as much, in host memory, the one that scores most last."""
        scores, order = self.scores.cpu().sort()
        keep = order[scores >= score]
        rles, boxes = [self.rles[i] for i in keep], None if self.boxes is None else self.boxes.cpu()[keep]
        return Instances(rles, self.labels.cpu()[keep], self.scores.cpu()[keep], boxes)


@dataclass
class Prompted:
    """What was answered to P prompts.

    Attributes:
        rles: `[P][K]`, of each prompt the masks of K rounds; one where nothing was asked again.
        iou: `[P, K]` float32, how well the network thinks that each fits.
        of: `[P]` int64, the segment of the truth that each answer belongs to; -1 for none.
        clicks: the points that were given, in their order, at the image's original size; None where there were none.
        candidates: `[P][M]`, the masks of the first round among which the network chose; empty where there was no
            choice.
        seconds: that the answers took, without the embedding and without the user.

    Raises:
        ValueError: not as many masks, estimates or segments as prompts.
    """

    rles: list[list[RLE]]
    iou: Tensor
    of: Tensor
    clicks: Prompts | None = None
    candidates: list[list[RLE]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.rles) == len(self.iou) == len(self.of):
            raise ValueError(f"{len(self.rles)} prompts have {len(self.iou)} estimates and {len(self.of)} segments")
        if len(self.candidates) not in (0, len(self.rles)):
            raise ValueError(f"{len(self.rles)} prompts have candidates of {len(self.candidates)}")


@dataclass
class Prediction:
    """What a family says of one image, at the image's original size.

    Attributes:
        semantic: `[H, W]` uint8 or int16, class indices.
        panoptic: segments that do not overlap, of an id map; of a stuff class there is one at most.
        tracked: of a frame of a clip, the objects that are followed through it and are seen here; `tracks` says which
            is which, by the numbers of the truth, and they may overlap.
        tracked_rounds: the same after each round in which somebody prompted one frame more; empty where nobody did.
    """

    image_id: str
    size: Size
    semantic: Tensor | None = None
    instances: Instances | None = None
    panoptic: Segments | None = None
    prompted: Prompted | None = None
    tracked: Segments | None = None
    tracked_rounds: list[Segments] = field(default_factory=list)


class Queries(NamedTuple):
    """What the queries of a mask classification network say of one image.

    Attributes:
        class_logits: `[Q, C + 1]`, the last for no object.
        mask_logits: `[Q, h, w]` of the whole image, smaller than it.
        boxes: `[Q, 4]`, x and y of the centre, width and height, in parts of the image's width and height; None of
            networks without boxes.
    """

    class_logits: Tensor
    mask_logits: Tensor
    boxes: Tensor | None = None


def to_image(pixels: npt.NDArray[Any]) -> Image:
    """`[H, W, C]` or `[H, W]` array to a `[C, H, W]` tensor over the same memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels))
    return Image(tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor[None])


def to_pixels(image: Tensor) -> npt.NDArray[Any]:
    """`[C, H, W]` tensor to a contiguous `[H, W, C]` array; no copy of what `to_image` made."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _pinned(x: Any) -> Any:
    """With all tensors in page-locked memory, from which they are copied to a device beside its work."""
    if isinstance(x, Tensor):
        return x.as_subclass(Tensor).pin_memory()
    if isinstance(x, list):
        return [_pinned(each) for each in x]
    if isinstance(x, dict):
        return {name: _pinned(each) for name, each in x.items()}
    if is_dataclass(x) and not isinstance(x, type):
        return replace(x, **{f.name: _pinned(getattr(x, f.name)) for f in fields(x)})
    return x


def _present(x: Tensor | None) -> Tensor:
    if x is None:
        raise ValueError("this dataset has no semantic map; choose a family that its annotation serves")
    return x.as_subclass(Tensor)
