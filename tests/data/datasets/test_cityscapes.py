from functools import partial

import cv2
import numpy as np
import pytest

from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.datasets.cityscapes import Cityscapes
from segfolio.data.formats.images import read_id_map, write_id_map
from segfolio.data.labels import UnknownIds
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import cityscapes

FIRST = "trainburg0/trainburg0_000000_000019"


@pytest.fixture
def root(tmp_path):
    cityscapes.write(tmp_path, train_extra=2)
    return tmp_path


def test_classes_are_the_19_of_the_benchmark():
    labels = Cityscapes.labels
    assert (labels.num_classes, labels.names[:2], labels.names[-1]) == (19, ("road", "sidewalk"), "bicycle")
    train_ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    train_ids |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    ids = np.array([[*range(34), 255]], np.uint8)
    assert labels.encode(ids, "all").tolist() == [[train_ids.get(i, 255) for i in ids[0].tolist()]]
    assert labels.things == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert dict(zip(labels.names, labels.palette, strict=True))["traffic light"] == (250, 170, 30)
    published = {"train": 2975, "val": 500, "test": 1525, "train_extra": 19998}
    assert Cityscapes.info.splits == published


def test_splits_are_folders_and_images_are_known_by_city_and_number(root):
    fine = {split: len(Cityscapes(root, split)) for split in ("train", "val", "test")}
    coarse = {split: len(Cityscapes(root, split, coarse=True)) for split in ("train", "val", "train_extra")}
    assert (fine, coarse) == ({"train": 3, "val": 2, "test": 1}, {"train": 3, "val": 2, "train_extra": 2})
    dataset = Cityscapes(root, "train")
    assert [dataset.image_id(i) for i in range(3)] == [
        "trainburg0_000000_000019",
        "trainburg0_000001_000019",
        "trainburg1_000002_000019",
    ]


def test_a_sample_serves_all_tasks(root):
    target = Cityscapes(root, "train")[0].target
    semantic, segments = target.semantic.numpy(), target.segments
    assert semantic[0, ::16].tolist() == [11, 11, 13, 18, 255]  # person, person, car, bicycle, caravan: void
    ids = read_id_map(root / "gtFine/train" / f"{FIRST}_gtFine_labelIds.png")
    assert (semantic == Cityscapes.labels.encode(ids, "truth")).all()
    things = [i for i in range(len(segments)) if Cityscapes.labels.is_thing[segments.labels[i]]]
    boxes = {
        (int(segments.labels[i]), bool(segments.crowd[i]), *np.argwhere(segments.masks[i].numpy()).max(0).tolist())
        for i in things
    }
    assert boxes == {(11, False, 15, 15), (11, False, 15, 31), (13, False, 15, 47), (18, True, 15, 63)}

    truth = panoptic_truth(target, Cityscapes.labels)
    stuff = [c for c in truth.labels.tolist() if c <= 10]
    assert sorted(stuff) == sorted(set(semantic[semantic <= 10].tolist()))  # one segment of each
    assert ((truth.id_map.numpy() == 0) == (semantic == 255)).all()


def test_semantic_maps_alone_need_no_instance_ids(root):
    for path in root.glob("gtFine/*/*/*_instanceIds.png"):
        path.unlink()
    dataset = Cityscapes(root, "train", instances=False)
    assert dataset[0].target.segments is None
    assert dataset[0].target.semantic[0, 0] == 11
    with pytest.raises(
        SegfolioError, match=r"leftImg8bit/train: 3 instance maps missing: \S+000019_gtFine_instanceIds"
    ):
        Cityscapes(root, "train")


def test_coarse_annotation_is_another_folder_of_the_same_images(root):
    fine, coarse = Cityscapes(root, "train")[0], Cityscapes(root, "train", coarse=True)[0]
    assert (fine.image == coarse.image).all()
    assert (coarse.target.semantic[-16:] == 255).all()
    assert (coarse.target.semantic[:-16] == fine.target.semantic[:-16]).all()


def test_the_test_images_have_no_target(root):
    dataset = Cityscapes(root, "test")
    assert dataset[0].target is None
    assert list(dataset.problems()) == []
    for path in root.glob("gtFine/test/*/*"):
        path.unlink()
    assert len(Cityscapes(root, "test")) == 1


