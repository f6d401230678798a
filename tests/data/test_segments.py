"""`Segments`: three forms, one content."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.tv_tensors import Mask

from segfolio.data.formats import rle
from segfolio.data.segments import Segments

few = settings(max_examples=100, deadline=None, derandomize=True)
N, SIZE = 4, (6, 7)


def in_every_form(ids: np.ndarray, **extra: torch.Tensor) -> dict[str, Segments]:
    labels, crowd = torch.tensor([2, 0, 2, 1]), torch.tensor([False, True, False, False])
    masks = np.arange(1, N + 1)[:, None, None] == ids
    return {
        "masks": Segments(Mask(torch.from_numpy(masks)), labels, crowd, **extra),
        "rles": Segments(rle.encode(masks), labels, crowd, SIZE, **extra),
        "id map": Segments(Mask(torch.from_numpy(ids)), labels, crowd, **extra),
    }


id_maps = arrays(np.int32, SIZE, elements=st.integers(0, N))
IDS = np.kron(np.array([[0, 1, 1], [2, 0, 4]], np.int32), np.ones((3, 2), np.int32))[:, [0, 0, 1, 2, 3, 4, 5]]


@few
@given(id_maps)
def test_every_form_derives_the_same_others(ids: np.ndarray) -> None:
    masks = np.arange(1, N + 1)[:, None, None] == ids
    for segments in in_every_form(ids).values():
        assert segments.size == SIZE
        assert len(segments) == N
        assert segments.masks.dtype == torch.bool
        assert np.array_equal(segments.masks, masks)
        assert segments.rles == rle.encode(masks)
        assert segments.id_map.dtype == torch.int32
        assert np.array_equal(segments.id_map, ids)


@few
@given(id_maps, st.lists(st.integers(0, N - 1), max_size=3))
def test_a_choice_keeps_all_that_belongs_to_a_segment_together(ids: np.ndarray, chosen: list[int]) -> None:
    boxes, areas = torch.arange(4.0 * N, dtype=torch.float64).reshape(N, 4), torch.arange(N, dtype=torch.float64)
    tracks, keep = torch.tensor([7, 3, -1, 5]), torch.tensor(chosen, dtype=torch.int64)
    for segments in in_every_form(ids, boxes=boxes, areas=areas, tracks=tracks).values():
        part = segments[keep]
        assert torch.equal(part.masks.as_subclass(torch.Tensor), segments.masks.as_subclass(torch.Tensor)[keep])
        assert torch.equal(part.labels, segments.labels[keep])
        assert torch.equal(part.crowd, segments.crowd[keep])
        assert torch.equal(part.boxes, boxes[keep])
        assert torch.equal(part.areas, areas[keep])
        assert torch.equal(part.tracks, tracks[keep])
        assert part.size == SIZE


@pytest.mark.parametrize("form", ["masks", "rles", "id map"])
def test_a_choice_by_flags_is_one_by_places(form: str) -> None:
    segments = in_every_form(IDS)[form]
    flags = ~segments.crowd
    assert segments[flags].rles == segments[torch.tensor([0, 2, 3])].rles
    assert len(segments[torch.zeros(N, dtype=torch.bool)].masks) == 0


def test_a_choice_from_an_id_map_is_an_id_map() -> None:
    part = in_every_form(IDS)["id map"][torch.tensor([3, 1])]
    assert isinstance(part.form, torch.Tensor)
    assert np.array_equal(part.form, np.array([0, 0, 2, 0, 1])[IDS])


@few
@given(arrays(np.bool_, (N, *SIZE)))
def test_masks_that_overlap_are_id_maps_and_the_same_masks_again(masks: np.ndarray) -> None:
    segments = Segments(Mask(torch.from_numpy(masks)), torch.arange(N), torch.zeros(N).bool(), tracks=torch.arange(N))
    small = segments.compact()
    assert isinstance(small.form, torch.Tensor)
    assert small.form.dtype == torch.uint8
    assert small.size == SIZE
    assert small.form.ndim == (2 if masks.sum(0).max() <= 1 else 3)
    assert np.array_equal(small.masks, masks)
    assert small.rles == segments.rles
    assert torch.equal(small.id_map > 0, segments.id_map > 0)
    assert torch.equal(small.tracks, segments.tracks)
    keep = torch.tensor([2, 0])
    assert np.array_equal(small[keep].masks, masks[keep])
    assert torch.equal(small.compact().form, small.form)


def test_more_segments_than_8_bits_count_have_a_map_of_more() -> None:
    ids = torch.arange(300, dtype=torch.int32).reshape(15, 20)
    segments = Segments(Mask(ids), torch.zeros(299).long(), torch.zeros(299).bool()).compact()
    assert isinstance(segments.form, torch.Tensor)
    assert segments.form.dtype == torch.int32
    assert segments.masks.sum() == 299


def test_moved_masks_have_no_annotated_boxes_any_more() -> None:
    segments = in_every_form(IDS, boxes=torch.ones(N, 4), areas=torch.ones(N), tracks=torch.arange(N))["rles"]
    moved = segments.with_masks(Mask(segments.masks.flip(-1)))
    assert moved.boxes is moved.areas is None
    assert torch.equal(moved.tracks, torch.arange(N))
    assert torch.equal(moved.labels, segments.labels)
    assert np.array_equal(moved.id_map, IDS[:, ::-1])


def test_of_masks_that_overlap_the_later_is_seen_in_every_form() -> None:
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, :4] = masks[1, 2:] = True
    labels, crowd = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool)
    as_rles = Segments(rle.encode(masks.numpy()), labels, crowd, SIZE)
    for segments in (as_rles, Segments(Mask(masks), labels, crowd)):
        assert segments.id_map[:, 0].tolist() == [1, 1, 2, 2, 2, 2]


def test_no_object_has_a_size_all_the_same() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for form in ([], Mask(torch.zeros(0, *SIZE, dtype=torch.bool)), Mask(torch.zeros(SIZE, dtype=torch.int32))):
        segments = Segments(form, none, none.bool(), SIZE)
        assert segments.masks.shape == (0, *SIZE)
        assert segments.rles == []
        assert segments.id_map.shape == SIZE
        assert not segments.id_map.any()


def test_masks_of_run_lengths_are_where_the_labels_are() -> None:
    """Of a batch on its way to a device the labels move, run lengths do not."""
    rles = in_every_form(IDS)["rles"]
    rles.labels = rles.labels.to("meta")
    assert rles.masks.device == torch.device("meta")


def test_an_id_map_of_eight_bits_is_renumbered_to_one() -> None:
    """As one of 32 bits is, also where segments overlap in several maps."""
    maps = np.stack([IDS, np.where(IDS == 2, 3, 0)]).astype(np.int32)
    labels, crowd = torch.tensor([2, 0, 2, 1]), torch.zeros(4, dtype=torch.bool)
    wide, narrow = (Segments(Mask(torch.from_numpy(maps.astype(kind))), labels, crowd) for kind in (np.int32, np.uint8))
    for keep in (torch.tensor([True, False, True, True]), torch.tensor([3, 0])):
        assert narrow[keep].form.dtype == torch.uint8
        assert torch.equal(narrow[keep].masks, wide[keep].masks)
        assert torch.equal(narrow[keep].masks, narrow.masks[keep])
