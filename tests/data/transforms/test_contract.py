"""What every transform keeps: decided by its random stream alone, truth consistent, mistakes named."""

from collections.abc import Sequence
from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torchvision.transforms import v2

from segfolio.data.sample import Sample, Segments, Target, to_image
from segfolio.data.transforms import (
    BorderWeight,
    ColorJitter,
    ElasticDeformation,
    PhotometricDistortion,
    RandomWindow,
    Resize,
    ResizeShortest,
    TorchvisionV2,
    Transform,
)
from segfolio.errors import SegfolioError
from tests.data.transforms.helpers import COLORS, blocks, segments, semantic

EVERYTHING: list[Transform] = [
    RandomWindow((90, 110), scale=(0.5, 2.0), hflip=0.5, vflip=0.5),
    RandomWindow((90, 110), scale=(0.5, 2.0), hflip=0.5, vflip=0.5, rotation=30),
    RandomWindow(scale=(0.5, 0.9), short_side=100),
    Resize((70, 80)),
    Resize(75, max_size=90, divisor=16),
    ResizeShortest(range(40, 67), max_size=90),
    ElasticDeformation(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    ColorJitter(0.4, 0.4, 0.4, 0.1, probability=0.5),
    PhotometricDistortion(),
    BorderWeight(foreground=1),
    TorchvisionV2(v2.RandomPerspective(p=1.0)),
]


def same(a: Sample, b: Sample) -> bool:
    def tensors(s: Sample) -> list[torch.Tensor | None]:
        t = s.target or Target()
        parts = (t.segments.masks, t.segments.labels) if t.segments else (None, None)
        return [s.image, t.semantic, t.weight, *parts]

    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(x is y is None or (x is not None and y is not None and torch.equal(x, y)) for x, y in pairs)


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


@pytest.mark.parametrize("form", ["rles", "id_map"])
@pytest.mark.parametrize("transform", EVERYTHING[:6], ids=lambda t: type(t).__name__)
def test_segments_of_every_form_become_the_same(transform: Transform, form: str) -> None:
    """Discs of 2 to 30 pixels, many of them outside the window; flips, padding, rotation, both directions of scale."""
    y, x = np.mgrid[:120, :160]
    kept = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        discs = zip(rng.uniform(0, 120, 12), rng.uniform(0, 160, 12), rng.uniform(1, 15, 12), strict=True)
        ids = np.zeros((120, 160), np.int32)
        for number, (row, column, radius) in enumerate(discs, 1):
            ids[(y - row) ** 2 + (x - column) ** 2 < radius**2] = number
        ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.int32)
        labels = torch.arange(int(ids.max()))
        whole = Segments(torch.from_numpy(ids), labels, labels % 5 == 0)
        results = []
        for given in (whole.masks, getattr(whole, form)):
            segments_ = Segments(given, labels, labels % 5 == 0, (120, 160))
            sample = Sample(to_image(np.zeros((120, 160, 3), np.uint8)), "discs", (120, 160), Target(None, segments_))
            results.append(segments(transform(sample, np.random.default_rng(seed))))
        expected, found = results
        assert torch.equal(found.masks, expected.masks)
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.crowd.tolist() == expected.crowd.tolist()
        kept += len(found)
    assert kept > 40 * 3


def test_mistakes_are_named() -> None:
    for mistake, message in (
        (lambda: RandomWindow(scale=(2.0, 0.5)), r"RandomWindow: scale is \(2.0, 0.5\)"),
        (lambda: RandomWindow(hflip=50), "hflip is 50"),
        (lambda: RandomWindow((0, 10)), "at least 1 pixel"),
        (lambda: Resize(0), "at least 1 pixel"),
        (lambda: Resize((10, 10), max_size=20), "leave one of the two out"),
        (lambda: ColorJitter(hue=18), "hue 18"),
        (lambda: ColorJitter(0.1, probability=2.0), "probability is 2.0"),
        (lambda: PhotometricDistortion(contrast=(1.5, 0.5)), r"contrast \(1.5, 0.5\)"),
        (lambda: PhotometricDistortion(brightness=-1), "brightness -1"),
        (lambda: ElasticDeformation(grid=1), "grid 1"),
        (lambda: BorderWeight(sigma=0), "sigma is 0"),
    ):
        with pytest.raises(SegfolioError, match=message):
            mistake()
    image = to_image(np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(SegfolioError, match="two has 2 channels"):
        ColorJitter(saturation=0.5)(Sample(image, "two", (4, 4)), np.random.default_rng(0))
    with pytest.raises(SegfolioError, match="two has 2 channels of uint8; it needs RGB"):
        PhotometricDistortion()(Sample(image, "two", (4, 4)), np.random.default_rng(0))
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
