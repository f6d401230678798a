"""The dense CRF against exact mean field: all pairs of pixels, in float64."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from segfolio.errors import SegfolioError
from segfolio.inference.dense_crf import CRF_PRESETS, CRFParameters, Normalization, dense_crf

V1 = CRF_PRESETS["v1"]
PRESETS = [CRF_PRESETS[name] for name in ("v1", "v1_msc", "v1_largefov", "v2_resnet101")]


def exact(
    probabilities: Tensor, image: Tensor, parameters: CRFParameters, normalization: Normalization = "after"
) -> Tensor:
    """Ten steps of mean field with the kernels written out, `[HW, HW]`."""
    classes, height, width = probabilities.shape
    xy = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    rgb = image.flatten(1).T.double()
    far = torch.cdist(xy, xy) ** 2 / 2
    bilateral = torch.exp(-far / parameters.bi_xy**2 - torch.cdist(rgb, rgb) ** 2 / (2 * parameters.bi_rgb**2))
    message = torch.zeros(())
    for weight, kernel in ((parameters.bi_w, bilateral), (parameters.pos_w, torch.exp(-far / parameters.pos_xy**2))):
        row, column = kernel.sum(1, keepdim=True), kernel.sum(0, keepdim=True)
        divisor = {"symmetric": (row * column).sqrt(), "before": column, "after": row, "none": 1}[normalization]
        message = message + weight * kernel / divisor
    unary = probabilities.flatten(1).double().log()
    result = unary.softmax(0)
    for _ in range(10):
        result = (unary + result @ message.T).softmax(0)
    return result.view(classes, height, width)


def guess(truth: Tensor, classes: int, seed: int) -> Tensor:
    """Probabilities as of a network of stride 8: coarse, in part wrong, enlarged."""
    coarse = 4 * avg_pool2d(one_hot(truth, classes).permute(2, 0, 1)[None].float(), 8)
    coarse += torch.randn(coarse.shape, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, truth.shape, mode="bilinear", align_corners=False)[0].softmax(0)


def structured(seed: int, height: int = 40, width: int = 48, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Rectangles, each of its colour with some noise: probabilities, image, truth."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.zeros(height, width, dtype=torch.int64)
    for label in range(1, classes):
        y, x = (int(torch.randint(size - 16, (1,), generator=g)) for size in (height, width))
        truth[y : y + 12 + label, x : x + 20 - label] = label
    colours = torch.randint(256, (classes, 3), generator=g)[truth]
    image = (colours + 5 * torch.randn(height, width, 3, generator=g)).clamp(0, 255).byte().permute(2, 0, 1)
    return guess(truth, classes, seed), image, truth


def agreement(ours: Tensor, theirs: Tensor) -> float:
    return (ours.argmax(0) == theirs.argmax(0)).double().mean().item()


@pytest.mark.parametrize("preset", CRF_PRESETS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_exact_mean_field(preset: str, seed: int) -> None:
    probabilities, image, _ = structured(seed)
    ours = dense_crf(probabilities, image, CRF_PRESETS[preset])
    theirs = exact(probabilities, image, CRF_PRESETS[preset])
    assert agreement(ours, theirs) >= 0.995
    assert (ours - theirs).abs().mean() <= 0.002


def test_equals_exact_mean_field_on_real_crops(real_data: Path) -> None:
    found = []
    for number, path in enumerate(sorted((real_data / "CamVid" / "train").glob("*.png"))[12:48:12]):
        window = slice(140, 180), slice(130 + 70 * number, 178 + 70 * number)
        truth = torch.from_numpy(cv2.imread(str(path.parents[1] / "trainannot" / path.name), -1)[window]).long()
        image = torch.from_numpy(cv2.imread(str(path))[window][:, :, ::-1].copy()).permute(2, 0, 1)
        probabilities = guess(truth, 12, number + 1)
        found += [agreement(dense_crf(probabilities, image, p), exact(probabilities, image, p)) for p in PRESETS]
    assert np.mean(found) >= 0.995
    assert min(found) >= 0.98


@pytest.mark.parametrize("normalization", ["before", "symmetric"])
def test_normalizations_equal_exact_mean_field(normalization: Normalization) -> None:
    probabilities, image, _ = structured(1)
    for parameters in PRESETS:
        ours = dense_crf(probabilities, image, parameters, normalization=normalization)
        assert agreement(ours, exact(probabilities, image, parameters, normalization)) >= 0.995


def test_without_normalization_weak_kernels_equal_exact_mean_field() -> None:
    """Weights as large as DeepLab's make mean field without normalization flip between states."""
    probabilities, image, _ = structured(1)
    weak = CRFParameters(bi_w=0.01, bi_xy=50, bi_rgb=10, pos_w=0.1, pos_xy=3)
    ours = dense_crf(probabilities, image, weak, normalization="none")
    assert agreement(ours, exact(probabilities, image, weak, "none")) >= 0.995


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after"])
@pytest.mark.parametrize("deviation", [0.4, 1.0, 3.0, 30.0])
def test_spatial_kernel_alone_is_exact(deviation: float, normalization: Normalization) -> None:
    probabilities, image, _ = structured(0)
    spatial = CRFParameters(bi_w=0, bi_xy=1, bi_rgb=1, pos_w=3, pos_xy=deviation)
    ours = dense_crf(probabilities, image, spatial, normalization=normalization).double()
    torch.testing.assert_close(ours, exact(probabilities, image, spatial, normalization), atol=2e-3, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_mends_what_the_network_got_wrong(seed: int) -> None:
    probabilities, image, truth = structured(seed)
    before, after = ((p.argmax(0) != truth).sum() for p in (probabilities, dense_crf(probabilities, image, V1)))
    assert after < 0.5 * before


def test_far_colours_do_not_mix() -> None:
    """Half black, half white: a weak guess of either half is overruled by its own side alone."""
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[:, :, 10:] = 255
    right = torch.full((20, 20), 0.2)
    right[:, 10:] = 0.8
    right[5, 2], right[5, 17] = 0.6, 0.4
    parameters = CRFParameters(bi_w=5, bi_xy=50, bi_rgb=10, pos_w=0, pos_xy=1)
    labels = dense_crf(torch.stack([1 - right, right]), image, parameters).argmax(0)
    assert torch.equal(labels, (image[0] > 0).long())


def test_probabilities_sum_to_one_and_no_iteration_changes_nothing() -> None:
    probabilities, image, _ = structured(0)
    torch.testing.assert_close(dense_crf(probabilities, image, V1, iterations=0), probabilities)
    torch.testing.assert_close(dense_crf(probabilities, image, V1).sum(0), torch.ones(40, 48))


def test_same_input_same_bits_and_input_untouched() -> None:
    probabilities, image, _ = structured(0)
    for given in (probabilities, probabilities.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        before = given.clone()
        first, second = (dense_crf(given, image, V1) for _ in range(2))
        assert torch.equal(first, second)
        assert torch.equal(given, before)


def test_reduced_precision_is_computed_in_float32() -> None:
    probabilities, image, _ = structured(0)
    half = probabilities.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = dense_crf(half, image, V1)
    assert torch.equal(ours, dense_crf(half.float(), image, V1))


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 1, 1), (2, 1, 40)])
def test_odd_sizes_equal_exact_mean_field(shape: tuple[int, int, int]) -> None:
    g = torch.Generator().manual_seed(0)
    probabilities = torch.randn(shape, generator=g).softmax(0)
    image = torch.full((3, *shape[1:]), 90, dtype=torch.uint8)
    ours = dense_crf(probabilities, image, V1)
    torch.testing.assert_close(ours.double(), exact(probabilities, image, V1), atol=0.02, rtol=0)


