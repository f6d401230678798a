"""`View`: one reading of an image (classes, objects, or all segments), ready to be drawn beside its truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.sample import Instances, Prediction, Prompted, Size, Target
from segfolio.data.segments import Segments
from segfolio.viz.objects import object_colors
from segfolio.viz.overlay import IGNORED, Bools, Indices, Pixels, class_regions
from segfolio.viz.regions import Regions


@dataclass
class View:
    """Truth and prediction number their regions alike: what was found has the number and colour of the true one.

    Attributes:
        name: `semantic`, `instances`, `panoptic`, `prompted` or `tracked`.
        classes: of the N regions, class indices.
        colors: `[N, 3]`.
        note: on the prediction.
    """

    name: str
    prediction: Regions
    truth: Regions | None
    classes: list[int]
    colors: Pixels
    note: str = ""

    def errors(self) -> tuple[Bools, Bools]:
        """Pixels that are of another region than in the truth, and pixels that do not count; `[H, W]` each."""
        assert self.truth is not None
        ignored = self.truth.ids == IGNORED
        return (self.prediction.ids != self.truth.ids) & ~ignored, ignored


def views(prediction: Prediction, target: Target | None, labels: LabelSpace, min_score: float = 0.5) -> list[View]:
    """All that a prediction holds, each reading beside the truth where the target has it.

    Args:
        target: at the image's original size.
        min_score: of the instances that are shown.
    """
    found, target = [], target or Target()
    if prediction.semantic is not None:
        truth = None if target.semantic is None else target.semantic.cpu().numpy()
        found.append(semantic_view(prediction.semantic.cpu().numpy(), truth, labels))
    if prediction.instances is not None:
        found.append(_instance_view(prediction.instances, prediction.size, target.segments, labels, min_score))
    if prediction.panoptic is not None:
        whole = None if target.segments is None else panoptic_truth(target, labels)
        found.append(_segment_view("panoptic", prediction.panoptic, whole, labels))
    if prediction.prompted is not None:
        found.append(_prompted_view(prediction.prompted, prediction.size, target.segments, labels))
    if prediction.tracked is not None:
        found.append(_tracked_view(prediction.tracked, target.segments, labels))
    return found


def semantic_view(prediction: Indices, truth: Indices | None, labels: LabelSpace) -> View:
    """Maps of class indices `[H, W]`; ignored pixels are `ignore_index`."""
    reference = None if truth is None else Regions(class_regions(truth, labels))
    classes, palette = [*range(labels.num_classes)], np.array(labels.palette, np.uint8)
    return View("semantic", Regions(class_regions(prediction, labels)), reference, classes, palette)


def _instance_view(found: Instances, size: Size, truth: Segments | None, labels: LabelSpace, min_score: float) -> View:
    """Of two objects that overlap, the one that scores more is in front."""
    kept = found.above(min_score)
    shown = Segments(kept.rles, kept.labels, torch.zeros(len(kept.rles)).bool(), size)
    if truth is not None and labels.things:
        truth = truth[torch.tensor(labels.is_thing)[truth.labels.cpu()]]
    view = _segment_view("instances", shown, truth, labels, kept.scores.tolist())
    view.note = f"{len(shown)} of {len(found.rles)} score {min_score:g} or more"
    return view


def _prompted_view(found: Prompted, size: Size, truth: Segments | None, labels: LabelSpace) -> View:
    """The masks after the last round beside the objects that were asked for; smaller ones are in front."""
    of, classes, reference = found.of.tolist(), [0] * len(found.of), None
    if truth is not None and min(of, default=0) >= 0:
        masks, classes = truth.rles, truth.labels.cpu()[found.of.cpu()].tolist()
        reference = Regions(stacked([masks[i] for i in of], size))
    last = Regions(stacked([each[-1] for each in found.rles], size))
    return View("prompted", last, reference, classes, object_colors(classes, labels))


def _tracked_view(found: Segments, truth: Segments | None, labels: LabelSpace) -> View:
    """Objects by their numbers, which are the same in all frames of a clip, and so are their colours."""
    classes: dict[int, int] = {}

    def regions(segments: Segments) -> Regions:
        assert segments.tracks is not None
        numbers = [1 + track for track in segments.tracks.tolist()]
        classes.update(zip(numbers, segments.labels.tolist(), strict=True))
        drawn = np.array([0, *numbers])[stacked(segments.rles, segments.size)]
        return Regions(drawn, {number: (str(number - 1),) for number in numbers})

    prediction = regions(found)
    reference = None if truth is None or truth.tracks is None else regions(truth[truth.tracks.cpu() >= 0])
    every = [classes.get(number, 0) for number in range(1, max(classes, default=0) + 1)]
    return View("tracked", prediction, reference, every, object_colors(every, labels))


def stacked(masks: Sequence[RLE], size: Size) -> Indices:
    """Masks that may overlap as regions `[H, W]`, 1 to N: the smaller lies on top."""
    order = np.argsort(-rle.areas(masks), kind="stable")
    numbers = np.append(0, order + 1)
    return numbers[rle.to_id_map([masks[i] for i in order], size)]


def _segment_view(
    name: str, found: Segments, truth: Segments | None, labels: LabelSpace, scores: Sequence[float] = ()
) -> View:
    ids, classes, _ = _arrays(found)
    numbers, reference = np.arange(1, len(classes) + 1), None
    if truth is not None:
        true_ids, true_classes, crowd = _arrays(truth)
        void = np.append(name == "panoptic", crowd)  # there, a pixel without a segment does not count
        true_ids = np.where(void[true_ids], IGNORED, true_ids)
        numbers = true_numbers(ids, classes, true_ids, true_classes)
        reference = Regions(true_ids, {n: (labels.names[c],) for n, c in enumerate(true_classes, 1)})
        classes = np.append(true_classes, classes[numbers > len(true_classes)])
    regions = Regions(np.append(0, numbers)[ids])
    for n, score in zip_longest(numbers.tolist(), scores):
        text = labels.names[classes[n - 1]]
        regions.captions[n] = (text,) if score is None else (f"{text} {score:.2f}", f"{score:.2f}")
    return View(name, regions, reference, classes.tolist(), object_colors(classes.tolist(), labels))


def true_numbers(
    ids: Indices, classes: npt.NDArray[np.int64], true_ids: Indices, true_classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Of each found region, `[M]`, the number of the true one that it is, or from N + 1 on where it is none.

    It is the one of its class with which it has an IoU above 0.5, of which there is one at most, since regions of a
    map do not overlap; pixels that do not count are left out.
    """
    counts = true_ids != IGNORED
    shape = len(true_classes) + 1, len(classes) + 1
    shared = np.bincount(np.ravel_multi_index((true_ids[counts], ids[counts]), shape), minlength=shape[0] * shape[1])
    shared = shared.reshape(shape)
    union = shared.sum(0) + shared.sum(1, keepdims=True) - shared
    same = (2 * shared > union)[1:, 1:] & (true_classes[:, None] == classes)
    new = ~same.any(0)
    return np.where(new, len(true_classes) + new.cumsum(), same.argmax(0) + 1 if len(true_classes) else 0)


def _arrays(segments: Segments) -> tuple[Indices, npt.NDArray[np.int64], Bools]:
    """Id map, class indices, crowds."""
    return segments.id_map.cpu().numpy(), segments.labels.cpu().numpy(), segments.crowd.cpu().numpy()
