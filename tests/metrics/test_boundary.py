"""Boundary figures against the plain definitions, class by class and pixel by pixel, and against COCO's bands."""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.datasets import CamVid
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.metrics import BoundaryF1, BoundaryIoU
from segfolio.metrics.boundary import boundary_f1, boundary_overlap, inner_band

C = 4
LABELS = LabelSpace(tuple("abcd"))
Map = np.ndarray[Any, Any]


def blocks(seed: int, size: tuple[int, int] = (40, 56), void: float = 0.1) -> tuple[Map, Map]:
    """Prediction and truth in classes from 1, of blocks, some of them moved; 0 at void."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(1, C + 1, (5, 7)), np.ones((8, 8), int))[: size[0], : size[1]]
    prediction = np.where(rng.random(truth.shape) < 0.02, 1, np.roll(truth, (2, 1), (0, 1)))
    truth = np.where(np.kron(rng.random((10, 14)) < void, np.ones((4, 4), bool))[: size[0], : size[1]], 0, truth)
    return (prediction * (truth > 0)).astype(np.uint8), truth.astype(np.uint8)


def f1_by_hand(prediction: Map, truth: Map, tolerance: float) -> list[float]:
    def boundary(m: Map, c: int) -> list[tuple[int, int]]:
        return [
            (y, x)
            for y, x in np.argwhere(m == c).tolist()
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if 0 <= v < m.shape[0] and 0 <= u < m.shape[1] and m[v, u] not in (0, c)
        ]

    def share(these: set[tuple[int, int]], those: set[tuple[int, int]]) -> float:
        return sum(any(math.dist(a, b) < tolerance for b in those) for a in these) / len(these) if these else 0.0

    figures = []
    for c in range(1, C + 1):
        predicted, true = set(boundary(prediction, c)), set(boundary(truth, c))
        precision, recall = share(predicted, true), share(true, predicted)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        figures.append(f1 if (truth == c).any() and predicted | true else math.nan)
    return figures


def band_by_hand(mask: Map, width: int) -> Map:
    """The mask less its erosion, a pixel and the image's border at a time."""
    eroded = mask.copy()
    for _ in range(width):
        padded = np.pad(eroded, 1)
        h, w = mask.shape
        eroded = np.all([padded[y : y + h, x : x + w] for y in range(3) for x in range(3)], axis=0)
    return mask & ~eroded


def update(metric: BoundaryF1 | BoundaryIoU, image_id: str, prediction: Map, truth: Map) -> None:
    """Classes from 1, 0 for void, as the metric takes them."""
    semantic = torch.from_numpy(np.where(truth == 0, 255, truth.astype(int) - 1).astype(np.uint8))
    predicted = torch.from_numpy(np.where(prediction == 0, 0, prediction.astype(int) - 1).astype(np.uint8))
    metric.update(Prediction(image_id, truth.shape, predicted), Target(Mask(semantic)))


@pytest.mark.parametrize("tolerance", [0.5, 1, 2, 2.3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_f1_equals_the_definition_pixel_by_pixel(seed: int, tolerance: float) -> None:
    prediction, truth = blocks(seed, (24, 32))
    expected = f1_by_hand(prediction, truth, tolerance)
    assert boundary_f1(prediction, truth, C, tolerance).tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_a_boundary_at_just_the_tolerance_is_too_far() -> None:
    """A line between 1 and 2 that is 6 columns off; 480 x 640 has a tolerance of 6 pixels."""
    truth, prediction = (np.where(np.arange(640) < edge, 1, 2).astype(np.uint8) for edge in (300, 306))
    maps = np.tile(prediction, (480, 1)), np.tile(truth, (480, 1))
    assert boundary_f1(*maps, C, 6.0)[:2].tolist() == [0, 0]
    assert boundary_f1(*maps, C, 6.001)[:2].tolist() == [1, 1]
    metric = BoundaryF1(LABELS)
    update(metric, "a", *maps)
    assert metric.compute()["boundary_f1"] == 0


def test_void_and_border_are_no_boundary() -> None:
    """Class 1 touches the border and void alone; 2 and 3 have a boundary in the truth and not in the prediction."""
    truth = np.array([[1, 1, 0, 2, 2, 3, 3]] * 3, np.uint8)
    prediction = np.array([[1, 1, 0, 2, 2, 2, 2]] * 3, np.uint8)
    f1 = boundary_f1(prediction, truth, C, 1.5)
    assert np.isnan(f1[[0, 3]]).all()  # without boundary; without a pixel
    assert f1[1:3].tolist() == [0, 0]
    assert np.isnan(boundary_f1(truth, prediction, C, 1.5)[2])  # predicted, but not in the truth


def test_f1_is_the_mean_over_images_of_the_mean_over_classes() -> None:
    metric, rows = BoundaryF1(LABELS, tolerance=0.03), []
    for number in range(3):
        prediction, truth = blocks(number)
        if number == 0:
            prediction[truth == 4] = truth[truth == 4] = 3  # no class 4 in this image
        update(metric, str(number), prediction, truth)
        rows.append(boundary_f1(prediction, truth, C, 0.03 * math.hypot(40, 56)))
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert np.isnan(rows[0]).tolist() == [False, False, False, True]
    assert figures["boundary_f1"] == pytest.approx(np.mean([np.nanmean(row) for row in rows]), abs=1e-15)
    assert figures["boundary_f1/d"] == pytest.approx((rows[1][3] + rows[2][3]) / 2, abs=1e-15)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("width", [1, 2, 5, 30])
def test_bands_of_all_classes_equal_those_of_each(width: int, dtype: type) -> None:
    _, truth = blocks(0, void=0)
    band = inner_band(truth.astype(dtype), width)
    for c in range(1, C + 1):
        assert np.array_equal(band & (truth == c), band_by_hand(truth == c, width))


@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.1])
def test_bands_equal_those_of_coco(ratio: float) -> None:
    """`rleToBoundary` of faster-coco-eval: d = max(1, round(ratio x diagonal))."""
    _, truth = blocks(1, void=0)
    width = max(1, round(ratio * math.hypot(*truth.shape)))
    for c in range(1, C + 1):
        mask = (truth == c).astype(np.uint8)
        theirs = coco.decode(coco.rleToBoundary(coco.encode(np.asfortranarray(mask)), ratio)).astype(bool)
        assert np.array_equal(inner_band(truth, width) & (truth == c), theirs)


