"""From a split to batches: clips read, transformed, prepared and stacked; all but the stacking of each by itself."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from segfolio.data.clips import ClipFrames
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.sample import Batch, Extra, Sample
from segfolio.data.samplers import Draw
from segfolio.data.transforms import ClipPreparation, Mixing, Transform
from segfolio.errors import SegfolioError

Clip = list[Sample]
"""Frames in their order; of a dataset of images one."""

Path = tuple[int, ...]
"""Of a sample that is mixed into another: the place of the mixing, and which one it is; again for mixings of those."""


class Augmented(Dataset[Clip]):
    """Training clips. The random stream of each comes with its draw; its frames have the same one, from its start.

    What draws by what it sees, mixing and preparation, has a stream of its own, and so has the choice of frames: it
    leaves that of the transforms where it was, equal for all frames.

    Args:
        preparation: the family's, after the transforms; None where it needs none.
        cache: keep the images that were read.
        clip_frames: which frames of a clip are drawn; all that `frames_of` gives if not given.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        transforms: Sequence[Transform | Mixing],
        preparation: Transform | None = None,
        cache: bool = False,
        clip_frames: ClipFrames | None = None,
    ) -> None:
        self.dataset, self.transforms, self.preparation = dataset, transforms, preparation
        self.clip_frames = clip_frames
        self.cache: dict[int, Sample] | None = {} if cache else None

    def __getitem__(self, draw: Draw) -> Clip:
        frames = range(len(self._frames(draw)))
        samples = self._prepared([self._transformed(draw, frame, self.transforms) for frame in frames], draw)
        for sample in samples:
            if sample.prompts is not None:
                sample.prompts.check((sample.image.shape[-2], sample.image.shape[-1]), sample.image_id)
        return samples

    def _frames(self, draw: Draw, path: Path = ()) -> Sequence[int]:
        rng = _stream(draw, *path, 0)
        frames = self.dataset.frames_of(draw.clip, rng)
        return frames if self.clip_frames is None else self.clip_frames(frames, rng)

    def _transformed(self, draw: Draw, frame: int, transforms: Sequence[Transform | Mixing], path: Path = ()) -> Sample:
        """A frame after some transforms. What is mixed into it has come through those before the mixing."""
        frames, rng = self._frames(draw, path), _stream(draw, *path)
        sample = self._read(frames[min(frame, len(frames) - 1)])
        for place, transform in enumerate(transforms, 1):
            if not isinstance(transform, Mixing):
                sample = transform(sample, rng)
            elif transform.until_epoch is None or draw.key[1] < transform.until_epoch:
                own = _stream(draw, *path, place)
                further = own.integers(self.dataset.clip_count, size=transform.samples - 1).tolist()
                mixed = [
                    self._transformed(draw._replace(clip=clip), frame, transforms[: place - 1], (*path, place, which))
                    for which, clip in enumerate(further)
                ]
                sample = transform([sample, *mixed], own)
        return sample

    def _prepared(self, samples: Clip, draw: Draw) -> Clip:
        place = len(self.transforms) + 1
        if isinstance(self.preparation, ClipPreparation):
            return self.preparation.of_clip(samples, _stream(draw, place))
        if self.preparation is None:
            return samples
        return [self.preparation(sample, _stream(draw, place)) for sample in samples]

    def _read(self, index: int) -> Sample:
        if self.cache is None:
            return self.dataset[index]
        if index not in self.cache:
            self.cache[index] = self.dataset[index]
        return self.cache[index]


class ForEvaluation(Dataset[Clip]):
    """Evaluation clips: transforms see the image alone, the truth stays as it is."""

    def __init__(self, dataset: SegmentationDataset, transforms: Sequence[Transform]) -> None:
        self.dataset, self.transforms = dataset, transforms

    def __getitem__(self, clip: int) -> Clip:
        return [self._frame(index) for index in self.dataset.frames_of(clip)]

    def _frame(self, index: int) -> Sample:
        whole = self.dataset[index]
        sample = replace(whole, target=None)
        for transform in self.transforms:
            sample = transform(sample, np.random.default_rng(index))
        return replace(sample, target=whole.target)


def _stream(draw: Draw, *path: int) -> np.random.Generator:
    """A draw's random stream, or one of its own for what is at a place of it."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(draw.key, spawn_key=path)))


def collate(clips: Sequence[Clip], padded: bool = False) -> Batch:
    """Stack the frames of clips, all of one size, or `padded` with zeros on the right and below.

    Raises:
        SegfolioError: sizes that differ and are not to be padded, by image; a truth, prompts or
            extras of some images alone, extras of several shapes.
    """
    samples = [sample for clip in clips for sample in clip]
    shapes = [(s.image.shape[-2], s.image.shape[-1]) for s in samples]
    images = [s.image.as_subclass(Tensor) for s in samples]
    if padded:
        height, width = map(max, zip(*shapes, strict=True))
        images = [pad(image, (0, width - w, 0, height - h)) for image, (h, w) in zip(images, shapes, strict=True)]
    if len(sizes := {image.shape for image in images}) > 1:
        found = ", ".join(f"{s.image_id} {s.image.shape[-1]}x{s.image.shape[-2]}" for s in samples[:4])
        raise SegfolioError(
            f"a batch holds images of {len(sizes)} sizes ({found}); add a RandomWindow with a `size` to "
            "data.train_transforms, or let each pass have one image (trainer.accumulate_grad_batches as many as "
            "data.batch_size; in evaluation data.eval_batch_size 1); the family Detection can also have them padded "
            "(data.pad_batches)"
        )
    return Batch(
        images=torch.stack(images),
        image_ids=[s.image_id for s in samples],
        original_sizes=[s.original_size for s in samples],
        targets=_of_all(samples, "target"),
        sizes=shapes,
        prompts=_of_all(samples, "prompts"),
        clips=[len(clip) for clip in clips],
        extras=_stacked_extras(samples),
    )


def _of_all(samples: Sequence[Sample], name: str) -> list[Any]:
    """What each of them has under a name; none where none has it."""
    found = [getattr(sample, name) for sample in samples]
    lacking = [sample.image_id for sample, each in zip(samples, found, strict=True) if each is None]
    if lacking and len(lacking) < len(samples):
        raise SegfolioError(
            f"{lacking[0]} has no {name}, and other images of its batch have; give all images of the split one or none"
        )
    return [] if lacking else found


def _stacked_extras(samples: Sequence[Sample]) -> dict[str, Extra]:
    """By name; element by element where each sample has a list."""
    first, stacked = samples[0], dict[str, Extra]()
    wanted = _shapes(first)
    for other in samples[1:]:
        if differing := wanted.items() ^ (found := _shapes(other)).items():
            name = min(name for name, _ in differing)
            a, b = (shapes.get(name, "none") for shapes in (wanted, found))
            raise SegfolioError(
                f"the extra {name!r} of {first.image_id} is {a} and of {other.image_id} {b}; a preparation makes it "
                "alike for all images of a batch"
            )
    for name, extra in first.extras.items():
        each = [sample.extras[name] for sample in samples]
        stacked[name] = _stacked(each) if isinstance(extra, Tensor) else list(map(_stacked, zip(*each, strict=True)))
    return stacked


def _shapes(sample: Sample) -> dict[str, str]:
    """Of each extra, in words that differ where they cannot be stacked."""
    return {
        name: str(list(extra.shape) if isinstance(extra, Tensor) else [list(each.shape) for each in extra])
        for name, extra in sample.extras.items()
    }


def _stacked(each: Sequence[Any]) -> Tensor:
    return torch.stack([tensor.as_subclass(Tensor) for tensor in each])
