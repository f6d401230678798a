"""How well objects are followed through a clip: J and F, by the rules of DAVIS 2017 or by those of SA-V."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE, Bools
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.boundary import missed
from segfolio.metrics.records import RecordMetric

Floats = npt.NDArray[np.float64]
_TOLERANCE = 0.008  # of the diagonal
_BINS = 4  # parts of a clip, of which the last is compared with the first


def jaccard(prediction: RLE, truth: RLE) -> float:
    """J, the IoU of two masks; 1 of two that are empty."""
    if not rle.areas([prediction, truth]).any():
        return 1.0
    return float(rle.ious([prediction], truth)[0])


def boundary_f(prediction: RLE, truth: RLE) -> float:
    """F, the F1 of the boundary pixels of two masks of one size (Perazzi et al., CVPR 2016, section 4).

    A boundary pixel is right if the other mask has one no further than 0.8 % of the image's diagonal, rounded up to
    whole pixels. F is 1 of two masks that are empty, and 0 where one of them is.
    """
    size = (truth["size"][0], truth["size"][1])
    tolerance = math.nextafter(math.ceil(_TOLERANCE * math.hypot(*size)), math.inf)  # at it a pixel is right
    filled = rle.areas([prediction, truth]) > 0
    if not filled.all():
        return float(not filled.any())
    x, y, width, height = rle.boxes([prediction, truth]).T
    rows, columns = _around(y, height, size[0]), _around(x, width, size[1])
    here, there = (boundary(mask) for mask in rle.decode_window([prediction, truth], size, rows, columns))
    counts = np.array([here.sum(), there.sum()])
    if not counts.all():
        return float(not counts.any())
    right = counts - [len(missed(*pair, tolerance)) for pair in ((here, there), (there, here))]
    precision, recall = right / counts
    return float(2 * precision * recall / (precision + recall)) if right.any() else 0.0


def boundary(mask: Bools) -> npt.NDArray[np.uint8]:
    """The boundary of a mask `[H, W]` as DAVIS draws it, 1 where it is.

    A pixel is of it if it differs from the one on its right, the one below, or the one below on the right; so it lies
    half a pixel to the upper left of the outline. The border of the image is none.
    """
    found = np.zeros(mask.shape, np.uint8)
    found[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    found[:-1] |= mask[:-1] ^ mask[1:]
    found[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return found


def _around(first: Floats, extent: Floats, side: int) -> rle.Indices:
    """The rows or columns of boxes, and one more on either side as far as there are."""
    return np.arange(max(0, int(first.min()) - 1), min(side, int((first + extent).max()) + 1))


class Statistics(NamedTuple):
    """Of one object, over the frames that count."""

    mean: float
    recall: float
    decay: float

    @classmethod
    def of(cls, values: Floats) -> "Statistics":
        """Mean; the part of the frames above 0.5; by how much the mean of the first quarter is above that of the last.

        Quarters share the frames at which they meet. (The released evaluation numbers frames by 8 bits and takes other
        quarters of clips above 256 frames; these do not.)
        """
        ends = np.round(np.linspace(1, len(values), _BINS + 1) + 1e-10).astype(int) - 1
        first, last = values[: ends[1] + 1], values[ends[-2] :]
        return cls(float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean()))


class VideoMetric(RecordMetric):
    """J, F and their mean over all objects of all clips, whatever the number of objects or of frames of each.

    By the rules of **DAVIS 2017**, semi-supervised (arXiv 1704.00675 and its released evaluation): the first frame,
    which was given, and the last do not count; void is background; the objects are those of the first frame, and one
    that comes later is none. By those of **SA-V** (arXiv 2408.00714, released evaluation) the first and the last of the
    annotated frames do not count either; the objects are all that the others show, and each counts from the first of
    them on in which the truth or the prediction has it. An object that is not predicted in a frame is empty there.
    Frames without annotation, whose target has no segments, are left out, and so are clips of which no frame counts.

    `J_recall`, `J_decay`, `F_recall` and `F_decay` see `Statistics`. `J_reappeared` is J of the frames in which an
    object is seen again after the truth has lost it, a mean over the objects that come back; NaN where none does.

    Args:
        rules: davis or sav.

    Raises:
        SegfolioError: other rules.
    """

    figures = of_house("J_and_F", "J", "F", "J_recall", "F_recall", "J_decay", "F_decay", "J_reappeared")

    def __init__(self, labels: LabelSpace, rules: Literal["davis", "sav"] = "davis") -> None:
        super().__init__()
        if rules not in ("davis", "sav"):
            raise SegfolioError(f"the rules of J and F are {rules!r}, expected davis or sav")
        self.rules = rules

    def update_clip(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """See `update`."""
        self.update(predictions, targets)

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Keep one clip.

        Raises:
            SegfolioError: a mask that is not of the truth's size, an object that no frame of the truth has.
            ValueError: a prediction or a truth that does not say which object is which.
        """
        pairs = [(p, t.segments) for p, t in zip(predictions, targets, strict=True) if t.segments is not None]
        found = [by_track(p.tracked, p.image_id) for p, _ in pairs]
        truth = [by_track(segments, p.image_id) for p, segments in pairs]
        for (prediction, segments), masks in zip(pairs, found, strict=True):
            check_tracks(prediction.image_id, masks, segments.size, {track for frame in truth for track in frame})
        size = pairs[0][1].size if pairs else (1, 1)
        objects = truth[:1] if self.rules == "davis" else truth[1:-1]
        tracks = sorted({track for frame in objects for track in frame})
        record = {t: self._followed([f.get(t) for f in found], [f.get(t) for f in truth], size) for t in tracks}
        record = {track: values for track, values in record.items() if len(values[0])}
        self.keep(predictions[0].image_id, record, targets[0].number)

    def _followed(
        self, found: Sequence[RLE | None], truth: Sequence[RLE | None], size: tuple[int, int]
    ) -> tuple[Floats, Floats, Bools]:
        """J and F of one object in each frame that counts, and whether it has reappeared in that frame."""
        empty = rle.from_counts([size[0] * size[1]], size)
        seen = np.array([mask is not None for mask in truth])
        lost = np.logical_or.accumulate(~seen & np.logical_or.accumulate(seen))
        first, past = 1, len(truth) - 1
        if self.rules == "sav":
            first = next(i for i in range(first, past) if found[i] is not None or truth[i] is not None)
        masks = [(found[i] or empty, truth[i] or empty) for i in range(first, past)]
        j, f = (np.array([measure(*pair) for pair in masks]) for measure in (jaccard, boundary_f))
        return j, f, (seen & lost)[first:past]

    def per_object(self) -> dict[tuple[str, int], tuple[float, float]]:
        """J and F of each object, by the image id of its clip's first frame and by its number."""
        return {
            (image_id, track): (float(j.mean()), float(f.mean()))
            for image_id, record in self.records().items()
            for track, (j, f, _) in record.items()
        }

    def compute(self) -> dict[str, Tensor]:
        objects = [each for record in self.records().values() for each in record.values()]
        j, f = (np.array([Statistics.of(each[which]) for each in objects]).reshape(-1, 3) for which in (0, 1))
        returned = [each[0][each[2]].mean() for each in objects if each[2].any()]
        means = {"J": _mean(j[:, 0]), "F": _mean(f[:, 0])}
        return {
            "J_and_F": (means["J"] + means["F"]) / 2,
            **means,
            "J_recall": _mean(j[:, 1]),
            "F_recall": _mean(f[:, 1]),
            "J_decay": _mean(j[:, 2]),
            "F_decay": _mean(f[:, 2]),
            "J_reappeared": _mean(np.array(returned)),
        }


