import json
import pickle

import numpy as np
import pytest
import torch

from segfolio.data.datasets.coco_panoptic import CocoPanoptic
from segfolio.data.formats.images import write_image
from segfolio.data.formats.panoptic import read_panoptic, write_panoptic
from segfolio.errors import SegfolioError
from tests.fake import coco_panoptic

JSON = "annotations/panoptic_train2017.json"
PNG = "annotations/panoptic_train2017/000000000002.png"
SAMPLE = {"annotations": "panoptic_examples.json", "panoptic": "panoptic_examples", "images": "input_images"}


@pytest.fixture
def root(tmp_path):
    coco_panoptic.write(tmp_path)
    return tmp_path


@pytest.fixture
def edit(root):
    """Change the JSON of the training split and open it again."""

    def change(how):
        content = json.loads((root / JSON).read_text())
        how(content)
        (root / JSON).write_text(json.dumps(content))
        return CocoPanoptic(root, "train")

    return change


def segment(content, place=0):
    return content["annotations"][1]["segments_info"][place]


def test_root_alone_reads_the_layout_of_coco(root):
    train = CocoPanoptic(root, "train")
    assert (len(train), len(CocoPanoptic(root, "val"))) == (4, 2)
    assert train.labels == coco_panoptic.LABELS
    sample = train[1]
    assert (sample.image_id, sample.original_size, sample.target.number) == ("000000000002", (64, 96), 2)
    assert train.image_id(1) == sample.image_id
    assert list(train.problems()) == []


def test_pixels_have_the_segments_and_classes_of_the_files(root):
    target = CocoPanoptic(root, "train")[1].target
    ids = read_panoptic(root / PNG)
    infos = json.loads((root / JSON).read_text())["annotations"][1]["segments_info"]
    assert target.segments.form.dtype == torch.int32
    assert target.segments.crowd.tolist() == [False] * 6 + [True]
    names = [coco_panoptic.LABELS.names[label] for label in target.segments.labels]
    assert names == ["road", "sky-other-merged", "grass-merged", "person", "person", "car", "car"]
    for place, info in enumerate(infos, 1):
        inside = ids == info["id"]
        assert np.array_equal(target.segments.form.numpy() == place, inside)
        assert set(target.semantic.numpy()[inside]) == {coco_panoptic.LABELS.ids.index(info["category_id"])}
    assert (ids == 0).any()
    assert np.array_equal(target.segments.form.numpy() == 0, ids == 0)
    assert np.array_equal(target.semantic.numpy() == target.ignore_index, ids == 0)


def test_paths_and_categories_can_be_ones_own(root):
    content = json.loads((root / JSON).read_text())
    (root / "classes.json").write_text(json.dumps(content.pop("categories")[::-1]))
    (root / "mine-train.json").write_text(json.dumps(content))
    (root / "train2017").rename(root / "photos")
    own = {"annotations": "mine-{split}.json", "images": "photos", "categories": "classes.json"}
    dataset = CocoPanoptic(root, "train", **own)
    assert dataset.labels.names == coco_panoptic.LABELS.names[::-1]
    assert dataset[0].target.semantic[0, 0] == 4  # a person, now the last class


def test_images_without_annotation_are_left_out(edit):
    dataset = edit(lambda content: content["annotations"].pop(0))
    assert [dataset[i].image_id for i in range(3)] == [f"{n:012d}" for n in (2, 3, 4)]


def test_image_ids_may_be_words_and_names_may_have_folders(edit, root):
    def rename(content):
        content["images"][1] |= {"id": "a_2", "file_name": "a/2.jpg"}
        content["annotations"][1]["image_id"] = "a_2"

    (root / "train2017" / "a").mkdir()
    (root / "train2017" / "000000000002.jpg").rename(root / "train2017" / "a" / "2.jpg")
    sample = edit(rename)[1]
    assert (sample.image_id, sample.target.number) == ("a/2", None)


def test_a_dataset_travels_to_workers_and_indices_end(root):
    dataset = CocoPanoptic(root, "train")
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[-1].target.semantic, dataset[3].target.semantic)
    with pytest.raises(IndexError):
        dataset[4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "has no list 'images'"),
        (lambda c: c.update(annotations={}), "has no list 'annotations'"),
        (lambda c: c.pop("categories"), "categories are no list of objects"),
        (lambda c: c.update(annotations=[]), "annotates no image"),
        (lambda c: c["images"].append(3), r"images\[4\] is no object with file_name, id"),
        (lambda c: c["images"][2].pop("file_name"), r"images\[2\] is no object with file_name, id"),
        (lambda c: c["images"][0].update(id=float("nan")), r"images\[0\] is no object"),
        (lambda c: c["annotations"][1].update(segments_info=None), r"annotations\[1\] is no object with file_name, im"),
        (lambda c: c["annotations"][1].update(image_id=77), "has annotations of images that it does not list: 77"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "annotates an image twice"),
    ],
)
def test_a_json_that_lacks_what_it_needs_is_refused(edit, change, message):
    with pytest.raises(SegfolioError, match=rf"panoptic_train2017\.json:? {message}"):
        edit(change)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\x00", '{"images": ['])
