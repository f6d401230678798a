import json
import tarfile
from functools import partial

import cv2
import numpy as np
import pytest

from segfolio.data.datasets.sa1b import SA1B, contents, parse
from segfolio.data.formats import rle
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import sa1b


@pytest.fixture
def root(tmp_path):
    sa1b.write(tmp_path)
    return tmp_path


def rewrite(shard, **members):
    """The shard with members of its own: their bytes by name, the suffix after two underscores."""
    with tarfile.open(shard, "w") as tar:
        for name, data in members.items():
            sa1b.add(tar, name.replace("__", "."), data)


def test_images_are_split_by_their_number_whatever_shards_are_there(root):
    splits = {split: SA1B(root, split, val_every=3) for split in ("train", "val")}
    ids = {split: [dataset.image_id(i) for i in range(len(dataset))] for split, dataset in splits.items()}
    assert ids == {"train": ["sa_1", "sa_2", "sa_4", "sa_5", "sa_7", "sa_8"], "val": ["sa_3", "sa_6"]}
    (root / "sa_000000.tar").unlink()
    assert [SA1B(root, "val", val_every=3).image_id(0)] == ["sa_6"]


def test_masks_are_read_from_within_the_tar_as_run_lengths(root):
    sample = SA1B(root, "train")[4]
    assert (sample.image_id, sample.target.number, sample.original_size) == ("sa_5", 5, (40, 56))
    segments = sample.target.segments
    _, masks = sa1b.image(np.random.default_rng(0), (40, 56))
    assert isinstance(segments.form, list)
    assert (segments.masks.numpy() == masks).all()
    assert segments.areas.tolist() == [256, 256, 240]
    assert segments.boxes.tolist() == [[4, 4, 16, 16], [12, 12, 16, 16], [50, 0, 6, 40]]
    assert (segments.labels.tolist(), segments.crowd.tolist()) == ([0, 0, 0], [False] * 3)
    with tarfile.open(root / "sa_000001.tar") as tar:
        data = tar.extractfile("./sa_5.jpg").read()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert (sample.image.permute(1, 2, 0).numpy() == pixels).all()


def test_contents_are_in_the_order_of_the_numbers(root):
    places = contents(root / "sa_000001.tar")
    assert places["number"].tolist() == [5, 6, 7, 8]
    data = (root / "sa_000001.tar").read_bytes()
    for number, (offset, size) in zip(places["number"], places["json"], strict=True):
        assert json.loads(data[offset : offset + size])["image"]["image_id"] == number


def test_an_image_without_masks_is_an_image(root):
    segments = parse(json.dumps({"annotations": []}).encode(), (4, 6), "a.json")
    assert (len(segments), segments.masks.shape) == (0, (0, 4, 6))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "a.json is no annotation of SA-1B, expected annotations with segmentation, bbox and area"),
        (b"[]", "is no annotation of SA-1B"),
        (b'{"annotations": [{"segmentation": {}}]}', "a.json: the run lengths are of size None"),
        (
            b'{"annotations": [{"segmentation": {"size": [4, 6], "counts": [24]}, "bbox": ["x"], "area": 0}]}',
            "is no annotation of SA-1B",
        ),
        (
            b'{"annotations": [{"segmentation": {"size": [4, 6], "counts": [23]}, "bbox": [0, 0, 1, 1], "area": 0}]}',
            "a.json: the run lengths sum to 23, but the image has 24 pixels",
        ),
    ],
)
def test_an_annotation_that_is_none_is_refused(data, message):
    with pytest.raises(SegfolioError, match=message):
        parse(data, (4, 6), "a.json")


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda root: None, ("test",), "SA-1B has no split 'test'; it has train, val"),
        (lambda root: None, ("val", 1), "val_every is 1, expected 2 or more"),
        (lambda root: None, ("val", 9), r"of 8 images none is for val; lower val_every \(9\)"),
        (
            lambda root: [path.rename(path.with_suffix(".tgz")) for path in root.glob("*.tar")],
            ("train",),
            r"lacks sa_\*\.tar of SA-1B: found sa_000000\.tgz, sa_000001\.tgz, expected sa_\*\.tar, as downloaded",
        ),
        (
            lambda root: (root / "sa_000001.tar").write_bytes((root / "sa_000001.tar").read_bytes()[:3000]),
            ("train",),
            r"sa_000001\.tar cannot be read as a tar \(unexpected end of data\); download it again",
        ),
        (lambda root: (root / "sa_000001.tar").write_bytes(b""), ("train",), r"sa_000001\.tar cannot be read as a tar"),
        (
            lambda root: rewrite(root / "sa_000001.tar", sa_9__jpg=b"x"),
            ("train",),
            r"sa_000001\.tar has image or annotation alone of sa_9; download",
        ),
        (lambda root: rewrite(root / "sa_000001.tar", readme__txt=b"x"), ("train",), "it is no shard of SA-1B"),
        (
            lambda root: (root / "sa_000002.tar").write_bytes((root / "sa_000001.tar").read_bytes()),
            ("train",),
            "holds 4 images twice: sa_5, sa_6, sa_7 and 1 more; remove a shard",
        ),
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(root, spoil, arguments, message):
    spoil(root)
    with pytest.raises(SegfolioError, match=message):
        SA1B(root, *arguments)


def test_a_wrong_root_says_what_was_found(tmp_path):
    with pytest.raises(SegfolioError, match=r"lacks sa_\*\.tar of SA-1B: found no such folder"):
        SA1B(tmp_path / "nowhere", "train")
    with pytest.raises(SegfolioError, match=r"data\.root is not set"):
        SA1B(None, "train")


def test_inspection_passes_the_fake_and_names_planted_faults(root):
    opened = {split: partial(SA1B, root, split, val_every=4) for split in ("train", "val")}
    report = inspect_dataset(opened)
    assert report.fatal == []
    assert (report.splits["train"].objects.tolist(), report.splits["val"].objects.tolist()) == ([18], [6])
    good = rle.encode(np.ones((1, 40, 56), np.bool_))
    annotation = json.dumps(sa1b.annotation(9, rle.decode(good, (40, 56)), "sa_9")).encode()
    rewrite(
        root / "sa_000002.tar", sa_9__jpg=b"", sa_9__json=annotation, sa_10__jpg=b"no image", sa_10__json=annotation
    )
    assert [(p.kind, p.where) for p in inspect_dataset(opened).fatal] == [
        ("image", f"{root}/sa_000002.tar/sa_9.jpg"),
        (
            "sample",
            f"{root}/sa_000002.tar/sa_10.jpg cannot be decoded: it is damaged or no image; copy or export it again",
        ),
    ]


def test_the_contents_are_remembered_until_a_shard_changes(root, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("segfolio.data.checks.remembered._WORTH", 0.0)
    read = []
    monkeypatch.setattr(
        "segfolio.data.datasets.sa1b.contents", lambda shard: read.append(shard.name) or contents(shard)
    )
    first, second = SA1B(root, "train"), SA1B(root, "train")
    assert sorted(read) == ["sa_000000.tar", "sa_000001.tar"]
    assert (second.places == first.places).all()
    assert second[7].image_id == "sa_8"
    (root / "sa_000001.tar").unlink()
    assert len(SA1B(root, "train")) == 4
