"""What holds for every dataset, found by discovery, on tiny data in its real layout."""

import importlib
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.datasets import ImageFolder, VideoFolder
from segfolio.data.listing import dataset_classes
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset

CLASSES = {name: cls for name, cls in dataset_classes().items() if cls not in (ImageFolder, VideoFolder)}
WRITERS = {"COCOStuff10k": "write_10k"}
ARGUMENTS = {"Shapes": {"train": 3, "val": 3}, "SA1B": {"val_every": 4}}
ARGUMENTS["MovingShapes"] = {"train": 1, "val": 1, "frames": 3}
DRAWN = ("Shapes", "MovingShapes")
UNCOUNTED = {"YouTubeVOS": ("train", "valid"), "MOSE": ("train", "valid")}  # frames were not published
SPLITS = ("train", "trainval", "val", "valid", "test")


@pytest.fixture(scope="module", params=CLASSES)
def opened(request, tmp_path_factory) -> dict[str, SegmentationDataset]:
    """Two splits of a dataset, by name."""
    cls, root = CLASSES[request.param], tmp_path_factory.mktemp(request.param)
    module = cls.__module__.rpartition(".")[2]
    if request.param not in DRAWN:
        getattr(importlib.import_module(f"tests.fake.{module}"), WRITERS.get(request.param, "write"))(root)
    names = [name for name in cls.info.splits or UNCOUNTED.get(request.param, ("train", "val")) if name in SPLITS][:2]
    return {name: cls(root, name, **ARGUMENTS.get(request.param, {})) for name in names}


def test_samples_hold_what_the_label_space_allows(opened):
    for name, dataset in opened.items():
        allowed = {*range(dataset.labels.num_classes), dataset.labels.ignore_index}
        assert len(dataset), name
        for i in range(len(dataset)):
            sample = dataset[i]
            size, target = tuple(sample.image.shape[1:]), sample.target
            assert sample.original_size == size
            assert target is not None
            assert target.ignore_index == dataset.labels.ignore_index
            if dataset.clips is not None and target.semantic is None and target.segments is None:
                continue  # a frame that is not annotated
            if target.semantic is not None:
                assert target.semantic.shape == size
                assert set(np.unique(target.semantic.numpy()).tolist()) <= allowed
            if target.segments is not None:
                assert target.segments.size == size
                assert len(target.segments.rles) == len(target.segments.labels) == len(target.segments.crowd)
                assert set(target.segments.labels.tolist()) < allowed
            assert panoptic_truth(target, dataset.labels).size == size


def test_images_have_ids_of_their_own_known_without_reading(opened):
    for dataset in opened.values():
        found = [dataset[i].image_id for i in range(len(dataset))]
        assert len(set(found)) == len(found)
        if dataset.image_id(0) is not None:
            assert [dataset.image_id(i) for i in range(len(dataset))] == found


def test_tasks_are_those_that_the_annotation_serves(opened):
    dataset = next(iter(opened.values()))
    targets = [dataset[i].target for i in range(len(dataset))]
    assert ("instance" in dataset.info.tasks) == any(t.segments is not None for t in targets)
    if type(dataset).__name__ != "CocoInstances":  # there it takes a background
        assert ("semantic" in dataset.info.tasks) == any(t.semantic is not None for t in targets)


def test_an_inspection_finds_nothing_that_stands_in_the_way(opened):
    report = inspect_dataset({name: lambda dataset=dataset: dataset for name, dataset in opened.items()})
    assert report.fatal == []
    assert all(split.read == split.images for split in report.splits.values())


def test_workers_get_a_copy_and_fingerprints_tell_splits_apart(opened):
    prints = []
    for dataset in opened.values():
        copy = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(copy[0].image, dataset[0].image)
        prints.append(fingerprint(dataset))
    assert len(set(prints)) == len(prints)


def test_the_listing_says_what_it_is_and_where_it_comes_from(opened):
    info = next(iter(opened.values())).info
    assert info.title
    assert info.licence
    assert info.layout
    assert info.url
    assert all(f.checksum.startswith(("md5:", "sha256:")) for f in info.files)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in DRAWN])
def test_a_wrong_root_says_what_was_found_and_what_is_expected(name, tmp_path):
    (tmp_path / "holiday.txt").write_text("")
    split = next(iter(CLASSES[name].info.splits), "train")
    for root, found in ((tmp_path, "holiday.txt"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(SegfolioError, match=r"^[^\n]*$") as error:
            partial(CLASSES[name], Path(root), split)()
        assert found in str(error.value), error.value
        assert str(root) in str(error.value)
