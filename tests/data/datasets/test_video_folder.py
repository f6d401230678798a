from pathlib import Path

import numpy as np
import pytest

from segfolio.data.batches import ForEvaluation, collate
from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.datasets import Shapes, VideoFolder
from segfolio.data.formats.images import write_image
from segfolio.data.module import DataModule
from segfolio.data.sample import to_pixels
from segfolio.data.videos import UnreadableFrame
from segfolio.errors import SegfolioError
from tests.fake import video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    video.write(tmp_path)
    return tmp_path


def numbers(dataset: VideoFolder) -> list[int]:
    return [video.number_of(to_pixels(dataset[i].image)) for i in range(len(dataset))]


def test_each_video_of_a_folder_is_a_clip(root: Path) -> None:
    (root / "notes.txt").write_text("")
    (root / "empty").mkdir()
    dataset = VideoFolder(root, "predict")
    assert [list(clip) for clip in dataset.clips] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    assert numbers(dataset) == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    ids = [dataset[i].image_id for i in range(len(dataset))]
    assert ids == [dataset.image_id(i) for i in range(len(dataset))]
    assert (ids[0], ids[3], ids[8]) == ("park/00000", "park/00003", "street/00004")
    assert collate([ForEvaluation(dataset, [])[1]]).clips == [5]
    assert list(dataset.files())[-2:] == [root / "park" / "00003.jpg", root / "street.mp4"]
    assert (dataset.image_file(3), dataset.image_file(4)) == (root / "park" / "00003.jpg", None)
    with pytest.raises(IndexError):
        dataset[9]


def test_one_video_will_do(root: Path) -> None:
    assert numbers(VideoFolder(root / "street.mp4", "predict")) == [0, 1, 2, 3, 4]
    dataset = VideoFolder(str(root / "{split}"), "park")
    assert numbers(dataset) == [0, 1, 2, 3]
    assert dataset.image_id(0) == "park/00000"


def test_workers_read_files_by_themselves(root: Path) -> None:
    data = DataModule(VideoFolder, str(root), test_split="test", num_workers=2)
    found = {
        batch.image_ids[0]: [video.number_of(to_pixels(i)) for i in batch.images] for batch in data.test_dataloader()
    }
    assert found == {"park/00000": [0, 1, 2, 3], "street/00000": [0, 1, 2, 3, 4]}


def test_other_frames_are_other_data(root: Path) -> None:
    before = fingerprint(VideoFolder(root, "predict"))
    assert fingerprint(VideoFolder(root, "predict")) == before
    write_image(root / "park" / "00003.jpg", video.frame(9))
    assert fingerprint(VideoFolder(root, "predict")) != before


def test_labels_are_those_of_the_network_or_none(root: Path) -> None:
    assert VideoFolder(root, "predict", Shapes.labels).labels == Shapes.labels
    with pytest.raises(SegfolioError, match="VideoFolder holds videos without a truth"):
        VideoFolder(root, "predict").labels  # noqa: B018


def test_frames_that_cannot_be_read_are_told_before_and_named_after(root: Path) -> None:
    write_image(root / "park" / "00002.jpg", video.frame(2, (40, 50)))
    dataset = VideoFolder(root, "predict")
    (problem,) = dataset.problems()
    assert (problem.fatal, problem.image_id) == (True, "park/00002")
    with pytest.raises(SegfolioError, match=r"9 images: 1 image of another size than the first frame of its video"):
        dataset.check()
    with pytest.raises(UnreadableFrame, match=r"park: frame 00002 is 50x40 pixels, the first is 96x64") as error:
        dataset[2]
    assert error.value.frame == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_damaged_is_told_in_a_sentence_from_wherever_it_is_read(tmp_path: Path, workers: int) -> None:
    video.write_file(tmp_path / "a.avi", 30)
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data[: len(data) // 2])
    loader = DataModule(VideoFolder, str(tmp_path), test_split="test", num_workers=workers).test_dataloader()
    with pytest.raises(SegfolioError, match=r"a\.avi: frame \d+ of 30 cannot be decoded: the file ends early"):
        list(loader)


def test_what_holds_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for root, said in ((tmp_path, "notes.txt; expected a video"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(SegfolioError, match=said):
            VideoFolder(root, "predict")
    with pytest.raises(SegfolioError, match=r"notes\.txt: it is no video; expected a video \(\.mp4"):
        VideoFolder(tmp_path / "notes.txt", "predict")
    with pytest.raises(SegfolioError, match=r"data\.root is not set; expected a video"):
        VideoFolder(None, "predict")
    video.write_folder(tmp_path / "street", ["0.jpg"])
    video.write_file(tmp_path / "street.mp4", 2)
    with pytest.raises(SegfolioError, match=r"street and \S+street\.mp4 differ only in suffix"):
        VideoFolder(tmp_path, "predict")


def test_a_real_video_is_a_clip(real_data: Path) -> None:
    dataset = VideoFolder(real_data / "video", "predict")
    dataset.check()
    assert dataset.clip_count == 1
    assert dataset.image_id(1) == "bedroom/00005"
    first, last = (to_pixels(dataset[i].image) for i in (0, len(dataset) - 1))
    assert first.shape == last.shape
    assert np.abs(first.astype(int) - last).mean() > 5
