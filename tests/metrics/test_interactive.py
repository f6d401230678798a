"""Figures of clicks and boxes against masks."""

import math

import numpy as np
import pytest
import torch

from segfolio.data.datasets import Shapes
from segfolio.data.formats import rle
from segfolio.data.prompts import PADDING, Prompts
from segfolio.data.sample import Prediction, Prompted, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.metrics import BoxMetric, InteractiveMetric
from segfolio.metrics.interactive import clicks_needed, ious

SIZE = (20, 30)


def masks(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.random((*shape, *SIZE)) < rng.random((*shape, 1, 1))


def image(seed: int, objects: int, rounds: int = 20) -> tuple[Prediction, Target, np.ndarray, np.ndarray]:
    """With the masks of each round and those of the first."""
    rng = np.random.default_rng(seed)
    truth, found, first = masks(rng, objects + 1), masks(rng, objects, rounds), masks(rng, objects, 3)
    for k in range(rounds):  # nearer and nearer to the truth
        found[:, k] = np.where(rng.random(found[:, k].shape) < (k / max(1, rounds - 1)) ** 0.3, truth[1:], found[:, k])
    segments = Segments(torch.from_numpy(truth), torch.zeros(objects + 1).long(), torch.zeros(objects + 1).bool())
    of = torch.arange(1, objects + 1)
    kinds = torch.ones(objects, rounds).long()
    kinds[:1, 4:] = PADDING  # two clicks fewer
    prompted = Prompted(
        [rle.encode(each) for each in found],
        torch.zeros(objects, rounds),
        of,
        Prompts(of, torch.zeros(objects, rounds, 2), kinds),
        [rle.encode(each) for each in first],
        seconds=0.5 * objects,
    )
    target = Target(segments=segments)
    return Prediction(f"image_{seed}", SIZE, prompted=prompted), target, found, first


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_figures_are_means_over_all_objects_of_all_images() -> None:
    metric, every, oracle = InteractiveMetric(Shapes.labels), [], []
    for seed, objects in enumerate((3, 1, 0, 5)):
        prediction, target, found, first = image(seed, objects)
        truth = target.segments.masks.numpy()[1:]
        every += [[overlap(mask, true) for mask in each] for each, true in zip(found, truth, strict=True)]
        oracle += [max(overlap(mask, true) for mask in each) for each, true in zip(first, truth, strict=True)]
        metric.update(prediction, target)
    figures = {name: float(value) for name, value in metric.compute().items()}
    by_click = np.mean(every, 0)
    expected = {"mIoU_1click": by_click[0], "mIoU_3clicks": by_click[2], "mIoU_5clicks": by_click[4]}
    expected["mIoU_1click_oracle"] = np.mean(oracle)
    for name, threshold in (("NoC85", 0.85), ("NoC90", 0.9)):
        expected[name] = np.mean([next((k for k, iou in enumerate(each, 1) if iou >= threshold), 20) for each in every])
    expected["click_seconds"] = 0.5 * 9 / (9 * 20 - 3 * 16)
    assert figures == pytest.approx(expected, rel=1e-12)
    assert 1 < expected["NoC85"] < 20


def test_an_object_that_stays_below_counts_as_all_clicks() -> None:
    found = np.array([[0.1, 0.9, 0.2], [0.85, 0.1, 0.1], [0.0, 0.8, 0.849999]])
    assert clicks_needed(found, 0.85).tolist() == [2, 1, 3]
    assert ious([], []).shape == (0, 0)


def test_no_object_at_all_is_no_figure() -> None:
    metric = InteractiveMetric(Shapes.labels)
    metric.update(*image(0, 0)[:2])
    assert all(math.isnan(value) for value in metric.compute().values())


def test_figures_of_more_clicks_than_there_are_are_not_declared() -> None:
    names = [figure.name for figure in InteractiveMetric(Shapes.labels, 3).figures]
    assert names == ["mIoU_1click", "mIoU_3clicks", "mIoU_1click_oracle", "click_seconds"]
    with pytest.raises(ValueError, match="measures 5 clicks for each object"):
        InteractiveMetric(Shapes.labels, 5).update(*image(0, 2)[:2])


def test_boxes_have_one_mask_each() -> None:
    metric, every = BoxMetric(Shapes.labels), []
    for seed, objects in enumerate((2, 0, 3)):
        prediction, target, found, _ = image(seed, objects, rounds=1)
        prediction.prompted.rles = [rle.encode(each[:, ::-1]) for each in found]  # not the truth
        pairs = zip(found[:, 0, ::-1], target.segments.masks.numpy()[1:], strict=True)
        every += [overlap(mask, true) for mask, true in pairs]
        metric.update(prediction, target)
    assert float(metric.compute()["mIoU_box"]) == pytest.approx(np.mean(every), rel=1e-12)


def test_masks_of_another_size_than_the_truth_are_refused() -> None:
    prediction, target, *_ = image(0, 2)
    prediction.prompted.candidates[1][2] = rle.encode(np.zeros((1, 5, 6), np.bool_))[0]
    with pytest.raises(SegfolioError, match=r"image_0: a mask is \[5, 6\] .* but the truth is \[20, 30\]"):
        InteractiveMetric(Shapes.labels).update(prediction, target)
