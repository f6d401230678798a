"""`Everything`: masks of all that an image shows, from a grid of points, by a network that is prompted.

Kirillov et al., "Segment Anything" (2023), arXiv 2304.02643, appendix B, "Automatic Mask Generation"; rules and
defaults are those of the released mask generator. The mask-generation pipeline of transformers has others: one removal
of duplicates over all crops together, ordered by predicted IoU, and a stability that has to be above the threshold.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE, Bools
from segfolio.data.labels import LabelSpace
from segfolio.data.prompts import Prompts
from segfolio.data.sample import Batch, Instances, Prediction, Size
from segfolio.errors import SegfolioError
from segfolio.inference.asking import Asked, PromptProtocol, check_split
from segfolio.inference.mask_runs import MaskRuns
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.seen import Embeds
from segfolio.metrics import Evaluator, ProposalMetric
from segfolio.metrics.average_precision import Kind
from segfolio.metrics.instance import SUFFIX

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the last two are the first that lie outside."""

Habits = Literal["segment_anything", "transformers"]

EDGE = 20
"""Pixels within which a box touches the edge of a crop."""


@dataclass
class Found:
    """N masks of one image, class-agnostic.

    Attributes:
        rles: at the image's own size.
        iou: `[N]` float32, how well the network thinks that each fits.
        stability: `[N]` float32, the part of the pixels above `-offset` that are above `offset`, too.
        points: `[N, 2]`, x and y of the point that was asked for it, in pixels as in `Prompts`.
        crops: `[N, 4]` int64, left, top, right, bottom of the crop that it was seen in.
    """

    rles: list[RLE]
    iou: Tensor
    stability: Tensor
    points: Tensor
    crops: Tensor

    def take(self, rows: Tensor) -> "Found":
        each = [x[rows] for x in (self.iou, self.stability, self.points, self.crops)]
        return Found([self.rles[i] for i in rows.tolist()], *each)

    def corners(self) -> Tensor:
        """`[N, 4]`, left, top, right and bottom, the last column and row included, as duplicates are told by; of an
        empty mask the corner of its crop."""
        boxes = torch.from_numpy(rle.boxes(self.rles)).float()
        low, size = boxes[:, :2], boxes[:, 2:]
        found = torch.cat([low, low + size - 1], 1)
        return torch.where(size[:, :1] > 0, found, self.crops[:, [0, 1, 0, 1]].float())

    def instances(self) -> Instances:
        """With the predicted IoU as score, of the class of `ANYTHING`."""
        boxes = torch.from_numpy(rle.boxes(self.rles)).float()
        return Instances(self.rles, torch.zeros(len(self.rles), dtype=torch.int64), self.iou, boxes)


