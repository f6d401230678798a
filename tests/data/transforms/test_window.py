"""RandomWindow: image and labels aligned to the pixel, places and scales as drawn, nothing aliased."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Segments, Target, to_image, to_pixels
from segfolio.data.transforms import ElasticDeformation, RandomWindow
from segfolio.errors import SegfolioError
from tests.data.transforms.helpers import COLORS, blocks, segments, semantic


def inner(ids: np.ndarray, distance: int) -> np.ndarray:
    """Pixels with a class, more than `distance` away from other classes, padding and the window's border."""
    kernel = np.ones((2 * distance + 1,) * 2, np.uint8)
    framed = cv2.copyMakeBorder(ids[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    return (cv2.dilate(framed, kernel) == cv2.erode(framed, kernel)) & (framed != 255)


@pytest.mark.parametrize("deform", [False, True])
@pytest.mark.parametrize("rotation", [0, 25])
def test_image_and_labels_stay_aligned_to_the_pixel(rotation: float, deform: bool) -> None:
    window = RandomWindow((97, 131), scale=(0.5, 2.0), hflip=0.5, vflip=0.5, rotation=rotation)
    checked = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        result = window(ElasticDeformation(sigma=4.0)(blocks(), rng) if deform else blocks(), rng)
        ids = semantic(result)
        clear = inner(ids, 5 if deform else 2)  # two interpolations, the second up to 2 times larger
        error = np.abs(to_pixels(result.image)[clear].astype(int) - COLORS[ids[clear]])
        assert error.max() <= 1, f"seed {seed}"
        checked += clear.sum()
    assert checked > 40 * 97 * 131 / 5


def test_without_scale_the_colour_is_the_classs_in_every_pixel() -> None:
    for seed in range(20):
        result = RandomWindow((97, 131), hflip=0.5, vflip=0.5)(blocks(), np.random.default_rng(seed))
        np.testing.assert_array_equal(to_pixels(result.image), COLORS[semantic(result)])


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.3, 2.0])
@pytest.mark.parametrize("rotation", [0, 1e-6])
def test_labels_are_the_nearest_pixel_by_its_centre(factor: float, rotation: float) -> None:
    ids = np.arange(180, dtype=np.uint16).reshape(12, 15)
    sample = Sample(to_image(np.zeros((12, 15, 3), np.uint8)), "ids", (12, 15), Target(Mask(torch.from_numpy(ids))))
    result = semantic(RandomWindow(scale=(factor, factor), rotation=rotation)(sample, np.random.default_rng(0)))
    height, width = result.shape
    y, x = (np.arange(height) + 0.5) * 12 / height - 0.5, (np.arange(width) + 0.5) * 15 / width - 0.5
    distance_y, distance_x = np.abs(result // 15 - y[:, None]), np.abs(result % 15 - x)
    assert max(distance_y.max(), distance_x.max()) <= 0.5 + 1e-4


def test_a_sample_without_segments_left_has_none() -> None:
    sample = blocks()
    sample = Sample(
        sample.image,
        "none",
        (120, 160),
        Target(
            segments=Segments(
                Mask(torch.zeros(2, 120, 160, dtype=torch.bool)),
                torch.tensor([1, 2]),
                torch.tensor([False, True]),
            )
        ),
    )
    kept = segments(RandomWindow((30, 40))(sample, np.random.default_rng(0)))
    assert kept.masks.shape == (0, 30, 40)
    assert len(kept.labels) == len(kept.crowd) == 0


@pytest.mark.parametrize("rotation", [0, 40])
def test_the_size_is_exact_at_any_scale(rotation: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width, h, w = (int(x) for x in rng.integers(1, 70, 4))
        sample = Sample(
            to_image(rng.integers(0, 256, (height, width, 3), np.uint8)),
            "any",
            (height, width),
            Target(Mask(torch.zeros(height, width, dtype=torch.uint8))),
        )
        result = RandomWindow((h, w), scale=(0.01, 4.0), rotation=rotation)(sample, rng)
        assert result.image.shape == (3, h, w)
        assert semantic(result).shape == (h, w)


def test_every_position_is_equally_likely() -> None:
    y, x = np.mgrid[:10, :12].astype(np.uint8)
    sample = Sample(to_image(np.stack([y, x, x], -1)), "grid", (10, 12))
    rng = np.random.default_rng(0)
    corners = [tuple(RandomWindow((8, 9))(sample, rng).image[:2, 0, 0].tolist()) for _ in range(3600)]
    counts = np.array([corners.count((i, j)) for i in range(3) for j in range(4)])
    assert counts.sum() == 3600
    assert np.abs(counts - 300).max() < 4 * np.sqrt(300)


def test_scales_and_flips_follow_their_distribution() -> None:
    rng = np.random.default_rng(0)
    sample = Sample(to_image(np.zeros((100, 120, 3), np.uint8)), "black", (100, 120))
    heights = [RandomWindow(scale=(0.5, 2.0))(sample, rng).image.shape[1] for _ in range(400)]
    assert 50 <= min(heights) < 55
    assert 195 < max(heights) <= 200
    assert np.mean(heights) == pytest.approx(125, abs=4 * 43 / 20)
    ramp = Sample(to_image(np.arange(64, dtype=np.uint8).reshape(8, 8, 1)), "ramp", (8, 8))
    corners = [int(RandomWindow(hflip=0.5, vflip=0.25)(ramp, rng).image[0, 0, 0]) for _ in range(800)]
    shares = [corners.count(value) / 800 for value in (0, 7, 56, 63)]  # none, h, v, both
    assert shares == pytest.approx([0.375, 0.375, 0.125, 0.125], abs=0.06)


def test_rotation_turns_about_the_window_by_angles_in_the_range() -> None:
    dot = np.zeros((101, 101, 1), np.uint8)
    dot[48:53, 88:93] = 255  # 40 pixels to the right of the centre
    angles = []
    for seed in range(200):
        result = RandomWindow((101, 101), rotation=30)(
            Sample(to_image(dot), "dot", (101, 101)), np.random.default_rng(seed)
        )
        y, x = (c.mean() - 50 for c in np.nonzero(to_pixels(result.image)[..., 0] > 127))
        assert np.hypot(x, y) == pytest.approx(40, abs=0.5)
        angles.append(np.degrees(np.arctan2(y, x)))
    assert max(angles) == pytest.approx(30, abs=1.5)
    assert min(angles) == pytest.approx(-30, abs=1.5)


@pytest.mark.parametrize(("ignore_index", "dtype"), [(255, np.uint8), (65535, np.uint16)])
def test_outside_is_ignored_without_segment_and_of_the_mean_colour(ignore_index: int, dtype: type) -> None:
    places = set()
    for seed in range(60):
        sample = blocks((60, 80), ignore_index=ignore_index)
        result = RandomWindow((40, 42), scale=(0.5, 0.5))(sample, np.random.default_rng(seed))
        ids = semantic(result)
        outside = ids == ignore_index
        assert ids.dtype == dtype
        assert outside.sum() == 40 * 42 - 30 * 40
        assert not segments(result).masks.numpy()[:, outside].any()
        mean = sample.image.float().mean((1, 2)).numpy()
        assert np.abs(to_pixels(result.image)[outside] - mean).max() < 2
        rows, columns = np.nonzero(~outside)
        places.add((rows.min(), columns.min()))
    assert {r for r, _ in places} == set(range(11))
    assert {c for _, c in places} == {0, 1, 2}


def test_the_short_side_sets_the_scale() -> None:
    result = RandomWindow(short_side=60, scale=(0.5, 0.5))(blocks((120, 160)), np.random.default_rng(0))
    assert result.image.shape == (3, 30, 40)


def test_the_long_side_sets_the_scale() -> None:
    result = RandomWindow(long_side=80, scale=(0.5, 0.5))(blocks((120, 160)), np.random.default_rng(0))
    assert result.image.shape == (3, 30, 40)
    with pytest.raises(SegfolioError, match="short_side 60, long_side 80; leave one of them out"):
        RandomWindow(short_side=60, long_side=80)


@pytest.mark.parametrize("rotation", [0.0, 1e-6])
def test_what_shrinks_is_antialiased(rotation: float) -> None:
    checkerboard = (np.indices((120, 160)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    window = RandomWindow((30, 40), scale=(0.3, 0.3), rotation=rotation)
    result = window(Sample(to_image(checkerboard), "checkerboard", (120, 160)), np.random.default_rng(0))
    assert np.abs(to_pixels(result.image)[1:-1, 1:-1] - 127.5).max() < 2


def test_inside_a_shrunk_window_equals_resize_then_crop() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    index = Mask(torch.arange(120 * 160).reshape(120, 160).to(torch.uint16))
    sample = Sample(to_image(pixels), "noise", (120, 160), Target(index))
    whole = TF.resize(sample.image, [60, 80], antialias=True)
    compared = 0
    for seed in range(40):
        result = RandomWindow((30, 40), scale=(0.5, 0.5))(sample, np.random.default_rng(seed))
        y, x = (i - 1 for i in divmod(int(semantic(result)[0, 0]), 160))  # of 2x2 pixels the last is taken
        if y % 2 == x % 2 == 0:
            crop = whole[:, y // 2 : y // 2 + 30, x // 2 : x // 2 + 40]
            assert torch.equal(result.image[:, 1:-1, 1:-1], crop[:, 1:-1, 1:-1])
            compared += 1
    assert compared > 3


def test_a_rotation_comes_with_its_probability_and_moves_no_other_draw() -> None:
    def run(seed: int, **arguments: float) -> np.ndarray:
        window = RandomWindow((97, 131), scale=(0.5, 2.0), hflip=0.5, **arguments)
        return semantic(window(blocks(), np.random.default_rng(seed)))

    turned = 0
    for seed in range(60):
        sometimes, always, never = (
            run(seed, rotation=r, rotation_probability=p) for r, p in ((9, 0.5), (9, 1), (0, 1))
        )
        assert np.array_equal(sometimes, always) or np.array_equal(sometimes, never)
        turned += not np.array_equal(sometimes, never)
    assert 15 < turned < 45
