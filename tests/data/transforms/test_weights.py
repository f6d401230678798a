"""BorderWeight: the weight map of the U-Net paper."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Segments, Target, to_image
from segfolio.data.transforms import BorderWeight


def cells(size: tuple[int, int] = (70, 90)) -> np.ndarray:
    ids = np.zeros(size, np.uint8)
    for y, x, radius in ((15, 15, 9), (18, 38, 10), (45, 30, 12), (50, 70, 14), (60, 5, 4)):
        cv2.circle(ids, (x, y), radius, 1, -1)
    return ids


def brute_force_weight(ids: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    count, components = cv2.connectedComponents(ids, connectivity=4)
    distances = np.sort([distance_transform_edt(components != i) for i in range(1, count)], axis=0)
    return np.where(ids == 1, 1.0, 1 + w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2)))


@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (5.0, 12.0)])
def test_border_weight_is_equation_2(w0: float, sigma: float) -> None:
    ids = cells()
    sample = Sample(to_image(ids[..., None]), "cells", ids.shape, Target(Mask(torch.from_numpy(ids))))
    target = BorderWeight(1, w0, sigma)(sample, np.random.default_rng(0)).target
    assert target is not None
    assert target.weight is not None
    assert target.weight.dtype == torch.float32
    expected = brute_force_weight(ids, w0, sigma)
    assert expected.max() > 1 + w0 / 4
    np.testing.assert_allclose(target.weight.numpy(), expected, atol=w0 / 9_000)


def test_border_weight_takes_segments_before_classes_and_leaves_crowds_out() -> None:
    _, components = cv2.connectedComponents(cells(), connectivity=4)
    masks = Mask(torch.from_numpy(components == np.arange(1, 6)[:, None, None]))
    image = to_image(np.zeros((70, 90, 1), np.uint8))

    def weight(crowd: Sequence[bool]) -> np.ndarray:
        target = Target(segments=Segments(masks, torch.ones(5, dtype=torch.int64), torch.tensor(crowd)))
        result = BorderWeight()(Sample(image, "cells", (70, 90), target), np.random.default_rng(0)).target
        assert result is not None
        assert result.weight is not None
        return result.weight.numpy()

    np.testing.assert_allclose(weight([False] * 5), brute_force_weight(cells(), 10, 5), atol=1e-3)
    assert (weight([False, True, True, True, True]) == 1).all()  # one cell has no second-nearest