class FindsAll(PromptProtocol):
    """How what an image shows is found where nobody asks, and measured as proposals: everything mode, or `AllMasks`.

    Attributes:
        lower: the argument of `segfolio prompt` by which more is found.
        kind: what is measured, `segm` of masks or `bbox` of the boxes around them.
    """

    lower: str
    kind: Kind

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        return f"AR_1000{SUFFIX[self.kind]}"

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        return [ProposalMetric(labels, kind=self.kind)]

    def check(self, dataset: SegmentationDataset, split: str) -> None:
        check_split(dataset, split)

    def answer(self, family: Asked, batch: Batch) -> list[Prediction]:
        """As `predict`, as objects of the first class that counts, so that pictures show them beside the truth."""
        return counted_as(family.labels, self.predict(family, batch))

    def find(self, whole: EmbeddedImages, image: int = 0, look: Callable[[Box], EmbeddedImages] | None = None) -> Found:
        raise NotImplementedError

    def predict(self, family: Embeds, batch: Batch) -> list[Prediction]:
        """All that a batch shows, as instances of `ANYTHING`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Everything(FindsAll):
    """How an image is asked for everything, and which answers stay.

    A mask stays where the predicted IoU is above `iou_threshold` and the stability is high, where its box does not
    touch the edge of its crop within the image, and where no better one has nearly the same box.

    Attributes:
        points_per_side: of the grid over the whole image and, divided by `crop_points_downscale` for each layer, of
            those over the crops.
        crop_layers: the n-th layer has 2^n times 2^n crops.
        crop_overlap: of the crops of the first layer, in parts of the image's short side; half of it in the next.
        iou_threshold: 0 to take all.
        stability_threshold: 0 to take all.
        stability_offset: the logits by which the level of the mask is raised and lowered.
        nms_threshold: IoU of two boxes of one crop from which the mask of the lower predicted IoU is left out.
        crop_nms_threshold: of two crops, the one from the larger crop.
        min_region_area: holes and islands of fewer pixels are removed, and then duplicates once more; 0 to leave them.
        prompts_per_pass: points that the network is asked at once: as many as its caches hold.
        like: whose habits decide what is a duplicate and what is stable enough.
        kind: what is measured, `segm` of masks or `bbox` of the boxes around them.

    Raises:
        SegfolioError: a grid without points, a number out of its range.
    """

    lower = "--predict_with.iou_threshold"

    points_per_side: int = 32
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_points_downscale: int = 1
    iou_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    nms_threshold: float = 0.7
    crop_nms_threshold: float = 0.7
    min_region_area: int = 0
    prompts_per_pass: int = 16
    like: Habits = "segment_anything"
    kind: Kind = "segm"

    def __post_init__(self) -> None:
        for name, least in (("points_per_side", 1), ("crop_layers", 0), ("crop_points_downscale", 1)):
            self._at_least(name, least)
        for name in ("iou_threshold", "stability_threshold", "stability_offset", "min_region_area"):
            self._at_least(name, 0)
        self._at_least("prompts_per_pass", 1)
        for name in ("crop_overlap", "nms_threshold", "crop_nms_threshold"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise SegfolioError(f"everything mode: {name} is {value:g}, expected 0 to 1")
        if self.like not in (known := get_args(Habits)):
            raise SegfolioError(f"everything mode: like is {self.like!r}, expected {' or '.join(known)}")
        if self.points_per_side < self.crop_points_downscale**self.crop_layers:
            raise SegfolioError(
                f"everything mode: {self.points_per_side} points a side leave none in crop layer {self.crop_layers} "
                f"where each has 1/{self.crop_points_downscale} of the one before; take fewer crop_layers"
            )

    def _at_least(self, name: str, least: int) -> None:
        if not (value := getattr(self, name)) >= least:
            raise SegfolioError(f"everything mode: {name} is {value:g}, expected {least} or more")

    @property
    def words(self) -> str:
        crops = f", crops in {self.crop_layers} layers" if self.crop_layers else ""
        kept = f"predicted IoU > {self.iou_threshold:g}, stability {self.stability_threshold:g}"
        boxes = ", the boxes around masks" if self.kind == "bbox" else ""
        return f"everything mode with {self.points_per_side} x {self.points_per_side} points{crops}, {kept}{boxes}"

    def predict(self, family: Embeds, batch: Batch) -> list[Prediction]:
        """All that a batch shows, as instances of `ANYTHING`.

        Raises:
            SegfolioError: layers of crops of an image that has been resized.
        """
        if self.crop_layers and batch.sizes != batch.original_sizes:
            raise SegfolioError(
                f"{batch.image_ids[0]} is resized before everything mode cuts crops from it; leave out "
                "data.eval_transforms and data.test_transforms, or crop_layers"
            )
        whole = family.embedded(batch.images, batch.sizes, batch.original_sizes)
        looks = [partial(_look, family, image) for image in batch.images]
        found = [self.find(whole, place, look) for place, look in enumerate(looks)]
        return [
            Prediction(image_id, size, instances=masks.instances())
            for image_id, size, masks in zip(batch.image_ids, batch.original_sizes, found, strict=True)
        ]

    @torch.no_grad()
    def find(self, whole: EmbeddedImages, image: int = 0, look: Callable[[Box], EmbeddedImages] | None = None) -> Found:
        """All that an image shows.

        Args:
            whole: images, embedded.
            image: which of them.
            look: embeds a crop of it; needed where there are layers of crops.

        Returns:
            The masks, in each crop those that score most first.

        Raises:
            SegfolioError: there are layers of crops, and nothing that embeds them.
        """
        size = whole.sizes[image]
        if self.crop_layers and look is None:
            raise SegfolioError("everything mode with crop_layers has to see the image, and not its embedding alone")
        parts = []
        for layer, box in self.crops(size):
            seen = (whole, image) if layer == 0 or look is None else (look(box), 0)
            parts.append(self._of_crop(*seen, layer, box, size))
        found = _joined(parts)
        if self.like == "transformers":
            found = found.take(nms(found.corners(), found.iou, self.crop_nms_threshold))
        elif len(parts) > 1:
            left, top, right, bottom = found.crops.unbind(1)
            smallest_first = 1 / ((right - left) * (bottom - top)).float()
            found = found.take(nms(found.corners(), smallest_first, self.crop_nms_threshold))
        return self._without_small_regions(found) if self.min_region_area else found

    def crops(self, size: Size) -> Iterator[tuple[int, Box]]:
        """Layer and place of the whole image, and of each crop that has a pixel."""
        height, width = size
        yield 0, (0, 0, width, height)
        for layer in range(1, self.crop_layers + 1):
            count = 2**layer
            overlap = int(self.crop_overlap * min(size) * (2 / count))
            sides = [math.ceil((overlap * (count - 1) + length) / count) for length in (width, height)]
            starts = [[(side - overlap) * i for i in range(count)] for side in sides]
            for left, top in product(*starts):
                if left < width and top < height:
                    yield layer, (left, top, min(left + sides[0], width), min(top + sides[1], height))

    def grid(self, layer: int) -> Tensor:
        """`[P, 2]`, x and y of the points of a crop of a layer, in parts of its width and height."""
        side = self.points_per_side // self.crop_points_downscale**layer
        line = torch.linspace(1 / (2 * side), 1 - 1 / (2 * side), side, dtype=torch.float64)
        return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)

    def _of_crop(self, embedded: EmbeddedImages, image: int, layer: int, box: Box, size: Size) -> Found:
        """The masks of a crop, at the size of the whole image."""
        left, top, right, bottom = box
        reader = MaskRuns.of(embedded, image, (top, left), size)
        points = self.grid(layer) * torch.tensor([right - left, bottom - top])
        passes = (points.float() + 0.5).split(self.prompts_per_pass)
        found = _joined([self._asked(embedded, image, asked, reader, box) for asked in passes])
        corners = found.corners()
        edges, border = torch.tensor(box), torch.tensor([0, 0, size[1], size[0]])
        cut = ((corners - edges).abs() <= EDGE) & ~((corners - border).abs() <= EDGE)
        found, corners = found.take((~cut.any(1)).nonzero()[:, 0]), corners[~cut.any(1)]
        return found if self.like == "transformers" else found.take(nms(corners, found.iou, self.nms_threshold))

    def _asked(self, embedded: EmbeddedImages, image: int, points: Tensor, reader: MaskRuns, box: Box) -> Found:
        """The answers to some points, `[P, 2]`, that are worth it; only these are drawn."""
        device = embedded.embedding[0].device
        of = torch.full((len(points),), -1, device=device)
        prompts = Prompts(of, points[:, None].to(device), torch.ones_like(of)[:, None])
        reading = embedded.read(prompts, torch.full_like(of, image))
        iou = reading.iou.float()
        worth = iou > self.iou_threshold if self.iou_threshold > 0 else torch.ones_like(iou, dtype=torch.bool)
        if not worth.any():
            return _nothing()
        logits = embedded.network.draw(reading, worth).float().cpu().numpy()
        strict = self.like == "transformers"
        stable = [reader.stable(mask, self.stability_offset, self.stability_threshold, strict) for mask in logits]
        rows = torch.tensor([row for row, mask in enumerate(stable) if mask], dtype=torch.int64)
        kept = [mask for mask in stable if mask]
        asked = worth.nonzero()[:, 0].cpu()[rows]
        return Found(
            [mask for _, mask in kept],
            iou[worth].cpu()[rows],
            torch.tensor([stability for stability, _ in kept]),
            points[asked] + torch.tensor(box[:2]),
            torch.tensor(box).expand(len(rows), 4),
        )

    def _without_small_regions(self, found: Found) -> Found:
        """Of two that are alike now, the one that was left as it was stays."""
        unchanged = torch.ones(len(found.rles))
        rles = list(found.rles)
        for place, mask in enumerate(rles):
            pixels = rle.decode([mask], (mask["size"][0], mask["size"][1]))[0]
            smooth = without_islands(without_holes(pixels, self.min_region_area), self.min_region_area)
            if smooth is not pixels:
                rles[place], unchanged[place] = rle.encode(smooth[None])[0], 0
        found = Found(rles, found.iou, found.stability, found.points, found.crops)
        return found.take(nms(found.corners(), unchanged, max(self.nms_threshold, self.crop_nms_threshold)))


TRANSFORMERS = Everything(like="transformers")
"""What transformers' mask-generation pipeline finds."""


