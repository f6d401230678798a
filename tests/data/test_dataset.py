from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, PairedFiles, files_by_id, listed
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
IDS = np.array([[3, 9, 0, 3, 9, 0, 3, 9]] * 6, np.uint8)


class Tiny(PairedFiles):
    labels = LabelSpace(names=("a", "b"), ids=(3, 9), void_ids=(0,))

    def __init__(self, *pairs: FilePair) -> None:
        self.pairs = list(pairs)


@pytest.fixture
def pair(tmp_path):
    write_image(tmp_path / "image.png", PIXELS)
    write_id_map(tmp_path / "mask.png", IDS)
    return FilePair("one", tmp_path / "image.png", tmp_path / "mask.png")


def test_a_pair_becomes_a_sample(pair):
    sample = Tiny(pair)[0]
    assert isinstance(sample.image, Image)
    assert isinstance(sample.target.semantic, Mask)
    assert (sample.image_id, sample.original_size) == ("one", (6, 8))
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), PIXELS)
    assert sample.target.semantic.dtype == torch.uint8
    assert sample.target.semantic[0].tolist() == [0, 1, 255, 0, 1, 255, 0, 1]


def test_an_image_without_mask_has_no_target(pair):
    assert Tiny(pair._replace(mask=None))[0].target is None


def test_a_mask_of_another_size_is_named_with_both_sizes(pair):
    write_id_map(pair.mask, IDS[:, :5])
    with pytest.raises(SegfolioError, match=r"mask\.png is 5x6 pixels but its image .*image\.png is 8x6"):
        Tiny(pair)[0]


def test_an_unknown_id_is_named_with_its_file(pair):
    write_id_map(pair.mask, IDS + 1)
    with pytest.raises(SegfolioError, match=r"mask\.png: label id 1, 4, 10 is not in the label space"):
        Tiny(pair)[0]


@pytest.mark.parametrize("label", [-1, 2])
def test_an_object_of_a_class_that_the_dataset_has_not_is_named(pair, label):
    class Wrong(Tiny):
        def read(self, index):
            objects = Segments(Mask(torch.ones(2, 6, 8).bool()), torch.tensor([0, label]), torch.zeros(2).bool())
            return replace(super().read(index), target=Target(segments=objects))

    with pytest.raises(SegfolioError, match=rf"^one: a segment has the class {label}, expected 0 to 1; "):
        Wrong(pair)[0]


def test_check_reads_the_headers(pair):
    Tiny(pair).check()
    pair.mask.unlink()
    with pytest.raises(SegfolioError, match=r"^1 image: 1 mask missing: .*mask\.png"):
        Tiny(pair).check()


@pytest.mark.parametrize(
    ("published", "adjustable", "says"),
    [
        ({"train": 367}, False, "Tiny train has 1 image here, 367 as published"),
        ({"train": 367}, True, None),  # arguments decide
        ({"train": 1}, False, None),
        ({"val": 367}, False, None),
        ({}, False, None),  # a user's own files
    ],
)
def test_a_split_of_another_size_than_published_is_told(pair, monkeypatch, published, adjustable, says):
    assert Tiny(pair).unlike_published("train") is None  # without `info`
    info = DatasetInfo("Tiny", "", "", published, adjustable)
    monkeypatch.setattr(Tiny, "info", info, raising=False)
    assert Tiny(pair).unlike_published("train") == says


def test_the_kind_of_a_missing_file_is_told(pair):
    gone = pair._replace(image_id="two", image=Path("a.png"), mask=Path("b.png"))
    with pytest.raises(SegfolioError, match=r"^list: 2 images missing: a\.png, a\.png; 1 mask missing: b\.png;"):
        Tiny(pair, gone, gone._replace(image_id="three", mask=None)).expect_pairs(Path("list"))


def test_files_are_found_in_order_by_relative_path_without_suffix(tmp_path):
    for name in ("b/2.PNG", "a/10.jpg", "1.x.tif", ".hidden.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert list(files_by_id(tmp_path)) == ["1.x", "a/10", "b/2", "link/2"]


def test_two_files_that_differ_in_suffix_are_refused(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(SegfolioError, match=r"a\.\w+ and .*a\.\w+ differ only in suffix"):
        files_by_id(tmp_path)


def test_lists_are_sorted_and_cut():
    assert listed(["c", "a", "b"]) == "a, b, c"
    assert listed("abcdefgh", most=2) == "a, b and 6 more"
    assert listed([]) == "nothing"
