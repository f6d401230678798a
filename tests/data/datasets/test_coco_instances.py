"""Images and objects of COCO-format files, in COCO's layout and in a user's."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from segfolio.data.datasets import CocoInstances
from segfolio.errors import SegfolioError
from tests.fake import coco_instances

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools, of numpy 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    coco_instances.write(folder := tmp_path_factory.mktemp("coco"))
    return folder


def test_classes_are_the_categories_in_the_order_of_their_ids(root):
    labels = CocoInstances(root, "train").labels
    assert labels.names == labels.things == ("person", "dog")
    assert labels.ids == (1, 18)
    assert labels.background is None


def test_a_sample_has_objects_number_and_name(root):
    dataset = CocoInstances(root, "val")
    sample = dataset[0]
    assert len(dataset) == 2
    assert sample.image_id == "000000000500"
    assert sample.target.number == 500
    assert sample.target.semantic is None
    assert sample.original_size == (48, 64)
    segments = sample.target.segments
    assert segments.labels.tolist() == [0, 1, 0]
    assert segments.crowd.tolist() == [False, False, True]
    inside, outside = (sample.image[:, m].float().mean() for m in (segments.masks[1], ~segments.masks.any(0)))
    assert inside > outside + 80  # the fake draws the dog on the person, both brighter than the ground


def test_images_without_an_object_are_kept(root):
    segments = CocoInstances(root, "train")[3].target.segments
    assert len(segments) == 0
    assert segments.masks.shape == (0, 48, 64)


def test_with_a_background_there_is_a_semantic_map(root):
    dataset = CocoInstances(root, "train", background="ground")
    assert dataset.labels.names == ("person", "dog", "ground")
    assert dataset.labels.ids == (1, 18, 0)
    assert dataset.labels.things == ("person", "dog")
    target = dataset[0].target
    person, dog, crowd = target.segments.masks
    assert (target.semantic[dog] == 1).all()
    assert (target.semantic[person & ~dog] == 0).all()
    assert (target.semantic[crowd & ~person & ~dog] == 255).all()
    assert (target.semantic[~(person | dog | crowd)] == 2).all()
    assert (dataset[3].target.semantic == 2).all()


def test_the_id_of_the_background_is_one_that_is_free(root, tmp_path):
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    content["categories"] = [{"id": i, "name": f"class {i}"} for i in (0, 1, 18)]
    (tmp_path / "file.json").write_text(json.dumps(content))
    dataset = CocoInstances(tmp_path, "val", "file.json", str(root / "val2017"), background="ground")
    assert dataset.labels.ids == (0, 1, 18, 2)
    assert dataset[0].target.segments.labels.tolist() == [1, 2, 1]


@pytest.mark.parametrize("folder", [".", "images", "train2017", "train"])
def test_images_are_found_where_users_put_them(root, tmp_path, folder):
    (tmp_path / folder).parent.mkdir(exist_ok=True)
    for path in (root / "train2017").iterdir():
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / path.name).symlink_to(path)
    (tmp_path / "train.json").symlink_to(root / "annotations" / "instances_train2017.json")
    assert CocoInstances(tmp_path, "train", "{split}.json")[0].image_id == "000000000100"


def test_images_that_are_nowhere_are_a_sentence_with_the_places(root, tmp_path):
    (tmp_path / "val.json").symlink_to(root / "annotations" / "instances_val2017.json")
    with pytest.raises(
        SegfolioError, match=r"val\.json names 2 images, none of .* in \. or images or val2017 or val \(the"
    ):
        CocoInstances(tmp_path, "val", "{split}.json")
    with pytest.raises(SegfolioError, match=r"in pictures/val \("):
        CocoInstances(tmp_path, "val", "{split}.json", "pictures/{split}")


def test_a_missing_annotation_file_is_named(root):
    with pytest.raises(SegfolioError, match=r"lacks annotations/instances_dev2017\.json of COCO: found annotations"):
        CocoInstances(root, "dev")


def test_a_category_list_that_makes_no_classes_is_a_sentence(root, tmp_path):
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    for categories, said in (
        ([], "categories: a label space needs at least one class"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "categories: name a occurs twice"),
        ([{"id": -1, "name": "a"}], "categories: the ids .* lie between 0 and 65535"),
    ):
        (tmp_path / "file.json").write_text(json.dumps({**content, "categories": categories}))
        with pytest.raises(SegfolioError, match=rf"file\.json, {said}"):
            CocoInstances(tmp_path, "val", "file.json", str(root / "val2017"))


def test_what_is_wrong_is_found_before_training_and_named_at_reading(tmp_path):
    coco_instances.write(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[1, 2, 3]]
    path.write_text(json.dumps(content))
    (tmp_path / "train2017" / "000000000102.png").unlink()
    dataset = CocoInstances(tmp_path, "train")
    with pytest.raises(
        SegfolioError, match=r"4 images: 1 image missing: \S*102\.png; 1 annotation with a segmentation"
    ):
        dataset.check()
    with pytest.raises(SegfolioError, match=r"instances_train2017\.json, annotation 300: a polygon has 3 coordinates"):
        dataset[0]
    assert dataset[1].target.number == 101


def test_the_nuclei_are_those_of_pycocotools(real_data):
    """20 images with 465 objects; masks, boxes and areas equal, and nothing is wrong with the files."""
    folder = real_data / "dsb2018"
    official = COCO(folder / "instances_val.json")
    dataset = CocoInstances(folder, "val", "instances_{split}.json", background="background")
    assert list(dataset.problems()) == []
    assert len(dataset) == 20
    objects = 0
    for sample in (dataset[i] for i in range(20)):
        theirs, segments = official.imgToAnns[sample.target.number], sample.target.segments
        assert np.array_equal(segments.masks, [official.annToMask(a) for a in theirs])
        assert segments.boxes.tolist() == [a["bbox"] for a in theirs]
        assert np.array_equal(sample.target.semantic == 0, segments.masks.any(0))
        objects += len(segments)
    assert objects == 465
