"""SBD, and the two splits that are made of it and VOC."""

from functools import partial

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from segfolio.data.datasets.sbd import SBD
from segfolio.data.datasets.voc import VOC
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import sbd, voc

TRAIN = ["2008_000001", "2011_000500", "2012_000001", "2012_000501"]
"""Nobody else's, VOC 2011 val, VOC 2012 train, VOC 2012 val."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sbd")
    sbd.write(folder, TRAIN, val=["2008_000002", "2012_000002"])
    voc.write(folder, 2011, train=2, val=3)
    voc.write(folder, 2012, train=3, val=2)
    return folder


@pytest.fixture
def own(tmp_path):
    sbd.write(tmp_path, ["a", "b"], val=["c"])
    return tmp_path / "benchmark_RELEASE" / "dataset"


def ids(dataset):
    return [pair.image_id for pair in dataset.pairs]


def test_its_own_splits_are_its_lists(root):
    assert ids(SBD(root, "train")) == TRAIN
    assert ids(SBD(root, "val")) == ["2008_000002", "2012_000002"]
    assert ids(SBD(root / "benchmark_RELEASE" / "dataset", "val")) == ["2008_000002", "2012_000002"]


def test_trainaug_is_all_but_vocs_validation(root):
    dataset = SBD(root, "trainaug", root_voc=root)
    assert ids(dataset) == ["2008_000001", "2008_000002", "2011_000500", "2012_000000", "2012_000001", "2012_000002"]
    assert ids(SBD(root, "voc12val", root_voc=root)) == ids(VOC(root, "val"))
    assert not set(ids(dataset)) & set(ids(VOC(root, "val")))
    of_voc, twin = VOC(root, "train")[1], dataset[4]  # in both: VOC's maps, border and all
    assert np.array_equal(twin.image, of_voc.image)
    assert np.array_equal(twin.target.semantic, of_voc.target.semantic)
    assert 255 in twin.target.semantic
    assert np.array_equal(twin.target.segments.masks, of_voc.target.segments.masks)
    assert np.array_equal(dataset[1].target.semantic, SBD(root, "val")[0].target.semantic)


def test_seg11valid_is_vocs_validation_without_sbds_training(root):
    dataset = SBD(root, "seg11valid", root_voc=root)
    assert ids(dataset) == ["2011_000501", "2011_000502"]
    assert np.array_equal(dataset[0].target.semantic, VOC(root, "val", 2011)[1].target.semantic)


def test_published_sizes():
    own, of_voc = {"train": 8498, "val": 2857}, {"voc12val": 1449, "seg11train": 1112, "seg11valid": 736}
    assert SBD.info.splits == own | {"trainaug": 10582} | of_voc


def test_a_sample_is_what_the_two_files_hold(root):
    sample, folder = SBD(root, "train")[0], root / "benchmark_RELEASE" / "dataset"
    classes = loadmat(folder / "cls" / "2008_000001.mat")["GTcls"]["Segmentation"][0, 0]
    inst = loadmat(folder / "inst" / "2008_000001.mat")["GTinst"]
    assert np.array_equal(sample.target.semantic, classes)
    segments = sample.target.segments
    assert segments.labels.tolist() == inst["Categories"][0, 0].ravel().tolist()
    assert np.array_equal(segments.id_map, inst["Segmentation"][0, 0])
    assert 255 not in sample.target.semantic
    assert SBD.labels is VOC.labels


def test_an_object_that_another_hides_has_no_segment(own):
    classes = np.full((48, 96), 7, np.uint8)
    inst = {"Segmentation": np.full((48, 96), 2, np.uint8), "Categories": np.array([[15], [7]], np.uint8)}
    savemat(own / "cls" / "a.mat", {"GTcls": {"Segmentation": classes}})
    savemat(own / "inst" / "a.mat", {"GTinst": inst})
    segments = SBD(own, "train")[0].target.segments
    assert segments.labels.tolist() == [7]
    assert segments.masks.all()


@pytest.mark.parametrize("split", ["train", "trainaug", "seg11valid"])
def test_without_instances_object_maps_are_not_read(root, split):
    target = SBD(root, split, root, instances=False)[0].target
    assert target.segments is None
    assert target.semantic is not None


def cut_short(own):
    path = own / "cls" / "b.mat"
    path.write_bytes(path.read_bytes()[:200])
    return r"cls/b\.mat is .*no whole MATLAB file \(\w+\); copy it again"


def other_variable(own):
    savemat(own / "cls" / "b.mat", {"LabelMap": np.zeros((48, 96))})
    return r"cls/b\.mat lacks the variable GTcls"


def other_field(own):
    savemat(own / "cls" / "b.mat", {"GTcls": {"Boundaries": 0}})
    return r"cls/b\.mat: GTcls has no Segmentation; expected the file as published"


def unknown_id(own):
    savemat(own / "cls" / "b.mat", {"GTcls": {"Segmentation": np.full((48, 96), 33, np.uint8)}})
    return r"cls/b\.mat: label id 33 is not in the label space"


def object_without_class(own):
    inst = {"Segmentation": np.full((48, 96), 2, np.uint8), "Categories": np.array([[15]], np.uint8)}
    savemat(own / "inst" / "b.mat", {"GTinst": inst})
    return r"inst/b\.mat has objects up to 2 and the classes \[15\], expected one of 1 to 20 for each object"


def other_size(own):
    inst = {"Segmentation": np.full((40, 96), 1, np.uint8), "Categories": np.array([[15]], np.uint8)}
    savemat(own / "inst" / "b.mat", {"GTinst": inst})
    return r"inst/b\.mat is 96x40 pixels but its image is 96x48"


@pytest.mark.parametrize(
    "damage", [cut_short, other_variable, other_field, unknown_id, object_without_class, other_size]
)
def test_a_wrong_file_is_named_at_reading_and_by_inspection(own, damage):
    said = damage(own)
    with pytest.raises(SegfolioError, match=said):
        SBD(own, "train")[1]
    report = inspect_dataset({split: partial(SBD, own, split) for split in ("train", "val")})
    assert [problem.image_id for problem in report.fatal] == ["b"]


def test_inspection_finds_nothing_fatal_but_the_overlap_of_the_splits(root):
    splits = {
        "trainaug": partial(SBD, root, "trainaug", root),
        "val": partial(VOC, root, "val"),
        "seg11valid": partial(SBD, root, "seg11valid", root),
    }
    report = inspect_dataset(splits)
    assert report.fatal == []
    assert {name: split.images for name, split in report.splits.items()} == {"trainaug": 6, "val": 2, "seg11valid": 2}


def test_missing_files_are_named(own, tmp_path):
    (own / "inst" / "b.mat").unlink()
    with pytest.raises(SegfolioError, match=r"train\.txt: 1 instance map missing: \S*inst/b\.mat"):
        SBD(tmp_path, "train")
    (own / "cls" / "a.mat").unlink()
    with pytest.raises(SegfolioError, match=r"train\.txt: 1 mask missing: \S*cls/a\.mat"):
        SBD(tmp_path, "train")
    (own / "train.txt").write_text("")
    with pytest.raises(SegfolioError, match=r"train has no image; train\.txt and val\.txt name one per line"):
        SBD(tmp_path, "train")


def test_computed_splits_need_voc(own, tmp_path):
    for split, year in (("trainaug", 2012), ("voc12val", 2012), ("seg11train", 2011), ("seg11valid", 2011)):
        with pytest.raises(
            SegfolioError, match=rf"{split} of SBD is computed from the lists of VOC {year}; set root_voc"
        ):
            SBD(own, split)
        with pytest.raises(SegfolioError, match=f"lacks VOCdevkit/VOC{year} of PASCAL VOC {year}"):
            SBD(own, split, root_voc=tmp_path)
    with pytest.raises(SegfolioError, match="SBD has no split 'test'; it has seg11train, seg11valid, train"):
        SBD(own, "test")
    with pytest.raises(SegfolioError, match=r"lacks cls, img, train\.txt, val\.txt of SBD: found no such folder"):
        SBD(tmp_path / "nowhere", "train")


def test_seg11valid_has_736_images_where_375_of_1111_train_in_sbd(own, tmp_path):
    names = [f"2011_{i:06d}" for i in range(1111)]
    (own / "train.txt").write_text("\n".join(names[:375]))
    folder = tmp_path / "VOCdevkit" / "VOC2011"
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names))
    for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (folder / kind).mkdir()
        for name in names:
            (folder / kind / f"{name}.{suffix}").touch()
    dataset = SBD(own, "seg11valid", tmp_path, instances=False)
    assert len(dataset) == 736
    assert dataset.unlike_published("seg11valid") is None
