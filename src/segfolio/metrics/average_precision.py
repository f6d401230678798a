"""COCO's average precision and recall of masks and boxes.

The figures are those of pycocotools' `COCOeval`, to the last bit. faster-coco-eval measures the overlaps; its
own sums differ from pycocotools' in the last bit, so matching and summing are done here. NaN stands where
pycocotools says -1: no truth defines the figure.

Two habits of pycocotools are left out: there, a truth whose id is 0 is never found, and a mask that comes with
a box has the area of the box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as _coco

from segfolio.data.formats import coco, rle
from segfolio.data.formats.rle import RLE
from segfolio.errors import SegfolioError

Kind = Literal["segm", "bbox"]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"": (0.0, 1e10), "_small": (0.0, 32.0**2), "_medium": (32.0**2, 96.0**2), "_large": (96.0**2, 1e10)}
"""Pixels, both ends included."""


class Objects(NamedTuple):
    """N truths or detections of a dataset, column by column.

    Attributes:
        images: `[N]`, each image's place in the order of evaluation, which decides between equal scores.
        categories: `[N]`, 0 to K - 1.
        areas: `[N]`, pixels.
        regions: N run lengths, of one size within an image; or N boxes of x, y, width, height in pixels.
    """

    images: Ints
    categories: Ints
    areas: Floats
    regions: Sequence[RLE] | Sequence[list[float]]

    def take(self, rows: Ints) -> "Objects":
        regions: Any = [self.regions[row] for row in rows.tolist()]
        return Objects(self.images[rows], self.categories[rows], self.areas[rows], regions)

    def outside(self) -> Bools:
        """`[N, A]`, whose area is not in the range."""
        low, high = np.array(list(AREAS.values())).T
        return (self.areas[:, None] < low) | (self.areas[:, None] > high)


@dataclass(frozen=True)
class AveragePrecision:
    """Precision and recall of K categories at T = 10 IoUs, R = 101 recalls, in A = 4 ranges of area.

    Attributes:
        precision: `[T, R, K, A]`, with the largest of `max_dets`.
        recall: `[T, K, A, M]`, the highest that is reached.
        max_dets: M numbers of detections per image and category, rising.
    """

    precision: Floats
    recall: Floats
    max_dets: tuple[int, ...]

    @property
    def figures(self) -> dict[str, float]:
        """COCO's figures in COCO's order: AP, AP50, AP75, AP_small, ..., AR_<n> of each `max_dets`, AR_small, ..."""
        ap, ar = self.precision, self.recall
        areas = [(name, a) for a, name in enumerate(AREAS) if name]
        values = {"AP": ap[..., 0], "AP50": ap[0, ..., 0], "AP75": ap[5, ..., 0]}
        values |= {f"AP{name}": ap[..., a] for name, a in areas}
        values |= {f"AR_{n}": ar[..., 0, m] for m, n in enumerate(self.max_dets)}
        values |= {f"AR{name}": ar[..., a, -1] for name, a in areas}
        return {name: _mean(value) for name, value in values.items()}

    @property
    def per_category(self) -> list[float]:
        """AP of each category; NaN for one that the truth lacks."""
        return [_mean(self.precision[:, :, k, 0]) for k in range(self.precision.shape[2])]

    def of_categories(self, chosen: Bools) -> float:
        """AP of the categories that are `chosen`, `[K]`; NaN if the truth lacks all of them."""
        return _mean(self.precision[:, :, chosen, 0])


def average_precision(
    truths: Objects,
    crowd: Bools,
    detections: Objects,
    scores: Floats,
    num_categories: int,
    max_dets: Sequence[int] = (1, 10, 100),
    rank: Ints | None = None,
    tolerated: Bools | None = None,
) -> AveragePrecision:
    """Match detections with truths, image by image and category by category, and sum up.

    Args:
        truths: with their areas as annotated.
        crowd: `[N]`, truths that stand for a group: what lies in them is neither right nor wrong.
        detections: of equal scores in one image, the first goes first.
        scores: of the detections.
        num_categories: K.
        max_dets: how many detections of an image and category count, the best ones; AP takes the largest.
        rank: `[D]`, of each detection among those of which so many count, the best is 0; by scores in its image and
            category if not given.
        tolerated: `[D]`, detections that are neither right nor wrong where no truth is theirs; none if not given.
    """
    max_dets = tuple(sorted(max_dets))
    by_image = np.lexsort((truths.categories, truths.images))
    truths, crowd = truths.take(by_image), crowd[by_image]
    by_score = np.lexsort((-scores, detections.categories, detections.images))
    pairs = (detections.images * num_categories + detections.categories)[by_score]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs, pairs) if rank is None else rank[by_score]
    counted = rank < max_dets[-1]
    pairs, rank, by_score = pairs[counted], rank[counted], by_score[counted]
    detections, scores = detections.take(by_score), scores[by_score]

    edges = _edges(detections, pairs, truths, truths.images * num_categories + truths.categories, crowd)
    ignored = truths.outside() | crowd[:, None]
    found, ignorable = _match(*edges, pairs, ignored, crowd)
    beside = detections.outside()
    if tolerated is not None:
        beside |= tolerated[by_score][:, None]
    ignorable |= ~found & beside[..., None]
    right, wrong = found & ~ignorable, ~(found | ignorable)

    precision = np.full((len(IOUS), len(RECALLS), num_categories, len(AREAS)), np.nan)
    recall = np.full((len(IOUS), num_categories, len(AREAS), len(max_dets)), np.nan)
    best = (rank[:, None] < max_dets).astype(np.float64)
    best_first = np.lexsort((-scores, detections.categories))  # stable: of equal scores, the earlier image's
    bounds = np.searchsorted(detections.categories[best_first], np.arange(num_categories + 1))
    for k, (low, high) in enumerate(pairwise(bounds)):
        rows = best_first[low:high]
        positives = (~ignored[truths.categories == k]).sum(0)
        for a in positives.nonzero()[0]:
            hits = right[rows, a]
            precision[:, :, k, a] = _precision(hits, wrong[rows, a], positives[a])
            recall[:, k, a] = hits.T.astype(np.float64) @ best[rows] / positives[a]
    return AveragePrecision(precision, recall, max_dets)


def _mean(values: Floats) -> float:
    """Of what is defined; `nanmean` adds in another order, which shows in the last bit."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _edges(
    detections: Objects, pairs: Ints, truths: Objects, truth_pairs: Ints, crowd: Bools
) -> tuple[Ints, Ints, Floats]:
    """The E detections, truths and IoUs where the two overlap by enough to match.

    Both come sorted by pair, which is an image and a category.
    """
    edges = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    common = np.intersect1d(pairs, truth_pairs)
    bounds = [np.searchsorted(p, common, side).tolist() for p in (pairs, truth_pairs) for side in ("left", "right")]
    for low, high, first, last in zip(*bounds, strict=True):
        ious = _coco.iou(detections.regions[low:high], truths.regions[first:last], crowd[first:last].tolist())
        d, g = (ious >= IOUS[0]).nonzero()
        edges.append((d + low, g + first, ious[d, g]))
    d, g, iou = map(np.concatenate, zip(*edges, strict=True))
    return d, g, iou


