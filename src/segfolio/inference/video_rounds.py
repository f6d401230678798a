"""A simulated user who corrects an object in a clip frame by frame: SAM 2's interactive evaluation, offline and online
(arXiv 2408.00714, section 6.1 and the appendix on zero-shot video).

In each round one frame more is prompted, by up to three clicks in the middle of what is wrong there. **Offline** the
clip is gone through again and again: what was prompted is followed through it, and the frame of the lowest J is the
next. **Online** it is gone through once: the user stops at the first frame whose J is below 0.75, corrects it, and goes
on; what has been seen stays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE, Bools
from segfolio.data.prompts import Prompts
from segfolio.inference.clicks import Click, next_click
from segfolio.inference.interactive import Interactive
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import Tracked, Tracker
from segfolio.layers.tracking import TrackingNetwork
from segfolio.metrics.video import jaccard

ROUNDS, CLICKS, LOW = 8, 3, 0.75
Truth = Sequence[RLE | None]
"""The masks of an object in all frames of a clip, empty where it is not seen; None of a frame that is not annotated."""


class Follower(Protocol):
    """A network, one object of one clip, and what is remembered of it. Masks are `[H, W]`, of the frames' size."""

    def click(self, frame: int, clicks: Sequence[Click]) -> Bools:
        """The object in a frame, after all clicks that were made there so far."""

    def follow(self, frame: int) -> Bools:
        """The object in a frame, as it was prompted there or as it is remembered; frames come in their order."""


class FrameByFrame:
    """A network of images as a `Follower`: it knows of an object what it was told in the frame itself, and elsewhere
    nothing.

    Args:
        asked: the network.
        frames: of the clip, `[H, W, C]` each.
    """

    def __init__(self, asked: Interactive, frames: Sequence[npt.NDArray[np.integer]]) -> None:
        self.asked, self.frames = asked, frames
        self._masks: dict[int, Bools] = {}
        self._seen: int | None = None
        self._made = 0  # clicks in the frame that is seen

    def click(self, frame: int, clicks: Sequence[Click]) -> Bools:
        if frame != self._seen:
            self.asked.set_image(self.frames[frame], f"frame {frame}")
            self._seen, self._made = frame, 0
        for x, y, kind in clicks[self._made :]:
            self._masks[frame] = self.asked.click(x - 0.5, y - 0.5, kind).mask
        self._made = len(clicks)
        return self._masks[frame]

    def follow(self, frame: int) -> Bools:
        return self._masks.get(frame, np.zeros(self.frames[frame].shape[:2], np.bool_))


class Remembering:
    """A network with memory as a `Follower`: it knows all that it was told of the object, and what it has seen of it
    since.

    Args:
        network: in evaluation.
        embedded: gives a frame of the clip.
        frames: of the clip.
        holes: see `Tracker`.
    """

    def __init__(
        self, network: TrackingNetwork, embedded: Callable[[int], EmbeddedImages], frames: int, holes: int = 0
    ) -> None:
        self.embedded, self.tracker = embedded, Tracker(network, frames, keep=None, holes=holes)

    def click(self, frame: int, clicks: Sequence[Click]) -> Bools:
        image = self.embedded(frame)
        return _drawn(image, self.tracker.prompt(frame, image, clicked({0: clicks}, image.embedding[0].device)))

    def follow(self, frame: int) -> Bools:
        image = self.embedded(frame)
        return _drawn(image, self.tracker.follow(frame, image))


def offline(follower: Follower, truth: Truth, rounds: int = ROUNDS, clicks: int = CLICKS) -> list[list[RLE]]:
    """The masks of all frames after each round, `[rounds][T]`; where nothing is left to be corrected they stay.

    The first frame in which the object is seen comes first; before it the object is nowhere. A frame is prompted in one
    round.

    Raises:
        ValueError: an object that is never seen.
    """
    user = _User(truth, clicks)
    shown, prompted, found = [user.nothing] * len(truth), list[int](), list[list[RLE]]()
    frame: int | None = user.first
    while frame is not None and len(found) < rounds:
        shown[frame] = user.corrected(follower, frame, shown[frame])
        prompted.append(frame)
        shown[user.first :] = [follower.follow(frame) for frame in range(user.first, len(truth))]
        found.append(rle.encode(np.stack(shown)))
        frame = _worst(found[-1], truth, prompted)
    return _filled(found, rounds)


