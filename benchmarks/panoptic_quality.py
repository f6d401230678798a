"""Time of panoptic quality per image, ours against torchmetrics and, where it is installed, panopticapi.

    python -m benchmarks.panoptic_quality

Six images of 640 x 640, 40 rectangles over one another in truth and prediction, 133 classes, one thread. All sides
begin with decoded maps in the form that they take: torchmetrics `[H, W, 2]` of class and instance, panopticapi
segment ids (reading PNGs and putting ids together from colours is left out). Of ours, everything is timed: deriving
the truth, matching and the record.
"""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from torchmetrics.detection import PanopticQuality

from benchmarks.confusion_matrix import median_times
from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.sample import Prediction, Segments, Target
from segfolio.metrics.panoptic import PanopticMetric

AIMS = {"torchmetrics time": ">= 40", "panopticapi time": ">= 2"}
IMAGES, SIZE, SEGMENTS, CLASSES = 6, (640, 640), 40, 133
NAMES = tuple(f"class {i}" for i in range(CLASSES))
LABELS = LabelSpace(NAMES, things=NAMES[:80])


def drawn(rng: np.random.Generator) -> tuple[Segments, Segments]:
    """Prediction and truth: the same rectangles, each moved by a few pixels, one in ten of another class."""
    maps = np.zeros((2, *SIZE), np.int32)
    labels = rng.integers(0, CLASSES, (2, SEGMENTS))
    labels[1] = np.where(rng.random(SEGMENTS) < 0.1, labels[1], labels[0])
    for place in range(1, SEGMENTS + 1):
        y, x, height, width = rng.integers((0, 0, 60, 60), (580, 580, 240, 240))
        for ids, (dy, dx) in zip(maps, rng.integers(0, 12, (2, 2)), strict=True):
            ids[y + dy : y + dy + height, x + dx : x + dx + width] = place
    crowd = torch.zeros(SEGMENTS, dtype=torch.bool)
    both = [Segments(*map(torch.from_numpy, pair), crowd) for pair in zip(maps, labels, strict=True)]
    prediction, truth = (panoptic_truth(Target(segments=segments), LABELS) for segments in both)
    return prediction, truth


def channels(segments: Segments) -> torch.Tensor:
    """`[1, H, W, 2]` of class and instance, as torchmetrics takes them; 133 is void."""
    table = torch.cat([torch.tensor([CLASSES]), segments.labels])
    return torch.stack([table[segments.id_map.long()], segments.id_map.long()], -1)[None]


def panopticapi(pairs: list[tuple[Segments, Segments]]) -> Callable[[], None]:
    """Its matching on one core, which finds our maps where it would open PNGs."""
    from panopticapi import evaluation

    categories = {i: {"id": i, "isthing": int(thing)} for i, thing in enumerate(LABELS.is_thing)}
    maps, annotations = {}, []
    for number, pair in enumerate(pairs):
        both = []
        for kind, segments in zip(("prediction", "truth"), pair, strict=True):
            maps[f"{kind}/{number}"] = ids = segments.id_map.numpy()
            areas = np.bincount(ids.reshape(-1))[1:].tolist()
            infos = [
                {"id": place, "category_id": label, "area": area, "iscrowd": 0}
                for place, (label, area) in enumerate(zip(segments.labels.tolist(), areas, strict=True), 1)
            ]
            both.append({"image_id": number, "file_name": str(number), "segments_info": infos})
        annotations.append((both[1], both[0]))

    def run() -> None:
        in_place = {"Image": SimpleNamespace(open=maps.__getitem__), "rgb2id": lambda ids: ids}
        with patch.multiple(evaluation, **in_place), contextlib.redirect_stdout(io.StringIO()):
            evaluation.pq_compute_single_core(0, annotations, "truth", "prediction", categories)

    return run


def main() -> dict[str, float]:
    """How many times longer the others take."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pairs = [drawn(rng) for _ in range(IMAGES)]
    inputs = [(channels(prediction), channels(truth)) for prediction, truth in pairs]
    metric = PanopticMetric(LABELS)
    peer = PanopticQuality(set(range(80)), set(range(80, CLASSES + 1)), allow_unknown_preds_category=True)

    def ours() -> None:
        metric.reset()
        for number, (prediction, truth) in enumerate(pairs):
            metric.update(Prediction(str(number), SIZE, panoptic=prediction), Target(segments=truth))
        metric.compute()

    def torchmetrics() -> None:
        peer.reset()
        for prediction, truth in inputs:
            peer.update(prediction, truth)
        peer.compute()

    sides: dict[str, Callable[[], None]] = {"ours": ours, "torchmetrics": torchmetrics}
    if importlib.util.find_spec("panopticapi"):
        sides["panopticapi"] = panopticapi(pairs)
    else:
        print("panopticapi is not installed: its ratio is left out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = median_times(sides, rounds=3)
    for name, time in seconds.items():
        print(f"{name:14}{1e3 * time / IMAGES:9.2f} ms per image")
    return {f"{name} time": time / seconds["ours"] for name, time in seconds.items() if name != "ours"}


if __name__ == "__main__":
    main()
