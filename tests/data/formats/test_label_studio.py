"""Label Studio's brush, against a decoder on text and a vector of its converter; exports and pre-annotations."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from segfolio.data.formats import coco, label_studio, rle
from segfolio.data.formats.images import write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Instances, Prediction
from segfolio.errors import SegfolioError

LABELS = LabelSpace(("cell", "debris"), ids=(1, 2), things=("cell", "debris"))


def decode_as_text(data: list[int]) -> list[int]:
    """The format read off a string of bits, by the letter."""
    bits = iter("".join(format(byte, "08b") for byte in data))
    take = lambda n: int("".join(next(bits) for _ in range(n)), 2)  # noqa: E731
    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1, take(4) + 1, take(4) + 1, take(4) + 1]
    values: list[int] = []
    while len(values) < count:
        repeat, which = take(1), take(2)
        length = take(sizes[which]) + 1
        values += [take(word)] * length if repeat else [take(word) for _ in range(length)]
    return values


@settings(max_examples=150, deadline=None, derandomize=True)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_brushes_come_back_and_are_what_the_format_says(mask: np.ndarray) -> None:
    data = label_studio.encode(mask)
    assert np.array_equal(label_studio.decode(data, mask.shape), mask)
    assert decode_as_text(data) == np.repeat(mask.ravel() * 255, 4).tolist()


@pytest.mark.parametrize("pixels", [16384, 16385, 32768, 100_000], ids=str)
def test_runs_longer_than_16_bits_are_split(pixels: int) -> None:
    mask = np.ones((1, pixels + 3), np.bool_)
    mask[0, pixels:] = False
    assert np.array_equal(label_studio.decode(label_studio.encode(mask), mask.shape), mask)


def test_a_stream_of_the_converter_itself() -> None:
    """The array and the bytes of label-studio-converter's `tests/test_brush.py`: single values and runs."""
    data = [0, 0, 0, 18, 57, 27, 252, 96, 32, 1, 0, 6, 0, 40, 0, 192, 3, 128, 17, 56, 32]
    values = [1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 4, 4, 4, 4, 4, 4, 4, 4]
    assert label_studio.decode_values(data, 18).tolist() == decode_as_text(data) == values


def test_a_stream_by_hand_with_values_one_by_one() -> None:
    """Two pixels, the second one faint: alpha 1. Words of 8 bits, lengths of 4 bits each."""
    bits = (
        f"{8:032b}{7:05b}{3:04b}{3:04b}{3:04b}{3:04b}"
        + f"0{1:02b}{7:04b}"
        + "".join(f"{value:08b}" for value in (9, 9, 9, 0, 0, 0, 0, 1))
    )
    data = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]
    assert label_studio.decode(data, (1, 2)).tolist() == [[False, True]]


