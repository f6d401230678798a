"""`Tracker`: objects that are prompted in any frames of a video and followed through the others, all in one batch.

It is given one frame at a time, embedded, in any order; what is remembered of the last frames and of those that were
prompted is all it holds, however long the video is. It follows facebookresearch/sam2, `SAM2VideoPredictor`:

- The first prompt for an object in a frame where it has not been followed is answered without memory, and the frame is
  one that is attended to from everywhere, with no age.
- A prompt for a frame in which it has been followed, and which is still remembered, corrects the mask: it is answered
  with what was remembered there and the mask itself, and changes only what follows.
- One point is answered by the best of three masks, more of them and a box by one.
- Small holes of masks are filled.

Deviates: a corrected frame keeps its mask when the video is followed through it once more (the release loses it), and a
frame that was prompted first is not made worse by a second prompt (which the release drops).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segfolio.data.prompts import NO_POINT, PADDING, Prompts
from segfolio.errors import SegfolioError
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.prompting import PromptInput
from segfolio.layers.tracking import ABSENT, Recalled, Sighting, TrackingNetwork

AMBIGUOUS = 1  # points, with the two of a box; more say which of several masks is meant
FILLED = 0.1  # the logit of what was a hole
SURE = 32.0  # the furthest from 0 that a logit of an earlier mask is given back


class Tracked(NamedTuple):
    """The objects of a frame.

    Attributes:
        objects: P, in the order in which they were first prompted.
        masks: `[P, h, w]` logits of the network; `EmbeddedImages.enlarge` brings them to the frame's size.
        object_score: `[P]`, above 0 where the object is seen.
    """

    objects: list[int]
    masks: Tensor
    object_score: Tensor


class Tracker:
    """
    Args:
        network: in evaluation.
        frames: of the video, if that is known: of a short one the ages of pointers are parts of its length.
        keep: how many frames on either side of the last one are remembered, beside those that were prompted; None for
            all, which lets one go back further and follow from there as if one had not been elsewhere.
        dtype: of what is remembered, bfloat16 as in the release.
        holes: up to how many cells of the network's masks a hole is filled; 0 for none. What is remembered of a frame
            that was not prompted has its holes, as in the release.
    """

    def __init__(
        self,
        network: TrackingNetwork,
        frames: int | None = None,
        keep: int | None = 0,
        dtype: torch.dtype = torch.bfloat16,
        holes: int = 8,
    ) -> None:
        self.network, self.frames, self.dtype, self.holes = network, frames, dtype, holes
        self.keep = None if keep is None else max(keep, network.memory_frames)
        self._known: dict[int, _Known] = {}
        self._frames, self._pointers = _Shelf(), _Shelf()

    @property
    def objects(self) -> list[int]:
        """All that were prompted, in this order."""
        return list(self._known)

    @torch.no_grad()
    def prompt(self, frame: int, image: EmbeddedImages, prompts: Prompts) -> Tracked:
        """Say what is meant in a frame, for some objects.

        Args:
            frame: its number.
            image: the frame alone.
            prompts: for the objects that `of` numbers, new ones or known, in pixels of the frame: all points that are
                said of an object there, also those that were said before; or its mask.

        Returns:
            these objects.

        Raises:
            SegfolioError: prompts that do not fit the frame, or two for one object.
        """
        where, objects = f"frame {frame}", prompts.of.tolist()
        self._check(frame)
        prompts.check(image.sizes[0], where)
        if len(set(objects)) < len(objects):
            raise SegfolioError(f"{where}: an object has two prompts; give all points and the box of one together")
        none = torch.zeros(len(objects), dtype=torch.int64, device=image.embedding[0].device)
        if prompts.masks is None:
            found = self._answered(frame, image, objects, image.of_network(prompts, none))
        elif prompts.points is None and prompts.boxes is None:
            found = self.network.take(image.embedding, image.squares(prompts.masks, 0), none)
        else:
            raise SegfolioError(f"{where}: an object has a mask, and points or a box; give the mask alone")
        found = found._replace(masks=filled(found.masks, self.holes))
        self._remember(frame, image, objects, found, said=True)
        return Tracked(objects, found.masks, found.object_score)

    @torch.no_grad()
    def follow(self, frame: int, image: EmbeddedImages, backwards: bool = False) -> Tracked:
        """All objects in a frame: those that were prompted in it as they were answered, the others by what is
        remembered of them.

        Args:
            image: the frame alone.
            backwards: the frames before this one come next.

        Raises:
            SegfolioError: a frame that the video does not have, or nothing was prompted.
        """
        self._check(frame)
        if not self._known:
            raise SegfolioError(f"frame {frame}: no object was prompted yet; prompt one in a frame first")
        for known in self._known.values():
            self._drop(known, frame)
        others = [number for number, known in self._known.items() if not known.said(frame)]
        if others:
            embedding = self.network.attend(image.embedding, self._recalled(frame, others, backwards))
            found = self.network.sight(self.network.answer(embedding, self._nothing(len(others), embedding[0].device)))
            self._remember(frame, image, others, found, said=False, backwards=backwards)
        rows = [known.at(frame).row for known in self._known.values()]
        _, masks, score = self._frames.take(torch.tensor(rows))
        return Tracked(self.objects, masks, score)

    def forget(self, number: int) -> None:
        """An object is not followed any more.

        Raises:
            SegfolioError: it is not known.
        """
        if number not in self._known:
            raise SegfolioError(f"object {number} was never prompted; known are {self.objects}")
        known = self._known.pop(number)
        for kept in (*known.prompted.values(), *known.passed.values()):
            self._let_go(kept)

    def _answered(self, frame: int, image: EmbeddedImages, objects: Sequence[int], prompts: PromptInput) -> Sighting:
        """Objects that are asked for in the same way are one batch."""
        counts = (prompts.kinds != PADDING).sum(1)
        if prompts.boxes is not None:
            counts = counts + 2 * ~prompts.boxes.isnan().any(1)
        groups = defaultdict[tuple[bool, bool, bool, bool], list[int]](list)
        for place, (number, count) in enumerate(zip(objects, counts.tolist(), strict=True)):
            known = self._known.get(number) or _Known()
            followed = known.followed(frame)
            before = followed or known.prompted.get(frame)
            how = (followed is not None, followed is not None and followed.backwards, before is not None)
            groups[(*how, count <= AMBIGUOUS)].append(place)
        parts = list[Sighting]()
        for (corrects, backwards, again, ambiguous), places in groups.items():
            some = [objects[place] for place in places]
            asked = _some(prompts, places)
            if again:
                rows = torch.tensor([self._known[number].at(frame).row for number in some])
                asked = asked._replace(masks=self._frames.take(rows)[1].clamp(-SURE, SURE))
            recalled = self._recalled(frame, some, backwards) if corrects else None
            if corrects:
                asked = asked._replace(image=torch.arange(len(some), device=asked.image.device))
            embedding = self.network.attend(image.embedding, recalled)
            parts.append(self.network.sight(self.network.answer(embedding, asked, ambiguous)))
        order = torch.tensor([place for places in groups.values() for place in places]).argsort()
        return Sighting(*(torch.cat(each)[order] for each in zip(*parts, strict=True)))

    def _recalled(self, frame: int, objects: Sequence[int], backwards: bool) -> Recalled:
        sign = -1 if backwards else 1
        network = self.network
        reach = network.pointer_frames if self.frames is None else min(network.pointer_frames, self.frames - 1)
        memories, pointers = list[list[tuple[int, int]]](), list[list[tuple[int, int]]]()
        for known in (self._known[number] for number in objects):
            ages = [(known.passed.get(frame - sign * age), age) for age in range(1, reach + 1)]
            memories.append(
                [(kept.row, 0) for kept in known.prompted.values()]
                + [(kept.row, age) for kept, age in ages if kept and age <= network.memory_frames and kept.row >= 0]
            )
            there = [(kept.pointer, sign * (frame - at)) for at, kept in known.prompted.items()]
            pointers.append(
                [pair for pair in there if pair[1] >= 0] + [(kept.pointer, age) for kept, age in ages if kept]
            )
        rows, ages_ = _table(memories, ABSENT)
        places, distances = _table(pointers, torch.nan)
        device = self._frames.device
        return Recalled(
            self._frames.take(rows)[0],
            ages_.to(device, torch.int64),
            self._pointers.take(places)[0],
            distances.to(device),
            max(reach, 1),
        )

    def _remember(
        self,
        frame: int,
        image: EmbeddedImages,
        objects: Sequence[int],
        found: Sighting,
        said: bool,
        backwards: bool = False,
    ) -> None:
        none = torch.zeros(len(objects), dtype=torch.int64, device=found.masks.device)
        memory = self.network.remember(image.embedding, found, none, torch.full_like(none, said, dtype=torch.bool))
        masks = found.masks if said else filled(found.masks, self.holes)
        rows = self._frames.put(memory.features.to(self.dtype), _exact(masks), _exact(found.object_score))
        pointers = self._pointers.put(_exact(memory.pointer))
        for number, row, pointer in zip(objects, rows, pointers, strict=True):
            known = self._known.setdefault(number, _Known())
            corrected = known.followed(frame) if said else None
            for before in (known.passed.pop(frame, None), known.prompted.pop(frame, None)):
                if before is not None:
                    self._let_go(before)
            back = corrected.backwards if corrected else backwards
            place = known.prompted if said and not corrected else known.passed
            place[frame] = _Kept(row, pointer, back, said)

    def _nothing(self, objects: int, device: torch.device) -> PromptInput:
        """Nobody says anything of P objects, each in an embedding of its own."""
        kinds = torch.full((objects, 1), NO_POINT, device=device)
        return PromptInput(torch.arange(objects, device=device), torch.zeros(objects, 1, 2, device=device), kinds)

    def _drop(self, known: "_Known", frame: int) -> None:
        """What is too far from a frame to be attended to from there."""
        if self.keep is None:
            return
        for at, kept in list(known.passed.items()):
            away = 0 if kept.said else abs(frame - at)
            if away > self.keep and kept.row >= 0:
                self._frames.drop(kept.row)
                known.passed[at] = kept = kept._replace(row=-1)
            if away > max(self.keep, self.network.pointer_frames):
                self._let_go(known.passed.pop(at))

    def _let_go(self, kept: "_Kept") -> None:
        if kept.row >= 0:
            self._frames.drop(kept.row)
        self._pointers.drop(kept.pointer)

    def _check(self, frame: int) -> None:
        if frame < 0 or (self.frames is not None and frame >= self.frames):
            known = "unknown" if self.frames is None else self.frames
            raise SegfolioError(f"there is no frame {frame}; frames are counted from 0, and the video has {known}")


def filled(masks: Tensor, cells: int) -> Tensor:
    """Mask logits `[P, h, w]` whose holes of at most so many cells, neighbours also over corners, are just above 0."""
    if not cells:
        return masks
    beside = (masks <= 0).cpu().numpy()
    neighbours = np.zeros((3, 3, 3), np.bool_)
    neighbours[1] = True  # of the same mask
    regions, count = ndimage.label(beside, neighbours)
    areas = np.bincount(regions.ravel(), minlength=count + 1)
    holes = (areas <= cells)[regions] & beside
    return masks.masked_fill(torch.from_numpy(holes).to(masks.device), FILLED) if holes.any() else masks


class _Kept(NamedTuple):
    """What is remembered of an object in a frame.

    Attributes:
        row: on the shelf of frames, -1 where it is not there any more.
        pointer: on that of pointers.
        backwards: how the object was followed to it.
        said: someone prompted it there.
    """

    row: int
    pointer: int
    backwards: bool
    said: bool


@dataclass
class _Known:
    """An object: frames where it was first prompted, and those through which it was followed."""

    prompted: dict[int, _Kept] = field(default_factory=dict)
    passed: dict[int, _Kept] = field(default_factory=dict)

    def at(self, frame: int) -> _Kept:
        return self.prompted[frame] if frame in self.prompted else self.passed[frame]

    def followed(self, frame: int) -> _Kept | None:
        """What is remembered of a frame through which the object was followed, if its mask is."""
        kept = self.passed.get(frame)
        return kept if kept is not None and kept.row >= 0 else None

    def said(self, frame: int) -> bool:
        return frame in self.prompted or (frame in self.passed and self.passed[frame].said)


class _Shelf:
    """Rows of tensors, each of one object in one frame, of which as many are held as are in use at most at once."""

    def __init__(self) -> None:
        self._held: tuple[Tensor, ...] = ()
        self._free: list[int] = []

    @property
    def device(self) -> torch.device:
        return self._held[0].device

    def put(self, *new: Tensor) -> list[int]:
        """Tensors `[P, ...]`, to the P rows where they are now."""
        size = len(self._held[0]) if self._held else 0
        if (more := len(new[0]) - len(self._free)) > 0:
            more = max(more, size // 2)
            room = [each.new_empty(more, *each.shape[1:]) for each in new]
            self._held = tuple(torch.cat(pair) for pair in zip(self._held, room, strict=True)) if size else tuple(room)
            self._free += range(size, size + more)
        rows, self._free = self._free[: len(new[0])], self._free[len(new[0]) :]
        for held, each in zip(self._held, new, strict=True):
            held[torch.tensor(rows, device=held.device)] = each
        return rows

    def take(self, rows: Tensor) -> tuple[Tensor, ...]:
        """`[...]` to `[..., *]` of each of the tensors; anything for a row below 0."""
        index = rows.to(self.device).clamp(min=0)
        return tuple(held[index] for held in self._held)

    def drop(self, row: int) -> None:
        self._free.append(row)


def _exact(x: Tensor) -> Tensor:
    """In float32 at least: in mixed precision, a network says some in bfloat16 and some in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _some(prompts: PromptInput, places: list[int]) -> PromptInput:
    boxes, masks = (each if each is None else each[places] for each in (prompts.boxes, prompts.masks))
    return PromptInput(prompts.image[places], prompts.points[places], prompts.kinds[places], boxes, masks)


def _table(pairs: Iterable[Sequence[tuple[int, int]]], nothing: float) -> tuple[Tensor, Tensor]:
    """P lists of pairs of a row and a number to `[P, N]` of each; where a list is shorter -1 and `nothing`."""
    lists = list(pairs)
    width = max(map(len, lists))
    rows, numbers = torch.full((len(lists), width), -1), torch.full((len(lists), width), float(nothing))
    for i, some in enumerate(lists):
        for j, (row, number) in enumerate(some):
            rows[i, j], numbers[i, j] = row, number
    return rows, numbers
