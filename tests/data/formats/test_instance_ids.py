"""Instance-id PNGs, by hand and there and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.tv_tensors import Mask

from segfolio.data.formats import instance_ids
from segfolio.data.formats.images import read_id_map, write_id_map
from segfolio.data.labels import LabelSpace, UnknownIds
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

CITY = LabelSpace(("road", "person", "car"), ids=(7, 24, 26), void_ids=(0, 3), things=("person", "car"))


def segments(ids: np.ndarray, classes: list[int], crowd: list[int] | None = None) -> Segments:
    flags = torch.tensor(crowd or [0] * len(classes), dtype=torch.bool)
    return Segments(Mask(torch.from_numpy(ids.astype(np.int32))), torch.tensor(classes), flags)


def test_stuff_objects_groups_and_void_by_hand(tmp_path) -> None:
    pixels = np.array([[0, 7, 7, 24000], [3, 24001, 26, 26012]], np.uint16)
    write_id_map(path := tmp_path / "a.png", pixels)
    found = instance_ids.read(path, CITY)
    assert found.labels.tolist() == [0, 2, 1, 1, 2]
    assert found.crowd.tolist() == [False, True, False, False, False]
    assert found.id_map.tolist() == [[0, 1, 1, 3], [0, 4, 2, 5]]
    expected = [[0, 7, 7, 24000], [0, 24001, 26, 26000]]
    assert instance_ids.instance_ids(found, CITY).tolist() == expected
    assert instance_ids.label_ids(found, CITY).tolist() == [[0, 7, 7, 24], [0, 24, 26, 26]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.int32, (5, 6), elements=st.integers(0, 4)))
def test_what_is_written_is_read(tmp_path_factory, ids: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "instance_ids.png"
    truth = segments(ids, [1, 0, 2, 1], [0, 0, 1, 0])
    write_id_map(path, instance_ids.instance_ids(truth, CITY))
    found = instance_ids.read(path, CITY)
    names = lambda s: {(int(s.labels[i]), bool(s.crowd[i]), s.masks[i].numpy().tobytes()) for i in range(len(s))}  # noqa: E731
    seen = torch.tensor([i for i in range(4) if (ids == i + 1).any()], dtype=torch.int64)
    assert names(found) == names(truth[seen])


def test_pixels_outside_are_background_where_there_is_one(tmp_path) -> None:
    labels = LabelSpace(("cell", "background"), ids=(1, 0), things=("cell",), background="background")
    truth = segments(np.array([[0, 1, 2]]), [0, 0])
    assert instance_ids.instance_ids(truth, labels).tolist() == [[0, 1000, 1001]]
    write_id_map(path := tmp_path / "labels.png", instance_ids.label_ids(truth, labels))
    assert read_id_map(path).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("class_id", "objects", "said"),
    [
        (
            66,
            1,
            r"1 objects of cell \(class id 66\) do not fit an instance-id PNG, which holds 0 of that id in 16 bits",
        ),
        (65, 537, "which holds 536 of that id"),
        (5, 1001, "which holds 1000 of that id"),
        (0, 1, "which holds 0 of that id"),
        (1000, 1, "class id 1000 does not fit an instance-id PNG, which holds ids up to 999"),
    ],
)
def test_what_16_bits_have_no_place_for_is_refused(class_id: int, objects: int, said: str) -> None:
    labels = LabelSpace(("cell",), ids=(class_id,), things=("cell",))
    with pytest.raises(SegfolioError, match=said):
        instance_ids.instance_ids(segments(np.arange(objects)[None] + 1, [0] * objects), labels)


def test_the_most_that_16_bits_hold() -> None:
    labels = LabelSpace(("cell",), ids=(65,), things=("cell",))
    ids = instance_ids.instance_ids(segments(np.arange(536)[None] + 1, [0] * 536), labels)
    assert ids[0].tolist() == list(range(65000, 65536))


def test_an_unknown_class_is_named(tmp_path) -> None:
    write_id_map(path := tmp_path / "a.png", np.array([[7, 33001]], np.uint16))
    with pytest.raises(UnknownIds, match=r"a\.png: label id 33 is not in the label space"):
        instance_ids.read(path, CITY)