def test_void_is_no_contour() -> None:
    """A stripe of void in one class has no band of its own; its pixels belong to none."""
    truth = np.ones((20, 20), np.uint8)
    truth[9:11] = 0
    band = inner_band(truth, 2)
    assert not band[2:-2, 2:-2].any()
    assert band[0].all()
    assert not band[9:11].any()


def test_overlap_equals_the_bands_of_each_class_of_each_map() -> None:
    prediction, truth = blocks(2, void=0)
    both, either = boundary_overlap(prediction, truth, C, 2)
    for c in range(1, C + 1):
        predicted, true = (band_by_hand(m == c, 2) for m in (prediction, truth))
        assert both[c - 1] == (predicted & true).sum()
        assert either[c - 1] == (predicted | true).sum()


def test_boundary_iou_sums_pixels_over_images() -> None:
    metric, sums = BoundaryIoU(LABELS), np.zeros((2, C))
    for number in range(3):
        prediction, truth = blocks(number)
        prediction[truth == 4] = truth[truth == 4] = prediction[prediction == 4] = 3
        update(metric, str(number), prediction, truth)
        sums += boundary_overlap(prediction, truth, C, 1)  # 0.02 x 68.8
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert figures["boundary_IoU/a"] == sums[0, 0] / sums[1, 0]
    assert figures["boundary_mIoU"] == pytest.approx((sums[0, :3] / sums[1, :3]).mean(), abs=1e-15)
    assert math.isnan(figures["boundary_IoU/d"])


def test_a_finer_boundary_of_a_real_street_is_better(real_data: Path) -> None:
    """CamVid, truth against itself after it was made coarser by 2 and by 8 pixels."""
    dataset = CamVid(real_data / "CamVid", "test")
    found: dict[int, tuple[float, float]] = {}
    for factor in (1, 2, 8):
        metrics = BoundaryF1(dataset.labels), BoundaryIoU(dataset.labels)
        for index in range(3):
            target = dataset[index].target
            truth = target.semantic.as_subclass(Tensor).numpy()
            size = truth.shape[::-1]
            coarse = cv2.resize(truth[::factor, ::factor], size, interpolation=cv2.INTER_NEAREST)
            coarse[coarse == dataset.labels.ignore_index] = 0
            for metric in metrics:
                metric.update(Prediction(str(index), truth.shape, torch.from_numpy(coarse)), target)
        found[factor] = tuple(
            float(m.compute()[n]) for m, n in zip(metrics, ("boundary_f1", "boundary_mIoU"), strict=True)
        )
    assert found[1] == (1, 1)
    assert all(1 > fine > coarse > 0 for fine, coarse in zip(found[2], found[8], strict=True))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("metric", [BoundaryF1, BoundaryIoU])
def test_no_image_is_nan(metric: type[BoundaryF1] | type[BoundaryIoU]) -> None:
    assert all(value.isnan() for value in metric(LABELS).compute().values())


def test_pixels_in_place_of_a_share_are_an_error() -> None:
    with pytest.raises(SegfolioError, match="tolerance is 3, expected a share of the image's diagonal"):
        BoundaryF1(LABELS, tolerance=3)
    with pytest.raises(SegfolioError, match="dilation is 15, expected a share"):
        BoundaryIoU(LABELS, dilation=15)