@pytest.mark.parametrize(
    ("split", "coarse", "message"),
    [
        ("trian", False, "Cityscapes has no split 'trian'; it has test, train, train_extra, val"),
        ("train_extra", False, "Cityscapes train_extra has no fine annotation; set coarse: true"),
        ("test", True, "Cityscapes test has no coarse annotation; set coarse: false"),
    ],
)
def test_a_split_that_is_none_is_refused(root, split, coarse, message):
    with pytest.raises(SegfolioError, match=message):
        Cityscapes(root, split, coarse)


def test_a_wrong_root_says_what_was_found(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(
        SegfolioError,
        match=r"lacks gtFine/train, leftImg8bit/train of Cityscapes: found holiday\.jpg, expected leftImg8",
    ):
        Cityscapes(tmp_path, "train")
    with pytest.raises(
        SegfolioError, match="of Cityscapes: found no such folder, expected leftImg8bit/<split>/<city>/"
    ):
        Cityscapes(tmp_path / "nowhere", "train")
    with pytest.raises(SegfolioError, match=r"data\.root is not set"):
        Cityscapes(None, "train")
    for folder in ("leftImg8bit/train", "gtFine/train"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(SegfolioError, match="leftImg8bit/train holds no image, expected"):
        Cityscapes(tmp_path, "train")


def test_missing_masks_are_counted_and_named(root):
    (root / "gtFine/train" / f"{FIRST}_gtFine_labelIds.png").unlink()
    with pytest.raises(SegfolioError, match=r"leftImg8bit/train: 1 mask missing: \S+gtFine_labelIds\.png; copy"):
        Cityscapes(root, "train")


def test_damaged_maps_are_named(root):
    dataset = Cityscapes(root, "train")
    labels, instances = (root / "gtFine/train" / f"{FIRST}_gtFine_{kind}Ids.png" for kind in ("label", "instance"))
    ids = read_id_map(labels)
    cv2.imwrite(str(labels), np.repeat(ids[..., None], 3, 2))
    with pytest.raises(SegfolioError, match=r"labelIds\.png has been converted to colours \(RGB\)"):
        dataset[0]
    ids[0, :3] = 77
    write_id_map(labels, ids)
    with pytest.raises(UnknownIds, match=r"labelIds\.png: label id 77 is not in the label space") as error:
        dataset[0]
    assert error.value.pixels == {77: 3}
    write_id_map(labels, np.where(ids == 77, 0, ids).astype(np.uint8))
    write_id_map(instances, np.full((32, 80), 26000, np.uint16))
    with pytest.raises(SegfolioError, match=r"instanceIds\.png is 80x32 pixels but its image is 80x64"):
        dataset[0]


def test_inspection_passes_the_fake_and_names_planted_faults(root):
    opened = {split: partial(Cityscapes, root, split) for split in ("train", "val")}
    report = inspect_dataset(opened)
    assert report.fatal == []
    train = report.splits["train"]
    names = Cityscapes.labels.names
    assert {n: c for n, c in zip(names, train.objects.tolist(), strict=True) if c} == {"person": 6, "car": 3}
    assert {n: c for n, c in zip(names, train.crowds.tolist(), strict=True) if c} == {"bicycle": 3}

    labels, instances = (root / "gtFine/train" / f"{FIRST}_gtFine_{kind}Ids.png" for kind in ("label", "instance"))
    write_id_map(labels, np.full((64, 80), 40, np.uint8))
    instances.write_bytes(b"")
    fatal = inspect_dataset(opened).fatal
    assert [(p.kind, p.what.split(",")[0].split(" ")[0]) for p in fatal] == [("mask", "empty")]
    assert fatal[0].where == str(instances)
    instances.unlink()
    assert "train: " in inspect_dataset(opened).fatal[0].where


def test_the_fingerprint_sees_the_instance_ids(root):
    before = fingerprint(Cityscapes(root, "train")), fingerprint(Cityscapes(root, "train", instances=False))
    write_id_map(root / "gtFine/train" / f"{FIRST}_gtFine_instanceIds.png", np.full((64, 80), 26000, np.uint16))
    after = fingerprint(Cityscapes(root, "train")), fingerprint(Cityscapes(root, "train", instances=False))
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)