def test_certain_zeros_stay_finite() -> None:
    _, image, truth = structured(0)
    certain = one_hot(truth, 5).permute(2, 0, 1).float()
    assert torch.equal(dense_crf(certain, image, V1).argmax(0), truth)


def test_large_lattices_keep_their_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gaps that are bridged in small ones are what the rest of the error is made of."""
    parameters = CRF_PRESETS["v2_vgg16"]
    probabilities, image, _ = structured(2)
    theirs = exact(probabilities, image, parameters)
    bridged = (dense_crf(probabilities, image, parameters) - theirs).abs().mean()
    monkeypatch.setattr("segfolio.inference.dense_crf.BRIDGED", 0)
    gaps = (dense_crf(probabilities, image, parameters) - theirs).abs().mean()
    assert 2 * bridged < gaps < 0.02


def test_presets_are_deeplabs() -> None:
    assert len(CRF_PRESETS) == 8
    assert CRF_PRESETS["v1_largefov"] == CRFParameters(bi_w=4, bi_xy=121, bi_rgb=5, pos_w=3, pos_xy=3)
    assert CRF_PRESETS["v2_resnet101"] == CRFParameters(bi_w=4, bi_xy=67, bi_rgb=3, pos_w=3, pos_xy=1)


@pytest.mark.parametrize(
    ("probabilities", "image", "message"),
    [
        (torch.rand(1, 2, 4, 5), torch.zeros(3, 4, 5, dtype=torch.uint8), r"probabilities \[C, H, W\]"),
        (torch.ones(2, 4, 5, dtype=torch.int64), torch.zeros(3, 4, 5, dtype=torch.uint8), "of floats"),
        (torch.rand(2, 4, 5), torch.zeros(3, 5, 4, dtype=torch.uint8), "as large as the probabilities"),
        (torch.rand(2, 4, 5), torch.zeros(3, 4, 5), "uint8"),
        (torch.rand(2, 4, 5).log(), torch.zeros(3, 4, 5, dtype=torch.uint8), "take the softmax first"),
        (torch.full((2, 4, 5), torch.nan), torch.zeros(3, 4, 5, dtype=torch.uint8), "values from nan"),
        (torch.full((2, 4, 5), torch.inf), torch.zeros(3, 4, 5, dtype=torch.uint8), "to inf"),
    ],
)
def test_wrong_input_is_one_sentence(probabilities: Tensor, image: Tensor, message: str) -> None:
    with pytest.raises(SegfolioError, match=message):
        dense_crf(probabilities, image, V1)


def test_wrong_parameters_are_one_sentence() -> None:
    with pytest.raises(SegfolioError, match=r"bi_xy=0.*deviations above 0"):
        CRFParameters(5, 0, 10, 3, 3)
    with pytest.raises(SegfolioError, match="bi_xy and bi_rgb are too small"):
        dense_crf(
            torch.rand(2, 4, 5), torch.arange(60, dtype=torch.uint8).view(3, 4, 5), CRFParameters(5, 1e-4, 1e-4, 3, 3)
        )
    with pytest.raises(SegfolioError, match="iterations of at least 0, found -1"):
        dense_crf(torch.rand(2, 4, 5), torch.zeros(3, 4, 5, dtype=torch.uint8), V1, iterations=-1)
    with pytest.raises(SegfolioError, match="'symetric'"):
        dense_crf(torch.rand(2, 4, 5), torch.zeros(3, 4, 5, dtype=torch.uint8), V1, normalization="symetric")
