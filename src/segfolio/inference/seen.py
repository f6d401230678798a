"""`Seen`: where a promptable network is asked for each object of a batch, in the whole image or in a window of it."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.prompts import Prompts
from segfolio.data.sample import Batch, Size
from segfolio.errors import SegfolioError
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.sliding import starts
from segfolio.layers.prompting import PromptedMasks

Boxes = npt.NDArray[np.float64]
_AT_ONCE = 16
"""Windows that are embedded, and masks that are enlarged, in one pass."""


class Embeds(Protocol):
    """What is needed of a family."""

    def embedded(self, images: Tensor, sizes: Sequence[Size], own: Sequence[Size] | None = None) -> EmbeddedImages:
        """The dataset's images `[B, C, H, W]`, of `sizes` at the upper left each, ready to be asked about.

        Args:
            own: the sizes in whose pixels they are asked; `sizes` if not given.
        """


class Place(NamedTuple):
    """A part of an image that is embedded by itself.

    Attributes:
        image: which one of the batch.
        top, left: of its first pixel.
        size: height and width.
        whole: height and width of the image.
    """

    image: int
    top: int
    left: int
    size: Size
    whole: Size

    @property
    def rows_columns(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.size[0]), slice(self.left, self.left + self.size[1])


class Seen:
    """The places of a batch, each embedded once. Prompts and masks are in pixels of a place, at the images' original
    size; places are named by their number.

    Args:
        embedded: one of each place.
    """

    def __init__(self, embedded: EmbeddedImages, places: Sequence[Place]) -> None:
        self.embedded, self.places = embedded, list(places)

    @classmethod
    def of(
        cls, family: Embeds, batch: Batch, images: Sequence[int], boxes: Boxes, window: int | None
    ) -> tuple[Self, list[int]]:
        """Where N objects are seen.

        Args:
            images: N, which one of the batch each object is of.
            boxes: `[N, 4]`, x, y, width and height of each at the original size.
            window: the side of the windows, half of which they overlap; whole images if None.

        Returns:
            also the place of each object; windows in which there is none are not embedded.

        Raises:
            SegfolioError: windows of an image that has been resized.
        """
        if window is None:
            places = [Place(i, 0, 0, size, size) for i, size in enumerate(batch.original_sizes)]
            return cls(family.embedded(batch.images, batch.sizes, batch.original_sizes), places), list(images)
        if batch.sizes != batch.original_sizes:
            raise SegfolioError(
                f"{batch.image_ids[0]} is resized before it is tested in windows of {window} pixels; leave out "
                "data.eval_transforms and data.test_transforms, or the window"
            )
        corners = [windows(size, window) for size in batch.original_sizes]
        chosen = [(i, *best_window(corners[i], box, window)) for i, box in zip(images, boxes, strict=True)]
        numbers = {corner: number for number, corner in enumerate(sorted(set(chosen)))}
        places = []
        for i, top, left in numbers:
            height, width = batch.original_sizes[i]
            places.append(Place(i, top, left, (min(window, height - top), min(window, width - left)), (height, width)))
        parts = [places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE)]
        each = [family.embedded(_cut(batch.images, part, window), [place.size for place in part]) for part in parts]
        return cls(EmbeddedImages.joined(each), places), [numbers[corner] for corner in chosen]

    @property
    def device(self) -> torch.device:
        return self.embedded.embedding[0].device

    def settle(self) -> None:
        """Wait for the embedding, so that the time of what follows is its own."""
        self.embedded.embedding[0].flatten()[:1].cpu()

    def ask(
        self, prompts: Prompts, places: Sequence[int], masks: Tensor | None = None, multimask: bool = True
    ) -> PromptedMasks:
        """What the network answers to P prompts, from host memory, see `EmbeddedImages.ask`."""
        there = Prompts(prompts.of.to(self.device))
        for name in ("points", "kinds", "boxes"):
            if (each := getattr(prompts, name)) is not None:
                setattr(there, name, each.to(self.device))
        return self.embedded.ask(there, torch.tensor(places, device=self.device), masks, multimask)

    def drawn(self, logits: Tensor, places: Sequence[int]) -> list[Tensor]:
        """Mask logits `[P, ..., h, w]` as masks, `[n, ..., H, W]` bool for each run of prompts of the same place."""
        found = []
        for number, start, stop in runs(places):
            some = logits[start:stop]
            masks = [self.embedded.enlarge(part, number) > 0 for part in some.flatten(0, -3).split(_AT_ONCE)]
            found.append(torch.cat(masks).unflatten(0, some.shape[:-2]))
        return found

    def encoded(self, masks: npt.NDArray[np.bool_], place: int) -> list[RLE]:
        """Masks `[N, H, W]` of a place as run lengths of its image."""
        if (here := self.places[place]).size == here.whole:
            return rle.encode(masks)
        whole = np.zeros((len(masks), *here.whole), np.bool_)
        whole[:, *here.rows_columns] = masks
        return rle.encode(whole)


def runs(places: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Each value of a sequence in which equal ones come in a row, and where it begins and ends."""
    stop = 0
    for value, group in groupby(places):
        start, stop = stop, stop + len(list(group))
        yield value, start, stop


def windows(size: Size, window: int) -> npt.NDArray[np.int64]:
    """Top and left `[W, 2]` of square windows over an image, in reading order: half of one apart, the last ones end
    with the image."""
    stride = max(1, window // 2)
    return np.array(
        [(top, left) for top in starts(size[0], window, stride) for left in starts(size[1], window, stride)]
    )


def best_window(corners: npt.NDArray[np.int64], box: npt.NDArray[np.float64], window: int) -> tuple[int, int]:
    """Top and left of the window that holds most of a box; of several, of the one in whose middle it is most, the first
    of equals."""
    low, high = box[1::-1], box[1::-1] + box[:1:-1]
    shared = (np.minimum(corners + window, high) - np.maximum(corners, low)).clip(0).prod(1)
    away = np.square(corners + window / 2 - (low + high) / 2).sum(1)
    top, left = corners[np.lexsort((away, -shared))[0]].tolist()
    return top, left


def on_host(*tensors: Tensor) -> list[npt.NDArray[Any]]:
    """Tensors of any types and shapes in host memory, by one copy."""
    flat = torch.cat([each.contiguous().flatten().view(torch.uint8) for each in tensors]).cpu().numpy()
    found, end = [], 0
    for each in tensors:
        start, end = end, end + each.numel() * each.element_size()
        kind = torch.empty(0, dtype=each.dtype).numpy().dtype
        found.append(flat[start:end].view(kind).reshape(each.shape))
    return found


def _cut(images: Tensor, places: Sequence[Place], window: int) -> Tensor:
    """`[P, C, window, window]`, zero on the right and below where an image is smaller."""
    cut = [images[place.image][:, *place.rows_columns] for place in places]
    return torch.stack([pad(part, (0, window - part.shape[2], 0, window - part.shape[1])) for part in cut])
