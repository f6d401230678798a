"""Run lengths of mask logits, against the masks enlarged as a whole."""

import cv2
import numpy as np
import pytest
import torch

from benchmarks.paste_masks import held
from segfolio.data.formats import rle
from segfolio.data.sample import Size
from segfolio.inference.mask_runs import MaskRuns
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.prompting import PromptableNetwork

CELLS = 64
SIZES = ((256, 256), (200, 256), (256, 37), (480, 640), (123, 97), (31, 20), (1, 9))
ROUNDING = 1e-6  # the part of the pixels in which two orders of the same sum may differ


def images(*sizes: Size, through_square: bool = True) -> EmbeddedImages:
    network = PromptableNetwork()
    network.image_size, network.mask_size, network.through_square = 4 * CELLS, CELLS, through_square
    return EmbeddedImages(network, (), sizes)


def logits(count: int, seed: int = 0) -> np.ndarray:
    """`[N, CELLS, CELLS]` float32, of blobs from the whole image to a few cells."""
    rng = np.random.default_rng(seed)
    sides = [(3, 5, 9, 17, 40)[n % 5] for n in range(count)]
    coarse = [rng.normal(-0.5 + n % 3 / 2, 3, (side, side)).astype(np.float32) for n, side in enumerate(sides)]
    return np.stack([cv2.resize(x, (CELLS, CELLS), interpolation=cv2.INTER_CUBIC) for x in coarse])


def stability(enlarged: np.ndarray, offset: float) -> np.ndarray:
    inner, outer = ((enlarged > level).sum((1, 2)) for level in (offset, -offset))
    with np.errstate(invalid="ignore"):
        return inner.astype(np.float32) / outer.astype(np.float32)


@pytest.mark.parametrize("through_square", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_pixels_are_those_of_the_mask_enlarged_as_a_whole(size: Size, through_square: bool) -> None:
    masks, embedded = logits(30), images(size, through_square=through_square)
    expected = embedded.enlarge(torch.from_numpy(masks), 0).numpy() > 0
    reader = MaskRuns.of(embedded, 0)
    assert (rle.decode([reader.runs(mask) for mask in masks], size) != expected).mean() <= ROUNDING


@pytest.mark.parametrize("through_square", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threshold", [0.0, 0.7, 0.8])
def test_stable_masks_are_those_that_counting_all_pixels_finds_stable(
    size: Size, threshold: float, through_square: bool
) -> None:
    masks, embedded, offset = logits(60, seed=1), images(size, through_square=through_square), 0.3
    enlarged = embedded.enlarge(torch.from_numpy(masks), 0).numpy()
    expected = stability(enlarged, offset)
    kept = expected >= np.float32(threshold) if threshold else np.ones_like(expected, np.bool_)
    assert kept.any()
    assert kept.all() == (threshold == 0)
    found = [MaskRuns.of(embedded, 0).stable(mask, offset, threshold, strict=False) for mask in masks]
    assert [x is not None for x in found] == kept.tolist()
    values = [x[0] for x in found if x]
    np.testing.assert_allclose(values, expected[kept], rtol=1e-5)
    assert (rle.decode([x[1] for x in found if x], size) != (enlarged > 0)[kept]).mean() <= ROUNDING


def test_equal_to_the_threshold_is_stable_unless_it_has_to_be_above() -> None:
    mask = np.full((CELLS, CELLS), -9, np.float32)
    mask[:, 1:20], mask[:, 20:39] = 9, 0  # half of what is above -1 is above 1, but for the borders
    reader = MaskRuns.of(images((256, 256)), 0)
    value, _ = reader.stable(mask, 1.0, 0.0, strict=False) or (0.0, None)
    assert 0.4 < value < 0.6
    assert reader.stable(mask, 1.0, value, strict=False)
    assert reader.stable(mask, 1.0, value, strict=True) is None
    assert reader.stable(mask, 1.0, value + 1e-4, strict=False) is None


def test_a_mask_of_nothing_is_empty_and_its_stability_undefined() -> None:
    reader = MaskRuns.of(images((30, 40)), 0)
    nothing = np.full((CELLS, CELLS), -5, np.float32)
    value, mask = reader.stable(nothing, 1.0, 0.0, strict=False) or (0.0, None)
    assert np.isnan(value)
    assert mask is not None
    assert rle.areas([mask]).item() == 0
    assert reader.stable(nothing, 1.0, 0.5, strict=False) is None


def test_the_mask_of_a_crop_lies_where_the_crop_does() -> None:
    (mask,), size, whole = logits(1), (50, 60), (90, 100)
    crop = MaskRuns.of(images(size), 0).runs(mask)
    placed = MaskRuns.of(images(size), 0, corner=(13, 21), whole=whole).runs(mask)
    expected = np.zeros(whole, np.bool_)
    expected[13:63, 21:81] = rle.decode([crop], size)[0]
    assert (rle.decode([placed], whole)[0] == expected).all()


def test_what_is_held_does_not_grow_with_the_number_of_masks() -> None:
    reader, masks = MaskRuns.of(images((1024, 1024)), 0), logits(40)
    few, many = (held(lambda part=part: [reader.runs(x) for x in part] and None) for part in (masks[:5], masks))
    assert many < 1.3 * few
    assert many * 2**30 < 3 * 4 * 1024**2  # three images in float32
