from functools import partial

import cv2
import numpy as np
import pytest

from segfolio.data.datasets.davis2017 import DAVIS2017
from segfolio.data.formats.images import read_id_map
from segfolio.data.object_videos import objects
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import davis2017


@pytest.fixture
def root(tmp_path):
    davis2017.write(tmp_path)
    return tmp_path


def test_frames_come_in_the_order_of_their_sequences(root):
    dataset = DAVIS2017(root, "train")
    assert [dataset.image_id(i) for i in range(len(dataset))] == [
        "bear/00000",
        "bear/00001",
        "bear/00002",
        "dogs-jump/00000",
        "dogs-jump/00001",
    ]
    assert dataset.sequences == {"bear": range(3), "dogs-jump": range(3, 5)}
    assert len(DAVIS2017(root, "val")) == 3


def test_objects_keep_their_ids_throughout_a_sequence(root):
    dataset = DAVIS2017(root, "train")
    assert [dataset.object_ids(i) for i in range(3)] == [[1, 2, 3], [1, 2], [1, 2]]
    for frame in range(3):
        segments = dataset[frame].target.segments
        ids = read_id_map(dataset.pairs[frame].mask)
        for place, number in enumerate(dataset.object_ids(frame)):
            assert (segments.masks[place].numpy() == (ids == number)).all()
        assert segments.labels.tolist() == [0] * len(dataset.object_ids(frame))
        assert segments.tracks.tolist() == dataset.object_ids(frame)
        assert not segments.crowd.any()
    assert objects(np.array([[0, 7, 255], [2, 7, 0]])).id_map.tolist() == [[0, 2, 0], [1, 2, 0]]


def test_a_sequence_is_a_clip_where_videos_are_asked_for(root):
    assert DAVIS2017(root, "train").clips is None
    dataset = DAVIS2017(root, "train", videos=True)
    assert dataset.clip_count == 2
    assert [list(dataset.frames_of(clip)) for clip in range(2)] == [[0, 1, 2], [3, 4]]


def test_the_semantic_map_is_foreground_and_void_at_the_bottom(root):
    target = DAVIS2017(root, "train")[0].target
    expected = np.ones((48, 64), int)
    expected[4:12, :8] = expected[16:24, 40:56] = expected[28:36, 10:20] = 0
    expected[-4:] = 255
    assert (target.semantic.numpy() == expected).all()
    assert DAVIS2017.labels.names == ("object", "background")


def test_of_a_test_sequence_the_first_frame_alone_is_annotated(root):
    dataset = DAVIS2017(root, "test-dev")
    assert [dataset[i].target is None for i in range(3)] == [False, True, True]
    assert (dataset.object_ids(0), dataset.object_ids(1)) == ([1, 2, 3], [])


def test_the_folder_that_the_archive_unpacks_will_do(root, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    (outer / "DAVIS").symlink_to(root)
    assert len(DAVIS2017(outer, "val")) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "ImageSets/2017/train.txt").unlink(), "has no split 'train'; it has test-dev, val"),
        (lambda root: (root / "ImageSets/2017/train.txt").write_text("\n"), r"train\.txt is empty, expected the name"),
        (
            lambda root: (root / "ImageSets/2017/train.txt").write_text("bear\nwolf\n"),
            r"train\.txt names wolf, but \S+480p/wolf holds no frame",
        ),
        (
            lambda root: (root / "Annotations/480p/bear/00001.png").unlink(),
            r"train\.txt: 1 mask missing: \S+bear/00001\.png",
        ),
        (
            lambda root: (root / "ImageSets/2017").rename(root / "ImageSets/2016"),
            r"lacks ImageSets/2017 of DAVIS 2017: found Annotations, ImageSets, JPEGImages, expected",
        ),
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(root, spoil, message):
    spoil(root)
    with pytest.raises(SegfolioError, match=message):
        DAVIS2017(root, "train")


def test_another_resolution_is_another_folder(root):
    with pytest.raises(SegfolioError, match="lacks Annotations/Full-Resolution, JPEGImages/Full-Resolution of DAVIS"):
        DAVIS2017(root, "train", "Full-Resolution")
    davis2017.write(root, "Full-Resolution", size=(96, 128))
    assert DAVIS2017(root, "train", "Full-Resolution")[0].original_size == (96, 128)


def test_masks_that_became_colours_are_refused(root):
    path = root / "Annotations/480p/bear/00000.png"
    cv2.imwrite(str(path), cv2.imread(str(path)))
    with pytest.raises(SegfolioError, match=r"00000\.png has been converted to colours \(RGB\)"):
        DAVIS2017(root, "train")[0]


def test_inspection_passes_the_fake_and_names_planted_faults(root):
    opened = {split: partial(DAVIS2017, root, split) for split in ("train", "val")}
    report = inspect_dataset(opened)
    assert report.fatal == []
    assert report.splits["train"].objects.tolist() == [3 + 2 + 2 + 3 + 2, 0]
    path = root / "Annotations/480p/bear/00001.png"
    path.write_bytes(path.read_bytes()[:60])
    assert [p.where for p in inspect_dataset(opened).fatal] == [str(path)]
