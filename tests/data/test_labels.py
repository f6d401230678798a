import numpy as np
import pytest

from segfolio.data.labels import LabelSpace, distinct_colors
from segfolio.errors import SegfolioError

CITY = LabelSpace(names=("road", "car", "sky"), ids=(7, 26, 23), void_ids=(0, 255), things=("car",))


def test_encode_maps_ids_to_class_order_and_void_to_ignore_index():
    ids = np.array([[7, 26, 23], [0, 255, 7]], np.uint8)
    encoded = CITY.encode(ids, "a.png")
    assert encoded.tolist() == [[0, 1, 2], [255, 255, 0]]
    assert encoded.dtype == np.uint8


def test_decode_returns_the_ids_of_the_files_and_the_first_void_id():
    assert CITY.decode(np.array([[0, 1], [2, 255]])).tolist() == [[7, 26], [23, 0]]


def test_every_id_survives_encode_and_decode():
    labels = LabelSpace(names=tuple(f"c{i}" for i in range(300)), ids=tuple(range(1000, 1300)), ignore_index=65535)
    ids = np.arange(1000, 1300, dtype=np.uint16).reshape(10, 30)
    encoded = labels.encode(ids, "a.png")
    assert encoded.dtype == np.uint16
    assert encoded.ravel().tolist() == list(range(300))
    assert np.array_equal(labels.decode(encoded), ids)


def test_uint8_and_uint16_files_encode_alike():
    ids = np.random.default_rng(0).choice(np.array([7, 26, 23, 0, 255], np.uint8), (5, 9))
    assert np.array_equal(CITY.encode(ids, "a.png"), CITY.encode(ids.astype(np.uint16), "a.png"))


def test_255_can_be_a_class_in_the_files_while_ignore_index_is_255():
    labels = LabelSpace(names=("membrane", "cell"), ids=(0, 255))
    assert labels.encode(np.array([[0, 255]], np.uint8), "a.png").tolist() == [[0, 1]]
    decoded = labels.decode(np.array([[0, 1, 255]]))
    assert decoded[0, :2].tolist() == [0, 255]
    assert decoded[0, 2] not in (0, 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_unknown_id_names_file_id_and_what_is_known(dtype):
    ids = np.array([[7, 26, 99], [100, 101, 0]], dtype)
    with pytest.raises(SegfolioError, match=r"street/a\.png: label id 99-101 is not .*classes 7, 23, 26; void 0, 255"):
        CITY.encode(ids, "street/a.png")


def test_255_is_unknown_unless_it_is_void():
    with pytest.raises(SegfolioError, match=r"label id 255 .*void none"):
        LabelSpace(names=("a", "b")).encode(np.array([[0, 255]], np.uint8), "a.png")


@pytest.mark.parametrize("num_classes", [254, 255])
def test_as_many_classes_as_fit_below_the_default_ignore_index(num_classes):
    labels = LabelSpace(names=tuple(f"c{i}" for i in range(num_classes)), void_ids=(255,))
    ids = np.arange(256, dtype=np.uint8)[None]
    known = ids[(ids < num_classes) | (ids == 255)][None]
    assert np.array_equal(labels.encode(known, "a.png"), known)
    if num_classes == 254:
        with pytest.raises(SegfolioError, match="label id 254"):
            labels.encode(ids, "a.png")


def test_ids_and_palette_have_defaults_and_things_are_marked():
    labels = LabelSpace(names=("grass", "cow"), things=("cow",))
    assert labels.ids == (0, 1)
    assert len(labels.palette) == 2
    assert labels.is_thing == (False, True)


def test_colors_are_indexed_by_class_and_void_is_black():
    labels = LabelSpace(names=("a", "b"), palette=((1, 2, 3), (4, 5, 6)))
    assert labels.colors()[[0, 1, 255]].tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]


def test_distinct_colors_are_distinct():
    assert len(set(distinct_colors(255))) == 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ()}, "at least one class name"),
        ({"names": ("a", "b", "a")}, "name a occurs twice"),
        ({"names": ("a", "b"), "ids": (1, 1)}, "id 1 occurs twice"),
        ({"names": ("a", "b"), "void_ids": (1,)}, "id 1 occurs twice"),
        ({"names": ("a", "b"), "ids": (1,)}, "2 names but 1 ids"),
        ({"names": ("a", "b"), "palette": ((0, 0, 0),)}, "2 names but 1 palette"),
        ({"names": ("a",), "palette": ((0, 0, 300),)}, r"colour of a is \[0, 0, 300\]"),
        ({"names": ("a",), "palette": ((0, 0),)}, r"colour of a is \[0, 0\]"),
        ({"names": ("a",), "things": ("b",)}, "b is no class"),
        ({"names": ("a",), "background": "b"}, "b is no class"),
        ({"names": ("a", "b", "c"), "ignore_index": 2}, "ignore_index 2 is the index of 'c'; .* 3 or more"),
        ({"names": ("a",), "ids": (70000,)}, "between 0 and 65535"),
        ({"names": ("a",), "void_ids": (-1,)}, "between 0 and 65535"),
        ({"names": ("a", "b"), "frequencies": ("rare",)}, "2 names but 1 frequencies"),
        ({"names": ("a",), "frequencies": ("r",)}, "a frequency .* is 'r', expected rare, common, frequent"),
    ],
)
def test_a_mistaken_label_space_says_what_is_wrong(arguments, message):
    with pytest.raises(SegfolioError, match=message):
        LabelSpace(**arguments)
