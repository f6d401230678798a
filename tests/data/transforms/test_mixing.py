"""Mixing samples: image, objects and semantic map stay together, whatever form they have; nothing else decides."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from segfolio.data.formats import rle
from segfolio.data.sample import Federated, Sample, to_pixels
from segfolio.data.segments import Segments
from segfolio.data.transforms import CopyPaste, Mixing, MixUp, Mosaic
from segfolio.errors import SegfolioError
from tests.data.transforms.helpers import COLORS, blocks, segments, semantic

SIZES = [(120, 160), (90, 60), (40, 44), (200, 130)]
MIXINGS: list[Mixing] = [Mosaic((64, 80)), MixUp(), CopyPaste()]


def samples(form: str = "masks") -> list[Sample]:
    """Of several sizes; their objects are the classes' colours."""
    found = []
    for number, size in enumerate(SIZES):
        sample = replace(blocks(size, block=10 + number), image_id=str(number))
        own = segments(sample)
        forms = {"masks": own, "id map": own.compact(), "run lengths": replace(own, form=own.rles, size=size)}
        found.append(replace(sample, target=replace(sample.target, segments=forms[form])))
    return found


def shown(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """`[N, H, W]`: where the objects are, and where the pixels of their colours are."""
    own = segments(sample)
    pixels = to_pixels(sample.image)
    colours = np.stack([(pixels == COLORS[label]).all(-1) for label in own.labels])
    return own.masks.numpy(), colours


@pytest.mark.parametrize("form", ["masks", "id map", "run lengths"])
@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda m: type(m).__name__)
def test_the_random_stream_alone_decides_and_the_inputs_stay(mixing: Mixing, form: str) -> None:
    given = samples(form)[: mixing.samples]
    before = deepcopy(given)
    first, again, other = (mixing(given, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.image, again.image)
    assert torch.equal(segments(first).masks, segments(again).masks)
    assert not torch.equal(first.image, other.image)
    for now, then in zip(given, before, strict=True):
        assert torch.equal(now.image, then.image)
        assert torch.equal(segments(now).masks, segments(then).masks)
        assert np.array_equal(semantic(now), semantic(then))


@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda m: type(m).__name__)
def test_every_form_of_objects_gives_the_same(mixing: Mixing) -> None:
    found = [mixing(samples(form)[: mixing.samples], np.random.default_rng(3)) for form in ("masks", "id map")]
    found.append(mixing(samples("run lengths")[: mixing.samples], np.random.default_rng(3)))
    for other in found[1:]:
        assert torch.equal(segments(other).masks, segments(found[0]).masks)
        assert torch.equal(segments(other).labels, segments(found[0]).labels)


@pytest.mark.parametrize("seed", range(4))
def test_a_mosaic_shows_four_images_and_their_truth(seed: int) -> None:
    """Sizes are those of the canvas' halves, so that colours are not interpolated."""
    size = (50, 70)
    given = [replace(blocks(size, block=10 + k), image_id=str(k)) for k in range(4)]
    mosaic = Mosaic(size)(given, np.random.default_rng(seed))
    assert (mosaic.image.shape, mosaic.image_id) == ((3, 100, 140), "0")
    masks, colours = shown(mosaic)
    seen = semantic(mosaic) != 255
    assert np.array_equal(masks.any(0), seen)
    assert (masks <= colours).all()
    labels = segments(mosaic).labels.numpy()
    for mask, label in zip(masks, labels, strict=True):
        assert (semantic(mosaic)[mask] == label).all()
    assert len(labels) > 15  # five of each image
    assert len(np.unique(to_pixels(mosaic.image)[~seen], axis=0)) <= 1
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    assert len(rows) == rows[-1] - rows[0] + 1 >= size[0]  # they touch each other
    assert len(columns) == columns[-1] - columns[0] + 1 >= size[1]


def test_a_mixture_is_the_weighted_sum_and_has_the_objects_of_both() -> None:
    first, second = (blocks((60, 80), block) for block in (20, 13))
    mixed = MixUp(alpha=1.0)([first, second], np.random.default_rng(0))
    a, b, c = (each.image.double() for each in (first, second, mixed))
    part = ((c - b) * (a - b)).sum() / (a - b).square().sum()
    assert 0.02 < part < 0.98
    assert (part * a + (1 - part) * b - c).abs().max() <= 0.51
    expected = torch.cat([segments(first).masks, segments(second).masks])
    assert torch.equal(segments(mixed).masks, expected)
    assert mixed.target is not None
    assert mixed.target.semantic is None