def test_what_is_no_json_is_refused(root, text):
    (root / JSON).write_text(text)
    with pytest.raises(SegfolioError, match=r"panoptic_train2017\.json is no (JSON|panoptic JSON)"):
        CocoPanoptic(root, "train")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SegfolioError, match=r"lacks annotations/panoptic_val2017, annotations/panoptic_val2017\.j"):
        CocoPanoptic(tmp_path, "val")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: segment(c).update(category_id=2), "of an unknown category_id"),
        (lambda c: segment(c).update(category_id=None), "without an integer id and category_id"),
        (lambda c: segment(c).update(id=float("nan")), "without an integer id and category_id"),
        (lambda c: segment(c).update(id="3"), "without an integer id and category_id"),
        (lambda c: segment(c).update(id=True), "without an integer id and category_id"),
        (lambda c: c["annotations"][1]["segments_info"].append([]), "without an integer id and category_id"),
        (lambda c: segment(c).update(id=-5), "with an id outside 1 to 16777215"),
        (lambda c: segment(c).update(id=10**30), "with an id outside 1 to 16777215"),
        (lambda c: segment(c).update(iscrowd=float("nan")), "with an iscrowd other than 0 and 1"),
        (lambda c: segment(c).update(iscrowd=[]), "with an iscrowd other than 0 and 1"),
        (lambda c: segment(c, 1).update(id=segment(c)["id"]), "whose id its image has twice"),
    ],
)
def test_faults_of_segments_are_problems_and_errors_of_their_image_alone(edit, change, what):
    dataset = edit(change)
    [problem] = dataset.problems()
    assert (problem.kind, problem.what, problem.image_id, problem.fatal) == ("segment", what, "000000000002", True)
    assert "image 2, " in problem.where
    with pytest.raises(SegfolioError, match=what):
        dataset[1]
    assert dataset[0].image_id == "000000000001"


def test_files_that_are_missing_or_broken_are_problems(root):
    dataset = CocoPanoptic(root, "train")
    folder = (root / PNG).parent
    (folder / "000000000001.png").unlink()
    (folder / "000000000002.png").write_bytes(b"")
    write_image(folder / "000000000003.png", np.zeros((64, 96, 1), np.uint8))
    (root / "train2017" / "000000000004.jpg").unlink()
    export = "empty, cut short or no RGB PNG of 8 bits (export again)"
    assert [(p.kind, p.what, p.image_id[-1], p.fatal) for p in dataset.problems()] == [
        ("image", "missing", "4", True),
        ("panoptic PNG", "missing", "1", True),
        ("panoptic PNG", export, "2", True),
        ("panoptic PNG", export, "3", True),
    ]
    for index in range(4):
        with pytest.raises(SegfolioError, match=f"00000000000{index + 1}"):
            dataset[index]


def test_sizes_are_compared(edit, root):
    write_panoptic(root / PNG, np.zeros((32, 96), int))
    dataset = edit(lambda c: [image.update(width=None, height=float("nan")) for image in c["images"][:3]])
    found = {p.image_id[-1]: p for p in dataset.problems()}
    assert sorted(found) == ["1", "2", "3"]
    assert found["2"].what == "of another size than the image"
    assert found["2"].where.endswith("(96x32, image 96x64)")
    assert [found[i].what for i in "13"] == ["of another size than the JSON says"] * 2
    assert [found[i].fatal for i in "123"] == [False, True, False]
    assert dataset[0].original_size == (64, 96)
    with pytest.raises(SegfolioError, match=r"000000000002\.png is 96x32 pixels but its image .* is 96x64"):
        dataset[1]


def test_ids_of_png_or_json_alone_are_errors(edit):
    removed = edit(lambda c: c["annotations"][1]["segments_info"].pop(3))
    with pytest.raises(SegfolioError, match=r"000000000002\.png has segment id 262148 which its JSON does not list"):
        removed[1]
    extra = {"id": 9, "category_id": 1, "iscrowd": 0}
    added = edit(lambda c: c["annotations"][0]["segments_info"].append(extra))
    with pytest.raises(SegfolioError, match=r"000000000001\.png has segment id 9 of its JSON without a pixel"):
        added[0]


def test_the_real_files(real_data):
    """Areas as COCO's JSON has them; 133 classes, the first 80 of them things."""
    root = real_data / "coco_panoptic" / "sample_data"
    dataset = CocoPanoptic(root, "val", **SAMPLE, categories="../panoptic_coco_categories.json")
    assert dataset.labels == CocoPanoptic(root, "val", **SAMPLE).labels
    assert dataset.labels.is_thing == (True,) * 80 + (False,) * 53
    assert list(dataset.problems()) == []
    content = json.loads((root / "panoptic_examples.json").read_text())
    for annotation, sample in zip(content["annotations"], (dataset[0], dataset[1]), strict=True):
        infos, segments = annotation["segments_info"], sample.target.segments
        areas = np.bincount(segments.form.numpy().ravel())[1:]
        assert areas.tolist() == [info["area"] for info in infos]
        assert [dataset.labels.ids[label] for label in segments.labels] == [info["category_id"] for info in infos]
        assert segments.crowd.tolist() == [info["iscrowd"] == 1 for info in infos]
        assert sample.target.number == annotation["image_id"]
        assert sample.image_id == f"{annotation['image_id']:012d}"
        assert sample.image.shape[1:] == segments.size == sample.target.semantic.shape
