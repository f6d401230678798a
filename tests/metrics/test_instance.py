"""The metric of instance segmentation, from predictions, against pycocotools and counts by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask
from torchvision.tv_tensors import Mask

from segfolio.data.formats import rle
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Instances, Prediction, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.metrics.instance import InstanceMetric
from tests.metrics.test_average_precision import KINDS, NAMES, by_pycocotools, of_kind, random_case

LABELS = LabelSpace(("background", "cat", "dog"), background="background")
SIZE = (100, 120)
Pair = tuple[Prediction, Target]


def from_json(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[LabelSpace, list[Pair]]:
    """COCO's annotations and results as they travel through the house; scores are rounded to float32 in both."""
    ids = sorted(category["id"] for category in truth["categories"])
    pairs = []
    for image in truth["images"]:
        size = image["height"], image["width"]
        theirs = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        ours = [r for r in results if r["image_id"] == image["id"]]
        for result in ours:
            result["score"] = float(np.float32(result["score"]))
        segments = Segments(
            [coco_mask.segmToRle(a["segmentation"], *size[::-1]) for a in theirs],
            torch.tensor([ids.index(a["category_id"]) for a in theirs], dtype=torch.int64),
            torch.tensor([a["iscrowd"] for a in theirs], dtype=torch.bool),
            size,
            boxes=torch.tensor([a["bbox"] for a in theirs], dtype=torch.float64).reshape(-1, 4),
            areas=torch.tensor([a["area"] for a in theirs], dtype=torch.float64),
        )
        instances = Instances(
            [r["segmentation"] for r in ours],
            torch.tensor([ids.index(r["category_id"]) for r in ours], dtype=torch.int64),
            torch.tensor([r["score"] for r in ours]),
            torch.tensor([r["bbox"] for r in ours], dtype=torch.float64).reshape(-1, 4),
        )
        name = f"image {image['id']}"
        pairs.append((Prediction(name, size, instances=instances), Target(segments=segments, number=image["id"])))
    return LabelSpace(tuple(map(str, ids))), pairs


def computed(metric: InstanceMetric, pairs: list[Pair]) -> dict[str, float]:
    metric.reset()
    for pair in pairs:
        metric.update(*pair)
    return {name: float(value) for name, value in metric.compute().items()}


