"""Time of COCO's mask AP, ours against pycocotools and torchmetrics.

    python benchmarks/average_precision.py

250 images of 480 x 640, 80 categories, 3,000 truths and 10,000 detections, one CPU thread. Each is given what
it takes, prepared beforehand: ours predictions and targets (run lengths), pycocotools COCO's JSON as objects,
torchmetrics dense masks. Timed is all that follows, until the figures are there.
"""

import contextlib
import gc
import io
import time
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from segfolio.data.formats import rle
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Instances, Prediction, Target
from segfolio.data.segments import Segments
from segfolio.metrics.instance import InstanceMetric

AIMS = {"pycocotools time": ">= 10", "torchmetrics time": ">= 12", "dense masks memory": ">= 50"}
IMAGES, SIZE, CATEGORIES, ROUNDS = 250, (480, 640), 80, 2
TRUTHS, DETECTIONS = 12, 40  # of each image


def ellipses(axes: np.ndarray) -> list[rle.RLE]:
    """Run lengths of ellipses by centre, half axes and angle, `[N, 5]`."""
    masks = np.zeros((len(axes), *SIZE), np.uint8)
    for mask, (x, y, a, b, angle) in zip(masks, axes.tolist(), strict=True):
        cv2.ellipse(mask, (round(x), round(y)), (round(a), round(b)), angle, 0, 360, 1, -1)
    return rle.encode(masks.view(np.bool_))


def images() -> list[tuple[Prediction, Target]]:
    """Truths of few categories in an image; half of the detections are right, the others of any category."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(IMAGES):
        truth = rng.uniform(
            (0, 0, np.log(5), np.log(5), 0), (SIZE[1], SIZE[0], np.log(90), np.log(90), 180), (TRUTHS, 5)
        )
        truth[:, 2:4] = np.exp(truth[:, 2:4])
        labels = rng.choice(rng.choice(CATEGORIES, 4), TRUTHS)
        near = rng.integers(TRUTHS, size=DETECTIONS)
        found = truth[near]
        found[:, :2] += found[:, 2:4] * rng.normal(0, 0.15, (DETECTIONS, 2))
        found[:, 2:4] *= rng.normal(1, 0.1, (DETECTIONS, 2))
        right = rng.random(DETECTIONS) < 0.5
        found_labels = np.where(right, labels[near], rng.integers(CATEGORIES, size=DETECTIONS))
        scores = torch.from_numpy(rng.beta(2 + 2 * right, 3)).float()
        crowd = torch.from_numpy(rng.random(TRUTHS) < 0.02)
        masks = ellipses(truth)
        areas = torch.from_numpy(rle.areas(masks)).double()
        segments = Segments(masks, torch.from_numpy(labels), crowd, SIZE, areas=areas)
        instances = Instances(ellipses(found), torch.from_numpy(found_labels), scores)
        pairs.append((Prediction(str(number), SIZE, instances=instances), Target(segments=segments, number=number)))
    return pairs


def as_json(pairs: list[tuple[Prediction, Target]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (prediction, target) in enumerate(pairs):
        s, d = target.segments, prediction.instances
        boxes = rle.boxes(s.rles).tolist()
        columns = zip(s.rles, s.labels.tolist(), s.crowd.tolist(), s.areas.tolist(), boxes, strict=True)
        for mask, label, crowd, area, box in columns:
            annotation = {"image_id": number, "category_id": label, "segmentation": mask, "area": area, "bbox": box}
            annotations.append({**annotation, "iscrowd": int(crowd), "id": len(annotations) + 1})
        for mask, label, score in zip(d.rles, d.labels.tolist(), d.scores.tolist(), strict=True):
            results.append({"image_id": number, "category_id": label, "segmentation": mask, "score": score})
    return {
        "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(IMAGES)],
        "categories": [{"id": label, "name": str(label)} for label in range(CATEGORIES)],
        "annotations": annotations,
    }, results


def by_pycocotools(annotations: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def dense(pairs: list[tuple[Prediction, Target]]) -> Iterator[tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]]:
    """Image by image: all masks at once are 4 GB."""
    for prediction, target in pairs:
        s, d = target.segments, prediction.instances
        found = {"masks": torch.from_numpy(rle.decode(d.rles, SIZE)), "labels": d.labels, "scores": d.scores}
        truth = {"masks": torch.from_numpy(rle.decode(s.rles, SIZE)), "labels": s.labels, "iscrowd": s.crowd.int()}
        yield [found], [truth]


def timed(metric: Metric, inputs: Iterable[tuple[Any, Any]]) -> tuple[float, dict[str, Tensor]]:
    """Seconds of all updates and of `compute`, without those of making the inputs; and the figures."""
    seconds = 0.0
    for pair in inputs:
        start = time.perf_counter()
        metric.update(*pair)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    figures = metric.compute()
    return seconds + time.perf_counter() - start, figures


def main() -> dict[str, float]:
    """How many times longer the others take, and how many times larger masks of one bit per pixel are.

    Raises:
        AssertionError: figures that are not those of pycocotools.
    """
    torch.set_num_threads(1)
    pairs = images()
    seconds: dict[str, list[float]] = {"ours": [], "pycocotools": [], "torchmetrics": []}
    for _ in range(ROUNDS):  # in turns, so that a busy machine is busy for all
        ours = InstanceMetric(LabelSpace(tuple(map(str, range(CATEGORIES)))))
        gc.collect()  # of the neighbours' garbage
        spent, figures = timed(ours, pairs)
        seconds["ours"].append(spent)
        annotations, results = as_json(pairs)
        gc.collect()
        start = time.perf_counter()
        expected = by_pycocotools(annotations, results)
        seconds["pycocotools"].append(time.perf_counter() - start)
        assert [float(value) for name, value in figures.items() if "/" not in name] == expected, figures
        seconds["torchmetrics"].append(timed(MeanAveragePrecision(iou_type="segm"), dense(pairs))[0])
    best = {name: min(times) for name, times in seconds.items()}
    for name, value in best.items():
        print(f"{name:14}{value:8.3f} s")
    kept = sum(record.numel() for record in ours.state)
    objects = IMAGES * (TRUTHS + DETECTIONS)
    print(f"{kept / objects:.0f} bytes are kept of each object; AP {expected[0]:.3f}")
    return {
        "pycocotools time": best["pycocotools"] / best["ours"],
        "torchmetrics time": best["torchmetrics"] / best["ours"],
        "dense masks memory": objects * SIZE[0] * SIZE[1] / 8 / kept,
    }


if __name__ == "__main__":
    main()
