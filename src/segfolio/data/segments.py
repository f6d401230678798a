"""`Segments`: the objects and regions of one image, in whichever form they were read."""

from dataclasses import dataclass, replace
from typing import TypeGuard

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE

Form = Tensor | list[RLE]

_OF_EACH = ("boxes", "areas", "tracks", "box_only")  # what a segment may have beside its form, label and flag


@dataclass
class Segments:
    """N objects or regions.

    What an annotation holds is kept as it is; `masks`, `rles` and `id_map` derive the others when asked.
    Reading a dataset so costs no more than its files, and evaluation never sees a mask.

    Attributes:
        form: masks `[N, H, W]` bool, or N run lengths, or an id map `[H, W]` of 1 to N, 0 where there is none; or, as
            segments overlap, several id maps `[L, H, W]` of an integer type, each segment in one of them.
        labels: `[N]` int64, class indices of the dataset's `LabelSpace`.
        crowd: `[N]` bool, regions that stand for a group; evaluation neither rewards nor punishes them.
        size: height and width; to be given with run lengths.
        boxes: `[N, 4]` float64, x, y, width, height as annotated; of the masks where there are none.
        areas: `[N]` float64, pixels as annotated; of the masks where there are none.
        tracks: `[N]` int64, the number of each object throughout its clip, -1 of what is not followed.
        box_only: `[N]` bool, objects that were annotated by a box alone: their mask is the box, drawn. None where all
            have masks.
    """

    form: Form
    labels: Tensor
    crowd: Tensor
    size: tuple[int, int] = (0, 0)
    boxes: Tensor | None = None
    areas: Tensor | None = None
    tracks: Tensor | None = None
    box_only: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.form, Tensor):
            self.size = (self.form.shape[-2], self.form.shape[-1])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, keep: Tensor) -> "Segments":
        """Those that `keep`, `[N]` bool or `[M]` indices, names; an id map stays one unless an index is repeated."""
        places = torch.arange(len(self))[keep]
        chosen: Form
        if isinstance(self.form, list):
            chosen = [self.form[i] for i in places]
        elif is_id_map(self.form) and len(places.unique()) == len(places):
            chosen = Mask(_renumbered(self.form.as_subclass(Tensor), 1 + places, len(self)))
        else:
            chosen = Mask(self.masks[keep])
        extra = {name: None if (x := getattr(self, name)) is None else x[keep] for name in _OF_EACH}
        return Segments(chosen, self.labels[keep], self.crowd[keep], self.size, **extra)

    def with_masks(self, masks: Mask) -> "Segments":
        """The same objects after they have been moved; annotated boxes and areas no longer hold."""
        return replace(self, form=masks, boxes=None, areas=None)

    @property
    def masks(self) -> Mask:
        """`[N, H, W]` bool, where the labels are."""
        if isinstance(self.form, list):
            return Mask(torch.from_numpy(rle.decode(self.form, self.size)).to(self.labels.device))
        if not is_id_map(self.form):
            return Mask(self.form)
        places = torch.arange(1, len(self) + 1, device=self.form.device).to(self.form.dtype)[:, None, None]
        first, *others = self.form.as_subclass(Tensor).reshape(-1, *self.size)
        masks = first == places
        for ids in others:
            masks |= ids == places
        return Mask(masks)

    @property
    def rles(self) -> list[RLE]:
        if isinstance(self.form, list):
            return self.form
        if is_id_map(self.form) and self.form.ndim == 2:
            return rle.from_id_map(self.form.as_subclass(Tensor).cpu().numpy(), len(self))
        return rle.encode(self.masks.as_subclass(Tensor).cpu().numpy())

    @property
    def id_map(self) -> Tensor:
        """`[H, W]` int32 of places + 1, 0 where there is none; of two that overlap the later is seen."""
        if isinstance(self.form, list):
            return torch.from_numpy(rle.to_id_map(self.form, self.size))
        if is_id_map(self.form):
            ids = self.form.as_subclass(Tensor).int()
            return ids if ids.ndim == 2 else ids.amax(0)
        seen = np.zeros(self.size, np.int32)
        for place, mask in enumerate(self.form.cpu().numpy(), 1):
            seen[mask] = place
        return torch.from_numpy(seen)

    def compact(self) -> "Segments":
        """The same segments as an id map, or as several where they overlap, of 8 bits where these are enough."""
        maps = self.form.as_subclass(Tensor) if is_id_map(self.form) else _id_maps(self.masks.numpy())
        return replace(self, form=Mask(maps.to(torch.uint8 if len(self) <= 0xFF else torch.int32)))


def is_id_map(form: Form) -> TypeGuard[Tensor]:
    """Whether segments are numbers in one or more maps."""
    return isinstance(form, Tensor) and form.dtype != torch.bool


def _renumbered(ids: Tensor, kept: Tensor, count: int) -> Tensor:
    """Id maps in which the numbers `kept` `[M]`, of 1 to `count`, are 1 to M, and the others 0; of 8 bits where they
    were, on the CPU, else int32."""
    table = torch.zeros(count + 1, dtype=torch.int32)
    table[kept] = torch.arange(1, len(kept) + 1, dtype=torch.int32)
    if ids.dtype == torch.uint8 and count <= 0xFF and ids.device.type == "cpu" and ids.numel():
        values = np.zeros(256, np.uint8)
        values[: count + 1] = table.numpy()
        flat = ids.contiguous().numpy().reshape(-1, ids.shape[-1])  # as a matrix: OpenCV has channels
        return torch.from_numpy(cv2.LUT(flat, values).reshape(ids.shape))
    # faster than table[ids]
    return table.to(ids.device).index_select(0, ids.int().reshape(-1)).view(ids.shape)


def _id_maps(masks: npt.NDArray[np.bool_]) -> Tensor:
    """`[N, H, W]` to one id map or `[L, H, W]`: each mask goes to the first map in which it overlaps no other."""
    maps = np.zeros((1, masks.shape[1] * masks.shape[2]), np.int32)
    for place, mask in enumerate(masks, 1):
        inside = np.flatnonzero(mask)
        taken = [ids[inside].any() for ids in maps]
        if all(taken):
            maps = np.append(maps, np.zeros_like(maps[:1]), axis=0)
            taken.append(False)
        maps[taken.index(False)][inside] = place
    return torch.from_numpy(maps.reshape(-1, *masks.shape[1:])).squeeze(0)
