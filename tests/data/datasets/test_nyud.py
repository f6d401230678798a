"""NYU Depth v2: images, classes and objects out of one file."""

from functools import partial

import numpy as np
import pytest
import scipy.io

from segfolio.data.datasets.nyud import NYUD
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import nyud


@pytest.fixture
def root(tmp_path):
    nyud.write(tmp_path, train=3, test=2)
    return tmp_path


def frames(root, labels, numbers):
    """Five frames of one map each."""
    nyud.write_frames(root, np.random.default_rng(0), np.stack([labels] * 5, -1), np.stack([numbers] * 5, -1))


def test_frames_of_the_lists_are_read_upright_with_their_maps(root):
    train = NYUD(root, "train")
    assert [train.image_id(i) for i in range(len(train))] == ["0001", "0002", "0003"]
    sample = NYUD(root, "test")[1]
    assert (sample.image_id, sample.target.number, sample.image.shape) == ("0005", 5, (3, 64, 96))
    drawn = NYUD.labels.colors().astype(int)[sample.target.semantic.numpy()].transpose(2, 0, 1)
    assert np.abs(sample.image.numpy().astype(int) - drawn).max() <= 20  # the fake draws each class in its colour


def test_classes_are_the_mappings_and_zero_is_void(root):
    labels = np.zeros((64, 96), int)
    labels[:8], labels[8:16] = 4, 2  # ceiling (22) and otherprop (40)
    frames(root, labels, (labels > 0).astype(int))
    semantic = NYUD(root, "train")[0].target.semantic
    assert semantic[::8, 0].tolist() == [21, 39, 255, 255, 255, 255, 255, 255]
    assert (NYUD.labels.names[21], NYUD.labels.names[39]) == ("ceiling", "otherprop")
    assert NYUD.info.splits == {"train": 795, "test": 654}


def test_objects_are_told_apart_by_label_and_number(root):
    """Labels 1 and 2 are one class: with one number they are two objects; a wall of two numbers is one segment."""
    labels, numbers = np.zeros((64, 96), int), np.zeros((64, 96), int)
    labels[:4], labels[4:8], labels[8:16], labels[16:20] = 1, 2, 6, 5
    numbers[:8], numbers[8:12], numbers[12:16] = 1, 1, 2
    numbers[16:20, :40], numbers[16:20, 40:] = 255, 3
    frames(root, labels, numbers)
    segments = NYUD(root, "train")[0].target.segments
    names = NYUD.labels.names
    found = zip(segments.labels.tolist(), segments.masks.sum((1, 2)).tolist(), strict=True)
    expected = [("chair", 160), ("chair", 224), ("otherprop", 384), ("otherprop", 384), ("wall", 768)]
    assert sorted((names[k], n) for k, n in found) == expected


def test_inspection_finds_no_fault(root):
    report = inspect_dataset({split: partial(NYUD, root, split) for split in ("train", "test")})
    assert report.fatal == []
    seen = {NYUD.labels.names[i] for i in np.flatnonzero(report.splits["train"].pixels[:-1])}
    assert seen == {"otherprop", "cabinet", "ceiling", "chair", "wall", "floor"}


def test_inspection_names_a_label_without_a_class(root):
    labels = np.ones((64, 96), int)
    labels[3, 3] = 8
    frames(root, labels, labels)
    report = inspect_dataset({"train": partial(NYUD, root, "train")})
    assert "labeled.mat (frame 2) holds label 8, but classMapping40.mat ends at 7" in report.fatal[1].where


def unmapped(root):
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": np.array([[1, 41]], np.uint8)})
    return r"classMapping40\.mat holds class 41, expected classes 1 to 40"


def other_list(root):
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [6]])})
    return r"splits\.mat names frame 6, but nyu_depth_v2_labeled\.mat has 1 to 5; copy both again"


def no_list(root):
    scipy.io.savemat(root / "splits.mat", {"testNdxs": np.array([[1]])})
    return r"splits\.mat lacks the variable trainNdxs"


def cut_short(root):
    path = root / "nyu_depth_v2_labeled.mat"
    path.write_bytes(path.read_bytes()[:4000])
    return r"labeled\.mat is missing or no whole MATLAB 7\.3 file"


def missing(root):
    (root / "splits.mat").unlink()
    return r"lacks splits\.mat of NYU Depth v2: found classMapping40\.mat, nyu_depth_v2_labeled\.mat, expected"


@pytest.mark.parametrize("spoil", [unmapped, other_list, no_list, cut_short, missing])
def test_a_spoilt_folder_says_what_is_wrong(root, spoil):
    with pytest.raises(SegfolioError, match=spoil(root)):
        NYUD(root, "train")


def test_unknown_splits_are_refused(root):
    with pytest.raises(SegfolioError, match=r"NYU Depth v2 has no split 'val'; it has test, train"):
        NYUD(root, "val")
