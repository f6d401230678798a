"""Run lengths, against pycocotools."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as official
from pycocotools.coco import COCO

from segfolio.data.formats import rle
from segfolio.errors import SegfolioError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools, of numpy 2

stacks = arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 12), st.integers(1, 12)))
few = settings(max_examples=150, deadline=None, derandomize=True)
few_masks = [
    np.zeros((1, 5, 7), np.bool_),
    np.ones((1, 5, 7), np.bool_),
    np.eye(9, dtype=np.bool_)[None],
    np.ones((2, 1, 40), np.bool_),
    np.ones((2, 40, 1), np.bool_),
    np.tile([[True, False], [False, True]], (1, 200, 300)).reshape(1, 400, 600),
    np.arange(300 * 400).reshape(1, 300, 400) > 70_000,  # a run of several groups of bits
]


def theirs(masks: np.ndarray) -> list[dict[str, Any]]:
    return [official.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def check_all(masks: np.ndarray) -> None:
    ours, size = rle.encode(masks), masks.shape[1:]
    assert ours == theirs(masks)
    assert np.array_equal(rle.decode(ours, size), masks)
    assert rle.areas(ours).tolist() == masks.sum((1, 2)).tolist()
    assert rle.boxes(ours).tolist() == [official.toBbox(x).tolist() for x in ours]
    for coded, mask in zip(ours, masks, strict=True):
        runs = rle.to_counts(coded)
        flat = mask.T.reshape(-1)
        expected = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        assert np.array_equal(expected, flat)
        assert rle.from_counts(runs.tolist(), size) == coded


@few
@given(stacks)
def test_all_agrees_with_pycocotools(masks: np.ndarray) -> None:
    check_all(masks)


@pytest.mark.parametrize("masks", few_masks, ids=lambda masks: f"{masks.shape}")
def test_empty_full_thin_and_busy_masks_agree_with_pycocotools(masks: np.ndarray) -> None:
    check_all(masks)


def test_no_mask_keeps_its_shapes() -> None:
    assert rle.encode(np.zeros((0, 3, 4), np.bool_)) == []
    assert rle.decode([], (3, 4)).shape == (0, 3, 4)
    assert rle.areas([]).shape == (0,)
    assert rle.boxes([]).shape == (0, 4)


@few
@given(stacks, st.data())
def test_in_a_window_chosen_rows_and_columns_are_decoded(masks: np.ndarray, drawn: st.DataObject) -> None:
    """In order or in reverse, repeated, left out, and outside the mask, where nothing is."""
    chosen = []
    for length in masks.shape[1:]:
        places = sorted(drawn.draw(st.lists(st.integers(-3, length + 2), min_size=1, max_size=15)))
        chosen.append(np.array(places[:: drawn.draw(st.sampled_from([1, -1]))]))
    padded = np.pad(masks, ((0, 0), (3, 3), (3, 3)))
    expected = padded[:, chosen[0] + 3][:, :, chosen[1] + 3]
    found = rle.decode_window(rle.encode(masks), masks.shape[1:], *chosen)
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected)


def test_what_does_not_touch_the_window_is_not_decoded(monkeypatch) -> None:
    masks = np.zeros((3, 40, 50), np.bool_)
    masks[0, 2:9, 3:8] = masks[1, 20:30, 20:30] = masks[2, 2:9, 40:] = True
    coded, seen = rle.encode(masks), []
    monkeypatch.setattr(rle, "to_counts", lambda mask, real=rle.to_counts: seen.append(mask) or real(mask))
    found = rle.decode_window(coded, (40, 50), np.arange(29, 40), np.arange(8, 40))
    assert seen == [coded[1]]
    assert found.sum((1, 2)).tolist() == [0, 10, 0]


@few
@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 5)))
def test_an_id_map_becomes_the_masks_of_its_ids_and_comes_back(ids: np.ndarray) -> None:
    coded = rle.from_id_map(ids, 6)
    assert coded == theirs(np.arange(1, 7)[:, None, None] == ids)
    assert np.array_equal(rle.to_id_map(coded, ids.shape), ids)


@few
@given(stacks)
def test_in_an_id_map_the_later_of_two_that_overlap_is_seen(masks: np.ndarray) -> None:
    expected = np.zeros(masks.shape[1:], np.int32)
    for place, mask in enumerate(masks, 1):
        expected[mask] = place
    assert np.array_equal(rle.to_id_map(rle.encode(masks), masks.shape[1:]), expected)


def test_a_map_of_a_whole_photograph() -> None:
    ids = np.zeros((480, 640), np.int32)
    for place, (top, left) in enumerate(np.random.default_rng(0).integers(0, 400, (50, 2)), 1):
        ids[top : top + 60, left : left + 90] = place
    assert rle.from_id_map(ids, 50) == theirs(np.arange(1, 51)[:, None, None] == ids)


def to_rle_officially(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    coco = COCO()
    coco.imgs = {1: {"height": size[0], "width": size[1]}}
    return coco.annToRLE({"image_id": 1, "segmentation": segmentation})


coordinates = st.one_of(st.integers(-12, 24), st.floats(-12, 24))
polygon_lists = st.lists(st.lists(coordinates, min_size=6, max_size=14).filter(lambda p: len(p) % 2 == 0), min_size=1)


@few
@given(polygon_lists)
def test_polygons_become_what_pycocotools_makes_of_them(polygons: list[list[float]]) -> None:
    assert rle.from_segmentation(polygons, (12, 12)) == to_rle_officially(polygons, (12, 12))


@few
@given(arrays(np.bool_, st.tuples(st.just(1), st.integers(1, 12), st.integers(1, 12))))
def test_runs_are_taken_compressed_as_text_or_bytes_and_uncompressed(masks: np.ndarray) -> None:
    (coded,), size = rle.encode(masks), masks.shape[1:]
    runs = rle.to_counts(coded).tolist()
    for counts in (coded["counts"], coded["counts"].decode(), runs, [*runs, 0, 0], [0, 0, *runs]):
        found = rle.from_segmentation({"size": [*size], "counts": counts}, size)
        assert np.array_equal(rle.decode([found], size), masks)
        assert np.array_equal(
            official.decode([to_rle_officially({"size": [*size], "counts": counts}, size)])[..., 0], masks[0]
        )


nan, inf = float("nan"), float("inf")
BAD = [
    ([], "the segmentation is an empty list, expected at least one polygon"),
    (None, "the segmentation is None, expected a list of polygons or a mapping of size and counts"),
    ("me;4j7", "the segmentation is 'me;4j7'"),
    ([[]], "a polygon has 0 coordinates, expected an even number of 6 or more"),
    ([[1, 1, 5, 5]], "a polygon has 4 coordinates"),
    ([[1, 1, 5, 5, 3, 1, 2]], "a polygon has 7 coordinates"),
    ([[1, 1, 5, nan, 3, 1]], "a polygon has the coordinate nan, but the image is 8 pixels long there"),
    ([[1, 1, inf, 5, 3, 1]], "a polygon has the coordinate inf, but the image is 9 pixels long there"),
    ([[1, 1, 1e300, 5, 3, 1]], r"coordinate 1e\+300"),
    ([[1, 1, 10**400, 5, 3, 1]], r"coordinate 1000000"),
    ([[1, 1, "5", 5, 3, 1]], r"a polygon is \[1, 1, '5', 5, 3, 1\], expected a list of numbers"),
    ([[1, 1, True, 5, 3, 1]], "a polygon is"),
    ([1, 1, 5, 5, 3, 1], "a polygon is 1, expected a list of numbers x, y"),
    ([{"x": 1}], "a polygon is {'x': 1}"),
    ([[[1, 1], [5, 5], [3, 1]]], r"a polygon is \[\[1, 1\]"),
    ({}, r"the run lengths are of size None, but \[height, width\] of the image is \[8, 9\]"),
    ({"size": [9, 8], "counts": [72]}, r"are of size \[9, 8\]"),
    ({"size": [8, 9]}, "the counts are None, expected compressed run lengths or a list of whole numbers"),
    ({"size": [8, 9], "counts": [71]}, "the run lengths sum to 71, but the image has 72 pixels"),
    ({"size": [8, 9], "counts": []}, "the run lengths sum to 0"),
    ({"size": [8, 9], "counts": [80, -8]}, "the run lengths hold the negative number -8"),
    ({"size": [8, 9], "counts": [72.0]}, r"the counts are \[72.0\]"),
    ({"size": [8, 9], "counts": [10**30]}, "the counts are"),
    ({"size": [8, 9], "counts": "W2"}, "the run lengths sum to 71"),
    ({"size": [8, 9], "counts": ""}, "no compressed run lengths"),
    ({"size": [8, 9], "counts": "é"}, "the counts are 'é'"),
    ({"size": [8, 9], "counts": "\t\n"}, "no compressed run lengths"),
    ({"size": [8, 9], "counts": "o" * 20}, "no compressed run lengths"),
]


@pytest.mark.parametrize(("segmentation", "said"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_is_no_mask_of_the_image_is_refused_in_words(segmentation: Any, said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        rle.from_segmentation(segmentation, (8, 9))


def test_an_image_too_large_for_run_lengths_is_refused() -> None:
    with pytest.raises(SegfolioError, match="1000000000x1000000000 pixels is too large"):
        rle.from_segmentation([[0, 0, 9e8, 0, 9e8, 9e8]], (10**9, 10**9))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=12,
)
with_the_size = st.fixed_dictionaries(
    {"size": st.just([4, 3]), "counts": json_values | st.text("0123456789o`P", max_size=9)}
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(json_values | with_the_size | st.lists(st.lists(json_values, min_size=6, max_size=8)))
def test_no_json_value_does_worse_than_a_sentence(value: Any) -> None:
    try:
        found = rle.from_segmentation(value, (4, 3))
    except SegfolioError:
        return
    runs = rle.to_counts(found)
    assert min(runs) >= 0
    assert sum(runs) == 12
    assert rle.decode([found], (4, 3)).sum() == sum(runs[1::2])
