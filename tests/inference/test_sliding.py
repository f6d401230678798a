"""`Slide` against sums over the whole image, and what it holds."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.confusion_matrix import peak_bytes
from segfolio.errors import SegfolioError
from segfolio.inference.protocols import Slide, Whole
from segfolio.inference.sliding import gaussian, starts
from segfolio.inference.tiles import Network, Store, argmax, collect
from tests.inference.networks import CLASSES, convolution, image, network, per_pixel

SIZE = (50, 70)


def by_sums(net: Network, picture: Tensor, window: tuple[int, int], stride: tuple[int, int], weight: Tensor) -> Tensor:
    """Every window added to sums of the whole image."""
    height, width = picture.shape[-2:]
    sums, weights = torch.zeros(CLASSES, height, width), torch.zeros(height, width)
    for y in starts(height, window[0], stride[0]):
        for x in starts(width, window[1], stride[1]):
            here = (..., slice(y, y + window[0]), slice(x, x + window[1]))
            sums[here] += collect(net.scores(picture[None][here])[0](window), window) * weight
            weights[here] += weight
    return sums / weights


@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 100))
@settings(max_examples=200, deadline=None)
def test_windows_cover_every_pixel_and_stay_inside(length: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    found = starts(length, window, stride)
    assert found[0] == 0
    assert found[-1] + window == max(length, window)
    assert all(0 < b - a <= stride for a, b in pairwise(found))
    # mmsegmentation's number of windows along an axis
    assert len(found) == max(length - window + stride - 1, 0) // stride + 1


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
@pytest.mark.parametrize(
    ("window", "stride"),
    [((20, 30), (13, 7)), ((16, 16), (16, 16)), ((33, 64), (32, 5)), ((50, 20), (1, 3)), ((49, 69), (1, 1))],
)
def test_it_equals_sums_over_the_whole_image(window, stride, weighting) -> None:
    net = network(convolution())
    weight = gaussian(window) if weighting == "gaussian" else torch.ones(window)
    expected = by_sums(net, image(), window, stride, weight)
    for batch in (1, 3):
        found = collect(Slide(window, stride, weighting, batch=batch).tiles(net, image(), SIZE), SIZE)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_one_window_that_covers_the_image_is_the_whole_image() -> None:
    net = network(convolution())
    whole = collect(Whole().tiles(net, image(), SIZE), SIZE)
    assert torch.equal(collect(Slide(SIZE).tiles(net, image(), SIZE), SIZE), whole)


def test_a_small_image_is_padded_with_the_mean_and_cropped() -> None:
    seen = []

    def remember(images: Tensor) -> Tensor:
        seen.append(images)
        return per_pixel(images)

    found = collect(Slide((64, 64), 40).tiles(network(remember), image(), SIZE), SIZE)
    assert [tuple(images.shape) for images in seen] == [(1, 3, 64, 64)] * 2
    assert (seen[0][:, :, 50:] == 120).all()
    assert seen[0][0, :, :50].equal(image()[:, :, :64].float())
    torch.testing.assert_close(found, per_pixel(image()[None].float())[0])


def test_windows_do_not_matter_to_a_network_of_single_pixels() -> None:
    picture = image(90, 61)
    expected = per_pixel(picture[None].float())[0].argmax(0)
    found = argmax(
        Slide((32, 24), (20, 11), "gaussian", batch=4).tiles(network(per_pixel), picture, (90, 61)), (90, 61)
    )
    assert (found == expected).float().mean() > 0.999


def test_averaged_probabilities_are_not_averaged_logits() -> None:
    net, slide = network(convolution()), Slide(20, 7, average="probabilities")
    assert not slide.gives_logits(net)
    softened = network(
        lambda images: torch.stack([collect(s((20, 20)), (20, 20)) for s in net.scores(images)]).softmax(1)
    )
    expected = by_sums(softened, image(), (20, 20), (7, 7), torch.ones(20, 20))
    found = collect(slide.tiles(net, image(), SIZE), SIZE)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(0), torch.ones(SIZE))


def test_at_another_size_the_average_is_resized() -> None:
    net, slide = network(convolution()), Slide(20, 7)
    own = collect(slide.tiles(net, image(), SIZE), SIZE)
    expected = torch.nn.functional.interpolate(own[None], (33, 90), mode="bilinear")[0]
    torch.testing.assert_close(collect(slide.tiles(net, image(), (33, 90)), (33, 90)), expected)


@pytest.mark.parametrize("store", ["cpu", "disk"])
def test_where_sums_wait_changes_nothing(store: Store) -> None:
    net = network(convolution())
    here, there = (collect(Slide(20, 7, store=s).tiles(net, image(), SIZE), SIZE) for s in ("device", store))
    assert torch.equal(here, there)


def test_autocast_of_the_network_leaves_sums_in_float32() -> None:
    net, slide = network(convolution()), Slide(20, 10)
    exact = collect(slide.tiles(net, image(), SIZE), SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        half = collect(slide.tiles(net, image(), SIZE), SIZE)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0.05)


def test_gaussian_weights_are_those_of_monai() -> None:
    """`compute_importance_map((4, 6), mode="gaussian", sigma_scale=0.125)` of MONAI 1.5, by its formula."""
    y, x = np.exp(-0.5 * ((np.arange(4) - 1.5) / 0.5) ** 2), np.exp(-0.5 * ((np.arange(6) - 2.5) / 0.75) ** 2)
    expected = torch.from_numpy(np.outer(y, x).clip(1e-3)).float()
    torch.testing.assert_close(gaussian((4, 6)), expected)
    assert gaussian((4, 6)).min() == torch.tensor(1e-3)


def test_it_holds_one_window_and_the_rows_that_wait() -> None:
    """Whatever the height, and however far back the last row of windows is moved: see `Slide` for a large one."""
    classes, window, stride = 60, 32, 21

    def held(*size: int) -> int:
        net = network(lambda images: torch.zeros(1, classes, 1, 1).expand(len(images), -1, 4, 4))

        def run() -> None:
            argmax(Slide(window, stride).tiles(net, image(*size), size), size)

        return peak_bytes(run) - size[0] * size[1]  # of the result

    rows, windows = 4 * (classes + 1) * (window - stride) * 95, 6 * 4 * classes * window**2
    most = held(95, 95)  # 32 + 3 x 21 rows: no window is moved back; of 96, by 20 rows
    assert most < rows + windows
    assert held(137, 95) < 1.01 * most
    assert held(96, 95) < 1.01 * most


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((20, 21), "stride (21, 21)"),
        ((20, 0), "stride (0, 0)"),
        ((0,), "window (0, 0)"),
        (((5, 6, 7),), "window is (5, 6, 7); give a height and a width"),
        ((5, (5,)), "stride is (5,)"),
    ],
)
def test_gaps_and_lengths_that_are_none_are_refused(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(SegfolioError) as error:
        Slide(*arguments)
    assert said in str(error.value)
