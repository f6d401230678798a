import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segfolio.data.batches import Augmented, ForEvaluation, collate
from segfolio.data.clips import ClipFrames
from segfolio.data.datasets.sav import SAV
from segfolio.data.formats.images import write_id_map
from segfolio.data.sample import Prediction, to_pixels
from segfolio.data.samplers import Draw
from segfolio.data.videos import UnreadableFrame
from segfolio.errors import SegfolioError
from segfolio.metrics import VideoMetric
from tests.fake import sav, video

MANUAL = "sav_train/sav_000/sav_000001_manual.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sav.write(tmp_path)
    return tmp_path


def numbers(dataset: SAV) -> list[int]:
    return [video.number_of(to_pixels(dataset[i].image)) for i in range(len(dataset))]


def test_of_a_training_video_the_annotated_frames_are_read_from_its_file(root: Path) -> None:
    dataset = SAV(root, "train")
    assert [list(clip) for clip in dataset.clips] == [[0, 1, 2], [3, 4, 5]]
    assert [dataset.image_id(i) for i in (0, 1, 5)] == ["sav_000001/00000", "sav_000001/00004", "sav_000002/00008"]
    assert numbers(dataset) == [0, 4, 8, 0, 4, 8]
    segments = dataset[2].target.segments
    assert segments.tracks.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(segments.masks.numpy(), np.concatenate([sav.masks(8), sav.masks(8, 20)]))
    assert dataset[0].target.segments.tracks.tolist() == [0, 1, 3, 4]  # the third comes later
    assert SAV(root, "train", automatic=False)[2].target.segments.tracks.tolist() == [0, 1, 2]


def test_clips_are_drawn_from_within_the_files(root: Path) -> None:
    dataset = Augmented(SAV(root, "train"), [], clip_frames=ClipFrames(2, reverse=0.5))
    drawn = [tuple(video.number_of(to_pixels(s.image)) for s in dataset[Draw(1, (0, 0, i))]) for i in range(40)]
    assert set(drawn) == {(0, 4), (4, 8), (4, 0), (8, 4)}


def test_of_the_others_every_frame_is_read_and_every_fourth_is_annotated(root: Path) -> None:
    dataset = SAV(root, "val")
    assert numbers(dataset) == list(range(10))
    targets = [dataset[i].target.segments for i in range(10)]
    assert [i for i, segments in enumerate(targets) if segments is not None] == [0, 4, 8]
    assert targets[0].tracks.tolist() == [0, 1]
    assert np.array_equal(targets[8].masks.numpy(), sav.masks(8))
    assert collate([ForEvaluation(dataset, [])[0]]).clips == [10]
    annotated = SAV(root, "val", all_frames=False)
    assert numbers(annotated) == [0, 4, 8]
    assert annotated.image_file(1) == root / "sav_val/JPEGImages_24fps/sav_val_1/00004.jpg"


def test_the_truth_is_right_by_its_own_rules(root: Path) -> None:
    """Objects may overlap; of three annotated frames the middle one counts."""
    samples = ForEvaluation(SAV(root, "val"), [])[0]
    found = [Prediction(s.image_id, s.original_size, tracked=s.target.segments) for s in samples]
    metric = VideoMetric(SAV.labels, rules="sav")
    metric.update_clip(found, [sample.target for sample in samples])
    assert metric.per_object() == {("sav_val_1/00000", number): (1, 1) for number in range(3)}


def rewritten(**changes: object) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        content = json.loads((root / MANUAL).read_text()) | changes
        (root / MANUAL).write_text(json.dumps(content))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / MANUAL).unlink(), r"1 annotation missing: \S+sav_000001_manual\.json"),
        (lambda root: (root / MANUAL).write_text("[]"), r"manual\.json is no annotation of SA-V, expected video_frame"),
        (rewritten(masklet=[[], []]), r"manual\.json holds masklets of 2 frames, expected those of 3"),
        (rewritten(masklet=None), r"manual\.json holds no annotation of SA-V, expected masklets"),
        (
            rewritten(masklet=[[{"size": [3, 4], "counts": "0"}]] * 3),
            r"masklet 0 of frame 00000: the run lengths are of",
        ),
        (lambda root: shutil.rmtree(root / "sav_train/sav_000"), r"sav_train holds no video, expected sav_train/\*\*"),
        (lambda root: shutil.rmtree(root / "sav_train"), r"lacks sav_train of SA-V: found sav_test, sav_val"),
    ],
)
def test_a_spoilt_training_split_says_what_is_wrong(root: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(root)
    with pytest.raises(SegfolioError, match=message):
        SAV(root, "train")[0]


def test_a_damaged_training_video_names_the_frame(root: Path) -> None:
    path = root / "sav_train/sav_000/sav_000002.mp4"
    video.write_file(path, 6)
    dataset = SAV(root, "train")
    assert video.number_of(to_pixels(dataset[4].image)) == 4
    with pytest.raises(UnreadableFrame, match=r"sav_000002\.mp4 has 6 frames, but frame 8 is annotated") as error:
        dataset[5]
    assert error.value.frame == 8


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("sav_val/Annotations_6fps/sav_val_1/*", r"Annotations_6fps/sav_val_1 holds no mask, expected <object>"),
        ("sav_val/JPEGImages_24fps/sav_val_1/00004.jpg", r"has masks of frames that \S+ lacks: 00004"),
        ("sav_val/sav_val.txt", r"lacks sav_val/sav_val\.txt of SA-V"),
    ],
)
def test_a_spoilt_validation_split_says_what_is_wrong(root: Path, spoil: str, message: str) -> None:
    for path in root.glob(spoil):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(SegfolioError, match=message):
        SAV(root, "val")


def test_masks_of_another_size_and_objects_without_a_number_are_refused(root: Path) -> None:
    folder = root / "sav_val/Annotations_6fps/sav_val_1"
    write_id_map(folder / "001" / "00004.png", np.zeros((5, 6), np.uint8))
    dataset = SAV(root, "val")
    with pytest.raises(SegfolioError, match=r"001/00004\.png is 6x5 pixels but its frame is 96x64"):
        dataset[4]
    assert [problem.image_id for problem in dataset.problems() if problem.fatal] == ["sav_val_1/00004"]
    (folder / "001").rename(folder / "hand")
    with pytest.raises(SegfolioError, match="hand is no number of an object"):
        SAV(root, "val")
