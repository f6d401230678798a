"""`ClipPrompts`: which objects of a clip are trained on, in which frames they are prompted, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.clips import ClipFrames
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.prompt_sampling import areas_of, noisy_boxes, points_in
from segfolio.data.prompts import NOT_OBJECT, OBJECT, Prompts
from segfolio.data.sample import Sample
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

Kind = Literal["mask", "point", "box"]
_LOOKED_AT = 8  # clips of a split, before training


class ClipPlan(NamedTuple):
    """What all clips of an optimiser step that have so many frames are asked with.

    Attributes:
        first: of each frame that is prompted before anything is followed, in this order, with what.
        corrected: the frames whose answers are corrected by clicks, these or others.
    """

    first: dict[int, Kind]
    corrected: frozenset[int]


@dataclass(frozen=True)
class ClipPrompts:
    """A preparation of clips: objects, and all that is random about asking for them (SAM 2, arXiv 2408.00714, section 5
    and appendix D.2; what it leaves open as in facebookresearch/sam2, `training/model/sam2.py`).

    Of the objects of the first frame that shows one, at most `max_objects` are chosen at random, and followed through
    the frames after it; earlier ones are left out, and so are frames that are not annotated. In each frame each object
    has a point, uniform in its mask, and a noisy box; where it is not seen, a point that is not on it and no box. In
    which frames these are used, and which of them, is the same for all clips of a step, see `plan`. Where the clicks of
    a correction are to fall depends on the answers: each frame brings `extras["clicks"]`, `[max_objects, clicks]`
    float32, the place of each in the error region from 0 to 1, and `extras["of_truth"]`, of the same size, of those
    that fall anywhere on the object. So all that is random is of the clip's own stream.

    Crowds and what is not followed are left out.

    Args:
        max_objects: of a clip (3 in the released fine-tuning).
        clicks: that correct an answer, one after the other.
        from_truth: probability that one of them falls on the object, and not in the error region.
        prompted_frames: 1 to so many frames are prompted, the first among them. Frames that are corrected without
            having been prompted count among these.
        mask_probability: of a step whose objects are given by their masks, which nobody corrects. A clip of one frame
            is asked by points or boxes.
        box_probability: of a frame, in the other steps, to be prompted by boxes and not by points.
        min_area: in pixels of the sample, below which an object of the first frame is left out.
        box_noise: standard deviation of each side of a box, in parts of the box's extent in that direction.
        most_box_noise: in pixels.

    Raises:
        SegfolioError: an argument outside its range.
    """

    max_objects: int = 3
    clicks: int = 7
    from_truth: float = 0.1
    prompted_frames: int = 2
    mask_probability: float = 0.5
    box_probability: float = 0.5
    min_area: int = 1
    box_noise: float = 0.1
    most_box_noise: float = 20.0

    def __post_init__(self) -> None:
        for name in ("max_objects", "prompted_frames", "min_area"):
            if (value := getattr(self, name)) < 1:
                raise SegfolioError(f"{name} of ClipPrompts is {value}, expected 1 or more")
        for name in ("clicks", "most_box_noise"):
            if (value := getattr(self, name)) < 0:
                raise SegfolioError(f"{name} of ClipPrompts is {value}, expected 0 or more")
        for name in ("from_truth", "mask_probability", "box_probability", "box_noise"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise SegfolioError(f"{name} of ClipPrompts is {value}, expected 0 to 1")

    def plan(self, seed: int, step: int, frames: int) -> ClipPlan:
        """In all processes and passes."""
        rng = np.random.default_rng([seed, step])
        given = rng.random() < self.mask_probability and frames > 1
        most = min(self.prompted_frames, frames - given)  # of frames whose masks are all given nothing is learned
        first = int(rng.integers(1, most, endpoint=True))
        corrected = int(rng.integers(first, most, endpoint=True))
        chosen = [0, *(1 + rng.permutation(frames - 1)).tolist()]
        boxes = rng.random(most) < self.box_probability
        kinds: list[Kind] = ["mask" if given else "box" if box else "point" for box in boxes]
        return ClipPlan(dict(zip(chosen[:first], kinds, strict=False)), frozenset(() if given else chosen[:corrected]))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.of_clip([sample], rng)[0]

    def of_clip(self, samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
        """As `ClipPreparation`.

        Raises:
            SegfolioError: no truth, or one that does not say which object is which.
        """
        annotated = [sample for sample in samples if _segments(sample) is not None] or [
            _empty(sample) for sample in samples[:1]
        ]
        shows = [self._places(sample) for sample in annotated]
        first = next((frame for frame, places in enumerate(shows) if len(places)), len(shows) - 1)
        chosen = np.sort(rng.permutation(shows[first])[: self.max_objects])
        segments = _segments(annotated[first])
        assert segments is not None
        objects = segments[torch.from_numpy(chosen)]
        return [self._prepared(sample, objects, rng) for sample in annotated[first:]]

    def _places(self, sample: Sample) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Among the segments of a frame, those that may be chosen."""
        segments = _segments(sample)
        assert segments is not None
        return np.flatnonzero((areas_of(segments) >= self.min_area) & _followed(segments))

    def _prepared(self, sample: Sample, objects: Segments, rng: np.random.Generator) -> Sample:
        segments = _segments(sample)
        assert segments is not None
        assert objects.tracks is not None
        masks = np.zeros((len(objects), *segments.size), np.bool_)
        tracks, here = objects.tracks.tolist(), _tracks(segments).numpy()
        found = np.flatnonzero(np.isin(here, tracks) & _followed(segments))
        rows = [tracks.index(track) for track in here[found]]
        masks[rows] = segments[torch.from_numpy(found)].masks.numpy()
        seen = torch.from_numpy(masks.any((1, 2)))
        prompts = Prompts(
            of=torch.arange(len(objects)),
            points=points_in(masks, rng),
            kinds=torch.where(seen, OBJECT, NOT_OBJECT)[:, None],
            boxes=noisy_boxes(masks, rng, self.box_noise, self.most_box_noise),
        )
        places = rng.random((2, self.max_objects, self.clicks), np.float32)
        extras = {"clicks": torch.from_numpy(places[0]), "of_truth": torch.from_numpy(places[1] < self.from_truth)}
        assert sample.target is not None
        target = replace(
            sample.target,
            semantic=None,
            segments=objects.with_masks(Mask(torch.from_numpy(masks))).compact(),
            weight=None,
        )
        return replace(sample, target=target, prompts=prompts, extras=extras)


