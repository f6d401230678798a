"""Test protocols of clips: what is said of an object, in which frame, and how it is followed from there.

A protocol is a value in YAML: `test: {protocol: first_mask}`, a preset of `prompt_protocols`, or a class with its
arguments, such as `class_path: segfolio.inference.video_protocols.FromFirstFrame` and `init_args: {prompt: box}`. All
masks have the frames' original size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.image_space import ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.data.prompts import Prompts
from segfolio.data.sample import Batch, Prediction, to_pixels
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.inference.asking import Asked, PromptProtocol
from segfolio.inference.clicks import first_click, next_click
from segfolio.inference.interactive import Interactive
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import Tracker
from segfolio.inference.video_rounds import (
    CLICKS,
    ROUNDS,
    Follower,
    FrameByFrame,
    Remembering,
    clicked,
    offline,
    online,
)
from segfolio.layers.prompting import PromptableNetwork
from segfolio.layers.tracking import TrackingNetwork
from segfolio.metrics import Evaluator
from segfolio.metrics.video import VideoMetric, by_track
from segfolio.metrics.video_rounds import VideoRoundsMetric

Rules = Literal["davis", "sav"]
Pixels = npt.NDArray[Any]
Objects = dict[int, RLE]
"""The masks of a frame, by the objects' numbers."""


class Follows(Asked, Protocol):
    """What a protocol of clips needs of a family."""

    network: PromptableNetwork
    image_space: ImageSpace


class OfClips(PromptProtocol):
    """Each object of each clip of the truth."""

    def check(self, dataset: SegmentationDataset, split: str) -> None:
        if dataset.clips is None:
            raise SegfolioError(
                f"objects are followed through clips, but {split} of {type(dataset).__name__} holds images by "
                "themselves; take a dataset of videos, or a protocol of segfolio.inference.prompt_protocols"
            )
        for clip in list(dataset.clips)[:1]:
            targets = [target for index in clip[:1] if (target := dataset[index].target) is not None]
            segments = targets[0].segments if targets else None
            if segments is None or segments.tracks is None:
                raise SegfolioError(
                    f"{split}: the truth of {dataset.image_id(clip[0])} does not say which object is which in the "
                    "other frames of its clip; take a split whose frames are annotated"
                )

    def answer(self, family: Asked, batch: Batch) -> list[Prediction]:
        return [prediction for clip in clips_of(family, batch) for prediction in self.of_clip(clip)]

    def of_clip(self, clip: "Clip") -> list[Prediction]:
        """One prediction of each frame."""
        raise NotImplementedError


class Clip:
    """One clip of a batch, whose frames are embedded when they are asked for.

    Attributes:
        truth: the masks of each frame that are not empty, by the objects' numbers; None of a frame without annotation.
    """

    def __init__(self, family: Follows, batch: Batch, places: range) -> None:
        self.family, self.batch, self.places = family, batch, places
        self.image_ids = [batch.image_ids[place] for place in places]
        self.sizes = [batch.original_sizes[place] for place in places]
        segments = [batch.targets[place].segments for place in places]
        pairs = list(zip(segments, self.image_ids, strict=True))
        self.truth = [None if each is None else by_track(each, image_id) for each, image_id in pairs]
        self._labels = {
            track: label
            for each in segments
            if each is not None and each.tracks is not None
            for track, label in zip(each.tracks.tolist(), each.labels.tolist(), strict=True)
        }

    def __len__(self) -> int:
        return len(self.places)

    def embedded(self, frame: int) -> EmbeddedImages:
        place = slice(self.places[frame], self.places[frame] + 1)
        batch = self.batch
        return self.family.embedded(batch.images[place], batch.sizes[place], batch.original_sizes[place])

    def objects(self) -> dict[int, list[RLE | None]]:
        """Of each object that the truth shows, by its number, the masks of all frames; None without annotation."""
        tracks = sorted({track for frame in self.truth for track in frame or ()})
        empty = [rle.from_counts([height * width], (height, width)) for height, width in self.sizes]
        return {
            track: [
                None if here is None else here.get(track, none) for here, none in zip(self.truth, empty, strict=True)
            ]
            for track in tracks
        }

    def pixels(self) -> list[Pixels]:
        """The frames as they are stored, `[H, W, C]`.

        Raises:
            SegfolioError: they have been resized.
        """
        frames = []
        for image_id, size, place in zip(self.image_ids, self.sizes, self.places, strict=True):
            height, width = self.batch.sizes[place]
            if (height, width) != tuple(size):
                raise SegfolioError(
                    f"{image_id} is resized before it is asked about by itself; leave out data.eval_transforms and "
                    "data.test_transforms"
                )
            frames.append(to_pixels(self.batch.images[place, :, :height, :width].cpu()))
        return frames

    def segments(self, frame: int, found: Mapping[int, RLE]) -> Segments:
        """What was found in a frame, of the labels of the truth."""
        tracks = torch.tensor(list(found), dtype=torch.int64)
        labels = torch.tensor([self._labels[track] for track in found], dtype=torch.int64)
        return Segments(list(found.values()), labels, torch.zeros_like(tracks) > 0, self.sizes[frame], tracks=tracks)


