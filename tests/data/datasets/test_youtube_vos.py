import shutil
from pathlib import Path

import pytest
import torch

from segfolio.data.batches import ForEvaluation, collate
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.datasets import MOSE, YouTubeVOS
from segfolio.data.formats.images import write_image
from segfolio.errors import SegfolioError
from tests.fake import mose, youtube_vos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    youtube_vos.write(tmp_path)
    return tmp_path


def tracks(dataset: SegmentationDataset) -> list[list[int] | None]:
    """Of each frame; None where it is not annotated."""
    targets = [dataset[i].target for i in range(len(dataset))]
    return [None if target.segments is None else target.segments.tracks.tolist() for target in targets]


def test_each_video_is_a_clip_whose_objects_keep_their_ids(root: Path) -> None:
    dataset = YouTubeVOS(root, "train")
    assert [list(clip) for clip in dataset.clips] == [[0, 1, 2], [3, 4]]
    assert [dataset.image_id(i) for i in (0, 1, 4)] == ["0a1b/00000", "0a1b/00005", "1c2d/00005"]
    assert tracks(dataset) == [[1], [1, 2], [1, 2], [1], [1, 2]]
    masks = dataset[2].target.segments.masks
    assert torch.equal(masks.sum((1, 2)), torch.tensor([64, 128]))
    assert masks[0, 4:12, 8:16].all()


def test_of_other_splits_the_frames_in_which_objects_come_are_annotated(root: Path, tmp_path_factory) -> None:
    dataset = YouTubeVOS(root, "valid")
    assert tracks(dataset) == [[1], [1, 2], None, None]
    other = tmp_path_factory.mktemp("mose")
    mose.write(other)
    dataset = MOSE(other, "valid")
    assert tracks(dataset) == [[1], None, None, None]
    assert [dataset.image_id(i) for i in (0, 3)] == ["2e3f/00000", "2e3f/00003"]


def test_the_training_videos_of_mose_are_divided_as_sam_2_s_release_does_it(tmp_path: Path) -> None:
    mose.write(tmp_path)
    samples = {split: MOSE(tmp_path, split) for split in ("sample_train", "sample_val")}
    assert [list(dataset.sequences) for dataset in samples.values()] == [["1c2d", "3f4a"], ["0a1b"]]
    assert tracks(samples["sample_val"]) == [[1], [1, 2], [1, 2]]
    (tmp_path / "MOSE_sample_val_list.txt").unlink()
    with pytest.raises(SegfolioError, match=r"lacks MOSE_sample_val_list.txt of MOSE"):
        MOSE(tmp_path, "sample_val")


def test_clips_of_which_some_frames_are_annotated_make_a_batch(root: Path) -> None:
    dataset = YouTubeVOS(root, "valid")
    batch = collate([ForEvaluation(dataset, [])[0]])
    assert batch.clips == [4]
    assert [target.segments is None for target in batch.targets] == [False, False, True, True]


def test_all_frames_are_those_of_an_archive_of_their_own(root: Path) -> None:
    shutil.copytree(root / "train" / "JPEGImages", root / "train_all_frames" / "JPEGImages")
    pixels = YouTubeVOS(root, "train")[0].image.permute(1, 2, 0).numpy()
    write_image(root / "train_all_frames" / "JPEGImages" / "0a1b" / "00001.jpg", pixels)
    dataset = YouTubeVOS(root, "train", all_frames=True)
    assert [len(clip) for clip in dataset.clips] == [4, 2]
    assert tracks(dataset)[:3] == [[1], None, [1, 2]]
    with pytest.raises(SegfolioError, match=r"lacks valid_all_frames/JPEGImages of YouTube-VOS"):
        YouTubeVOS(root, "valid", all_frames=True)


@pytest.mark.parametrize(
    ("spoil", "split", "message"),
    [
        ("train/Annotations/0a1b/00005.png", "train", r"1 mask missing: \S+0a1b/00005\.png"),
        ("valid/Annotations/2e3f", "valid", r"names 2e3f, but \S+Annotations/2e3f holds no mask of any of its frames"),
        ("train/JPEGImages/1c2d/*", "train", r"names 1c2d, but \S+JPEGImages/1c2d holds no frame"),
        ("train/JPEGImages/*", "train", r"train/JPEGImages holds no video, expected <split>/JPEGImages/<video>"),
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(root: Path, spoil: str, split: str, message: str) -> None:
    for path in root.glob(spoil):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(SegfolioError, match=message):
        YouTubeVOS(root, split)
