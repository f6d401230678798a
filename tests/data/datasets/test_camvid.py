import numpy as np
import pytest
import torch

from segfolio.data.datasets import CamVid
from segfolio.errors import SegfolioError
from tests.fake import camvid


@pytest.fixture
def root(tmp_path):
    camvid.write(tmp_path, train=3, val=2, test=1)
    return tmp_path


def test_lists_are_read_below_root_whatever_folder_they_name(root):
    assert [len(CamVid(root, split)) for split in ("train", "val", "test")] == [3, 2, 1]
    sample = CamVid(root, "train")[0]
    assert sample.image_id == "fake_train_0000"
    assert sample.image.shape == (3, 96, 128)
    palette = torch.tensor(CamVid.labels.colors())
    semantic = sample.target.semantic
    assert set(semantic.unique().tolist()) <= {*range(11), 255}
    truth = palette[semantic.long()].permute(2, 0, 1)
    assert (sample.image.int() - truth.int()).abs().max() <= 20  # the fake draws each class in its colour


def test_classes_are_segnets():
    labels = CamVid.labels
    assert labels.names[0] == "sky"
    assert labels.names[8:] == ("car", "pedestrian", "bicyclist") == labels.things
    assert (labels.num_classes, labels.void_ids, labels.palette[4]) == (11, (11,), (60, 40, 222))
    assert CamVid.info.splits == {"train": 367, "val": 101, "test": 233}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "train.txt").write_text(""), r"train\.txt is empty"),
        (lambda root: (root / "train.txt").write_text("a.png\n"), r"train\.txt line 1 is 'a\.png', expected"),
        (
            lambda root: (root / "trainannot/fake_train_0001.png").unlink(),
            r"train\.txt: 1 mask missing: \S*trainannot/fake_train_0001\.png;",
        ),
        (
            lambda root: (root / "train.txt").write_text((root / "train.txt").read_text() * 2),
            r"train\.txt names 3 images twice: fake_train_0000, ",
        ),
        (
            lambda root: (root / "train.txt").unlink(),
            r"lacks train\.txt of CamVid: found .*test, test\.txt.*, expected train\.txt, val\.txt, ",
        ),
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(root, spoil, message):
    spoil(root)
    with pytest.raises(SegfolioError, match=message):
        CamVid(root, "train")


def test_a_wrong_root_or_split_says_what_was_found(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(SegfolioError, match=r"found holiday\.jpg, expected train\.txt"):
        CamVid(tmp_path, "train")
    with pytest.raises(SegfolioError, match=r"nowhere lacks train\.txt of CamVid: found no such"):
        CamVid(tmp_path / "nowhere", "train")
    with pytest.raises(SegfolioError, match=r"data\.root is not set"):
        CamVid(None, "train")
    with pytest.raises(SegfolioError, match="CamVid has no split 'trian'; it has test, train, val"):
        CamVid(tmp_path, "trian")


def test_the_real_files(real_data):
    """60/20/20 images; sky lies in the upper half and road in the lower, so images and masks are aligned."""
    splits = {split: CamVid(real_data / "CamVid", split) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 60, "val": 20, "test": 20}
    counts, brighter = np.zeros((2, 256)), []
    for sample in (splits["val"][i] for i in range(20)):
        assert sample.image.shape == (3, 360, 480)
        grey, semantic = sample.image.numpy().mean(0), sample.target.semantic.numpy()
        counts += [np.bincount(half.ravel(), minlength=256) for half in (semantic[:180], semantic[180:])]
        brighter.append(grey[semantic == 0].mean() - grey.mean())
    assert counts[:, 11:255].sum() == 0
    assert counts[0, 0] / counts[:, 0].sum() > 0.95
    assert counts[1, 3] / counts[:, 3].sum() > 0.95
    assert min(brighter) > 20  # grey levels of sky above the rest
