"""Transforms: aligned to the pixel, decided by the random stream alone, equal to what they stand for."""

from collections.abc import Sequence
from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy.ndimage import distance_transform_edt
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Segments, Target, to_image, to_pixels
from segfolio.data.transforms import (
    BorderWeight,
    ColorJitter,
    ElasticDeformation,
    RandomWindow,
    Resize,
    TorchvisionV2,
    Transform,
)
from segfolio.data.transforms.color import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation
from segfolio.errors import SegfolioError

COLORS = np.array([(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 20), (128, 30, 128)], np.uint8)
EVERYTHING: list[Transform] = [
    RandomWindow((90, 110), scale=(0.5, 2.0), hflip=0.5, vflip=0.5),
    RandomWindow((90, 110), scale=(0.5, 2.0), hflip=0.5, vflip=0.5, rotation=30),
    RandomWindow(scale=(0.5, 0.9), short_side=100),
    Resize((70, 80)),
    Resize(75, max_size=90, divisor=16),
    ElasticDeformation(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    BorderWeight(foreground=1),
    TorchvisionV2(v2.RandomPerspective(p=1.0)),
]


def blocks(size: tuple[int, int] = (120, 160), block: int = 20, ignore_index: int = 255) -> Sample:
    """Blocks of random classes, the colour of a pixel being its class's, and a segment per class."""
    grid = np.random.default_rng(0).integers(0, len(COLORS), (-(-size[0] // block), -(-size[1] // block)))
    ids = np.kron(grid, np.ones((block, block), np.int64))[: size[0], : size[1]]
    masks = torch.from_numpy(ids == np.arange(len(COLORS))[:, None, None])
    segments = Segments(Mask(masks), torch.arange(len(COLORS)), torch.zeros(len(COLORS), dtype=torch.bool))
    semantic = Mask(torch.from_numpy(ids.astype(np.uint8 if ignore_index < 256 else np.uint16)))
    target = Target(semantic, segments, ignore_index=ignore_index)
    return Sample(to_image(COLORS[ids]), "blocks", size, target)


def semantic(sample: Sample) -> np.ndarray:
    assert sample.target is not None
    assert sample.target.semantic is not None
    return sample.target.semantic.numpy()


def segments(sample: Sample) -> Segments:
    assert sample.target is not None
    assert sample.target.segments is not None
    return sample.target.segments


def inner(ids: np.ndarray, distance: int) -> np.ndarray:
    """Pixels with a class, more than `distance` away from other classes, padding and the window's border."""
    kernel = np.ones((2 * distance + 1,) * 2, np.uint8)
    framed = cv2.copyMakeBorder(ids[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    return (cv2.dilate(framed, kernel) == cv2.erode(framed, kernel)) & (framed != 255)


def same(a: Sample, b: Sample) -> bool:
    def tensors(s: Sample) -> list[torch.Tensor | None]:
        t = s.target or Target()
        parts = (t.segments.masks, t.segments.labels) if t.segments else (None, None)
        return [s.image, t.semantic, t.weight, *parts]

    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(x is y is None or (x is not None and y is not None and torch.equal(x, y)) for x, y in pairs)


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


@pytest.mark.parametrize("transform", EVERYTHING, ids=lambda t: type(t).__name__)
def test_the_random_stream_alone_decides_and_the_input_stays(transform: Transform) -> None:
    sample = blocks()
    before = deepcopy(sample)
    threads = cv2.getNumThreads(), torch.get_num_threads()
    try:
        results = []
        for count in (1, 4):
            cv2.setNumThreads(count)
            torch.set_num_threads(count)
            torch.manual_seed(count)
            results.append(transform(sample, np.random.default_rng(3)))
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    assert same(*results)
    assert same(sample, before)
    assert results[0].original_size == (120, 160)
    assert results[0].image.dtype == torch.uint8
    if not isinstance(transform, Resize | BorderWeight):
        assert not same(results[0], transform(sample, np.random.default_rng(4)))


@pytest.mark.parametrize("transform", EVERYTHING, ids=lambda t: type(t).__name__)
def test_semantic_map_and_segments_agree_and_vanished_segments_go(transform: Transform) -> None:
    transforms = [RandomWindow((40, 40)), transform]  # a window in which some classes do not occur
    dropped = 0
    for seed in range(10):
        rng, result = np.random.default_rng(seed), blocks()
        for step in transforms:
            result = step(result, rng)
        ids, kept = semantic(result), segments(result)
        assert ids.shape == tuple(result.image.shape[-2:])
        assert set(kept.labels.tolist()) == set(np.unique(ids)) - {255}
        for mask, label in zip(kept.masks.numpy(), kept.labels.tolist(), strict=True):
            np.testing.assert_array_equal(mask, ids == label)
        dropped += len(COLORS) - len(kept)
    assert dropped > 0


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(31, 200), (180, 90), (64, 64)])
def test_resize_equals_torchvisions_to_the_bit(size: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (97, 130, channels), np.uint8)
    sample = Sample(to_image(pixels), "noise", (97, 130))
    ours = Resize(size)(sample, np.random.default_rng(0)).image
    assert torch.equal(ours, TF.resize(sample.image, list(size), antialias=True))
    assert to_pixels(ours).ctypes.data == ours.data_ptr()  # height, width, channels in memory


def test_the_result_of_resize_has_the_size_that_was_asked_for() -> None:
    assert Resize(512).result(683, 512) == (683, 512)
    assert Resize(512).result(256, 400) == (512, 800)
    assert Resize(800, max_size=1333).result(480, 1280) == (500, 1333)
    assert Resize(512, divisor=32).result(480, 631) == (512, 704)
    assert Resize((360, 480)).result(720, 960) == (360, 480)


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


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.4])
@pytest.mark.parametrize(
    ("ours", "torchvisions"),
    [
        (adjust_brightness, TF.adjust_brightness),
        (adjust_contrast, TF.adjust_contrast),
        (adjust_saturation, TF.adjust_saturation),
        (lambda x, f: adjust_hue(x, f - 1), lambda x, f: TF.adjust_hue(x, f - 1)),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_colours_are_torchvisions_within_one_level(ours, torchvisions, factor: float) -> None:  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    expected = torchvisions(to_image(pixels).as_subclass(torch.Tensor), factor)
    difference = np.abs(ours(pixels, factor).astype(int) - to_pixels(expected))
    assert difference.max() <= 1  # torchvision truncates, its luminance too
    assert difference.mean() < 0.9


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_grey_images_have_brightness_and_contrast_alone(factor: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 1), np.uint8)
    image = to_image(pixels).as_subclass(torch.Tensor)
    for ours, torchvisions in (
        (adjust_brightness, TF.adjust_brightness),
        (adjust_contrast, TF.adjust_contrast),
    ):
        assert np.abs(ours(pixels, factor).astype(int) - to_pixels(torchvisions(image, factor))).max() <= 1
    result = ColorJitter(saturation=0.9, hue=0.5)(Sample(to_image(pixels), "grey", (40, 50)), np.random.default_rng(0))
    np.testing.assert_array_equal(to_pixels(result.image), pixels)


def test_jitter_draws_factors_from_the_range_and_the_order_at_random() -> None:
    sample = Sample(to_image(np.full((4, 4, 3), 100, np.uint8)), "flat", (4, 4))
    rng = np.random.default_rng(0)
    values = [int(ColorJitter(brightness=0.4)(sample, rng).image[0, 0, 0]) for _ in range(500)]
    assert (min(values), max(values)) == (60, 140)
    assert np.mean(values) == pytest.approx(100, abs=4)
    pixels = np.array([[[250, 250, 250], [10, 10, 10]]], np.uint8)  # brighter than 255 is clipped: order matters
    orders = set()
    for seed in range(40):
        result = ColorJitter(0.4, 0.4)(Sample(to_image(pixels), "two", (1, 2)), np.random.default_rng(seed)).image
        b, c = np.random.default_rng(seed).uniform(0.6, 1.4, 2)
        first = adjust_contrast(adjust_brightness(pixels, b), c)
        second = adjust_brightness(adjust_contrast(pixels, c), b)
        matches = [np.array_equal(to_pixels(result), expected) for expected in (first, second)]
        assert any(matches)
        if not all(matches):
            orders.add(matches[0])
    assert orders == {True, False}


def test_elastic_nodes_are_gaussian_and_the_field_runs_through_them() -> None:
    ramp = np.arange(201, dtype=np.uint8)[None, :, None].repeat(201, 0)  # the value of a pixel is its column
    sample = Sample(to_image(ramp), "ramp", (201, 201))
    centre = []
    for seed in range(300):
        result = to_pixels(ElasticDeformation(grid=3, sigma=10.0)(sample, np.random.default_rng(seed)).image)
        nodes = np.random.default_rng(seed).normal(0.0, 10.0, (2, 3, 3))
        displacement = int(result[100, 100, 0]) - 100
        assert displacement == pytest.approx(nodes[1, 1, 1], abs=0.51)
        centre.append(displacement)
    assert np.std(centre) == pytest.approx(10, abs=1.3)
    still = ElasticDeformation(sigma=0.0)(sample, np.random.default_rng(0))
    np.testing.assert_array_equal(to_pixels(still.image), ramp)


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


def test_torchvision_pads_with_ignore_index_and_leaves_torchs_generator() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    pad = TorchvisionV2(v2.Pad((3, 2)))
    for ignore_index in (255, 65535):
        sample = blocks((40, 60), ignore_index=ignore_index)
        ids = semantic(pad(sample, np.random.default_rng(0)))
        np.testing.assert_array_equal(ids, np.pad(semantic(sample), ((2, 2), (3, 3)), constant_values=ignore_index))
        assert ids.dtype == semantic(sample).dtype
    assert torch.equal(torch.get_rng_state(), state)


def test_what_torchvision_may_not_do_is_an_error() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SegfolioError, match=r"ToDtype made torch.float32 of blocks; images stay uint8"):
        TorchvisionV2(v2.ToDtype(torch.float32, scale=True))(blocks(), rng)
    with pytest.raises(SegfolioError, match="Pad pads masks with a value of its own; leave `fill`"):
        TorchvisionV2(v2.Pad(3, fill=255))(blocks(), rng)


def test_mistakes_are_named() -> None:
    for mistake, message in (
        (lambda: RandomWindow(scale=(2.0, 0.5)), r"RandomWindow: scale is \(2.0, 0.5\)"),
        (lambda: RandomWindow(hflip=50), "hflip 50"),
        (lambda: RandomWindow((0, 10)), "at least 1 pixel"),
        (lambda: Resize(0), "at least 1 pixel"),
        (lambda: Resize((10, 10), max_size=20), "leave one of the two out"),
        (lambda: ColorJitter(hue=18), "hue 18"),
        (lambda: ElasticDeformation(grid=1), "grid 1"),
        (lambda: BorderWeight(sigma=0), "sigma is 0"),
    ):
        with pytest.raises(SegfolioError, match=message):
            mistake()
    image = to_image(np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(SegfolioError, match="two has 2 channels"):
        ColorJitter(0.5)(Sample(image, "two", (4, 4)), np.random.default_rng(0))
    with pytest.raises(SegfolioError, match="two has neither segments nor a semantic map"):
        BorderWeight()(Sample(image, "two", (4, 4), Target()), np.random.default_rng(0))


def test_transforms_are_made_from_yaml() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--transforms", type=Sequence[Transform])
    config = parser.parse_string(
        """
        transforms:
        - {class_path: segfolio.data.transforms.RandomWindow, init_args: {size: [32, 48], scale: [0.5, 2.0]}}
        - {class_path: segfolio.data.transforms.Resize, init_args: {size: 64}}
        - class_path: segfolio.data.transforms.TorchvisionV2
          init_args:
            transform: {class_path: torchvision.transforms.v2.RandomHorizontalFlip, init_args: {p: 1.0}}
        """
    )
    window, resize, flip = parser.instantiate(config).transforms
    assert (window.size, window.scale) == ((32, 48), (0.5, 2.0))
    assert resize.size == 64
    flipped = flip(blocks(), np.random.default_rng(0))
    np.testing.assert_array_equal(semantic(flipped), semantic(blocks())[:, ::-1])