def online(
    start: Callable[[], Follower], truth: Truth, rounds: int = ROUNDS, clicks: int = CLICKS, low: float = LOW
) -> list[list[RLE]]:
    """The masks of all frames with up to 1, 2, ... prompted frames, `[rounds][T]`, each in a pass of its own.

    Args:
        start: a follower that knows nothing.
        low: J below which the user stops.

    Raises:
        ValueError: an object that is never seen.
    """
    user, found = _User(truth, clicks), list[list[RLE]]()
    while len(found) < rounds:
        follower, shown, stops = start(), [user.nothing] * len(truth), 0
        for frame in range(user.first, len(truth)):
            mask = user.nothing if frame == user.first else follower.follow(frame)
            if stops <= len(found) and (frame == user.first or user.sees(mask, frame) < low):
                mask, stops = user.corrected(follower, frame, mask), stops + 1
            shown[frame] = mask
        found.append(rle.encode(np.stack(shown)))
        if stops < len(found):
            break  # more would not be used
    return _filled(found, rounds)


class _User:
    """Who wants one object, and knows where it is.

    Attributes:
        first: the frame in which it is first seen.
        nothing: an empty mask.
    """

    def __init__(self, truth: Truth, clicks: int) -> None:
        self.truth, self.clicks = truth, clicks
        seen = [frame for frame, mask in enumerate(truth) if mask is not None and rle.areas([mask])[0]]
        if not seen:
            raise ValueError("an object that is seen in no frame cannot be asked for")
        self.first = seen[0]
        height, width = self._mask(self.first)["size"]
        self.nothing = np.zeros((height, width), np.bool_)

    def sees(self, mask: Bools, frame: int) -> float:
        """J of a mask, 1 where the frame is not annotated."""
        return 1.0 if self.truth[frame] is None else jaccard(rle.encode(mask[None])[0], self._mask(frame))

    def corrected(self, follower: Follower, frame: int, shown: Bools) -> Bools:
        """What is shown after some clicks; fewer where it is right."""
        truth = rle.decode([self._mask(frame)], (shown.shape[0], shown.shape[1]))[0]
        made = list[Click]()
        while len(made) < self.clicks and (click := next_click(truth, shown)) is not None:
            made.append(click)
            shown = follower.click(frame, made)
        return shown

    def _mask(self, frame: int) -> RLE:
        mask = self.truth[frame]
        assert mask is not None
        return mask


def _drawn(image: EmbeddedImages, tracked: Tracked) -> Bools:
    """Of the one object that is followed."""
    found: Bools = (image.enlarge(tracked.masks.float(), 0)[0] > 0).cpu().numpy()
    return found


def clicked(clicks: Mapping[int, Sequence[Click]], device: torch.device) -> Prompts:
    """All clicks that were made for each object, equally many, as prompts of a frame."""
    points = torch.tensor([[click[:2] for click in each] for each in clicks.values()], device=device)
    kinds = torch.tensor([[click.kind for click in each] for each in clicks.values()], device=device)
    return Prompts(torch.tensor(list(clicks), device=device), points, kinds)


def _worst(found: Sequence[RLE], truth: Truth, prompted: Sequence[int]) -> int | None:
    """The frame of the lowest J, the first of several; None where all that were not prompted are right."""
    values = {
        frame: jaccard(found[frame], mask)
        for frame, mask in enumerate(truth)
        if mask is not None and frame not in prompted
    }
    worst = min(values, key=values.__getitem__, default=None)
    return None if worst is None or values[worst] == 1 else worst


def _filled(found: list[list[RLE]], rounds: int) -> list[list[RLE]]:
    return found + found[-1:] * (rounds - len(found))