def clips_of(family: Asked, batch: Batch) -> Iterator[Clip]:
    ends = [0, *accumulate(batch.clips)]
    for first, last in pairwise(ends):
        yield Clip(family, batch, range(first, last))  # type: ignore[arg-type]


class FromFirstFrame(OfClips):
    """Each object is prompted in the first frame that shows it, and followed from there by what is remembered; by the
    rules of DAVIS, which know no others, only those of the first frame that is annotated.

    By a mask this is semi-supervised video object segmentation; by a few clicks or a box what SAM 2 is tested by beside
    it (2408.00714, section 6.1 and its appendix on prompts in the first frame).

    Args:
        prompt: the mask of the truth, the box around it, or clicks in the middle of it and then of the deepest error.
        clicks: how many, at most.
        rules: by which J and F are measured, see `VideoMetric`.
        overlap: a pixel may be of several objects, and not of that of the highest logit alone; if not given, by the
            rules of SA-V, whose objects do, and not by those of DAVIS.
        holes: up to how many cells of the network's masks a hole is filled; the release measures without.

    Raises:
        SegfolioError: no click, another prompt, a network without memory.
    """

    main_metric = "J_and_F"

    def __init__(
        self,
        prompt: Literal["mask", "box", "clicks"] = "mask",
        clicks: int = 1,
        rules: Rules = "davis",
        holes: int = 0,
        overlap: bool | None = None,
    ) -> None:
        if prompt not in ("mask", "box", "clicks"):
            raise SegfolioError(f"prompt of FromFirstFrame is {prompt!r}, expected mask, box or clicks")
        if clicks < 1 or holes < 0:
            raise SegfolioError(f"FromFirstFrame: {clicks} clicks and holes of {holes} cells; give at least 1 and 0")
        self.prompt, self.clicks, self.rules, self.holes = prompt, clicks, rules, holes
        self.overlap = rules == "sav" if overlap is None else overlap

    @property
    def words(self) -> str:
        given = {"mask": "the mask", "box": "the box", "clicks": f"{self.clicks} clicks at most"}[self.prompt]
        return f"{given} of each object in the first frame that shows it, J and F by the rules of {self.rules.upper()}"

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        return [VideoMetric(labels, self.rules)]

    def of_clip(self, clip: Clip) -> list[Prediction]:
        tracker = Tracker(remembering(clip.family.network), len(clip), holes=self.holes)
        told, begun = set[int](), False
        predictions = []
        for frame, truth in enumerate(clip.truth):
            shown = {} if truth is None or (begun and self.rules == "davis") else truth
            begun |= truth is not None
            new = {track: mask for track, mask in shown.items() if track not in told}
            told |= new.keys()
            found = self._frame(clip, tracker, frame, new) if told else {}
            size = clip.sizes[frame]
            predictions.append(Prediction(clip.image_ids[frame], size, tracked=clip.segments(frame, found)))
        return predictions

    def _frame(self, clip: Clip, tracker: Tracker, frame: int, new: Objects) -> Objects:
        image = clip.embedded(frame)
        if new:
            self._say(tracker, frame, image, new)
        followed = tracker.follow(frame, image)
        logits = image.enlarge(followed.masks.float(), 0)
        masks = logits > 0
        if not self.overlap:
            masks &= logits == logits.amax(0)
        coded = rle.encode(masks.cpu().numpy())
        areas = rle.areas(coded)
        each = zip(followed.objects, coded, areas, strict=True)
        return {track: mask for track, mask, area in each if area}

    def _say(self, tracker: Tracker, frame: int, image: EmbeddedImages, new: Objects) -> None:
        device = image.embedding[0].device
        masks = rle.decode(list(new.values()), image.sizes[0])
        of = torch.tensor(list(new), device=device)
        if self.prompt == "mask":
            tracker.prompt(frame, image, Prompts(of, masks=torch.from_numpy(masks).to(device)))
        elif self.prompt == "box":
            x, y, width, height = rle.boxes(list(new.values())).T
            boxes = torch.from_numpy(np.stack([x, y, x + width, y + height], 1))
            tracker.prompt(frame, image, Prompts(of, boxes=boxes.float().to(device)))
        else:
            self._click(tracker, frame, image, dict(zip(new, masks, strict=True)))

    def _click(self, tracker: Tracker, frame: int, image: EmbeddedImages, truth: dict[int, rle.Bools]) -> None:
        """Each object in turn gets its next click, until its mask is right."""
        firsts = {track: first_click(mask) for track, mask in truth.items()}
        made = {track: [click] for track, click in firsts.items() if click is not None}
        for _ in range(self.clicks):
            if not made:
                break
            found = tracker.prompt(frame, image, clicked(made, image.embedding[0].device))
            shown = (image.enlarge(found.masks.float(), 0) > 0).cpu().numpy()
            nexts = {track: next_click(truth[track], mask) for track, mask in zip(found.objects, shown, strict=True)}
            made = {track: [*made[track], click] for track, click in nexts.items() if click is not None}


