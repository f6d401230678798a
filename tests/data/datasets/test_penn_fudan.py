"""Penn-Fudan: a map of pedestrians for each image."""

from functools import partial

import numpy as np
import pytest

from segfolio.data.datasets.penn_fudan import PennFudan
from segfolio.data.formats.images import read_id_map, write_id_map
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import penn_fudan
from tests.fake.voc import to_rgb


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    penn_fudan.write(folder := tmp_path_factory.mktemp("pedestrians"))
    return folder


@pytest.fixture
def own(tmp_path):
    penn_fudan.write(tmp_path)
    return tmp_path


def ids(dataset):
    return [pair.image_id for pair in dataset.pairs]


def test_every_fifth_image_is_for_validation(root):
    assert ids(PennFudan(root, "val")) == ["PennPed00001", "PennPed00006"]
    assert len(PennFudan(root, "train")) == 8
    assert ids(PennFudan(root / "PennFudanPed", "val", val_every=4)) == ["FudanPed00004", "PennPed00004"]
    every = range(1, 171)  # as published
    assert PennFudan.info.splits == {"train": 136, "val": sum(i % 5 == 0 for i in every)}


def test_a_pedestrian_is_a_number_of_the_map(root):
    sample = PennFudan(root, "train")[2]
    mask = read_id_map(root / "PennFudanPed" / "PedMasks" / "FudanPed00003_mask.png")
    segments = sample.target.segments
    assert segments.labels.tolist() == [0, 0, 0]
    assert segments.masks.sum((1, 2)).tolist() == [8 * 24] * 3
    assert np.array_equal(segments.id_map, mask)
    assert np.array_equal(sample.target.semantic, mask == 0)  # 0 is person, 1 background
    assert sample.image[0][mask > 0].float().mean() > 180  # the fake's pedestrians are bright


def test_an_image_without_pedestrians_has_no_segment(own):
    write_id_map(own / "PennFudanPed" / "PedMasks" / "FudanPed00001_mask.png", np.zeros((48, 64), np.uint8))
    target = PennFudan(own, "train")[0].target
    assert len(target.segments) == 0
    assert target.semantic.unique().tolist() == [1]


def test_wrong_masks_are_named_by_inspection(own):
    folder = own / "PennFudanPed" / "PedMasks"
    to_rgb(folder / "FudanPed00001_mask.png")
    write_id_map(folder / "FudanPed00002_mask.png", np.ones((48, 60), np.uint8))
    report = inspect_dataset({split: partial(PennFudan, own, split) for split in ("train", "val")})
    assert [(problem.image_id, problem.what.split(" (")[0]) for problem in report.fatal] == [
        ("FudanPed00001", "without ids"),
        ("FudanPed00002", "of another size than the image"),
    ]


def test_inspection_finds_nothing_fatal(root):
    report = inspect_dataset({split: partial(PennFudan, root, split) for split in ("train", "val")})
    assert report.fatal == []
    assert report.splits["train"].objects.tolist() == [1 + 2 + 3 + 1 + 3 + 1 + 2 + 3, 0]


def test_other_folders_and_arguments_are_refused(own, tmp_path):
    with pytest.raises(SegfolioError, match="Penn-Fudan has no split 'test'; it has train, val"):
        PennFudan(own, "test")
    with pytest.raises(SegfolioError, match="val_every is 1, expected 2 or more"):
        PennFudan(own, "val", val_every=1)
    with pytest.raises(SegfolioError, match="PNGImages holds 10 PNG images, of which none is for val"):
        PennFudan(own, "val", val_every=11)
    (own / "PennFudanPed" / "PedMasks" / "PennPed00001_mask.png").unlink()
    with pytest.raises(SegfolioError, match=r"1 mask missing: \S*PedMasks/PennPed00001_mask\.png"):
        PennFudan(own, "val")
    (own / "PennFudanPed" / "PedMasks").rename(own / "PennFudanPed" / "masks")
    with pytest.raises(
        SegfolioError, match="PennFudanPed lacks PedMasks of Penn-Fudan: found PNGImages, masks, expected"
    ):
        PennFudan(own, "val")
