"""PASCAL-Context: one annotation read as 59, 60 or 459 classes."""

from functools import partial

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from segfolio.data.datasets.pascal_context import PascalContext
from segfolio.data.datasets.voc import VOC
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import pascal_context


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    pascal_context.write(folder := tmp_path_factory.mktemp("context"))
    return folder


@pytest.fixture
def own(tmp_path):
    pascal_context.write(tmp_path)
    return tmp_path


def test_the_59_are_vocs_20_and_the_surroundings(root):
    names = PascalContext(root, "train").labels.names
    assert len(names) == 59
    assert names[:20] == VOC.labels.things
    assert (names[10], names[20], names[27], names[41]) == ("diningtable", "bag", "clothes", "curtain")
    assert (names[51], names[58]) == ("bedcloth", "wood")
    labels = PascalContext(root, "train", 60).labels
    assert labels.names == ("background", *names)
    assert labels.background == "background"


def test_splits_are_those_of_voc_2010(root):
    assert [pair.image_id for pair in PascalContext(root, "val").pairs] == ["2010_000500", "2010_000501"]
    assert len(PascalContext(root, "train")) == 3
    assert PascalContext.info.splits == {"train": 4998, "val": 5105}


@pytest.mark.parametrize(
    ("classes", "expected"),  # of the ids 0, 1 (no class of the 59), 2 aeroplane, 9 bicycle, 397 table, 459
    [
        (59, [255, 255, 0, 1, 10, 255]),
        (60, [0, 0, 1, 2, 11, 0]),
        (459, [459, 0, 1, 8, 396, 458]),
    ],
)
def test_ids_become_classes(root, classes, expected):
    sample = PascalContext(root, "train", classes)[1]
    ids = loadmat(root / "trainval" / "2010_000001.mat")["LabelMap"]
    table = np.full(460, -1)
    table[pascal_context.IDS] = expected
    assert np.array_equal(sample.target.semantic.long(), table[ids])
    assert sample.target.segments is None
    assert sample.target.ignore_index == (459 if classes == 459 else 255)


def test_459_names_are_those_of_the_file(root):
    labels = PascalContext(root, "train", 459).labels
    assert (labels.num_classes, labels.names[0], labels.names[396]) == (459, "some thing 1", "table")


def test_voc_may_lie_elsewhere(own, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("voc")
    (own / "VOCdevkit").rename(elsewhere / "VOCdevkit")
    with pytest.raises(SegfolioError, match=r"lacks VOCdevkit/VOC2010 of PASCAL-Context: found labels\.txt, trainval"):
        PascalContext(own, "val")
    assert len(PascalContext(own, "val", root_voc=elsewhere)) == 2


@pytest.mark.parametrize("classes", [59, 60, 459])
def test_an_unknown_id_is_named_whatever_the_classes(own, classes):
    savemat(own / "trainval" / "2010_000001.mat", {"LabelMap": np.full((48, 96), 460, np.uint16)})
    with pytest.raises(SegfolioError, match=r"2010_000001\.mat: label id 460 is not in the label space"):
        PascalContext(own, "train", classes)[1]


def test_a_wrong_file_is_named_by_inspection(own):
    (own / "trainval" / "2010_000000.mat").write_bytes(b"MATLAB 5.0")
    savemat(own / "trainval" / "2010_000001.mat", {"GTcls": 1})
    savemat(own / "trainval" / "2010_000002.mat", {"LabelMap": np.ones((40, 96), np.uint16)})
    report = inspect_dataset({split: partial(PascalContext, own, split) for split in ("train", "val")})
    said = [problem.where for problem in report.fatal if problem.kind == "sample"]
    assert [
        part in where
        for part, where in zip(("no whole MATLAB", "lacks the variable LabelMap", "is 96x40"), said, strict=True)
    ] == [True] * 3


@pytest.mark.parametrize("classes", [59, 60, 459])
def test_inspection_finds_nothing_fatal(root, classes):
    report = inspect_dataset({split: partial(PascalContext, root, split, classes) for split in ("train", "val")})
    assert report.fatal == []
    assert report.splits["train"].read == 3


def no_mat(root):
    (root / "trainval" / "2010_000001.mat").unlink()
    return r"Main/train\.txt: 1 mask missing: \S*trainval/2010_000001\.mat"


def no_class(root):
    text = (root / "labels.txt").read_text()
    (root / "labels.txt").write_text(text.replace(": table\n", ": desk\n"))
    return r"labels\.txt lacks table; expected the names of the distribution"


def no_name(root):
    (root / "labels.txt").write_text("1: accordion\naeroplane\n")
    return r"labels\.txt line 2 is 'aeroplane', expected an id and a name like `2: aeroplane`"


def cut_short(root):
    lines = (root / "labels.txt").read_text().splitlines()
    (root / "labels.txt").write_text("\n".join(lines[:400]))
    return r"labels\.txt names 400 ids, expected 1 to 459; copy it again"


def empty(root):
    (root / "VOCdevkit/VOC2010/ImageSets/Main/train.txt").write_text("\n")
    return r"Main/train\.txt is empty"


def no_labels(root):
    (root / "labels.txt").unlink()
    return r"lacks labels\.txt of PASCAL-Context: found VOCdevkit, trainval, expected trainval/\*\.mat, labels\.txt"


@pytest.mark.parametrize("spoil", [no_mat, no_class, no_name, cut_short, empty, no_labels])
def test_a_spoilt_folder_says_what_is_wrong(own, spoil):
    said = spoil(own)
    with pytest.raises(SegfolioError, match=said):
        PascalContext(own, "train")


def test_other_arguments_are_refused(root):
    with pytest.raises(SegfolioError, match="PASCAL-Context has no split 'test'; it has train, val"):
        PascalContext(root, "test")
    with pytest.raises(SegfolioError, match="classes of PASCAL-Context is 33, expected 59, 60 or 459"):
        PascalContext(root, "train", 33)