def squares(*at: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """`[N, H, W]`, 10 x 10 pixels at row 0 and these columns."""
    masks = np.zeros((len(at), *size), np.bool_)
    for mask, x in zip(masks, at, strict=True):
        mask[:10, x : x + 10] = True
    return masks


def predicted(image_id: str, *at: tuple[int, int, float]) -> Prediction:
    """Squares by column, label and score."""
    columns, labels, scores = zip(*at, strict=True) if at else ((), (), ())
    found = Instances(rle.encode(squares(*columns)), torch.tensor(labels, dtype=torch.int64), torch.tensor(scores))
    return Prediction(image_id, SIZE, instances=found)


def truth(*at: tuple[int, int]) -> Target:
    """Squares by column and label."""
    columns, labels = zip(*at, strict=True) if at else ((), ())
    masks = Mask(torch.from_numpy(squares(*columns)))
    labels = torch.tensor(labels, dtype=torch.int64)
    return Target(segments=Segments(masks, labels, torch.zeros(len(at), dtype=torch.bool)))


def test_random_cases_equal_pycocotools_to_the_last_bit_in_any_order() -> None:
    for seed in range(40):
        annotations, results = random_case(seed)
        labels, pairs = from_json(annotations, results)
        np.random.default_rng(seed).shuffle(pairs)  # ties go by the images' numbers, not by the order of updates
        figures = computed(InstanceMetric(labels, KINDS), [*pairs, pairs[0]])
        for kind, suffix in zip(KINDS, ("", "_box"), strict=True):
            expected = by_pycocotools(annotations, of_kind(results, kind), kind)
            names = [f"{n}{suffix}" for n in NAMES], [f"AP{suffix}/{n}" for n in labels.names]
            found = tuple([-1 if math.isnan(figures[n]) else figures[n] for n in group] for group in names)
            assert found == expected, (seed, kind)


def test_false_positives_of_images_without_truth_count() -> None:
    """Of a cat one is found, by the second best detection; the dog that is predicted has no truth."""
    pairs = [
        (predicted("a", (0, 1, 0.5)), truth((0, 1))),
        (predicted("b", (0, 1, 0.9), (50, 2, 0.9)), truth()),
        (predicted("c"), truth()),
    ]
    figures = computed(InstanceMetric(LABELS), pairs)
    assert figures["AP"] == figures["AP50"] == figures["AP_small"] == figures["AP/cat"] == 0.5
    assert figures["AR_1"] == 1
    assert math.isnan(figures["AP/dog"])
    assert math.isnan(figures["AP_large"])
    assert "AP/background" not in figures


def test_an_image_counts_once_and_reset_forgets() -> None:
    pair, other = (predicted("a", (0, 1, 0.5)), truth((0, 1), (30, 1))), (predicted("b"), truth((0, 2)))
    metric = InstanceMetric(LABELS)
    once = computed(metric, [pair, other])
    assert computed(metric, [pair, other, pair]) == pytest.approx(once, nan_ok=True)
    assert once["AR_100"] == 0.25
    assert computed(metric, [pair])["AR_100"] == 0.5


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image_at_all_is_nan() -> None:
    assert all(math.isnan(value) for value in computed(InstanceMetric(LABELS, KINDS), []).values())


@pytest.mark.parametrize(("things", "names"), [(("dog",), {"dog"}), ((), {"cat", "dog"})])
def test_only_things_count(things: tuple[str, ...], names: set[str]) -> None:
    """A cat that is missed, a background that is predicted."""
    pair = predicted("a", (0, 2, 0.5), (60, 0, 0.9)), truth((0, 2), (30, 1), (60, 0))
    figures = computed(InstanceMetric(replace(LABELS, things=things)), [pair])
    assert {name.removeprefix("AP/") for name in figures if "/" in name} == names
    assert figures["AP/dog"] == pytest.approx(1)
    assert figures["AP"] == pytest.approx(1 / len(names))


def test_boxes_and_areas_are_those_given_or_those_of_the_masks() -> None:
    """A box predicted at half of the truth's width; a truth whose annotated area is large."""
    prediction, target = predicted("a", (0, 1, 0.5)), truth((0, 1))
    metric = InstanceMetric(LABELS, ("bbox",))
    assert computed(metric, [(prediction, target)])["AP_small_box"] == pytest.approx(1)
    prediction.instances.boxes = torch.tensor([[0.0, 0, 5, 10]])
    target.segments.areas = torch.tensor([1e5], dtype=torch.float64)
    figures = computed(metric, [(prediction, target)])
    assert figures["AP50_box"] == pytest.approx(1)  # IoU is 1/2
    assert figures["AP75_box"] == 0
    assert figures["AP_large_box"] == pytest.approx(0.1)
    assert math.isnan(figures["AP_small_box"])


def test_the_numbers_of_detections_name_the_figures() -> None:
    pair = predicted("a", (0, 1, 0.5), (30, 1, 0.4), (60, 1, 0.3)), truth((0, 1), (30, 1), (60, 1))
    figures = computed(InstanceMetric(LABELS, max_dets=(1, 2)), [pair])
    assert (figures["AR_1"], figures["AR_2"]) == pytest.approx((1 / 3, 2 / 3))
    assert figures["AP"] == pytest.approx(67 / 101)
    assert "AR_100" not in figures


def test_the_state_is_small() -> None:
    columns = range(0, 100, 11)
    prediction = predicted("a", *((x, 1, 0.5) for x in columns))
    metric = InstanceMetric(LABELS, KINDS)
    metric.update(prediction, truth(*((x, 1) for x in columns)))
    objects, kept = 2 * len(columns), sum(record.numel() for record in metric.state)
    assert kept / objects < 200
    assert kept < objects * SIZE[0] * SIZE[1] / 8 / 8, "an eighth of the masks' bits"


def test_what_cannot_be_compared_is_an_error() -> None:
    metric = InstanceMetric(LABELS)
    with pytest.raises(ValueError, match="this dataset or family has none"):
        metric.update(predicted("a"), Target())
    with pytest.raises(ValueError, match="this dataset or family has none"):
        metric.update(Prediction("a", SIZE), truth())
    small = replace(
        predicted("a"), instances=Instances(rle.encode(squares(0, size=(50, 60))), torch.ones(1), torch.ones(1))
    )
    with pytest.raises(SegfolioError, match=r"a: the mask of a detection is \[50, 60\] .* the image is \[100, 120\]"):
        metric.update(small, truth())