def test_of_a_smaller_second_image_nothing_is_mixed_beyond_it() -> None:
    mixed = MixUp()([samples()[0], samples()[2]], np.random.default_rng(0))
    own = segments(mixed).masks[5:]
    assert mixed.image.shape == (3, 120, 160)
    assert own[:, :40, :44].any(0).all()
    assert not own[:, 40:].any()
    assert not own[:, :, 44:].any()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_pasted_covers_what_was_there(seed: int) -> None:
    first, second = (blocks((60, 80), block) for block in (20, 13))
    pasted = CopyPaste(share=0.5)([first, second], np.random.default_rng(seed))
    masks, colours = shown(pasted)
    assert (masks.sum(0) == 1).all()  # all of the image belongs to one object, as before
    assert (masks <= colours).all()
    for mask, label in zip(masks, segments(pasted).labels.tolist(), strict=True):
        assert (semantic(pasted)[mask] == label).all()


def test_crowds_are_not_pasted_and_a_covered_object_is_dropped() -> None:
    first, second = blocks((60, 80)), blocks((60, 80), 13)
    whole = Segments(Mask(torch.ones(2, 60, 80, dtype=torch.bool)), torch.tensor([3, 1]), torch.tensor([True, False]))
    second = replace(second, target=replace(second.target, segments=whole))
    pasted = CopyPaste(share=1.0)([first, second], np.random.default_rng(0))
    assert segments(pasted).labels.tolist() == [1]
    assert torch.equal(pasted.image, second.image)


def test_without_a_mixing_the_first_sample_is_as_it_was() -> None:
    for mixing in (Mosaic((64, 64), probability=0), MixUp(probability=0), CopyPaste(probability=0)):
        given = samples()[: mixing.samples]
        assert mixing(given, np.random.default_rng(0)) is given[0]


@pytest.mark.parametrize("unknown", [1, 3])
def test_a_mosaic_of_images_of_which_some_have_a_truth_is_refused(unknown: int) -> None:
    given = samples()
    for number in range(unknown):
        given[number] = replace(given[number], target=None)
    with pytest.raises(SegfolioError, match=f"^Mosaic: of {unknown} the truth is annotated, of 0 not"):
        Mosaic((64, 80))(given, np.random.default_rng(0))
    for number in range(unknown):
        known = samples()[number]
        given[number] = replace(known, target=replace(known.target, segments=None))
    with pytest.raises(SegfolioError, match=f"^Mosaic: of {unknown} the objects are annotated, of 0 not"):
        Mosaic((64, 80))(given, np.random.default_rng(0))
    assert Mosaic((64, 80))([replace(each, target=None) for each in given], np.random.default_rng(0)).target is None


def test_more_objects_than_eight_bits_count() -> None:
    """300 runs of one pixel in each image."""
    given = []
    for number in range(4):
        masks = torch.zeros(300, 20, 20, dtype=torch.bool)
        masks[range(300), torch.arange(300) // 20, torch.arange(300) % 20] = True
        own = Segments(Mask(masks), torch.zeros(300, dtype=torch.int64), torch.zeros(300, dtype=torch.bool))
        sample = blocks((20, 20))
        given.append(replace(sample, image_id=str(number), target=replace(sample.target, segments=own, semantic=None)))
    mosaic = Mosaic((20, 20))(given, np.random.default_rng(0))
    assert (rle.areas(segments(mosaic).rles) == 1).all()
    assert len(segments(mosaic)) > 700


def test_a_mixture_was_searched_for_what_all_its_images_were() -> None:
    known = [Federated((1, 2), (3,)), Federated((2, 4), (0,))]
    given = [replace(s, target=replace(s.target, federated=f)) for s, f in zip(samples(), known, strict=False)]
    mixed = MixUp()(given, np.random.default_rng(0))
    assert mixed.target is not None
    assert mixed.target.federated == Federated((2,), (0, 3))


def test_what_cannot_be_mixed_is_said() -> None:
    first, second, *_ = samples()
    grey = replace(second, image=Image(second.image[:1]))
    for mixing in (MixUp(), CopyPaste()):
        with pytest.raises(SegfolioError, match="of images of 1 and 3 channels"):
            mixing([first, grey], np.random.default_rng(0))
        with pytest.raises(SegfolioError, match=f"{type(mixing).__name__} mixes objects, but 0 or 1 has none"):
            mixing([first, replace(second, target=replace(second.target, segments=None))], np.random.default_rng(0))
    for wrong in (lambda: Mosaic((1, 5)), lambda: Mosaic((5, 5), 1.5), lambda: MixUp(0), lambda: CopyPaste(-0.1)):
        with pytest.raises(SegfolioError, match=r"give|lies between"):
            wrong()
