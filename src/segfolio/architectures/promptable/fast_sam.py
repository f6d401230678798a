"""FastSAM: Fast Segment Anything
(Xu Zhao, Wenchao Ding, Yongqi An, Yinglong Du, Tao Yu, Min Li, Ming Tang, Jinqiao Wang, 2023), arXiv 2306.12156.

Follows the paper's section 3 in modules of our own: a YOLOv8-seg of one class finds all masks of an image at once, and
prompts choose among them, see `layers.selection`. What a prompt costs so hardly counts beside the image.
`families.PromptableDetection` trains it. Masks are kept as they are made, factors of 32 maps and a box each: a point is
compared with all of them by the maps' values where it lies, and a mask is drawn when it is an answer.

Deviates:
- No weights of the release are read: their licence is the AGPL. Those of a run of `YOLOSeg` of one class are.
- Where several masks are asked for, a point is answered by those that score most of the masks in which it lies, each by
  itself, as SAM answers it; where one is, by all of them merged, as the paper has it.
- Merged masks are not smoothed: the paper does not say by which morphological operations.
- Images are padded to a square, so that an image is seen alike in any batch.
- A mask, as of an earlier annotation, chooses the one that overlaps it most; beside a box or a point on the object it
  does not count.
- Text is not read here; of what says how like it is to each mask, `most_like` answers by the mask most like it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from segfolio.architectures.one_stage.yolo_seg import STRIDES, CellRecipe, YOLOSeg
from segfolio.errors import SegfolioError
from segfolio.layers.detection import DetectionTarget, Size
from segfolio.layers.mask_maps import MAP_STRIDE, drawn
from segfolio.layers.prompt_decoder import check_image_size, padded_square
from segfolio.layers.prompting import OBJECT, Embedding, PromptInput, Reading, SelectingNetwork
from segfolio.layers.selection import by_box, by_points, candidates, greatest
from segfolio.precision import full_float32
from segfolio.weights.files import load_weights, read_file

CANDIDATES = 3  # as SAM
NOTHING = -20.0  # the logit of a pixel on no mask
_AT_ONCE = 64  # masks that are drawn together


class FastSAM(SelectingNetwork):
    """A detector of everything, and prompts that choose among what it finds.

    Args:
        num_classes: not used, masks are of no class.
        version: 8 or 11, of the detector, see `YOLOSeg`.
        depth: factor on the blocks of a stage.
        width: factor on the channels.
        max_channels: of a stage, before `width`.
        bins: of the distances to the sides of a box; more of them reach further.
        image_size: side of the padded square, in pixels, a multiple of 32.
        score_threshold: above which a mask is found.
        nms_iou: overlap of two boxes from which the mask that scores less is left out.
        max_masks: of an image.
        prompt_score_threshold: above which a mask may answer a prompt; others are found in everything mode alone.
        loss_scale: see `CellRecipe`.
        in_channels: of the images.
        weights: None; or a file with a state dict of this network or of a `YOLOSeg` of one class, such as a run's
            checkpoint.

    Raises:
        SegfolioError: an `image_size` that is no multiple of 32; no mask at all; a threshold out of its range; weights
            that are not to be had or do not fit; in training, objects without masks.
    """

    paper: ClassVar[str] = "FastSAM (Zhao et al., 2023), arXiv 2306.12156"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "FastSAM-x": {},
        "FastSAM-s": {"depth": 0.33, "width": 0.5, "max_channels": 1024},
        "FastSAM-n": {"depth": 0.33, "width": 0.25, "max_channels": 1024},
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"depth": 0.33, "width": 0.125, "image_size": 128, "score_threshold": 0.0, "max_masks": 20}
    }
    image_encoder: YOLOSeg

    def __init__(
        self,
        num_classes: int,
        version: Literal[8, 11] = 8,
        depth: float = 1.0,
        width: float = 1.25,
        max_channels: int = 512,
        bins: int = 26,
        image_size: int = 1024,
        score_threshold: float = 0.4,
        nms_iou: float = 0.9,
        max_masks: int = 300,
        prompt_score_threshold: float = 0.0,
        loss_scale: float = 1.0,
        in_channels: int = 3,
        weights: str | None = None,
    ) -> None:
        check_image_size(image_size, "FastSAM", STRIDES[-1])
        if max_masks < 1:
            raise SegfolioError(f"max_masks of FastSAM is {max_masks}, expected 1 or more")
        if not 0 <= prompt_score_threshold < 1:
            raise SegfolioError(
                f"prompt_score_threshold of FastSAM is {prompt_score_threshold}, expected 0 or more, below 1"
            )
        super().__init__()
        self.image_size, self.mask_size = image_size, image_size // MAP_STRIDE
        self.prompt_score_threshold = prompt_score_threshold
        recipe = CellRecipe(
            score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_masks, loss_scale=loss_scale
        )
        self.image_encoder = YOLOSeg(1, version, depth, width, max_channels, recipe, in_channels, bins)
        if weights is not None:
            self._load(weights)

    def _load(self, weights: str) -> None:
        if not Path(weights).is_file():
            raise SegfolioError(
                f"weights: {weights} is no file; expected the checkpoint of a run of FastSAM, or of a YOLOSeg of one "
                "class"
            )
        state = read_file(Path(weights))
        own = any(name.startswith("image_encoder.") for name in state)
        load_weights(self if own else self.image_encoder, state, weights)

    @property
    def score_threshold(self) -> float:
        return self.image_encoder.recipe.score_threshold

    @score_threshold.setter
    def score_threshold(self, threshold: float) -> None:
        self.image_encoder.recipe = replace(self.image_encoder.recipe, score_threshold=threshold)

    def losses(self, images: Tensor, sizes: list[Size], targets: Sequence[DetectionTarget]) -> dict[str, Tensor]:
        losses = self.image_encoder(images, sizes, targets)
        assert isinstance(losses, dict)
        return losses

    def embed(self, images: Tensor) -> Embedding:
        """Maps `[B, 32, h, w]`, and of the N masks of each image, where there are as many, their factors
        `[B, N, 32]`, boxes `[B, N, 4]` in pixels and scores `[B, N]`; a score of 0 is no mask's."""
        detector, square = self.image_encoder, (self.image_size, self.image_size)
        said, count = detector.said(padded_square(images, self.image_size)), detector.recipe.max_detections
        with full_float32(images.device):
            scores = said.logits.sigmoid()
            shapes = [(len(images), count, said.factors.shape[2]), (len(images), count, 4), (len(images), count)]
            factors, boxes, score = (scores.new_zeros(shape) for shape in shapes)
            for place in range(len(images)):
                kept = detector.kept(said.boxes[place], scores[place], square)
                here = place, slice(len(kept.cell))
                factors[here], boxes[here], score[here] = said.factors[place, kept.cell], kept.boxes, kept.score
        return said.maps, factors, boxes, score

    def read(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        _, _, boxes, scores = embedding
        with full_float32(scores.device):
            inside, boxes, score = self._inside(embedding, prompts), boxes[prompts.image], scores[prompts.image]
            there, asked = score > self.prompt_score_threshold, (prompts.kinds == OBJECT).any(1)
            chosen = by_points(inside, prompts.kinds) & there
            if prompts.boxes is not None:
                with_box = ~prompts.boxes.isnan().any(1)
                boxed = by_box(prompts.boxes.float(), boxes, inside, prompts.kinds, there)
                chosen, asked = torch.where(with_box[:, None], boxed, chosen), asked | with_box
            if prompts.masks is not None:
                chosen = chosen | greatest(_overlap(embedding, prompts.image, prompts.masks, ~asked), there)
            each = candidates(chosen, score, CANDIDATES) if multimask else chosen[:, None]
            return Reading(score[:, None].where(each, 0.0).amax(2), None, (each, prompts.image, *embedding))

    def all_masks(self, embedding: Embedding) -> Reading:
        scores = embedding[-1]
        each = torch.diag_embed(scores > 0)
        return Reading(scores, None, (each, torch.arange(len(scores), device=scores.device), *embedding))

    def most_like(self, embedding: Embedding, image: Tensor, likeness: Tensor) -> Reading:
        scores = embedding[-1][image]
        chosen = greatest(likeness, scores > self.prompt_score_threshold)
        return Reading(scores.where(chosen, 0.0).amax(1, keepdim=True), None, (chosen[:, None], image, *embedding))

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        """As `PromptableNetwork.draw` says; of merged masks the highest logit."""
        each, image, maps, factors, boxes, _ = reading.state
        if keep is None:
            return self.draw(reading, torch.ones_like(reading.iou, dtype=torch.bool)).unflatten(0, reading.iou.shape)
        prompt, _ = keep.nonzero().unbind(1)
        answer, which = each[keep].nonzero().unbind(1)
        of, side = image[prompt][answer], self.mask_size
        masks = maps.new_full((len(prompt), side, side), NOTHING)
        masks[answer] = -torch.inf
        with full_float32(maps.device):
            for place in of.unique().tolist():
                for some in (of == place).nonzero()[:, 0].split(_AT_ONCE):
                    found = which[some]
                    logits = _in_boxes(maps[place], factors[place, found], boxes[place, found])
                    masks.scatter_reduce_(0, answer[some, None, None].expand_as(logits), logits, "amax")
        return masks

    def _inside(self, embedding: Embedding, prompts: PromptInput) -> Tensor:
        """`[P, K, N]` bool, whether a point lies in a mask; those that are nowhere may lie in any."""
        maps, factors, boxes, _ = embedding
        points = prompts.points.float().nan_to_num()
        values = _read(maps, prompts.image, points / MAP_STRIDE - 0.5)
        low, high = boxes[prompts.image][:, None].split(2, -1)
        in_box = ((points[:, :, None] >= low) & (points[:, :, None] < high)).all(-1)
        return in_box & (values @ factors[prompts.image].mT > 0)


def _overlap(embedding: Embedding, image: Tensor, masks: Tensor, wanted: Tensor) -> Tensor:
    """IoU of the masks of prompts, logits `[P, h, w]`, with those found, `[P, N]`; 0 of prompts that are not `wanted`.

    Args:
        image: `[P]`, which image each is of.
    """
    maps, factors, boxes, scores = embedding
    overlap = scores.new_zeros(len(wanted), scores.shape[1])
    for prompt in wanted.nonzero()[:, 0].tolist():
        place, truth = image[prompt], (masks[prompt] > 0).float()
        for some in torch.arange(scores.shape[1], device=scores.device).split(_AT_ONCE):
            found = (_in_boxes(maps[place], factors[place, some], boxes[place, some]) > 0).float()
            shared = (found * truth).sum((1, 2))
            overlap[prompt, some] = shared / (found.sum((1, 2)) + truth.sum() - shared)
    return overlap


def _in_boxes(maps: Tensor, factors: Tensor, boxes: Tensor) -> Tensor:
    """Logits `[S, h, w]` of masks of one image that end at their boxes, between the cells too.

    Args:
        maps: `[32, h, w]`.
        factors: `[S, 32]`.
        boxes: `[S, 4]`.
    """
    left, top, right, bottom = boxes.T / MAP_STRIDE - 0.5  # in cells, 0 at the centre of the first
    return _cut(_cut(drawn(factors, maps), left, right).mT, top, bottom).mT


def _cut(logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Logits `[S, h, w]` that are above 0 between two places of the last dimension, `[S]` each, and nowhere else.

    The first cell beyond is as much below 0 as brings what lies between it and the last one inside to 0 at the place,
    if it is not further below by itself. Of places that have no cell between them the nearest is inside.
    """
    cells = torch.arange(logits.shape[2], device=logits.device)
    nearest = ((low + high) / 2).round().clamp(0, len(cells) - 1)
    first, last = (low.floor() + 1).minimum(nearest), (high.ceil() - 1).maximum(nearest)
    found = logits.where(((cells >= first[:, None]) & (cells <= last[:, None]))[:, None], NOTHING)
    for inside, beyond, reach in ((first, first - 1, first - low), (last, last + 1, high - last)):
        reach = reach.clamp(0.01, 1)[:, None]
        there = ((beyond >= 0) & (beyond < len(cells)))[:, None]
        at, next_to = (
            x.clamp(0, len(cells) - 1).long()[:, None, None].expand(-1, logits.shape[1], 1) for x in (inside, beyond)
        )
        value = -logits.gather(2, at)[..., 0].clamp(min=0) * (1 - reach) / reach
        value = torch.minimum(logits.gather(2, next_to)[..., 0], value).clamp(max=-1e-3)
        found.scatter_(2, next_to, value.where(there, found.gather(2, next_to)[..., 0])[..., None])
    return found


def _read(maps: Tensor, image: Tensor, places: Tensor) -> Tensor:
    """Maps `[B, C, h, w]` between their cells, `[P, K, C]`, bilinearly.

    Args:
        image: `[P]`.
        places: `[P, K, 2]`, x and y in cells, 0 at the centre of the first.
    """
    last = torch.tensor(maps.shape[:1:-1], device=maps.device) - 1
    places = torch.minimum(places.clamp(min=0), last)
    low = places.long()
    high, part = torch.minimum(low + 1, last), places - low

    def row(y: Tensor) -> Tensor:
        left, right = (maps[image[:, None], :, y, x] for x in (low[..., 0], high[..., 0]))
        return torch.lerp(left, right, part[..., :1])

    return torch.lerp(row(low[..., 1]), row(high[..., 1]), part[..., 1:])
