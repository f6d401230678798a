"""COCO-Stuff in its two sizes: 171 classes under three sets of ids."""

from functools import partial

import numpy as np
import pytest

from segfolio.data.datasets.coco_stuff import COCOStuff10k, COCOStuff164k
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import coco_stuff

SEEN = ["person", "car", "banner", "wood"]
LARGE = "stuffthingmaps/train2017/000000000001.png"
SMALL = "annotations/COCO_train2014_000000000000.mat"


@pytest.fixture
def large(tmp_path):
    coco_stuff.write(tmp_path, train=3, val=2)
    return tmp_path


@pytest.fixture
def small(tmp_path):
    coco_stuff.write_10k(tmp_path, train=3, test=2)
    return tmp_path


def test_splits_and_classes(large):
    assert [len(COCOStuff164k(large, split)) for split in ("train", "val")] == [3, 2]
    assert COCOStuff164k(large, "val").image_id(0) == "000000001001"
    labels = COCOStuff164k.labels
    assert (labels.num_classes, len(labels.things)) == (171, 80)
    assert (labels.things[-1], labels.names[80], labels.names[-1]) == ("toothbrush", "banner", "wood")
    assert {"street sign", "hat", "door", "hair brush"}.isdisjoint(labels.names)
    assert [v.names for v in COCOStuff10k.versions.values()] == [labels.names] * 2


def test_ids_of_the_three_releases_mean_the_same(tmp_path):
    """Stop sign is the 12th class, after the unused street sign; banner is the first of stuff."""
    labels, old, new = COCOStuff164k.labels, COCOStuff10k.versions["1.0"], COCOStuff10k.versions["1.1"]
    for name, ids in {"stop sign": (12, 13, 13), "banner": (91, 82, 92), "wood": (181, 172, 182)}.items():
        found = [space.ids[space.names.index(name)] for space in (labels, old, new)]
        assert tuple(found) == ids
    assert [space.void_ids for space in (labels, old, new)] == [(255,), (1,), (0,)]


def test_maps_of_164k(large):
    ids = np.repeat(np.array([0, 12, 91, 181, 255, 255], np.uint8), 16)[None].repeat(64, 0)
    write_id_map(large / LARGE, ids)
    sample = COCOStuff164k(large, "train")[0]
    assert sample.target.semantic[0, ::16].tolist() == [0, 11, 80, 170, 255, 255]


@pytest.mark.parametrize(("version", "ids"), [("1.0", [2, 13, 82, 172, 1, 1]), ("1.1", [1, 13, 92, 182, 0, 0])])
def test_maps_of_10k(tmp_path, version, ids):
    coco_stuff.write_10k(tmp_path, version=version)
    coco_stuff.write_map(tmp_path / SMALL, np.repeat(np.array(ids, np.uint8), 16)[None].repeat(64, 0), version)
    sample = COCOStuff10k(tmp_path, "train", version)[0]
    assert sample.image_id == "COCO_train2014_000000000000"
    assert sample.target.semantic[0, ::16].tolist() == [0, 11, 80, 170, 255, 255]
    other = {"1.0": "1.1", "1.1": "1.0"}[version]
    with pytest.raises(SegfolioError, match=rf"{SMALL} is of version {version} of COCO-Stuff 10k, but .* '{other}'"):
        COCOStuff10k(tmp_path, "train", other)[0]


def test_inspection_finds_no_fault(tmp_path):
    coco_stuff.write(tmp_path / "large")
    coco_stuff.write_10k(tmp_path / "small")
    for kind, root, splits in ((COCOStuff164k, "large", ("train", "val")), (COCOStuff10k, "small", ("train", "test"))):
        report = inspect_dataset({split: partial(kind, tmp_path / root, split) for split in splits})
        assert report.fatal == []
        seen = np.flatnonzero(report.splits["train"].pixels[:-1])
        assert [report.labels.names[i] for i in seen] == SEEN


def test_inspection_names_planted_faults(large, tmp_path):
    write_id_map(large / LARGE, np.full((64, 96), 11, np.uint8))
    (said,) = inspect_dataset({"train": partial(COCOStuff164k, large, "train")}).fatal
    assert f"{LARGE}: label id 11 is not in the label space (classes 0-10, 12-24, 26, 27, 30-43, " in said.where
    write_image(large / LARGE, np.zeros((64, 96, 3), np.uint8))
    (said,) = inspect_dataset({"train": partial(COCOStuff164k, large, "train")}).fatal
    assert (said.what, said.where) == (
        "without ids (export class ids as grey or palette PNG)",
        f"{large / LARGE} (RGB PNG)",
    )


def test_inspection_of_10k_names_planted_faults(small):
    coco_stuff.write_map(small / SMALL, np.full((64, 95), 1, np.uint8))
    second, third = (small / SMALL.replace("00.mat", f"0{i}.mat") for i in (1, 2))
    coco_stuff.write_map(second, np.full((64, 96), 183, np.uint8))
    third.write_bytes(b"MATLAB 5.0")
    report = inspect_dataset({"train": partial(COCOStuff10k, small, "train")})
    said = " | ".join(problem.where for problem in report.fatal)
    assert f"{small / SMALL} is 95x64 pixels but its image" in said
    assert f"{second}: label id 183 is not in the label space" in said
    assert f"{third} is missing or no whole MATLAB file" in said


def test_a_spoilt_folder_of_164k_says_what_is_wrong(large):
    with pytest.raises(SegfolioError, match=r"COCO-Stuff 164k has no split 'test'; it has train, val"):
        COCOStuff164k(large, "test")
    with pytest.raises(SegfolioError, match=r"lacks annotations/train2017 of COCO-Stuff 164k: found stuffthingmaps, "):
        COCOStuff164k(large, "train", annotations="annotations/{split}2017")
    (large / LARGE).unlink()
    with pytest.raises(SegfolioError, match=rf"1 mask missing: \S*{LARGE}"):
        COCOStuff164k(large, "train")
    for path in [*large.glob("val2017/*"), *large.glob("*/val2017/*")]:
        path.unlink()
    with pytest.raises(SegfolioError, match=r"val2017 holds no image, expected \{split\}2017/\*\.jpg"):
        COCOStuff164k(large, "val")


def test_a_spoilt_folder_of_10k_says_what_is_wrong(small):
    with pytest.raises(SegfolioError, match=r"COCO-Stuff 10k has no split 'val'; it has test, train"):
        COCOStuff10k(small, "val")
    with pytest.raises(SegfolioError, match=r"version is '2', expected 1\.0 or 1\.1"):
        COCOStuff10k(small, "train", version="2")
    (small / SMALL).unlink()
    with pytest.raises(SegfolioError, match=rf"train\.txt: 1 mask missing: \S*{SMALL}"):
        COCOStuff10k(small, "train")
    (small / "imageLists/train.txt").write_text("\n")
    with pytest.raises(SegfolioError, match=r"train\.txt is empty, expected the name of an image per line"):
        COCOStuff10k(small, "train")
    (small / "imageLists/test.txt").unlink()
    with pytest.raises(SegfolioError, match=r"lacks imageLists/test\.txt of COCO-Stuff 10k: found annotations, im"):
        COCOStuff10k(small, "test")