def _match(d: Ints, g: Ints, iou: Floats, pairs: Ints, ignored: Bools, crowd: Bools) -> tuple[Bools, Bools]:
    """Give each detection, best first, the truth that it overlaps most of those still free.

    A truth that is `ignored` is taken only where no other fits; of equal overlaps the later truth is taken.
    Pairs do not touch each other: the n-th detections of all of them choose at the same time.

    Returns:
        `[D, A, T]`: whether the detection has a truth, and whether that one is ignored.
    """
    found, lost = np.zeros((2, len(pairs), len(AREAS), len(IOUS)), np.bool_)
    taken = np.zeros((len(ignored), *found.shape[1:]), np.bool_)
    choosing = np.unique(d)
    turn = np.arange(len(choosing)) - np.searchsorted(pairs[choosing], pairs[choosing])
    turn = turn[np.searchsorted(choosing, d)]
    order = np.lexsort((g, iou, d, turn))  # a detection's best edge is its last
    d, g, iou, turn = d[order], g[order], iou[order], turn[order]
    for low, high in pairwise(np.searchsorted(turn, np.arange(turn.max(initial=-1) + 2))):
        here, count = slice(low, high), high - low
        free = ~taken[g[here]] | crowd[g[here], None, None]
        fits = free & (iou[here, None, None] >= IOUS)
        value = np.arange(count)[:, None] + count * ~ignored[g[here]]
        starts = np.flatnonzero(np.diff(d[here], prepend=-1))
        best = np.maximum.reduceat(np.where(fits, value[..., None], -1), starts)
        chosen, a, t = (best >= 0).nonzero()
        edge = low + best[chosen, a, t] % count
        found[d[edge], a, t] = taken[g[edge], a, t] = True
        lost[d[edge], a, t] = ignored[g[edge], a]
    return found, lost


