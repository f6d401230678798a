"""SUN RGB-D: label maps in one file of the toolbox, images in folders of scenes."""

from functools import partial

import numpy as np
import pytest

from segfolio.data.datasets.sun_rgbd import SUNRGBD
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import sun_rgbd
from tests.fake.matlab import write_hdf5

SEG = "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"


@pytest.fixture
def root(tmp_path):
    sun_rgbd.write(tmp_path, train=3, test=2)
    return tmp_path


def scene(i):
    return f"kv2/kinect2data/{i:06d}_2014-05-26_rgbf{i:06d}-resize"


def test_splits_are_the_toolboxs_and_maps_follow_their_images(root):
    train, test = SUNRGBD(root, "train"), SUNRGBD(root, "test")
    assert [train.image_id(i) for i in range(len(train))] == [scene(2), scene(3), scene(4)]
    assert [test.image_id(i) for i in range(len(test))] == [scene(0), scene(1)]
    colors = SUNRGBD.labels.colors().astype(int)
    for sample in (*train, *test):  # the fake draws each class in its colour; JPEG and noise blur that
        drawn = colors[sample.target.semantic.numpy()].transpose(2, 0, 1)
        assert np.abs(sample.image.numpy().astype(int) - drawn).mean() < 20


def test_zero_is_void_and_ids_count_from_one(root):
    maps = [np.full((64, 96), i, np.uint8) for i in (0, 1, 37, 20, 5)]
    maps[4][:, :48] = 24
    write_hdf5(root / SEG, {}, {"SUNRGBD2Dseg/seglabel": maps})
    found = [sample.target.semantic.unique().tolist() for split in ("test", "train") for sample in SUNRGBD(root, split)]
    assert found == [[255], [0], [36], [19], [4, 23]]
    left = SUNRGBD(root, "train")[2].target.semantic[:, :48]
    assert (left == SUNRGBD.labels.names.index("fridge")).all()
    assert (SUNRGBD.labels.num_classes, SUNRGBD.info.splits) == (37, {"train": 5285, "test": 5050})


def test_inspection_finds_no_fault(root):
    report = inspect_dataset({split: partial(SUNRGBD, root, split) for split in ("train", "test")})
    assert report.fatal == []
    assert np.flatnonzero(report.splits["train"].pixels[:-1]).tolist() == [0, 1, 4, 36]


def test_inspection_names_planted_faults(root):
    maps = [np.full((64, 96), 1, np.uint8) for _ in range(5)]
    maps[2][0, 0] = 38
    maps[3] = maps[3][:, :95]
    write_hdf5(root / SEG, {}, {"SUNRGBD2Dseg/seglabel": maps})
    (root / "SUNRGBD" / scene(4) / "image/0000004.jpg").write_bytes(b"")
    report = inspect_dataset({"train": partial(SUNRGBD, root, "train")})
    said = " | ".join(f"{problem.what} {problem.where}" for problem in report.fatal)
    assert f"{SEG} (map 3, {scene(2)}): label id 38 is not in the label space" in said
    assert f"{SEG} (map 4, {scene(3)}) is 95x64 pixels, its image 96x64" in said
    assert "empty, cut short or of no known format" in said


def fewer_maps(root):
    write_hdf5(root / SEG, {}, {"SUNRGBD2Dseg/seglabel": [np.zeros((64, 96), np.uint8)] * 4})
    return r"SUNRGBD2Dseg\.mat has 4 label maps, but SUNRGBDtoolbox/Metadata/SUNRGBDMeta\.mat has 5 images"


def stranger(root):
    sun_rgbd.write_split(root, [scene(2), "xtion/elsewhere"], [])
    return r"allsplit\.mat names scenes that \S*SUNRGBDMeta\.mat lacks: xtion/elsewhere"


def no_image(root):
    (root / "SUNRGBD" / scene(3) / "image/0000003.jpg").unlink()
    return rf"allsplit\.mat: 1 image missing: \S*{scene(3)}/image/0000003\.jpg"


def no_labels(root):
    write_hdf5(root / SEG, {"other": np.zeros((2, 2))})
    return r"SUNRGBD2Dseg\.mat lacks the variable SUNRGBD2Dseg/seglabel"


def no_toolbox(root):
    (root / SEG).unlink()
    return rf"lacks {SEG} of SUN RGB-D: found SUNRGBD, SUNRGBDtoolbox, expected"


@pytest.mark.parametrize("spoil", [fewer_maps, stranger, no_image, no_labels, no_toolbox])
def test_a_spoilt_folder_says_what_is_wrong(root, spoil):
    with pytest.raises(SegfolioError, match=spoil(root)):
        SUNRGBD(root, "train")


def test_unknown_splits_are_refused(root):
    with pytest.raises(SegfolioError, match=r"SUN RGB-D has no split 'val'; it has test, train"):
        SUNRGBD(root, "val")