def counted_as(labels: LabelSpace, found: list[Prediction]) -> list[Prediction]:
    """Instances of `ANYTHING` as objects of the first class that counts, in place."""
    counted = labels.is_thing if labels.things else tuple(name != labels.background for name in labels.names)
    for prediction in found:
        if prediction.instances is not None:
            prediction.instances.labels += counted.index(True)
    return found


def without_holes(mask: Bools, area: int) -> Bools:
    """A mask `[H, W]` with the holes of fewer pixels filled, corners counting as connected; itself if it has none."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < area
    small[0] = False  # the mask
    return mask | small[regions] if small.any() else mask


def without_islands(mask: Bools, area: int) -> Bools:
    """A mask `[H, W]` without its parts of fewer pixels, but for the largest where all are; itself if it has none."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA]
    small = sizes < area
    small[0] = False  # what is not the mask
    if not small.any():
        return mask
    if small[1:].all():
        small[1 + sizes[1:].argmax()] = False
    return mask & ~small[regions]


def _look(family: Embeds, image: Tensor, box: Box) -> EmbeddedImages:
    left, top, right, bottom = box
    return family.embedded(image[None, :, top:bottom, left:right], [(bottom - top, right - left)])


def _nothing() -> Found:
    return Found([], torch.zeros(0), torch.zeros(0), torch.zeros(0, 2), torch.zeros(0, 4, dtype=torch.int64))


def _joined(parts: Sequence[Found]) -> Found:
    columns = zip(*((x.iou, x.stability, x.points, x.crops) for x in parts), strict=True)
    return Found([mask for part in parts for mask in part.rles], *map(torch.cat, columns))