GOOD = label_studio.encode(np.eye(4, dtype=np.bool_))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD[:-2], f"cut short after {len(GOOD) - 2} bytes"),
        ([], "cut short after 0 bytes"),
        ([0, 0, 0, 60, *GOOD[4:]], "has 60 values, but an RGBA image of this size has 64"),
        ("abc", "no list of bytes"),
        ([1, 2.0], "no list of bytes"),
        ([256], "no list of bytes"),
        ([0, 0, 0, 64, *GOOD[4:7], 255, 255, 255, 255], "has more than the 64 values that it announces|cut short"),
    ],
)
def test_damaged_brushes_are_refused(data: Any, said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        label_studio.decode(data, (4, 4))


def region(kind: str, label: str, value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    whole = {"id": "r1", "type": kind, "original_width": 10, "original_height": 8, "value": {**value, kind: [label]}}
    return {**whole, **changes}


def brush(mask: np.ndarray, label: str = "cell", **changes: Any) -> dict[str, Any]:
    return region("brushlabels", label, {"format": "rle", "rle": label_studio.encode(mask)}, **changes)


def task(*regions: dict[str, Any], url: str = "/data/upload/1/4b7f3a1c-a%20b.png") -> dict[str, Any]:
    return {"id": 5, "data": {"image": url}, "annotations": [{"id": 1, "result": list(regions)}]}


def test_brushes_and_polygons_of_an_export_become_segments_and_coco(tmp_path) -> None:
    square = np.zeros((8, 10), np.bool_)
    square[2:6, 3:8] = True
    corners = {"points": [[30, 25], [80, 25], [80, 75], [30, 75]], "closed": True}  # the same, in percent
    cancelled = {"was_cancelled": True, "result": [{"value": {"rle": "nonsense"}}]}
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    first = task(brush(square), region("polygonlabels", "debris", corners), choice)
    first["annotations"].insert(0, cancelled)
    local = task(url="/data/local-files/?d=folder%5Cname.png")
    write_image(tmp_path / "folder/name.png", np.zeros((6, 7, 3), np.uint8))
    (path := tmp_path / "export.json").write_text(json.dumps([first, local, {"id": 9, "data": {"image": "x.png"}}]))
    (name, segments), (empty_name, empty) = label_studio.load(path, LABELS)
    assert (name, empty_name) == ("4b7f3a1c-a b.png", "folder/name.png")
    assert (len(empty), empty.size) == (0, (6, 7))
    assert segments.labels.tolist() == [0, 1]
    assert segments.size == (8, 10)
    assert np.array_equal(segments.masks, [square, square])
    content = coco.annotations_json([(name, segments)], LABELS)
    assert [(a["category_id"], a["bbox"], a["area"]) for a in content["annotations"]] == [
        (1, [3, 2, 5, 4], 20),
        (2, [3, 2, 5, 4], 20),
    ]


SQUARE = np.ones((8, 10), np.bool_)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (brush(SQUARE, "dog"), "the label is 'dog', expected one of cell, debris"),
        (
            region("rectanglelabels", "cell", {"x": 1, "y": 1}),
            "a region of type 'rectanglelabels' that is none of .* or lacks what these have",
        ),
        (region("polygonlabels", "cell", {"points": [[1, 2], [3, 4]]}), "4 coordinates, expected an even number of 6"),
        (region("polygonlabels", "cell", {"points": [[1, 2], "ab"]}), r"points are no list of \[x, y\] in percent"),
        (brush(SQUARE, original_width=11), "has 320 values, but an RGBA image of this size has 352"),
        ({**brush(SQUARE), "value": {"rle": [], "brushlabels": []}}, r"brushlabels is \[\], expected one label"),
    ],
)
def test_a_region_that_is_wrong_is_named(tmp_path, wrong: dict[str, Any], said: str) -> None:
    (path := tmp_path / "export.json").write_text(json.dumps([task(wrong)]))
    with pytest.raises(SegfolioError, match=rf"export\.json, task 5, region r1: .*{said}"):
        label_studio.load(path, LABELS)


def test_what_is_no_export_is_refused(tmp_path) -> None:
    for content, said in (
        ({"tasks": []}, "holds no list of tasks"),
        ([{"id": 3, "data": {"photo": "a.png"}}], r"task 3 has no data\.image; say under which key"),
    ):
        (path := tmp_path / "export.json").write_text(json.dumps(content))
        with pytest.raises(SegfolioError, match=said):
            label_studio.load(path, LABELS)


def test_predictions_are_read_back_as_annotations(tmp_path) -> None:
    masks = np.random.default_rng(0).random((3, 8, 10)) < 0.3
    found = Instances(rle.encode(masks), torch.tensor([1, 0, 1]), torch.tensor([0.5, 0.25, 0.75]))
    made = label_studio.prediction_task(Prediction("a", (8, 10), instances=found), LABELS, "a.png", "mine")
    (prediction,) = made["predictions"]
    assert prediction["score"] == 0.5
    assert [r["id"] for r in prediction["result"]] == ["a-0", "a-1", "a-2"]
    (path := tmp_path / "export.json").write_text(json.dumps([{**made, "annotations": made["predictions"]}]))
    ((name, segments),) = label_studio.load(path, LABELS)
    assert name == "a.png"
    assert np.array_equal(segments.masks, masks)
    assert segments.labels.tolist() == [1, 0, 1]
