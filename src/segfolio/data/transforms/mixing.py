"""Several samples become one: a mosaic, a mixture of two, objects pasted in.

Objects of all stay apart; those that are covered or cut away are dropped. The first sample says whose the result is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Federated, Sample, Size, Target, to_image, to_pixels
from segfolio.data.segments import Segments
from segfolio.data.transforms.base import Mixing, check_probability
from segfolio.data.transforms.geometry import (
    Array,
    Grid,
    by_four,
    moved_target,
    nearest,
    present,
    resize,
    resize_labels,
    scaled,
)
from segfolio.errors import SegfolioError

Place = tuple[slice, slice]


class Part(NamedTuple):
    """What is seen of an image on a canvas: `[h, w, C]`, the truth of these pixels, and where they are."""

    pixels: Array
    target: Target | None
    place: Place


class Mosaic(Mixing):
    """Four images around a point (YOLOv4, arXiv 2004.10934, section 3.3), on a canvas of twice the size.

    Each is resized as far as `size` holds it, and touches the point with a corner; the point lies in the canvas' middle
    half. What is beyond the canvas is cut away; what no image covers has the mean colour of the first one's part, no
    class and no weight. A `RandomWindow` of `size` usually comes next.

    Args:
        size: height and width of half of the canvas.
        probability: of a mosaic; else the first image is left as it is.
        until_epoch: see `Mixing`.

    Raises:
        SegfolioError: an argument outside its range; images of different channels, or of which some have a truth, or
            objects.
    """

    samples = 4

    def __init__(self, size: Size, probability: float = 1.0, until_epoch: int | None = None) -> None:
        if min(size) < 2:
            raise SegfolioError(f"Mosaic: size is {size}; give at least 2 pixels each way")
        check_probability(self, probability=probability)
        self.size, self.probability, self.until_epoch = size, probability, until_epoch

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return samples[0]
        _check_channels(self, samples)
        _check_truth(self, samples)
        height, width = self.size
        y, x = (int(rng.integers(side // 2, side + side // 2 + 1)) for side in self.size)
        rows, columns = (slice(0, y), slice(y, 2 * height)), (slice(0, x), slice(x, 2 * width))
        parts = [
            _cut(sample, self.size, rows[quarter // 2], columns[quarter % 2], quarter)
            for quarter, sample in enumerate(samples)
        ]
        return _on_canvas(samples[0], parts, (2 * height, 2 * width))


class MixUp(Mixing):
    """Two images, one shining through the other (arXiv 1710.09412), with the objects of both.

    The second is cut off or continued in its mean colour on the right and below, to the first's size.

    Args:
        alpha: the first's part is drawn from Beta(alpha, alpha).
        probability: of a mixture; else the first image is left as it is.
        until_epoch: see `Mixing`.

    Raises:
        SegfolioError: an argument outside its range; a truth without objects, which has no mixture.
    """

    samples = 2

    def __init__(self, alpha: float = 32.0, probability: float = 1.0, until_epoch: int | None = None) -> None:
        if alpha <= 0:
            raise SegfolioError(f"MixUp: alpha is {alpha}; give more than 0")
        check_probability(self, probability=probability)
        self.alpha, self.probability, self.until_epoch = alpha, probability, until_epoch

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return samples[0]
        first, second, target, objects, others = _pair(self, samples)
        part = float(rng.beta(self.alpha, self.alpha))
        pixels = to_pixels(first.image)
        mixed = cv2.addWeighted(pixels, part, to_pixels(second.image), 1 - part, 0).reshape(pixels.shape)
        layers = _both(_layers(objects), _layers(others), objects, others)
        target = replace(target, segments=_united([objects, others], layers), semantic=None, weight=None)
        return replace(first, image=to_image(mixed), target=target)


class CopyPaste(Mixing):
    """Some of the second image's objects are pasted into the first (arXiv 2012.07177, section 3), over what is there.

    The second image comes to the first's size as in `MixUp`. Crowds are not pasted. A semantic map shows what is
    pasted; whole objects of the first that are covered are dropped.

    Args:
        share: each object is pasted with this probability.
        probability: of pasting; else the first image is left as it is.
        until_epoch: see `Mixing`.

    Raises:
        SegfolioError: an argument outside its range; a truth without objects.
    """

    samples = 2

    def __init__(self, share: float = 0.5, probability: float = 1.0, until_epoch: int | None = None) -> None:
        check_probability(self, share=share, probability=probability)
        self.share, self.probability, self.until_epoch = share, probability, until_epoch

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return samples[0]
        first, second, target, objects, others = _pair(self, samples)
        chosen = torch.from_numpy(rng.random(len(others)) < self.share) & ~others.crowd
        others = others[chosen]
        pasted = _layers(others)
        over = np.asarray(pasted.any(0))
        pixels = np.where(over[..., None], to_pixels(second.image), to_pixels(first.image))
        layers = _both(np.where(over, 0, _layers(objects)), pasted, objects, others)
        if target.semantic is not None:
            classes = np.concatenate([[0], others.labels.numpy()])[pasted.max(0)]
            semantic = np.where(over, classes, target.semantic.numpy()).astype(target.semantic.numpy().dtype)
            target = replace(target, semantic=Mask(torch.from_numpy(semantic)))
        target = replace(target, segments=present(_united([objects, others], layers)))
        return replace(first, image=to_image(pixels), target=target)


def _cut(sample: Sample, size: Size, rows: slice, columns: slice, quarter: int) -> Part:
    """What an image shows of itself in a quarter of the canvas. Its inner corner is the quarter's.

    Args:
        rows, columns: of the quarter.
        quarter: its number, row by row.
    """
    pixels = to_pixels(sample.image)
    height, width = pixels.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    resized = scaled(height, scale), scaled(width, scale)
    y, top = _against(resized[0], rows, at_end=quarter < 2)
    x, left = _against(resized[1], columns, at_end=quarter % 2 == 0)

    def grid() -> Grid:
        return nearest(height, resized[0])[y], nearest(width, resized[1])[x]

    def labels(plane: Array, _: int) -> Array:
        return np.ascontiguousarray(resize_labels(plane, resized)[y, x])

    shown = resize(pixels, resized)[y, x]
    return Part(shown, moved_target(sample, shown.shape[:2], labels, grid), (top, left))


def _against(length: int, there: slice, at_end: bool) -> tuple[slice, slice]:
    """Which of `length` pixels are seen `there`, where they touch its end or its start; and where they are."""
    seen = min(length, there.stop - there.start)
    if at_end:
        return slice(length - seen, length), slice(there.stop - seen, there.stop)
    return slice(0, seen), slice(there.start, there.start + seen)


def _on_canvas(first: Sample, parts: Sequence[Part], size: Size) -> Sample:
    """Parts that do not overlap, the first of them of the sample `first`; the rest is as its mean."""
    pixels = parts[0].pixels
    canvas = np.empty((*size, pixels.shape[2]), pixels.dtype)
    if sum(part.pixels.shape[0] * part.pixels.shape[1] for part in parts) < size[0] * size[1]:
        canvas[0] = _mean(pixels)
        canvas[1:] = canvas[0]
    for part in parts:
        canvas[part.place] = part.pixels
    targets, places = [part.target for part in parts if part.target], [part.place for part in parts]
    if len(targets) < len(parts):
        return replace(first, image=to_image(canvas), target=None)
    found = [target.segments for target in targets if target.segments is not None]
    target = replace(
        targets[0],
        semantic=_laid([each.semantic for each in targets], places, size, targets[0].ignore_index),
        weight=_laid([each.weight for each in targets], places, size, 0),
        segments=_united(found, _numbered(found, places, size)) if len(found) == len(parts) else None,
        federated=_searched(targets),
    )
    return replace(first, image=to_image(canvas), target=target)


def _numbered(parts: Sequence[Segments], places: Sequence[Place], size: Size) -> Array:
    """Id maps of all, each in its place, with the numbers of one after those of another."""
    layers, before = [_layers(part) for part in parts], 0
    ids = np.zeros((max(map(len, layers)), *size), _fitting(sum(map(len, parts))))
    for layer, part, place in zip(layers, parts, places, strict=True):
        ids[: len(layer), *place] = _after(layer, before, ids.dtype.type)
        before += len(part)
    return ids


def _both(ids: Array, more: Array, objects: Segments, others: Segments) -> Array:
    """Id maps of the first and then those of the others, numbered after them."""
    dtype = _fitting(len(objects) + len(others))
    return np.concatenate([ids.astype(dtype), _after(more, len(objects), dtype)])


def _laid(maps: Sequence[Mask | None], places: Sequence[Place], size: Size, fill: int) -> Mask | None:
    """Maps `[h, w]` in their places."""
    known = [each.numpy() for each in maps if each is not None]
    if len(known) < len(maps):
        return None
    canvas = np.full(size, fill, known[0].dtype)
    for each, place in zip(known, places, strict=True):
        canvas[place] = each
    return Mask(torch.from_numpy(canvas))


def _pair(of: Mixing, samples: Sequence[Sample]) -> tuple[Sample, Sample, Target, Segments, Segments]:
    """Two samples of the first one's size, the first one's truth, and the objects of both."""
    _check_channels(of, samples)
    first, second = samples
    size, own = ((sample.image.shape[-2], sample.image.shape[-1]) for sample in (first, second))
    part = _cut(second, own, slice(0, size[0]), slice(0, size[1]), quarter=3)
    second = _on_canvas(second, [part], size)
    target, other = first.target, second.target
    if target is None or target.segments is None or other is None or other.segments is None:
        raise SegfolioError(
            f"{type(of).__name__} mixes objects, but {first.image_id} or {second.image_id} has none annotated; "
            "leave it out, or take a dataset of instances"
        )
    return first, second, replace(target, federated=_searched([target, other])), target.segments, other.segments


def _check_channels(of: Mixing, samples: Sequence[Sample]) -> None:
    channels = sorted({str(sample.image.shape[0]) for sample in samples})
    if len(channels) > 1:
        raise SegfolioError(
            f"{type(of).__name__} of images of {' and '.join(channels)} channels; mix those of one kind"
        )


def _check_truth(of: Mixing, samples: Sequence[Sample]) -> None:
    """Refuses samples of which some have a truth, or objects."""
    for what, known in (
        ("truth is", [sample.target is not None for sample in samples]),
        ("objects are", [sample.target is not None and sample.target.segments is not None for sample in samples]),
    ):
        if any(known) and not all(known):
            first, other = (samples[known.index(each)].image_id for each in (True, False))
            raise SegfolioError(
                f"{type(of).__name__}: of {first} the {what} annotated, of {other} not; mix images that are annotated "
                "alike"
            )


def _searched(targets: Sequence[Target]) -> Federated | None:
    """For what all images were searched."""
    known = [target.federated for target in targets if target.federated]
    if not known:
        return None
    absent = set(known[0].absent).intersection(*(each.absent for each in known))
    return Federated(tuple(sorted(absent)), tuple(sorted({each for some in known for each in some.not_exhaustive})))


def _layers(segments: Segments) -> Array:
    """Id maps `[L, H, W]`."""
    form = segments.compact().form
    assert isinstance(form, Tensor)
    return form.numpy().reshape(-1, *segments.size)


def _after(ids: Array, before: int, dtype: Any) -> Array:
    """Numbers after those of `before` others."""
    return ids.astype(dtype) + (ids > 0) * dtype(before)


def _fitting(count: int) -> Any:
    """The smallest type of id maps for so many objects."""
    return np.uint8 if count <= 0xFF else np.int32


def _mean(pixels: Array) -> Array:
    """`[C]`, in the image's type."""
    colour = by_four(pixels, lambda part: np.array([[cv2.mean(part)[: 1 if part.ndim == 2 else part.shape[2]]]]))
    return (np.rint(colour) if pixels.dtype.kind in "ui" else colour).astype(pixels.dtype).ravel()


def _united(parts: Sequence[Segments], ids: Array) -> Segments:
    """The objects of all, in the order of the numbers that they have in id maps `[L, H, W]`."""
    labels, crowd = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "crowd"))
    tracks, box_only = ([getattr(part, name) for part in parts] for name in ("tracks", "box_only"))
    form = Mask(torch.from_numpy(ids if len(ids) > 1 else ids[0]))
    return Segments(form, labels, crowd, tracks=_joined(tracks), box_only=_joined(box_only))


def _joined(known: Sequence[Tensor | None]) -> Tensor | None:
    """Where all parts have it."""
    found = [each for each in known if each is not None]
    return torch.cat(found) if len(found) == len(known) else None