def check_clips(dataset: SegmentationDataset, name: str, frames: ClipFrames | None) -> None:
    """Before training: whether there are clips with objects that are followed, as far as a few of the split show.

    Args:
        name: of the split.
        frames: which frames of a clip are trained on.

    Raises:
        SegfolioError: images by themselves, videos that are all shorter than what is trained on, objects without
            numbers, none in any of the clips.
    """
    if dataset.clips is None:
        raise SegfolioError(
            f"objects are followed through clips, but {name} of {type(dataset).__name__} holds images by themselves; "
            "take a dataset of videos, or segfolio.families.Promptable"
        )
    longest = max(map(len, dataset.clips), default=0)
    if frames is not None and longest < frames.frames:
        raise SegfolioError(
            f"data.clip_frames asks for {frames.frames} frames, but the longest video of {name} has {longest}; lower it"
        )
    seen = 0
    for clip in list(dataset.clips)[:: max(1, len(dataset.clips) // _LOOKED_AT)][:_LOOKED_AT]:
        for index in (clip[0], clip[len(clip) // 2]):
            segments = _segments(dataset[index])
            seen += 0 if segments is None else int(_followed(segments).sum())
    if not seen:
        raise SegfolioError(f"none of the clips of {name} that were looked at shows an object; see its annotation")


def _segments(sample: Sample) -> Segments | None:
    """Of a frame that is annotated."""
    if sample.target is None:
        raise SegfolioError(f"{sample.image_id} has no truth, and objects cannot be followed without")
    if sample.target.segments is not None:
        _tracks(sample.target.segments, sample.image_id)
    return sample.target.segments


def _tracks(segments: Segments, image_id: str = "") -> Tensor:
    if segments.tracks is None:
        raise SegfolioError(
            f"{image_id} does not say which object is which in the other frames of its clip; take a dataset of videos"
        )
    return segments.tracks


def _followed(segments: Segments) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """`[N]`, which of them are."""
    return (_tracks(segments) >= 0).numpy() & ~segments.crowd.numpy()


def _empty(sample: Sample) -> Sample:
    """With an annotation that holds nothing."""
    none, size = torch.zeros(0, dtype=torch.int64), sample.image.shape[-2:]
    masks = Mask(torch.zeros(0, *size, dtype=torch.bool))
    assert sample.target is not None
    return replace(sample, target=replace(sample.target, segments=Segments(masks, none, none > 0, tracks=none)))
