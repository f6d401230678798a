"""What an inspection counts, and what it finds wrong."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, SegmentationDataset
from segfolio.data.datasets import CamVid, ImageFolder, MaskFolder, Shapes
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.inspection import Report, inspect_dataset
from segfolio.inspection.report import inverse_square_root, median_frequency


def of(root: Path, *names: str, **kwargs) -> Report:
    return inspect_dataset({name: partial(MaskFolder, root, name) for name in names}, **kwargs)


@pytest.fixture
def add(tmp_path) -> Callable[..., None]:
    """Writes an image of noise, of its own unless `noise` is given, and a mask whose rows are `ids`."""
    (tmp_path / "classes.yaml").write_text("names: [ground, tree, car]\nvoid: [255]\nbackground: ground\n")
    noise_of_its_own = iter(range(1000))

    def write(name: str, ids: list[int], width: int = 10, noise: int | None = None) -> None:
        rng = np.random.default_rng(next(noise_of_its_own) if noise is None else noise)
        write_image(tmp_path / f"images/{name}.png", rng.integers(0, 256, (len(ids), width, 3), np.uint8))
        write_id_map(tmp_path / f"masks/{name}.png", np.repeat(np.array(ids, np.uint8)[:, None], width, 1))

    return write


def test_pixels_images_sizes_and_void_are_counted(tmp_path, add):
    add("train/a", [0, 0, 1, 1])
    add("train/b", [0, 2, 255, 255, 255, 255])
    add("train/c", [0, 255], width=60)
    add("val/d", [1, 2])
    report = of(tmp_path, "train", "val")
    train = report.splits["train"]
    assert train.pixels.tolist() == [90, 20, 10, 100]  # the last is void
    assert train.images_with.tolist() == [3, 1, 1, 2]
    assert train.pixels_around.tolist() == [220, 40, 60]
    assert train.void_share == 100 / 220
    assert train.by_area == [(4, 10), (6, 10), (2, 60)]
    assert train.empty == ["c"]  # background and void alone
    assert train.most[0] == [(60, 2), (20, 0)]
    assert report.splits["val"].pixels.tolist() == [0, 10, 10, 0]
    assert report.fatal == []
    assert report.remarks == [
        Problem("image", "without class or object in train", "c", fatal=False),
        Problem("class", "without a pixel in val", "ground", fatal=False),
    ]


def test_weights_are_those_of_the_formulas(tmp_path, add):
    add("train/a", [0, 0, 0, 1])
    add("train/b", [0, 0, 2, 255])
    add("val/c", [2, 2, 2, 2])
    weights = of(tmp_path, "train", "val").class_weights
    frequencies = [50 / 80, 10 / 40, 10 / 40]
    assert weights["median frequency balancing"] == pytest.approx([0.25 / f for f in frequencies])
    roots = np.array([(5 / 7) ** -0.5, (1 / 7) ** -0.5, (1 / 7) ** -0.5])
    assert weights["inverse square root of the share"] == pytest.approx(roots / roots.mean())


def test_a_class_without_a_pixel_weighs_one_and_moves_no_other():
    pixels, around = np.array([40, 0, 10]), np.array([80, 0, 80])
    assert median_frequency(pixels, around) == pytest.approx([0.3125 / 0.5, 1, 0.3125 / 0.125])
    assert inverse_square_root(pixels) == pytest.approx([2 / 3, 1, 4 / 3])


def test_objects_and_crowds_are_counted_by_class():
    class Drawn(SegmentationDataset):
        labels = LabelSpace(("a", "b", "stuff"), things=("a", "b"))

        def __len__(self) -> int:
            return 3

        def read(self, index: int) -> Sample:
            masks = torch.zeros(4, 8, 8, dtype=torch.bool)
            for i in range(4):
                masks[i, 2 * i : 2 * i + 2] = True
            kinds, crowd = torch.tensor([0, 0, 1, 2]), torch.tensor([False, False, True, False])
            n = 4 if index < 2 else 0
            segments = Segments(masks[:n], kinds[:n], crowd[:n])
            return Sample(
                Image(torch.full((3, 8, 8), index, dtype=torch.uint8)), f"{index}", (8, 8), Target(None, segments)
            )

    split = inspect_dataset({"train": Drawn}).splits["train"]
    assert (split.objects.tolist(), split.crowds.tolist()) == ([4, 0, 0], [0, 2, 0])
    assert split.pixels.tolist() == [64, 0, 32, 2 * 16 + 64]  # what a crowd covers has no class
    assert split.empty == ["2"]


class Overlapping(SegmentationDataset):
    """Two cats that share a row of 8 pixels; of image 1 the second is of no class."""

    info = DatasetInfo("Overlapping", "", "", tasks=("instance", "panoptic"))
    labels = LabelSpace(("cat", "sky"), things=("cat",))

    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> Sample:
        masks = torch.zeros(2, 8, 8, dtype=torch.bool)
        masks[0, :5] = masks[1, 4:] = True
        segments = Segments(masks, torch.tensor([0, 2 * index]), torch.zeros(2, dtype=torch.bool))
        image = Image(torch.full((3, 8, 8), index, dtype=torch.uint8))
        return Sample(image, f"{index}", (8, 8), Target(None, segments))


def test_segments_that_overlap_are_a_remark_and_one_of_no_class_is_fatal():
    problems = inspect_dataset({"train": Overlapping}).problems
    assert [(p.where, p.fatal) for p in problems if "overlap" in p.what] == [("train 0 (8 pixels)", False)]
    assert ["1: a segment has the class 2, expected 0 to 1" in p.where for p in problems if p.fatal] == [True]


def test_shapes_have_the_objects_that_they_draw():
    opened = partial(Shapes, None, "train", size=(48, 64), train=9)
    split = inspect_dataset({"train": opened}).splits["train"]
    assert split.objects.sum() == sum(len(opened()[i].target.segments) for i in range(9))
    assert split.pixels.sum() == 9 * 48 * 64


def test_images_without_truth_are_read_but_cannot_be_trained_on(tmp_path, add):
    add("train/a", [0, 1])
    labels = MaskFolder(tmp_path, "train").labels
    report = inspect_dataset({"train": partial(ImageFolder, tmp_path / "images", "train", labels)})
    assert (report.splits["train"].read, report.splits["train"].empty, report.class_weights) == (1, [], {})
    assert report.fatal == [Problem("split", "without a pixel of any class", "train")]


def test_unknown_ids_are_counted_by_file_and_pixel(tmp_path, add):
    add("train/a", [0, 1, 7, 7])
    add("train/b", [0, 7, 9])
    add("train/c", [0, 1, 2])
    report = of(tmp_path, "train")
    assert report.splits["train"].unknown == {7: (30, 2), 9: (10, 1)}
    assert report.splits["train"].pixels.tolist() == [10, 10, 10, 0]
    assert [(p.what, p.image_id) for p in report.fatal] == [("that cannot be read", i) for i in "ab"]
    assert "label id 7, 9 is not in the label space" in report.fatal[1].where


@pytest.mark.parametrize(
    ("places", "what", "fatal"),
    [
        (("train/a", "val/b"), "in train and val alike", True),
        (("train/a", "val/b", "test/b"), "in train and val and test alike", True),
        (("val/a", "test/b"), "in val and test alike", False),
        (("train/a", "train/b"), "repeated in train", False),
    ],
)
def test_duplicates_are_fatal_where_they_are_trained_and_evaluated_on(tmp_path, add, places, what, fatal):
    for split in ("train", "val", "test"):
        add(f"{split}/z", [0, 1, 2])
    for place in places:
        add(place, [0, 1, 2], noise=2000)
    report = of(tmp_path, "train", "val", "test")
    where = " = ".join(place.replace("/", " ") for place in places)
    assert report.problems == [Problem("image", what, where, fatal)]


def test_images_of_equal_bytes_and_other_size_are_no_duplicates(tmp_path, add):
    for name, shape in (("a", (2, 30, 3)), ("b", (30, 2, 3))):
        add(f"train/{name}", [0, 1, 2][: shape[0]])
        write_image(tmp_path / f"images/train/{name}.png", np.arange(180, dtype=np.uint8).reshape(shape))
        write_id_map(tmp_path / f"masks/train/{name}.png", np.ones(shape[:2], np.uint8))
    assert [p.what for p in of(tmp_path, "train").problems] == ["without a pixel in train"] * 2


def test_a_split_that_cannot_be_opened_is_told_and_the_others_go_on(tmp_path, add):
    add("train/a", [0, 1, 2])
    report = of(tmp_path, "train", "val", "test", optional=("test",))
    assert list(report.splits) == ["train"]
    assert [(p.where.partition(" of ")[0][:30], p.fatal) for p in report.problems] == [
        ("val: a folder", True),
        ("test: a folder", False),
    ]
    assert "has no split 'val'; it has train" in report.fatal[0].where


def test_weights_are_of_the_training_split_or_not_at_all(tmp_path, add):
    add("val/a", [0, 1, 2])
    report = of(tmp_path, "train", "val")
    assert (list(report.splits), report.class_weights) == (["val"], {})


def test_splits_of_other_classes_are_not_mixed(tmp_path, add):
    add("train/a", [0, 1, 2])
    (tmp_path / "other.yaml").write_text("names: [ground, car, tree]\n")
    val = partial(MaskFolder, tmp_path, "train", classes="other.yaml")
    report = inspect_dataset({"train": partial(MaskFolder, tmp_path, "train"), "val": val})
    assert [p.what for p in report.fatal] == ["of other classes than another"]


class Broken(SegmentationDataset):
    """Reads nothing as it should be: each index is wrong in a way of its own."""

    labels = LabelSpace(("a", "b"))

    def __init__(self, faults: int = 5) -> None:
        self.faults = faults

    def __len__(self) -> int:
        return self.faults

    def read(self, index: int) -> Sample:
        semantic = torch.zeros(4, 6, dtype=torch.uint8)
        if index == 0:
            raise ZeroDivisionError("by what?")
        if index == 1:
            semantic = semantic[:3]
        if index == 2:
            semantic[0, 0] = 77
        if index == 3:
            return None  # type: ignore[return-value]
        return Sample(Image(torch.zeros(3, 4, 6, dtype=torch.uint8)), f"{index}", (4, 6), Target(Mask(semantic)))

    def problems(self):
        yield Problem("annotation", "of no use", "one", fatal=False)
        raise KeyError("categories")


def test_faults_of_a_dataset_class_are_told_by_type_and_place():
    report = inspect_dataset({"train": Broken, "val": partial(Broken, 0)})
    assert report.splits["train"].read == 1
    assert report.remarks[0] == Problem("annotation", "of no use", "one", fatal=False)
    assert [p.where for p in report.fatal] == [
        "train: KeyError: 'categories'",
        "train 0: ZeroDivisionError: by what?",
        "1: the truth is 6x3 pixels but the image is 6x4; `read` returns both in one size",
        "2: the truth holds [77], expected 0 to 1 or ignore_index 255; `read` returns class indices, see "
        "LabelSpace.encode",
        "train 3: AttributeError: 'NoneType' object has no attribute 'target'",
        "val: KeyError: 'categories'",
        "val",  # without an image
    ]


def test_the_real_camvid_is_sound(real_data):
    report = inspect_dataset({name: partial(CamVid, real_data / "CamVid", name) for name in ("train", "val", "test")})
    assert [split.read for split in report.splits.values()] == [60, 20, 20]
    assert report.fatal == []
    assert [p.where for p in report.remarks] == [
        f"CamVid {name} has {n} images here, {published} as published"
        for name, n, published in (("train", 60, 367), ("val", 20, 101), ("test", 20, 233))
    ]
    dataset = CamVid(real_data / "CamVid", "train")
    maps = torch.stack([dataset[i].target.semantic for i in range(60)])
    expected = torch.bincount(maps.flatten(), minlength=256)[[*range(11), 255]]
    assert report.splits["train"].pixels.tolist() == expected.tolist()


def test_a_split_whose_constructor_fails_is_told_by_type():
    def opened() -> SegmentationDataset:
        raise ValueError("no such column")

    assert inspect_dataset({"train": opened}).fatal[0].where == "train: ValueError: no such column"


def test_only_a_sentence_of_the_house_is_left_as_it_is():
    def opened() -> SegmentationDataset:
        raise SegfolioError("the disk is elsewhere")

    assert inspect_dataset({"train": opened}).fatal[0].where == "train: the disk is elsewhere"
