import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segfolio.data.formats.images import write_id_map, write_image, write_palette
from segfolio.data.formats.panoptic import (
    MAX_ID,
    id_places,
    label_space,
    panoptic_annotation,
    panoptic_json,
    panoptic_size,
    read_panoptic,
    write_panoptic,
)
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

LABELS = LabelSpace(("cat", "grass", "sky"), (17, 193, 187), (0,), ("cat",))
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=40, deadline=None)
@given(ids=arrays(np.int64, SHAPES, elements=st.integers(0, MAX_ID)))
def test_ids_come_back_from_the_png(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("png") / "ids.png"
    write_panoptic(path, ids)
    found = read_panoptic(path)
    assert found.dtype == np.int32
    assert np.array_equal(found, ids)
    assert panoptic_size(path) == ids.shape


def test_an_id_is_red_and_256_green_and_65536_blue(tmp_path):
    pixels = np.array([[[92, 21, 60], [255, 0, 0], [0, 0, 1]]], np.uint8)
    write_image(tmp_path / "a.png", pixels)
    assert read_panoptic(tmp_path / "a.png").tolist() == [[92 + 256 * 21 + 65536 * 60, 255, 65536]]
    write_panoptic(tmp_path / "b.png", np.array([[3_937_628, 255, 65536]]))
    assert np.array_equal(cv2.imread(str(tmp_path / "b.png"))[..., ::-1], pixels)


@pytest.mark.parametrize("number", [-1, MAX_ID + 1])
def test_an_id_that_three_bytes_do_not_hold_is_not_written(tmp_path, number):
    with pytest.raises(ValueError, match=f"between 0 and {MAX_ID}"):
        write_panoptic(tmp_path / "a.png", np.array([[number]]))


def test_files_that_hold_no_panoptic_ids_are_named(tmp_path):
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    write_id_map(tmp_path / "grey.png", ids)
    write_palette(tmp_path / "palette.png", ids, np.zeros((6, 3), np.uint8))
    write_image(tmp_path / "photo.jpg", np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((8, 8, 3), np.uint16))
    for name in ("grey.png", "palette.png", "photo.jpg", "deep.png"):
        with pytest.raises(SegfolioError, match=rf"{name} is no RGB PNG of 8 bits, expected segment ids as R \+ 256 G"):
            read_panoptic(tmp_path / name)
    write_panoptic(tmp_path / "cut.png", ids)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-9])
    with pytest.raises(SegfolioError, match=r"cut\.png is cut short"):
        read_panoptic(tmp_path / "cut.png")
    with pytest.raises(SegfolioError, match=r"none\.png cannot be read"):
        read_panoptic(tmp_path / "none.png")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), places=arrays(np.int32, SHAPES, elements=st.integers(0, 4)))
def test_ids_become_places_whatever_they_are(data, places):
    present = np.setdiff1d(places, 0)
    known = np.array(data.draw(st.lists(st.integers(1, MAX_ID), min_size=4, max_size=4, unique=True)))
    ids = np.append(0, known)[places].astype(np.int32)
    order = np.array(data.draw(st.permutations(present.tolist())), int)
    found = id_places(ids, known[order - 1], "a.png")
    assert found.dtype == np.int32
    assert np.array_equal(np.append(0, order)[found], places)


def test_ids_of_png_or_json_alone_are_named():
    ids = np.array([[0, 5, 5], [7, 7, 900]], np.int32)
    assert id_places(ids, np.array([900, 5, 7]), "a.png").tolist() == [[0, 2, 2], [3, 3, 1]]
    with pytest.raises(SegfolioError, match=r"a\.png has segment id 7, 900 which its JSON does not list"):
        id_places(ids, np.array([5]), "a.png")
    with pytest.raises(SegfolioError, match=r"a\.png has segment id 6, 1000 of its JSON without a pixel"):
        id_places(ids, np.array([1000, 900, 5, 6, 7]), "a.png")


def test_the_annotation_of_an_image():
    """Segment 2 has no pixel and is left out; boxes are x, y, width, height."""
    ids = torch.tensor([[0, 1, 1, 0], [3, 1, 3, 3]], dtype=torch.int32)
    segments = Segments(ids, torch.tensor([0, 1, 2]), torch.tensor([True, False, False]))
    assert panoptic_annotation(segments, LABELS, 42, "42.png") == {
        "image_id": 42,
        "file_name": "42.png",
        "segments_info": [
            {"id": 1, "category_id": 17, "area": 3, "iscrowd": 1, "bbox": [1, 0, 2, 2]},
            {"id": 3, "category_id": 187, "area": 3, "iscrowd": 0, "bbox": [0, 1, 4, 1]},
        ],
    }


@settings(max_examples=40, deadline=None)
@given(data=st.data(), ids=arrays(np.int32, SHAPES, elements=st.integers(0, 4)))
def test_segments_come_back_from_png_and_json(tmp_path_factory, data, ids):
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)))
    crowd = torch.tensor(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))
    path = tmp_path_factory.mktemp("png") / "ids.png"
    write_panoptic(path, ids)
    infos = panoptic_annotation(Segments(torch.from_numpy(ids), labels, crowd), LABELS, 1, path.name)["segments_info"]

    back = read_panoptic(path)
    assert [info["id"] for info in infos] == np.setdiff1d(ids, 0).tolist()
    for info in infos:
        inside = np.argwhere(back == info["id"])
        (y, x), (bottom, right) = inside.min(0), inside.max(0)
        assert info["area"] == len(inside)
        assert info["bbox"] == [x, y, right - x + 1, bottom - y + 1]
        assert LABELS.ids.index(info["category_id"]) == labels[info["id"] - 1]
        assert info["iscrowd"] == crowd[info["id"] - 1]


@given(
    data=st.data(),
    ids=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=5, unique=True),
)
def test_label_spaces_come_back_from_the_categories(data, ids):
    names = tuple(f"class {number}" for number in ids)
    things = data.draw(st.lists(st.sampled_from(names), unique=True).map(sorted))
    labels = LabelSpace(names, tuple(ids), () if 0 in ids else (0,), tuple(n for n in names if n in things))
    content = panoptic_json([], labels)
    assert content["images"] == content["annotations"] == []
    assert label_space(content["categories"], "a.json") == labels


def test_categories_without_colours_get_distinct_ones_and_many_move_the_ignore_index():
    categories = [{"id": i, "name": str(i), "isthing": i % 2} for i in range(300)]
    labels = label_space(categories, "a.json")
    assert len(set(labels.palette)) > 200
    assert (labels.ignore_index, labels.void_ids, sum(labels.is_thing)) == (300, (), 150)


FAULTS = {"id": ["1", True, float("nan")], "name": [3], "isthing": [2, None], "color": ["red", [1, 2, "x"]]}


@pytest.mark.parametrize("fault", [{key: value} for key, values in FAULTS.items() for value in values], ids=str)
def test_categories_that_are_none_are_refused(fault):
    good = {"id": 1, "name": "cat", "isthing": 1, "color": [1, 2, 3]}
    assert label_space([good], "a.json").names == ("cat",)
    for categories in ([good | fault], [[]], [], None, "cats"):
        with pytest.raises(SegfolioError, match=r"a\.json: categories are no list of objects, each with an integer id"):
            label_space(categories, "a.json")


def test_categories_that_no_label_space_holds_are_refused_with_their_file():
    twice = [{"id": 1, "name": "cat", "isthing": 1}] * 2
    with pytest.raises(SegfolioError, match=r"a\.json: name cat occurs twice"):
        label_space(twice, "a.json")