def _precision(right: Bools, wrong: Bools, positives: int) -> Floats:
    """`[T, R]` of hits and misses `[n, T]`, best first: the highest precision at this recall or a higher one."""
    hits = right.cumsum(0)
    precision = hits / (hits + wrong.cumsum(0) + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    precision = np.concatenate([precision, np.zeros((1, len(IOUS)))])  # of a recall that is not reached
    place = np.full((positives + 1, len(IOUS)), len(right))  # of the n-th hit
    n, t = right.nonzero()
    place[hits[n, t], t], place[0] = n, 0
    needed = np.searchsorted(np.arange(positives + 1) / positives, RECALLS)
    return np.take_along_axis(precision, place[needed], 0).T


def evaluate(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    kind: Kind = "segm",
    max_dets: Sequence[int] = (1, 10, 100),
    names: tuple[object, object] = ("annotations", "results"),
) -> AveragePrecision:
    """Evaluate what was read from COCO's JSON files.

    Args:
        annotations: with `images`, `categories` and `annotations`.
        results: each with `image_id`, `category_id`, `score` and, by `kind`, `segmentation` or `bbox`.
        names: of the two, for errors.

    Returns:
        Categories are in the order of their ids.

    Raises:
        SegfolioError: a key that is missing, an image or category that is not there, a mask that is damaged or
            not of its image's size.
    """
    for key in ("images", "categories", "annotations"):
        if not isinstance(annotations, Mapping) or key not in annotations:
            raise SegfolioError(f"{names[0]}: {key!r} is missing; COCO's annotations are an object that holds it")
    if not isinstance(results, Sequence):
        raise SegfolioError(f"{names[1]}: found {type(results).__name__}; COCO's results are a list of detections")
    truth = annotations["annotations"]
    truths = _objects(truth, annotations, kind, "area", names[0])
    areas = np.array([item["area"] for item in truth], np.float64)
    crowd = np.array([item.get("iscrowd", 0) for item in truth], np.bool_)
    detections = _objects(results, annotations, kind, "score", names[1])
    scores = np.array([item["score"] for item in results], np.float64)
    number = len({category["id"] for category in annotations["categories"]})
    return average_precision(truths._replace(areas=areas), crowd, detections, scores, number, max_dets)


def evaluate_files(
    annotations: Path, results: Path, kind: Kind = "segm", max_dets: Sequence[int] = (1, 10, 100)
) -> AveragePrecision:
    """`evaluate` two files; one that cannot be read, or is no JSON, is a `SegfolioError` too."""
    return evaluate(coco.read_json(annotations), coco.read_json(results), kind, max_dets, (annotations, results))


def _objects(
    items: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any], kind: Kind, key: str, source: object
) -> Objects:
    """The columns of annotations or results, each of which has `key`; areas are those of the regions."""
    needed = ("id", "height", "width") if kind == "segm" else ("id",)
    for number, image in enumerate(annotations["images"]):
        if missing := [name for name in needed if name not in image]:
            raise SegfolioError(f"{source}: image {number} has no {missing[0]!r}, which the figures of {kind} need")
    images = {image["id"]: image for image in annotations["images"]}
    places = {
        "image_id": {number: place for place, number in enumerate(sorted(images))},
        "category_id": {n: k for k, n in enumerate(sorted({c["id"] for c in annotations["categories"]}))},
    }
    region = "segmentation" if kind == "segm" else "bbox"
    for number, item in enumerate(items):
        if missing := [name for name in (*places, key, region) if name not in item]:
            raise SegfolioError(f"{source}: entry {number} has no {missing[0]!r}, which the figures of {kind} need")
        for name, known in places.items():
            if item[name] not in known:
                raise SegfolioError(
                    f"{source}: entry {number} has the {name} {item[name]}, which the annotations do not list; "
                    "evaluate results with the annotations that they were predicted for"
                )
    image, category = (np.array([known[item[name]] for item in items], np.int64) for name, known in places.items())
    if kind == "bbox":
        if wrong := [(n, item["bbox"]) for n, item in enumerate(items) if np.shape(item["bbox"]) != (4,)]:
            raise SegfolioError(
                f"{source}: entry {wrong[0][0]} has the box {wrong[0][1]}, expected x, y, width, height"
            )
        boxes = np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4)
        return Objects(image, category, boxes[:, 2] * boxes[:, 3], boxes.tolist())
    masks = [_mask(x["segmentation"], images[x["image_id"]], f"{source}: entry {n}") for n, x in enumerate(items)]
    return Objects(image, category, rle.areas(masks).astype(np.float64), masks)


def _mask(segmentation: Any, image: Mapping[str, Any], where: str) -> RLE:
    """Polygons or run lengths, compressed or not, to compressed run lengths; an empty list is an empty mask."""
    size = image["height"], image["width"]
    try:
        return rle.from_segmentation(segmentation or {"size": list(size), "counts": [size[0] * size[1]]}, size)
    except SegfolioError as error:
        raise SegfolioError(f"{where}: {error}") from None
