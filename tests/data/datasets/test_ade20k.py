"""SceneParse150: semantic maps, and the objects of the instance benchmark."""

import shutil
from functools import partial

import numpy as np
import pytest

from segfolio.data.datasets.ade20k import ADE20K
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import ade20k


@pytest.fixture
def root(tmp_path):
    ade20k.write(tmp_path, train=3, val=2)
    return tmp_path


@pytest.fixture
def folder(root):
    return root / "ADEChallengeData2016"


def test_splits_and_classes(root):
    assert [len(ADE20K(root, split)) for split in ("train", "val")] == [3, 2]
    assert ADE20K(root, "val").image_id(1) == "ADE_val_00000002"
    labels = ADE20K.labels
    assert labels.num_classes == 150
    assert (labels.names[0], labels.names[12], labels.names[149]) == ("wall", "person", "flag")
    assert (labels.palette[0], labels.palette[149]) == ((120, 120, 120), (92, 0, 255))
    assert len(labels.things) == 100
    assert [name in labels.things for name in ("car", "bed", "sky", "rock", "tree")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert ADE20K.info.splits == {"train": 20210, "val": 2000}


def test_zero_is_void_and_ids_count_from_one(root, folder):
    ids = np.repeat(np.array([0, 1, 150, 21], np.uint8), 16)[None].repeat(96, 0)
    ids = np.pad(ids, ((0, 0), (0, 32)))[:64]
    write_id_map(folder / "annotations/training/ADE_train_00000001.png", ids)
    shutil.rmtree(folder / "annotations_instance")
    sample = ADE20K(root, "train")[0]
    assert sample.image_id == "ADE_train_00000001"
    assert sample.target.semantic[0, ::16].tolist() == [255, 0, 149, 20, 255, 255]
    assert sample.target.segments is None


def test_objects_lie_above_stuff_and_take_their_own_category(root, folder):
    """Two chairs (8) and one bed (1) in a wall; the semantic map calls the bed a wall, and a car has no object."""
    ids, objects = np.full((64, 96), 1, np.uint8), np.zeros((64, 96, 3), np.uint8)
    ids[:, :32], ids[:8, 90:] = 20, 21
    objects[:, :16], objects[:, 16:32], objects[32:, 40:50] = (8, 1, 0), (8, 2, 0), (1, 3, 0)
    write_id_map(folder / "annotations/training/ADE_train_00000001.png", ids)
    write_image(folder / "annotations_instance/training/ADE_train_00000001.png", objects)
    target = ADE20K(root, "train")[0].target
    names, masks = ADE20K.labels.names, target.segments.masks
    found = {(names[k], int(m.sum())) for k, m in zip(target.segments.labels.tolist(), masks, strict=True)}
    assert found == {("wall", 64 * 64 - 32 * 10 - 8 * 6), ("chair", 16 * 64), ("bed", 32 * 10)}
    assert len(target.segments) == 4
    assert not target.segments.id_map[:8, 90:].any()
    assert (target.semantic[32:, 40:50] == 0).all()


def test_inspection_finds_no_fault(root):
    report = inspect_dataset({split: partial(ADE20K, root, split) for split in ("train", "val")})
    assert report.fatal == []
    train = report.splits["train"]
    assert np.flatnonzero(train.pixels[:-1]).tolist() == [0, 2, 19, 20]
    assert any("train has 3 images here, 20210 as published" in problem.where for problem in report.remarks)


def test_inspection_names_planted_faults(root, folder):
    mask = folder / "annotations/training/ADE_train_00000002.png"
    write_id_map(mask, np.full((64, 96), 151, np.uint8))
    objects = folder / "annotations_instance/training/ADE_train_00000003.png"
    objects.write_bytes(objects.read_bytes()[:100])
    report = inspect_dataset({"train": partial(ADE20K, root, "train")})
    said = " | ".join(f"{problem.what} {problem.where}" for problem in report.fatal)
    assert len(report.fatal) == 2
    assert f"{mask}: label id 151 is not in the label space (classes 1-150; void 0)" in said
    assert f"empty, cut short or of no known format (copy again) {objects}" in said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: shutil.rmtree(folder / "annotations"),
            r"lacks ADEChallengeData2016/annotations/training of ADE20K \(SceneParse150\): found ADE",
        ),
        (
            lambda folder: (folder / "annotations/training/ADE_train_00000001.png").unlink(),
            r"1 mask missing: \S*annotations/training/ADE_train_00000001\.png; copy",
        ),
        (
            lambda folder: (folder / "images/training/ADE_train_00000002.jpg").unlink(),
            r"1 image missing: \S*images/training/ADE_train_00000002\.jpg; copy",
        ),
        (
            lambda folder: (folder / "annotations_instance/training/ADE_train_00000002.png").unlink(),
            r"annotations_instance lacks the objects of 1 of 3 images: ADE_train_00000002\.png; copy it",
        ),
        (
            lambda folder: [path.unlink() for path in folder.glob("*/training/*")],
            r"images/training holds no image, expected ADEChallengeData2016/images/\{training,validation\}",
        ),
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(root, folder, spoil, message):
    spoil(folder)
    with pytest.raises(SegfolioError, match=message):
        ADE20K(root, "train")


def test_wrong_annotations_say_what_they_hold(root, folder):
    first = "ADE_train_00000001.png"
    write_image(folder / "annotations_instance/training" / first, np.full((64, 96, 3), 101, np.uint8))
    with pytest.raises(SegfolioError, match=rf"{first} has objects of category 101 to 101, expected 1 to 100 in red"):
        ADE20K(root, "train")[0]
    write_image(folder / "annotations_instance/training" / first, np.zeros((32, 96, 3), np.uint8))
    with pytest.raises(SegfolioError, match=rf"{first} is 96x32 pixels, its image 96x64"):
        ADE20K(root, "train")[0]
    write_image(folder / "annotations/training" / first, np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(SegfolioError, match=rf"{first} has been converted to colours \(RGB\), expected class ids"):
        ADE20K(root, "train")[0]
    with pytest.raises(SegfolioError, match=r"has no split 'training'; it has train, val"):
        ADE20K(root, "training")
