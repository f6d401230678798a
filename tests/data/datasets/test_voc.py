"""PASCAL VOC: two maps of each image, six years."""

from functools import partial

import numpy as np
import pytest
import torch

from segfolio.data.datasets.voc import VOC, voc_palette
from segfolio.data.formats.images import read_id_map, write_palette
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import voc


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    voc.write(folder := tmp_path_factory.mktemp("voc"))
    return folder


@pytest.fixture
def own(tmp_path):
    voc.write(tmp_path)
    return tmp_path / "VOCdevkit" / "VOC2012"


def test_splits_are_those_of_the_lists(root, tmp_path):
    ids = {split: [pair.image_id for pair in VOC(root, split).pairs] for split in ("train", "val", "trainval")}
    assert ids["train"] == ["2012_000000", "2012_000001", "2012_000002"]
    assert ids["val"] == ["2012_000500", "2012_000501"]
    assert ids["trainval"] == ids["train"] + ids["val"]
    voc.write(tmp_path, 2007)
    assert VOC(tmp_path, "test", 2007).image_id(0) == "000800"


def test_classes_and_colours_are_vocs():
    labels = VOC.labels
    assert labels.names[:2] == ("background", "aeroplane")
    assert (labels.names[15], labels.names[20], labels.num_classes) == ("person", "tvmonitor", 21)
    assert len(labels.things) == 20
    assert labels.palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (labels.palette[8], labels.palette[15], labels.palette[20]) == ((64, 0, 0), (192, 128, 128), (0, 64, 128))
    assert voc_palette(256)[255] == (224, 224, 192)  # the border


@pytest.mark.parametrize(("year", "train", "val"), [(2007, 209, 213), (2011, 1112, 1111), (2012, 1464, 1449)])
def test_published_sizes_are_the_years(tmp_path, year, train, val):
    voc.write(tmp_path, year)
    dataset = VOC(tmp_path, "train", year)
    assert (dataset.info.splits["train"], dataset.info.splits["val"]) == (train, val)
    assert dataset.unlike_published("train") == f"PASCAL VOC {year} train has 3 images here, {train} as published"
    assert VOC.info.splits["train"] == 1464


def test_a_sample_is_what_the_two_maps_hold(root):
    sample = VOC(root, "train")[1]
    folder = root / "VOCdevkit" / "VOC2012"
    classes = read_id_map(folder / "SegmentationClass" / "2012_000001.png")
    objects = read_id_map(folder / "SegmentationObject" / "2012_000001.png")
    assert np.array_equal(sample.target.semantic, classes)  # the ids are the indices; 255 is void
    segments = sample.target.segments
    assert len(segments) == 2
    assert not segments.crowd.any()
    for number, (mask, label) in enumerate(zip(segments.masks, segments.labels.tolist(), strict=True), 1):
        assert np.array_equal(mask, objects == number)
        assert set(classes[mask.numpy()].tolist()) == {label}
    assert (sample.target.semantic[~segments.masks.any(0)].unique()).tolist() == [0, 255]


def test_an_image_without_objects_is_background(root):
    target = VOC(root, "train")[0].target
    assert len(target.segments) == 0
    assert target.semantic.unique().tolist() == [0]


def test_panoptic_truth_is_objects_and_background(root):
    target = VOC(root, "train")[1].target
    truth = panoptic_truth(target, VOC.labels)
    assert truth.labels.tolist() == [*target.segments.labels.tolist(), 0]
    assert torch.equal(truth.id_map == 0, (target.semantic == 255).as_subclass(torch.Tensor))


def test_without_instances_the_object_maps_are_not_needed(own):
    for path in (own / "SegmentationObject").iterdir():
        path.unlink()
    target = VOC(own.parents[1], "train", instances=False)[1].target
    assert target.segments is None
    assert len(target.semantic.unique()) == 4
    with pytest.raises(SegfolioError, match=r"3 instance maps missing: .*set instances: false"):
        VOC(own.parents[1], "train")


def test_gaps_in_the_numbers_are_closed(own):
    path = own / "SegmentationObject" / "2012_000001.png"
    ids = read_id_map(path)
    write_palette(path, np.where(ids == 1, 9, ids).astype(np.uint8), voc.PALETTE)
    segments = VOC(own.parents[1], "train")[1].target.segments
    assert len(segments) == 2
    assert np.array_equal(segments.masks[1], ids == 1)


def no_class(own):
    path = own / "SegmentationClass" / "2012_000001.png"
    classes = read_id_map(path)
    classes[:, :48] = 0
    write_palette(path, classes, voc.PALETTE)
    return r"SegmentationObject/2012_000001\.png: object 1 has no pixel of a class in .*copy both again"


