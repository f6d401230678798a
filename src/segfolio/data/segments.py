"""`Segments`: the objects and regions of one image, in whichever form they were read."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE

Form = Tensor | list[RLE]


@dataclass
class Segments:
    """N objects or regions.

    What an annotation holds is kept as it is; `masks`, `rles` and `id_map` derive the others when asked.
    Reading a dataset so costs no more than its files, and evaluation never sees a mask.

    Attributes:
        form: masks `[N, H, W]` bool, or N run lengths, or an id map `[H, W]` of 1 to N, 0 where there is none.
        labels: `[N]` int64, class indices of the dataset's `LabelSpace`.
        crowd: `[N]` bool, regions that stand for a group; evaluation neither rewards nor punishes them.
        size: height and width; to be given with run lengths.
        boxes: `[N, 4]` float64, x, y, width, height as annotated; of the masks where there are none.
        areas: `[N]` float64, pixels as annotated; of the masks where there are none.
        box_only: `[N]` bool, objects that were annotated by a box alone: their mask is the box, drawn. None where all
            have masks.
    """

    form: Form
    labels: Tensor
    crowd: Tensor
    size: tuple[int, int] = (0, 0)
    boxes: Tensor | None = None
    areas: Tensor | None = None
    box_only: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.form, Tensor):
            self.size = (self.form.shape[-2], self.form.shape[-1])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, keep: Tensor) -> "Segments":
        """Those that `keep`, `[N]` bool or `[M]` indices, names."""
        form = self.rles if isinstance(self.form, list) else self.masks
        chosen = [form[i] for i in torch.arange(len(self))[keep]] if isinstance(form, list) else Mask(form[keep])
        extra = {
            name: None if (x := getattr(self, name)) is None else x[keep] for name in ("boxes", "areas", "box_only")
        }
        return Segments(chosen, self.labels[keep], self.crowd[keep], self.size, **extra)

    def with_masks(self, masks: Mask) -> "Segments":
        """The same objects after they have been moved; annotated boxes and areas no longer hold."""
        return replace(self, form=masks, boxes=None, areas=None)

    @property
    def masks(self) -> Mask:
        """`[N, H, W]` bool, where the labels are."""
        if isinstance(self.form, list):
            return Mask(torch.from_numpy(rle.decode(self.form, self.size)).to(self.labels.device))
        if self.form.ndim == 2:
            places = torch.arange(1, len(self) + 1, device=self.form.device)
            return Mask(self.form.as_subclass(Tensor) == places[:, None, None])
        return Mask(self.form)

    @property
    def rles(self) -> list[RLE]:
        if isinstance(self.form, list):
            return self.form
        pixels = self.form.as_subclass(Tensor).cpu().numpy()
        return rle.from_id_map(pixels, len(self)) if pixels.ndim == 2 else rle.encode(pixels)

    @property
    def id_map(self) -> Tensor:
        """`[H, W]` int32 of places + 1, 0 where there is none; of two that overlap the later is seen."""
        if isinstance(self.form, list):
            return torch.from_numpy(rle.to_id_map(self.form, self.size))
        if self.form.ndim == 2:
            return self.form.as_subclass(Tensor).int()
        ids = np.zeros(self.size, np.int32)
        for place, mask in enumerate(self.form.cpu().numpy(), 1):
            ids[mask] = place
        return torch.from_numpy(ids)
