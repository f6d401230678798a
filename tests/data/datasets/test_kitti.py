from functools import partial

import numpy as np
import pytest
import torch

from segfolio.data.datasets.cityscapes import Cityscapes
from segfolio.data.datasets.kitti import KITTI
from segfolio.data.formats.images import write_id_map
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import cityscapes, kitti


@pytest.fixture
def root(tmp_path):
    kitti.write(tmp_path)
    return tmp_path


def test_every_fifth_image_is_for_validation(root):
    ids = {split: [KITTI(root, split).image_id(i) for i in range(n)] for split, n in (("train", 8), ("val", 2))}
    assert ids["val"] == ["000004_10", "000009_10"]
    assert sorted(ids["train"] + ids["val"]) == [f"{i:06d}_10" for i in range(10)]
    assert {split: len(KITTI(root, split, val_every=3)) for split in ("train", "val", "trainval", "test")} == {
        "train": 7,
        "val": 3,
        "trainval": 10,
        "test": 2,
    }
    assert KITTI(root, "test")[0].target is None


def test_the_street_is_that_of_cityscapes(root, tmp_path):
    """The same annotation in the other's encoding gives the same target."""
    write = cityscapes.write
    write(tmp_path / "cityscapes", train=1, val=0, test=0, size=(48, 80))
    expected = Cityscapes(tmp_path / "cityscapes", "train")[0].target
    found = KITTI(root, "trainval")[0].target
    strip = slice(0, 16)
    assert (found.semantic[strip] == expected.semantic[strip]).all()

    def things(target):
        s = target.segments
        return {
            (int(c), bool(g), m.numpy().tobytes())
            for c, g, m in zip(s.labels, s.crowd, s.masks, strict=True)
            if KITTI.labels.is_thing[c]
        }

    assert things(found) == things(expected)
    assert sorted(c for c, *_ in things(found)) == [11, 11, 13, 18]


def test_numbered_stuff_is_one_segment(root):
    dataset = KITTI(root, "train")
    ids = np.full((48, 80), 11, np.uint8)
    write_id_map(dataset.pairs[0].mask, ids)
    write_id_map(
        dataset.instance_maps[0],
        np.where(np.arange(80) < 40, 11 * 256 + 1, 11 * 256 + 2).astype(np.uint16)[None].repeat(48, 0),
    )
    segments = dataset[0].target.segments
    assert (segments.labels.tolist(), segments.crowd.tolist()) == ([2], [False])
    assert torch.equal(segments.id_map, torch.ones(48, 80, dtype=torch.int32))


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda root: None, ("dev",), "KITTI segmentation has no split 'dev'; it has test, train, trainval, val"),
        (lambda root: None, ("val", 1), "val_every is 1, expected 2 or more"),
        (lambda root: None, ("val", 11), "image_2 holds 10 images, of which none is for val"),
        (
            lambda root: (root / "training/semantic/000003_10.png").unlink(),
            ("train",),
            r"training: 1 mask missing: \S+semantic/000003_10\.png",
        ),
        (
            lambda root: (root / "training/instance/000003_10.png").unlink(),
            ("train",),
            r"training: 1 instance map missing: \S+instance/000003_10\.png; .* or set instances: false",
        ),
        (
            lambda root: (root / "training/image_2").rename(root / "training/image_3"),
            ("train",),
            r"lacks training/image_2 of KITTI segmentation: found testing, training, expected training/\{image_2,",
        ),
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(root, spoil, arguments, message):
    spoil(root)
    with pytest.raises(SegfolioError, match=message):
        KITTI(root, *arguments)


def test_inspection_passes_the_fake_and_names_planted_faults(root):
    opened = {split: partial(KITTI, root, split) for split in ("train", "val")}
    report = inspect_dataset(opened)
    assert report.fatal == []
    assert report.splits["train"].objects[[11, 13]].tolist() == [16, 8]
    (root / "training/instance/000000_10.png").write_bytes(b"")
    write_id_map(root / "training/semantic/000001_10.png", np.full((48, 80), 99, np.uint8))
    where = " ".join(p.where for p in inspect_dataset(opened).fatal)
    assert "instance/000000_10.png" in where
    assert "semantic/000001_10.png: label id 99 is not in the label space" in where
