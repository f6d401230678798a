"""The 95th percentile of the Hausdorff distance against all pairs of surface pixels."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from torchvision.tv_tensors import Mask

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.metrics import Hausdorff95
from segfolio.metrics.hausdorff import hausdorff95


def by_hand(prediction: np.ndarray, target: np.ndarray) -> float:
    a, b = (np.argwhere(m & ~binary_erosion(m)) for m in (prediction, target))
    distances = cdist(a, b)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


@pytest.mark.parametrize("seed", range(8))
def test_equals_all_pairs_of_surface_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [np.kron(rng.random((6, 8)) < 0.3, np.ones((5, 5), bool)) for _ in range(2)]
    masks[0] ^= rng.random(masks[0].shape) < 0.02
    assert hausdorff95(*masks) == pytest.approx(by_hand(*masks), abs=1e-12)


def test_a_shifted_square_is_as_far_as_it_was_shifted() -> None:
    target = np.zeros((60, 60), bool)
    target[10:40, 10:40] = True
    assert hausdorff95(np.roll(target, 3, 1), target) == 3
    assert hausdorff95(target, target) == 0


def test_the_five_percent_that_are_farthest_do_not_count() -> None:
    """One stray pixel beside a line of 99: its distance is the 100th of 100."""
    target = np.zeros((50, 99), bool)
    target[0] = True
    prediction = target.copy()
    prediction[40, 0] = True
    assert hausdorff95(prediction, target) == 0


def test_the_larger_direction_counts_not_both_together() -> None:
    """6 of the truth's 96 pixels lie 30 away: less than 5 % of the pixels of both maps, so that medpy gives 0."""
    target = np.zeros((31, 100), bool)
    target[0, :90] = target[30, :6] = True
    prediction = np.zeros_like(target)
    prediction[0, :90] = True
    assert hausdorff95(prediction, target) == hausdorff95(target, prediction) == 30


def test_empty_masks() -> None:
    empty, full = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    assert hausdorff95(empty, empty) == 0
    assert hausdorff95(empty, full) == hausdorff95(full, empty) == 50


def test_means_over_the_images_with_a_class_then_over_classes() -> None:
    """Image 1: b is shifted by 2, c is missed. Image 2: all a. Void: a column that is left out."""
    metric = Hausdorff95(LabelSpace(tuple("abcd")))
    truth = torch.zeros(30, 40, dtype=torch.uint8)
    prediction = truth.clone()
    truth[5:10, 5:10] = prediction[5:10, 7:12] = 1
    truth[20:22, 20:22] = 2
    a = hausdorff95(prediction.numpy() == 0, truth.numpy() == 0)
    metric.update(Prediction("1", (30, 40), prediction), Target(Mask(truth)))
    plain = torch.zeros(30, 40, dtype=torch.uint8)
    void = plain.clone()
    void[:, 0] = 255
    stray = plain.clone()
    stray[:, 0] = 3
    metric.update(Prediction("2", (30, 40), stray), Target(Mask(void)))
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert figures["HD95/a"] == pytest.approx(a / 2)
    assert figures["HD95/b"] == 2
    assert figures["HD95/c"] == 50
    assert math.isnan(figures["HD95/d"])
    assert figures["HD95"] == pytest.approx((a / 2 + 2 + 50) / 3)
