"""From a split to batches: clips read, transformed, prepared and stacked; all but the stacking of each by itself."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import pad
from torch.utils.data import Dataset

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.sample import Batch, Sample
from segfolio.data.samplers import Draw
from segfolio.data.transforms import Mixing, Transform
from segfolio.errors import SegfolioError

Clip = list[Sample]
"""Frames in their order; of a dataset of images one."""


class Augmented(Dataset[Clip]):
    """Training clips. The random stream of each comes with its draw; its frames have the same one, from its start.

    Args:
        preparation: the family's, after the transforms; None where it needs none.
        cache: keep the images that were read.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        transforms: Sequence[Transform | Mixing],
        preparation: Transform | None = None,
        cache: bool = False,
    ) -> None:
        self.dataset, self.transforms, self.preparation = dataset, transforms, preparation
        self.cache: dict[int, Sample] | None = {} if cache else None

    def __getitem__(self, draw: Draw) -> Clip:
        return [self._frame(draw, frame) for frame in range(len(self.dataset.frames_of(draw.clip)))]

    def _frame(self, draw: Draw, frame: int) -> Sample:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(draw.key)))
        sample = self._transformed(draw.clip, frame, self.transforms, rng)
        if self.preparation is not None:
            sample = self.preparation(sample, rng)
        if sample.prompts is not None:
            sample.prompts.check((sample.image.shape[-2], sample.image.shape[-1]), sample.image_id)
        return sample

    def _transformed(
        self, clip: int, frame: int, transforms: Sequence[Transform | Mixing], rng: np.random.Generator
    ) -> Sample:
        """A frame after some transforms. What is mixed into it has come through those before the mixing."""
        frames = self.dataset.frames_of(clip)
        sample = self._read(frames[min(frame, len(frames) - 1)])
        for place, transform in enumerate(transforms):
            if isinstance(transform, Mixing):
                further = rng.integers(self.dataset.clip_count, size=transform.samples - 1).tolist()
                mixed = [self._transformed(clip, frame, transforms[:place], rng) for clip in further]
                sample = transform([sample, *mixed], rng)
            else:
                sample = transform(sample, rng)
        return sample

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


def collate(clips: Sequence[Clip], padded: bool = False) -> Batch:
    """Stack the frames of clips, all of one size, or `padded` with zeros on the right and below.

    Raises:
        SegfolioError: sizes that differ and are not to be padded, by image.
    """
    samples = [sample for clip in clips for sample in clip]
    shapes = [(s.image.shape[-2], s.image.shape[-1]) for s in samples]
    images = [s.image.as_subclass(torch.Tensor) for s in samples]
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
        targets=[s.target for s in samples if s.target is not None],
        sizes=shapes,
        prompts=[s.prompts for s in samples if s.prompts is not None],
        clips=[len(clip) for clip in clips],
    )