def other_size(own):
    write_palette(own / "SegmentationObject" / "2012_000001.png", np.zeros((48, 90), np.uint8), voc.PALETTE)
    return r"SegmentationObject/2012_000001\.png is 90x48 pixels but \S*/2012_000001\.png is 96x48"


def unknown_id(own):
    write_palette(own / "SegmentationClass" / "2012_000001.png", np.full((48, 96), 21, np.uint8), voc.PALETTE)
    return r"2012_000001\.png: label id 21 is not in the label space \(classes 0-20; void 255\)"


def rgb(own):
    voc.to_rgb(own / "SegmentationClass" / "2012_000001.png")
    return r"2012_000001\.png has been converted to colours \(RGB\), expected class ids"


@pytest.mark.parametrize("damage", [no_class, other_size, unknown_id, rgb])
def test_a_wrong_map_is_named_at_reading_and_by_inspection(own, damage):
    said = damage(own)
    dataset = VOC(own.parents[1], "train")
    with pytest.raises(SegfolioError, match=said):
        dataset[1]
    report = inspect_dataset({split: partial(VOC, own.parents[1], split) for split in ("train", "val")})
    assert {problem.image_id for problem in report.fatal} == {"2012_000001"}


def test_headers_tell_of_object_maps(own):
    voc.to_rgb(own / "SegmentationObject" / "2012_000002.png")
    with pytest.raises(SegfolioError, match=r"1 mask without ids .*SegmentationObject/2012_000002\.png"):
        VOC(own.parents[1], "train").check()


def test_inspection_finds_nothing_fatal(root):
    report = inspect_dataset({split: partial(VOC, root, split) for split in ("train", "val")})
    assert report.fatal == []
    assert report.splits["train"].objects.sum() == 4


def lists_of_2011(own):
    later = [f"2012_{i:06d}" for i in range(1112)]
    (own / "ImageSets/Segmentation/train.txt").write_text("\n".join(later))
    return r"VOC2012/ImageSets/Segmentation/train\.txt is of 2011: 1112 images, .*expected the list of 2012; unpack"


def no_masks(own):
    (own / "SegmentationClass/2012_000001.png").unlink()
    return r"train\.txt: 1 mask missing: \S*SegmentationClass/2012_000001\.png"


def empty_list(own):
    (own / "ImageSets/Segmentation/train.txt").write_text("")
    return r"Segmentation/train\.txt is empty, expected the name of an image per line"


def no_list(own):
    (own / "ImageSets/Segmentation/train.txt").unlink()
    return r"VOC2012 lacks ImageSets/Segmentation/train\.txt of PASCAL VOC 2012: found .*SegmentationClass"


@pytest.mark.parametrize("spoil", [lists_of_2011, no_masks, empty_list, no_list])
def test_a_spoilt_folder_says_what_is_wrong(own, spoil):
    said = spoil(own)
    with pytest.raises(SegfolioError, match=said):
        VOC(own.parents[1], "train")


def test_lists_of_a_later_year_are_refused(tmp_path):
    voc.write(tmp_path, 2010)
    listing = tmp_path / "VOCdevkit/VOC2010/ImageSets/Segmentation/train.txt"
    listing.write_text(listing.read_text() + "2011_003276\n")
    with pytest.raises(SegfolioError, match="is of 2011: 4 images, among them 2011_003276, expected the list of 2010"):
        VOC(tmp_path, "train", 2010)


def test_other_folders_splits_and_years_are_refused(root, tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(SegfolioError, match=r"lacks VOCdevkit/VOC2012 of PASCAL VOC 2012: found holiday\.jpg"):
        VOC(tmp_path, "train")
    with pytest.raises(SegfolioError, match="VOCdevkit lacks VOC2011 of PASCAL VOC 2011: found VOC2012"):
        VOC(root, "train", 2011)
    with pytest.raises(SegfolioError, match=r"data\.root is not set"):
        VOC(None, "train")
    with pytest.raises(SegfolioError, match="PASCAL VOC 2012 has no split 'test'; it has train, trainval, val"):
        VOC(root, "test")
    with pytest.raises(SegfolioError, match="no segmentation of 2006; it has 2007, 2008, 2009, 2010, 2011, 2012"):
        VOC(root, "train", 2006)


def test_the_archive_of_2011_has_a_folder_more(tmp_path):
    voc.write(tmp_path / "TrainVal", 2011)
    voc.write(tmp_path, 2012)
    assert len(VOC(tmp_path, "val", 2011)) == 2
    assert len(VOC(tmp_path / "VOCdevkit", "val")) == 2  # one folder further down will do as well
