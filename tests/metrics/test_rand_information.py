"""V_rand by pairs of pixels, V_info by its entropies, both by hand."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.datasets import ISBI2012
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.metrics import RandInformation
from segfolio.metrics.rand_information import components, v_info, v_rand

LABELS = LabelSpace(("membrane", "cell"))


def foreground(prediction: np.ndarray, target: np.ndarray) -> list[tuple[int, int]]:
    """Segments of each pixel of the truth's foreground; membrane in the prediction is a segment by itself."""
    pairs = zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True)
    return [(s or -i, t) for i, (s, t) in enumerate(pairs, 1) if t]


def entropy(items: list[object]) -> float:
    return -sum(n / len(items) * math.log2(n / len(items)) for n in Counter(items).values())


@pytest.mark.parametrize("seed", range(5))
def test_random_maps_by_pairs_of_pixels_and_by_entropies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prediction, target = rng.integers(0, 5, (6, 7)), rng.integers(0, 4, (6, 7))
    pixels = foreground(prediction, target)
    same = [(a[0] == b[0], a[1] == b[1]) for a, b in itertools.product(pixels, repeat=2)]  # a pixel with itself too
    in_both, in_s, in_t = (sum(x) for x in ((s and t for s, t in same), (s for s, _ in same), (t for _, t in same)))
    assert v_rand(prediction, target) == pytest.approx(in_both / (0.5 * in_s + 0.5 * in_t), abs=1e-12)
    s, t, joint = entropy([p[0] for p in pixels]), entropy([p[1] for p in pixels]), entropy(pixels)
    assert v_info(prediction, target) == pytest.approx((s + t - joint) / (0.5 * s + 0.5 * t), abs=1e-12)


def test_a_merge_by_hand() -> None:
    """Two cells of 4 pixels, predicted as one: 32 pairs of the truth are kept, of 64 predicted."""
    target, prediction = np.array([1] * 4 + [0] + [2] * 4), np.ones(9, int)
    assert v_rand(prediction, target) == pytest.approx(0.5 / (0.5 * 1 + 0.5 * 0.5))
    assert v_info(prediction, target) == 0


def test_a_split_by_hand() -> None:
    """One cell of 8 pixels in halves; a cell of 8 that is right beside it."""
    target, prediction = np.array([1] * 8 + [2] * 8), np.array([1] * 4 + [3] * 4 + [2] * 8)
    joint = 2 * 0.25**2 + 0.5**2
    assert v_rand(prediction, target) == pytest.approx(joint / (0.5 * joint + 0.5 * 0.5))
    assert v_info(prediction, target) == pytest.approx(1 / (0.5 * 1.5 + 0.5 * 1))


def test_predicted_membrane_in_a_cell_is_a_segment_for_each_pixel() -> None:
    target, prediction = np.ones(4, int), np.array([1, 1, 0, 0])
    assert v_rand(prediction, target) == pytest.approx((0.25 + 2 / 16) / (0.5 * (0.25 + 2 / 16) + 0.5))


def test_what_is_predicted_on_membrane_does_not_count() -> None:
    target = np.array([1, 1, 0, 0, 2, 2])
    assert v_rand(np.array([5, 5, 9, 5, 3, 3]), target) == v_info(np.array([5, 5, 9, 5, 3, 3]), target) == 1


def test_perfect_one_cell_and_no_cell() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 6, (8, 8))
    assert v_rand(target, target) == pytest.approx(1, abs=1e-15)
    assert v_info(target, target) == pytest.approx(1, abs=1e-15)
    one = np.ones((3, 3), int)
    assert v_rand(one, one) == v_info(one, one) == 1
    assert math.isnan(v_rand(one, 0 * one))
    assert math.isnan(v_info(one, 0 * one))


def test_components_do_not_connect_over_a_corner() -> None:
    mask = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
    assert components(mask).tolist() == [[1, 0, 0], [0, 2, 2], [0, 0, 2]]


def test_means_over_images() -> None:
    """A merge through a gap in the membrane, as by hand above but for the gap; then a right image; then no cell."""
    truth = torch.tensor([[1, 1, 1, 1, 0, 1, 1, 1, 1]]).byte()
    metric = RandInformation(LABELS)
    for image_id, predicted, target in (("a", truth | 1, truth), ("b", truth, truth), ("c", truth, truth & 0)):
        metric.update(Prediction(image_id, (1, 9), predicted), Target(Mask(target)))
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert figures == {"V_rand": pytest.approx((2 / 3 + 1) / 2), "V_info": pytest.approx(0.5)}


def test_a_wider_membrane_and_a_gap_cost_on_a_real_slice(real_data: Path) -> None:
    dataset = ISBI2012(real_data / "isbi2012", "val")
    target = dataset[0].target
    truth = target.semantic.as_subclass(torch.Tensor)
    merged = truth.clone()
    merged[:, 255:258] = 1  # a cut through every membrane in its way
    found = {}
    for name, predicted in (("truth", truth), ("merged", merged)):
        metric = RandInformation(dataset.labels)
        metric.update(Prediction("a", tuple(truth.shape), predicted), target)
        found[name] = {key: float(value) for key, value in metric.compute().items()}
    assert found["truth"] == pytest.approx({"V_rand": 1, "V_info": 1}, abs=1e-12)
    assert found["merged"]["V_rand"] < 0.9
    assert found["merged"]["V_info"] < found["truth"]["V_info"]


def test_a_cell_that_is_no_class_is_named() -> None:
    with pytest.raises(SegfolioError, match="cell is 'neuron', which is no class of the dataset: membrane, cell"):
        RandInformation(LABELS, cell="neuron")