def by_track(segments: Segments | None, image_id: str) -> dict[int, RLE]:
    """The masks of objects that are followed and are not empty, by their numbers."""
    if segments is None or segments.tracks is None:
        raise ValueError(f"{image_id}: J and F are of objects that are followed, but nothing says which is which")
    tracks, masks = segments.tracks.tolist(), segments.rles
    kept = (rle.areas(masks) > 0) & (np.array(tracks) >= 0) & ~segments.crowd.cpu().numpy()
    found = {tracks[i]: masks[i] for i in np.flatnonzero(kept)}
    if len(found) < kept.sum():
        raise ValueError(f"{image_id}: two objects have one number among {tracks}")
    return found


def check_tracks(image_id: str, masks: dict[int, RLE], size: tuple[int, int], known: set[int]) -> None:
    """Raises the one sentence on what cannot be compared with a truth of this size and of these objects."""
    if unknown := sorted(masks.keys() - known):
        raise SegfolioError(
            f"{image_id}: the prediction has the object {unknown[0]}, and the truth of its clip {sorted(known)} alone; "
            "number objects as the truth does"
        )
    for mask in masks.values():
        if list(mask["size"]) != list(size):
            raise SegfolioError(
                f"{image_id}: a mask is {list(mask['size'])} (height, width) but the truth is {list(size)}; masks are "
                "evaluated at the image's original size"
            )


def _mean(values: npt.NDArray[Any]) -> Tensor:
    """NaN of none."""
    return torch.from_numpy(values).double().mean()
