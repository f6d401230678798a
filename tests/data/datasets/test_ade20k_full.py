"""The full ADE20K: classes and objects out of the colours of one PNG."""

from functools import partial

import numpy as np
import pytest

from segfolio.data.datasets.ade20k_full import ADE20KFull
from segfolio.data.formats.images import write_image
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import ade20k_full

SCENE = "images/ADE/training/urban/street"


@pytest.fixture
def root(tmp_path):
    ade20k_full.write(tmp_path, train=3, val=2)
    return tmp_path


def test_images_are_found_in_their_scenes_and_single_masks_are_not(root):
    (root / SCENE / "ADE_train_00000001/preview.jpg").touch()
    dataset = ADE20KFull(root, "train")
    assert [dataset.image_id(i) for i in range(3)] == [f"ADE_train_{i:08d}" for i in (1, 2, 3)]
    assert len(ADE20KFull(root, "val")) == 2


def test_classes_are_maskformers():
    labels = ADE20KFull.labels
    assert (labels.num_classes, labels.ignore_index) == (847, 847)
    assert dict(list(zip(labels.ids, labels.names, strict=True))[:3]) == {2978: "wall", 312: "building", 2420: "sky"}
    assert (labels.ids[846], labels.names[846]) == (3148, "adding machine")
    assert len(labels.ids) + len(labels.void_ids) == 3689
    assert len(labels.things) == 102
    assert {"person", "car", "bed", "chair"} <= set(labels.things)
    assert not {"wall", "sky", "floor", "road"} & set(labels.things)


def test_class_and_object_are_read_from_red_green_and_blue(root):
    """Two cars and a sky; id 1 is outside the 847, and a car without number is no object."""
    ids, numbers = np.zeros((64, 96), int), np.zeros((64, 96), int)
    ids[:10], ids[10:20], ids[20:30], ids[30:40] = 2420, 401, 1, 1831
    numbers[:5], numbers[5:10], numbers[10:20, :50], numbers[10:20, 50:] = 5, 10, 15, 255
    write_image(root / SCENE / "ADE_train_00000001_seg.png", ade20k_full.encoded(ids, numbers))
    target = ADE20KFull(root, "train")[0].target
    names = ADE20KFull.labels.names
    semantic = target.semantic[::10, 0].tolist()
    assert [names[i] if i < 847 else None for i in semantic] == ["sky", "car", None, "person", None, None, None]
    found = zip(target.segments.labels.tolist(), target.segments.masks.sum((1, 2)).tolist(), strict=True)
    assert sorted((names[k], n) for k, n in found) == [("car", 460), ("car", 500), ("sky", 960)]
    assert target.ignore_index == 847


def test_inspection_finds_no_fault(root):
    report = inspect_dataset({split: partial(ADE20KFull, root, split) for split in ("train", "val")})
    assert report.fatal == []
    train = report.splits["train"]
    seen = {ADE20KFull.labels.names[i] for i in np.flatnonzero(train.pixels[:-1])}
    assert seen == {"wall", "sky", "car", "person"}
    assert train.pixels[-1] > 0


def test_inspection_names_planted_faults(root):
    paths = [root / SCENE / f"ADE_train_0000000{i}_seg.png" for i in (1, 2, 3)]
    write_image(paths[0], ade20k_full.encoded(np.full((64, 96), 3689), np.zeros((64, 96), int)))
    write_image(paths[1], np.zeros((64, 95, 3), np.uint8))
    paths[2].write_bytes(b"")
    report = inspect_dataset({"train": partial(ADE20KFull, root, "train")})
    said = " | ".join(f"{problem.what} {problem.where}" for problem in report.fatal)
    assert f"{paths[0]}: label id 3689 is not in the label space" in said
    assert f"{paths[1]} is 95x64 pixels but its image is 96x64" in said
    assert f"empty, cut short or of no known format (copy again) {paths[2]}" in said


def test_other_folders_are_refused(root, tmp_path):
    with pytest.raises(SegfolioError, match=r"has no split 'test'; it has train, val"):
        ADE20KFull(root, "test")
    with pytest.raises(SegfolioError, match=r"lacks images/ADE/training of ADE20K full: found ADE, expected"):
        ADE20KFull(root / "images", "train")
    (root / SCENE / "ADE_train_00000002_seg.png").unlink()
    with pytest.raises(SegfolioError, match=r"training: 1 mask missing: \S*street/ADE_train_00000002_seg\.png"):
        ADE20KFull(root, "train")
    for path in (root / SCENE).glob("*.jpg"):
        path.unlink()
    with pytest.raises(SegfolioError, match=r"images/ADE/training holds no image, expected images/ADE"):
        ADE20KFull(root, "train")
