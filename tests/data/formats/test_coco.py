"""COCO's annotation files: what is read, what is wrong with them, what is written."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from segfolio.data.checks.problems import Problem
from segfolio.data.formats import coco, coco_problems, rle
from segfolio.data.formats.images import write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Instances, Prediction
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from tests.fake import coco_instances

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools, of numpy 2

SIZE = (48, 64)
Content = dict[str, Any]


def problems(file: coco.CocoFile, folder: Path) -> Iterator[Problem]:
    return coco_problems.problems(file, [folder / image.path for image in file.images])


@pytest.fixture(scope="module")
def made() -> tuple[Content, list[np.ndarray]]:
    return coco_instances.content(100, 3, SIZE)


@pytest.fixture
def content(made) -> Content:
    return copy.deepcopy(made[0])


@pytest.fixture(scope="module")
def images(made, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for image, pixels in zip(made[0]["images"], made[1], strict=True):
        write_image(folder / image["file_name"], pixels)
    return folder


def load(content: Any, folder: Path) -> coco.CocoFile:
    (path := folder / "file.json").write_text(json.dumps(content))
    return coco.load(path)


def test_a_file_is_indexed_by_image_and_category(content, tmp_path) -> None:
    file = load(content, tmp_path)
    assert file.images[0] == coco.Image(100, "000000000100.png", SIZE)
    assert file.images[0].stem == "000000000100"
    assert list(file.categories.items()) == [(1, "person"), (18, "dog")]
    assert [(a.id, a.category_id, a.crowd) for a in file.annotations[101]] == [
        (303, 1, False),
        (304, 18, False),
        (305, 1, True),
    ]
    assert 102 not in file.annotations
    assert file.annotations[101][0].segmentation == content["annotations"][3]["segmentation"]


def test_masks_are_those_of_pycocotools(content, tmp_path) -> None:
    file = load(content, tmp_path)
    official = COCO(tmp_path / "file.json")
    labels = LabelSpace(("person", "dog"), ids=(1, 18), things=("person", "dog"))
    found = coco.segments(file, file.images[0], SIZE, labels)
    theirs = official.loadAnns(official.getAnnIds(imgIds=[100]))
    assert np.array_equal(found.masks, [official.annToMask(a) for a in theirs])
    assert found.labels.tolist() == [0, 1, 0]
    assert found.crowd.tolist() == [False, False, True]
    assert found.boxes.tolist() == [a["bbox"] for a in theirs]
    assert found.areas.tolist() == [a["area"] for a in theirs]
    assert found.boxes.dtype == found.areas.dtype == torch.float64


def test_boxes_are_of_the_masks_where_one_is_not_annotated(content, tmp_path) -> None:
    del content["annotations"][1]["bbox"]
    file = load(content, tmp_path)
    labels = LabelSpace(("person", "dog"), ids=(1, 18))
    assert coco.segments(file, file.images[0], SIZE, labels).boxes is None
    assert coco.segments(file, file.images[1], SIZE, labels).boxes is not None
    assert coco.segments(file, file.images[2], SIZE, labels).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [1,\n 2,, 3]}', "is no JSON: Expecting value at line 2 column 4"),
        ("", "is no JSON: Expecting value at line 1 column 1"),
        ("[" * 200_000, "is no JSON"),
        ("1" * 5000, "is no JSON"),
        ("[]", "holds a list, expected a mapping of images, annotations and categories"),
        ('{"annotations": []}', r"lacks the list 'images'.*found \['annotations'\]"),
        ('{"images": [], "annotations": {}, "categories": []}', "lacks the list 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"'file_name' of images\[0\] is None"),
        (
            '{"images": [7], "annotations": [], "categories": []}',
            r"'id' of images\[0\] is None, expected a whole number",
        ),
        ('{"images": [{"id": "1", "file_name": "a"}], "annotations": [], "categories": []}', r"images\[0\] is '1'"),
        ('{"images": [], "annotations": [{"id": 1.5}], "categories": []}', r"'image_id' of annotations\[0\]"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": ""}]}',
            r"'name' of categories\[0\] is ''",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "category id 1 occurs twice",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused_in_words(tmp_path, text: str, said: str) -> None:
    (path := tmp_path / "file.json").write_text(text)
    with pytest.raises(SegfolioError, match=rf"file\.json.*{said}"):
        coco.load(path)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path) -> None:
    with pytest.raises(SegfolioError, match=r"none\.json cannot be read: no such file"):
        coco.load(tmp_path / "none.json")
    (tmp_path / "image.json").write_bytes(b"\xff\xd8\xff\xe0" * 4)
    with pytest.raises(SegfolioError, match=r"image\.json is no JSON"):
        coco.load(tmp_path / "image.json")


def test_a_sound_file_has_no_problem(content, images, tmp_path) -> None:
    assert list(problems(load(content, tmp_path), images)) == []


def changed(place: int, **changes: Any) -> Callable[[Content], None]:
    return lambda content: content["annotations"][place].update(changes)


def dropped(place: int, key: str) -> Callable[[Content], None]:
    return lambda content: content["annotations"][place].pop(key)


def shifted(place: int, by: float) -> Callable[[Content], None]:
    def shift(content: Content) -> None:
        content["annotations"][place]["bbox"][0] += by

    return shift


def of_image(**changes: Any) -> Callable[[Content], None]:
    return lambda content: content["images"][0].update(changes)


FAULTS = [
    (changed(0, segmentation=[]), "with a box and no mask", False),
    (changed(0, segmentation=[[]]), "with a box and no mask", False),
    (changed(0, segmentation=[], bbox=None), "annotation 300 (the segmentation is an empty list", True),
    (changed(0, segmentation=[[1, 2, 3, 4]]), "annotation 300 (a polygon has 4 coordinates", True),
    (changed(2, segmentation={"size": [1, 1], "counts": "1"}), "annotation 302 (the run lengths are of size", True),
    (dropped(0, "segmentation"), "with a box and no mask", False),
    (changed(0, segmentation=None, bbox=None), "without a segmentation and without a box", True),
    (changed(0, segmentation=[], bbox=[1, 2]), "with a box that is none", True),
    (changed(0, category_id=2), "of an unknown category", True),
    (changed(0, image_id=7), "of an unknown image", True),
    (changed(0, id=303), "given more than once", True),
    (changed(0, id=-1), "below 0", True),
    (changed(0, bbox=[4, 4, float("nan"), 9]), "with a box that is none", True),
    (changed(0, bbox=[4, 4, -3, 9]), "with a box that is none", True),
    (changed(0, bbox=[4, 4, 9]), "with a box that is none", True),
    (changed(0, bbox=[[4], 4, 9, 10**400]), "with a box that is none", True),
    (changed(0, bbox="4 4 9 9"), "with a box that is none", True),
    (changed(0, bbox=[1e300, 4, 1e308, 1e308]), "whose mask and box overlap by less than half", True),
    (shifted(0, 60.0), "whose mask and box overlap by less than half", True),
    (changed(0, bbox=[50, 0, 10, 10], iscrowd=1), "whose mask and box overlap by less than half", False),
    (shifted(0, 3.0), "whose mask and box are over 2 px apart", False),
    (changed(0, bbox=[-2.0, 4, 34.0, 40]), "with a box that leaves the image", False),
    (changed(0, bbox=[4.0, 4, 0, 40]), "with a box without area", False),
    (changed(0, segmentation={"size": [48, 64], "counts": [48 * 64]}), "with a mask without a pixel", False),
    (of_image(width=65), "000000000100.png: 65x48, in its file 64x48", True),
    (of_image(id=101), "given more than once", True),
    (of_image(file_name="000000000101.jpg"), "given more than once", True),
]


@pytest.mark.parametrize(("fault", "said", "fatal"), FAULTS, ids=[f"{i} {f[1]}" for i, f in enumerate(FAULTS)])
def test_faults_are_found_and_named(content, images, tmp_path, fault, said: str, fatal: bool) -> None:
    fault(content)
    found = list(problems(load(content, tmp_path), images))
    told = [problem for problem in found if said in f"{problem.kind} {problem.what} {problem.where}"]
    assert [problem.fatal for problem in told] == [fatal], found
    assert all("file.json" in problem.where for problem in found)


@pytest.mark.parametrize("by", [-2.0, 2.0])
def test_boxes_and_masks_two_pixels_apart_are_no_problem(content, images, tmp_path, by: float) -> None:
    shifted(0, by)(content)
    assert list(problems(load(content, tmp_path), images)) == []


def test_an_image_without_a_size_has_that_of_its_file(content, images, tmp_path) -> None:
    for image in content["images"]:
        del image["width"]
    file = load(content, tmp_path)
    assert file.images[0].size is None
    assert list(problems(file, images)) == []


@pytest.mark.parametrize("key", ["segmentation", "bbox", "area", "iscrowd", "category_id"])
@pytest.mark.parametrize("value", [None, [], {}, "", "x", -1, 1e308, [None], [[[]]], {"size": 1}, True, 10**400])
def test_no_value_of_an_annotation_ends_in_a_crash(content, images, tmp_path, key: str, value: Any) -> None:
    content["annotations"][0][key] = value
    try:
        file = load(content, tmp_path)
    except SegfolioError:
        assert key == "category_id"
        return
    assert isinstance(list(problems(file, images)), list)
    try:
        found = coco.segments(file, file.images[0], SIZE, LabelSpace(("person", "dog"), ids=(1, 18)))
        assert len(found) == 3
    except SegfolioError:
        assert key in ("segmentation", "category_id")


def test_smaller_objects_lie_on_top_and_crowds_below_all() -> None:
    masks = np.zeros((3, 4, 6), np.bool_)
    masks[0, 1:3, 1:3] = masks[1, :, :4] = masks[2, 2:] = True  # small, large, crowd
    segments = Segments(rle.encode(masks), torch.tensor([0, 1, 0]), torch.tensor([False, False, True]), (4, 6))
    labels = LabelSpace(("dog", "person", "background"), background="background", things=("dog", "person"))
    expected = [[1, 1, 1, 1, 2, 2], [1, 0, 0, 1, 2, 2], [1, 0, 0, 1, 255, 255], [1, 1, 1, 1, 255, 255]]
    assert coco.semantic(segments, labels).tolist() == expected
    without = LabelSpace(("dog", "person"), things=("dog", "person"))
    assert coco.semantic(segments, without)[0].tolist() == [1, 1, 1, 1, 255, 255]


def test_results_are_read_by_pycocotools(content, tmp_path) -> None:
    load(content, tmp_path)
    masks = np.random.default_rng(0).random((3, *SIZE)) < 0.2
    labels = LabelSpace(("person", "dog"), ids=(1, 18), things=("person", "dog"))
    found = Instances(rle.encode(masks), torch.tensor([1, 0, 1]), torch.tensor([0.9, 0.5, 0.25]))
    written = coco.results(Prediction("a", SIZE, instances=found), 100, labels)
    official = COCO(tmp_path / "file.json").loadRes(json.loads(json.dumps(written)))
    read = official.loadAnns(official.getAnnIds(imgIds=[100]))
    assert [(a["category_id"], round(a["score"], 6)) for a in read] == [(18, 0.9), (1, 0.5), (18, 0.25)]
    assert np.array_equal([official.annToMask(a) for a in read], masks)
    assert [a["bbox"] for a in read] == rle.boxes(found.rles).tolist()
    found.boxes = torch.tensor([[0.5, 1, 2, 3]] * 3)
    assert coco.results(Prediction("a", SIZE, instances=found), 100, labels)[2]["bbox"] == [0.5, 1, 2, 3]


@pytest.mark.parametrize("as_polygons", [False, True])
def test_written_annotations_are_read_back_by_us_and_by_pycocotools(tmp_path, as_polygons: bool) -> None:
    masks = np.random.default_rng(0).random((4, 20, 30)) < 0.5
    masks[2] = False
    labels = LabelSpace(("sky", "cell", "dog"), ids=(0, 7, 3), things=("cell", "dog"))
    crowd = torch.tensor([False, True, False, False])
    truth = Segments(rle.encode(masks), torch.tensor([1, 2, 1, 0]), crowd, (20, 30))  # the last is stuff
    written = coco.annotations_json([("a/b.png", truth), ("c.png", truth[crowd])], labels, as_polygons)
    file = load(written, tmp_path)
    assert file.categories == {3: "dog", 7: "cell"}
    assert [isinstance(a["segmentation"], list) for a in written["annotations"]] == [as_polygons, False, False, False]
    back = coco.segments(file, file.images[0], (20, 30), labels)
    assert np.array_equal(back.masks, masks[:3])
    assert back.labels.tolist() == [1, 2, 1]
    assert back.crowd.tolist() == [False, True, False]
    assert len(file.annotations[2]) == 1
    official = COCO(tmp_path / "file.json")
    assert np.array_equal([official.annToMask(a) for a in official.imgToAnns[1]], masks[:3])
