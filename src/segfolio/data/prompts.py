"""`Prompts`: points, boxes, masks and words that say which object of an image is meant."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from segfolio.errors import SegfolioError
from segfolio.layers.prompting import NO_POINT, NOT_OBJECT, OBJECT, PADDING

KINDS = (OBJECT, NOT_OBJECT, NO_POINT, PADDING)


@dataclass
class Prompts:
    """P prompts of one image, each for one object; what a prompt can consist of is there for all of them or for none.

    Attributes:
        of: `[P]` int64, the segment of the truth that each is for; -1 for none.
        points: `[P, K, 2]` float32, x and y in pixels of the sample from its left and upper border, so that the centre
            of the first pixel is at (0.5, 0.5).
        kinds: `[P, K]` int64, `OBJECT`, `NOT_OBJECT`, `NO_POINT` or `PADDING`; of the last two the place is nowhere.
        boxes: `[P, 4]` float32, left, top, right and bottom in pixels of the sample; NaN for a prompt without.
        masks: `[P, h, w]` over the whole sample, bool or logits.
        texts: P; "" for a prompt without.
    """

    of: Tensor
    points: Tensor | None = None
    kinds: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None
    texts: list[str] | None = None

    def __len__(self) -> int:
        return len(self.of)

    def check(self, size: tuple[int, int], where: str, mask_size: tuple[int, int] | None = None) -> None:
        """Whether they fit an image.

        Args:
            size: height and width of the sample.
            where: the image, for the error.
            mask_size: height and width of masks; the sample's if not given.

        Raises:
            SegfolioError: not as many points, kinds, boxes, masks or texts as prompts, a point of no kind, a click
                outside the image, a box without pixels, a mask of another size.
        """
        for name in ("points", "kinds", "boxes", "masks", "texts"):
            if (each := getattr(self, name)) is not None and len(each) != len(self):
                raise SegfolioError(f"{where}: {len(self)} prompts have {len(each)} {name}, expected as many")
        height, width = size
        if self.points is not None or self.kinds is not None:
            self._check_points(height, width, where)
        if self.boxes is not None:
            left, top, right, bottom = self.boxes.unbind(-1)
            wrong = ~((left < right) & (top < bottom)) & ~self.boxes.isnan().all(-1)
            if wrong.any():
                box = ", ".join(f"{x:g}" for x in self.boxes[wrong][0].tolist())
                raise SegfolioError(
                    f"{where}: a box is {box}; expected left, top, right, bottom with left < right and top < bottom"
                )
        height, width = mask_size or size
        if self.masks is not None and self.masks.shape[1:] != (height, width):
            found = "x".join(map(str, self.masks.shape[:0:-1]))
            raise SegfolioError(f"{where}: a prompt mask is {found} pixels, expected {width}x{height}")

    def _check_points(self, height: int, width: int, where: str) -> None:
        if self.points is None or self.kinds is None or self.points.shape[:2] != self.kinds.shape:
            shapes = [None if x is None else list(x.shape) for x in (self.points, self.kinds)]
            raise SegfolioError(f"{where}: points are {shapes[0]} and kinds {shapes[1]}, expected [P, K, 2] and [P, K]")
        if len(unknown := self.kinds[~torch.isin(self.kinds, torch.tensor(KINDS, device=self.kinds.device))]):
            raise SegfolioError(
                f"{where}: a point is of kind {unknown[0]}, expected {OBJECT} (on the object), {NOT_OBJECT} (beside "
                f'it), {NO_POINT} ("not a point") or {PADDING} (padding)'
            )
        x, y = self.points[self.kinds >= NOT_OBJECT].unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if not inside.all():
            raise SegfolioError(
                f"{where}: a click is at x {x[~inside][0]:g}, y {y[~inside][0]:g}, outside the image of "
                f"{width}x{height} pixels"
            )


def join(prompts: Sequence[Prompts]) -> tuple[Prompts, Tensor]:
    """The prompts of several images in one, and `[P]` which image each is of.

    Points are padded to the most that a prompt has; where an image has no points, boxes or texts and another has, it
    gets padding, NaN and "".

    Raises:
        ValueError: some have masks and some do not.
    """
    masks = [p.masks for p in prompts if p.masks is not None]
    if masks and len(masks) < len(prompts):
        raise ValueError("some images have mask prompts and some do not; a prompt without a mask has no neutral value")
    of = torch.cat([p.of for p in prompts])
    image = torch.cat([torch.full_like(p.of, i) for i, p in enumerate(prompts)])
    joined = Prompts(of, masks=torch.cat(masks) if masks else None)
    if any(p.kinds is not None for p in prompts):
        pairs = [_points(p) for p in prompts]
        most = max(kinds.shape[1] for _, kinds in pairs)
        joined.points = torch.cat([pad(points, (0, 0, 0, most - points.shape[1])) for points, _ in pairs])
        joined.kinds = torch.cat([pad(kinds, (0, most - kinds.shape[1]), value=PADDING) for _, kinds in pairs])
    if any(p.boxes is not None for p in prompts):
        boxes = [
            p.of.new_full((len(p), 4), torch.nan, dtype=torch.float32) if p.boxes is None else p.boxes for p in prompts
        ]
        joined.boxes = torch.cat(boxes)
    if any(p.texts is not None for p in prompts):
        joined.texts = [text for p in prompts for text in p.texts or [""] * len(p)]
    return joined, image


def _points(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Points and kinds, with K = 0 where there are none."""
    if prompts.points is None or prompts.kinds is None:
        return prompts.of.new_zeros(len(prompts), 0, 2, dtype=torch.float32), prompts.of.new_zeros(len(prompts), 0)
    return prompts.points, prompts.kinds
