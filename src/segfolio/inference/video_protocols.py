"""Test protocols of clips: what is said of an object, in which frame, and how it is followed from there.

A protocol is a value in YAML: `test: {protocol: first_mask}`, a preset of `prompt_protocols`, or a class with its
arguments, such as `class_path: segfolio.inference.video_protocols.FromFirstFrame` and `init_args: {prompt: box}`. All
masks have the frames' original size.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Literal, Protocol

import numpy as np
import torch

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.prompts import Prompts
from segfolio.data.sample import Batch, Prediction
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.inference.asking import Asked, PromptProtocol
from segfolio.inference.clicks import Click, first_click, next_click
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import Tracker
from segfolio.layers.prompting import PromptableNetwork
from segfolio.layers.tracking import TrackingNetwork
from segfolio.metrics import Evaluator
from segfolio.metrics.video import VideoMetric, by_track

Rules = Literal["davis", "sav"]
Objects = dict[int, RLE]
"""The masks of a frame, by the objects' numbers."""


class Follows(Asked, Protocol):
    """What a protocol of clips needs of a family."""

    network: PromptableNetwork


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
    """Each object is prompted in the first frame that shows it, and followed from there by what is remembered.

    By a mask this is semi-supervised video object segmentation; by a few clicks or a box what SAM 2 is tested by beside
    it (2408.00714, section 6.1 and its appendix on prompts in the first frame).

    Args:
        prompt: the mask of the truth, the box around it, or clicks in the middle of it and then of the deepest error.
        clicks: how many, at most.
        rules: by which J and F are measured, see `VideoMetric`. By those of DAVIS an object's pixel is no other's: that
            of the highest logit has it. By those of SA-V objects may overlap.
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
    ) -> None:
        if prompt not in ("mask", "box", "clicks"):
            raise SegfolioError(f"prompt of FromFirstFrame is {prompt!r}, expected mask, box or clicks")
        if clicks < 1 or holes < 0:
            raise SegfolioError(f"FromFirstFrame: {clicks} clicks and holes of {holes} cells; give at least 1 and 0")
        self.prompt, self.clicks, self.rules, self.holes = prompt, clicks, rules, holes

    @property
    def words(self) -> str:
        given = {"mask": "the mask", "box": "the box", "clicks": f"{self.clicks} clicks at most"}[self.prompt]
        return f"{given} of each object in the first frame that shows it, J and F by the rules of {self.rules.upper()}"

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        return [VideoMetric(labels, self.rules)]

    def of_clip(self, clip: Clip) -> list[Prediction]:
        tracker = Tracker(remembering(clip.family.network), len(clip), holes=self.holes)
        told = set[int]()
        predictions = []
        for frame, truth in enumerate(clip.truth):
            new = {track: mask for track, mask in (truth or {}).items() if track not in told}
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
        if self.rules == "davis":
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
        made = {track: [first_click(mask)] for track, mask in truth.items()}
        for _ in range(self.clicks):
            prompts = clicked({track: clicks for track, clicks in made.items() if clicks}, image)
            if not len(prompts):
                break
            found = tracker.prompt(frame, image, prompts)
            shown = (image.enlarge(found.masks.float(), 0) > 0).cpu().numpy()
            nexts = {track: next_click(truth[track], mask) for track, mask in zip(found.objects, shown, strict=True)}
            made = {track: [*made[track], click] for track, click in nexts.items() if click is not None}


def clicked(clicks: Mapping[int, Sequence[Click | None]], image: EmbeddedImages) -> Prompts:
    """All that were made for each object, equally many, as prompts of a frame."""
    device = image.embedding[0].device
    made = [[click for click in each if click is not None] for each in clicks.values()]
    points = torch.tensor([[click[:2] for click in each] for each in made], device=device).reshape(len(made), -1, 2)
    kinds = torch.tensor([[click.kind for click in each] for each in made], device=device, dtype=torch.int64)
    return Prompts(torch.tensor(list(clicks), device=device, dtype=torch.int64), points, kinds.reshape(len(made), -1))


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
}
"""Protocols of clips by their ids."""