class Rounds(OfClips):
    """A simulated user corrects each object in one frame more in each round, see `inference.video_rounds`: the claim of
    fewer interactions is the number of prompted frames that are needed with memory, and without.

    Args:
        mode: offline, where the frame of the lowest J is the next, or online, where the clip is gone through once.
        memory: what was said in a frame is remembered in the others; without, each frame is asked about by itself, as
            of a network of images.
        rounds: that each object gets.
        clicks: in a frame, at most.
        kept_frames: of a clip, whose embeddings are kept between the rounds; those of the frames after are made again.

    Raises:
        SegfolioError: another mode, a number below 1; memory of a network that has none, frames that were resized
            before they are asked about by themselves.
    """

    main_metric = "J_and_F_rounds"

    def __init__(
        self,
        mode: Literal["offline", "online"] = "offline",
        memory: bool = True,
        rounds: int = ROUNDS,
        clicks: int = CLICKS,
        kept_frames: int = 128,
    ) -> None:
        if mode not in ("offline", "online"):
            raise SegfolioError(f"mode of Rounds is {mode!r}, expected offline or online")
        for name, number in (("rounds", rounds), ("clicks", clicks), ("kept_frames", kept_frames)):
            if number < 1:
                raise SegfolioError(f"Rounds: {name} is {number}; give at least 1")
        self.mode, self.memory, self.rounds, self.clicks, self.kept_frames = mode, memory, rounds, clicks, kept_frames

    @property
    def words(self) -> str:
        how = "followed through the others by memory" if self.memory else "each frame by itself"
        return f"{self.rounds} prompted frames of each object at most, {self.mode}, {self.clicks} clicks in each, {how}"

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        return [VideoRoundsMetric(labels, self.rounds)]

    def of_clip(self, clip: Clip) -> list[Prediction]:
        start = self._started(clip)
        found = {track: self._of_object(start, truth) for track, truth in clip.objects().items()}
        predictions = []
        for frame, (image_id, size) in enumerate(zip(clip.image_ids, clip.sizes, strict=True)):
            each = [
                clip.segments(frame, {track: masks[k][frame] for track, masks in found.items()})
                for k in range(self.rounds)
            ]
            predictions.append(Prediction(image_id, size, tracked=each[-1], tracked_rounds=each))
        return predictions

    def _of_object(self, start: Callable[[], Follower], truth: Sequence[RLE | None]) -> list[list[RLE]]:
        if self.mode == "offline":
            return offline(start(), truth, self.rounds, self.clicks)
        return online(start, truth, self.rounds, self.clicks)

    def _started(self, clip: Clip) -> Callable[[], Follower]:
        """What makes a follower that knows nothing."""
        if self.memory:
            network, kept = remembering(clip.family.network), dict[int, EmbeddedImages]()

            def embedded(frame: int) -> EmbeddedImages:
                found = kept.get(frame) or clip.embedded(frame)
                if len(kept) < self.kept_frames:
                    kept[frame] = found
                return found

            return lambda: Remembering(network, embedded, len(clip))
        asked, frames = Interactive(clip.family), clip.pixels()
        return lambda: FrameByFrame(asked, frames)


def remembering(network: PromptableNetwork) -> TrackingNetwork:
    """The network, if it remembers.

    Raises:
        SegfolioError: it does not.
    """
    if not isinstance(network, TrackingNetwork):
        raise SegfolioError(
            f"{type(network).__name__} has no memory by which to follow objects; ask it in each frame by itself "
            "(the protocol frame_by_frame)"
        )
    return network


PRESETS: dict[str, PromptProtocol] = {
    "first_mask": FromFirstFrame(),
    "first_box": FromFirstFrame("box"),
    "first_click": FromFirstFrame("clicks"),
    "first_3clicks": FromFirstFrame("clicks", 3),
    "first_mask_sav": FromFirstFrame(rules="sav"),
    "offline": Rounds(),
    "online": Rounds("online"),
    "frame_by_frame": Rounds(memory=False),
}
"""Protocols of clips by their ids."""
