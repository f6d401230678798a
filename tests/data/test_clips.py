"""Which frames of a clip are trained on, and that everything else about a clip is alike for them."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from segfolio.data.batches import Augmented, ForEvaluation
from segfolio.data.clips import ClipFrames
from segfolio.data.datasets import MovingShapes, Shapes
from segfolio.data.module import DataModule
from segfolio.data.samplers import Draw
from segfolio.data.transforms import ColorJitter, RandomWindow
from segfolio.errors import SegfolioError

CLIP = range(100, 120)


def drawn(frames: ClipFrames, clip: range = CLIP, times: int = 300) -> list[list[int]]:
    return [frames(clip, np.random.default_rng(seed)) for seed in range(times)]


def test_frames_are_in_a_row_and_start_anywhere() -> None:
    found = drawn(ClipFrames(8))
    assert all(frames == list(range(frames[0], frames[0] + 8)) for frames in found)
    starts = Counter(frames[0] for frames in found)
    assert set(starts) == set(range(100, 113))
    assert max(starts.values()) < 3 * 300 / 13


def test_a_stride_is_drawn_among_those_that_fit() -> None:
    steps = Counter(frames[1] - frames[0] for frames in drawn(ClipFrames(8, (1, 2, 3))))
    assert set(steps) == {1, 2}  # three would need 22 frames of 20
    assert min(steps.values()) > 100
    assert [set(np.diff(frames)) for frames in drawn(ClipFrames(8, (2,)), times=20)] == [{2}] * 20


def test_a_clip_that_is_too_short_is_taken_whole() -> None:
    assert drawn(ClipFrames(8, (2, 3)), range(5), 3) == [[0, 1, 2, 3, 4]] * 3
    assert drawn(ClipFrames(8, (2, 3)), range(8), 3) == [list(range(8))] * 3
    assert drawn(ClipFrames(8), range(7, 8), 3) == [[7]] * 3
    assert {frames[0] for frames in drawn(ClipFrames(1), range(5))} == set(range(5))


def test_time_is_reversed_as_often_as_asked_for() -> None:
    backwards = [frames[1] < frames[0] for frames in drawn(ClipFrames(4, reverse=0.3))]
    assert 60 < sum(backwards) < 120
    assert not any(frames[1] < frames[0] for frames in drawn(ClipFrames(4)))
    assert all(frames == sorted(frames)[::-1] for frames in drawn(ClipFrames(4, reverse=1.0), times=20))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"frames": 0}, "frames of ClipFrames is 0, expected at least the 1"),
        ({"strides": ()}, r"strides of ClipFrames are \[\], expected at least one"),
        ({"strides": (1, 0)}, r"strides of ClipFrames are \[1, 0\], expected"),
        ({"reverse": 1.5}, "reverse of ClipFrames is 1.5; a probability"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        ClipFrames(**arguments)


VIDEOS = partial(MovingShapes, size=(48, 64), frames=12, train=6, val=2, test=2)


def test_a_config_says_which_frames_and_evaluation_sees_all() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataModule, "data")
    content = {"dataset": "segfolio.data.datasets.MovingShapes", "clip_frames": {"frames": 4, "strides": [1, 2]}}
    data = parser.instantiate_classes(parser.parse_object({"data": content})).data
    assert data.clip_frames == ClipFrames(4, (1, 2))
    data = DataModule(VIDEOS, batch_size=2, num_workers=0, clip_frames=ClipFrames(4))
    assert [batch.clips for batch in data.train_dataloader()] == [[4, 4]] * 3
    assert [batch.clips for batch in data.val_dataloader()] == [[12]] * 2
    assert next(iter(DataModule(VIDEOS, batch_size=2, num_workers=0).train_dataloader())).clips == [12, 12]


@pytest.mark.parametrize("split", ["one", "two accumulated", "workers"])
def test_the_frames_that_are_drawn_depend_on_seed_and_place_alone(split: str) -> None:
    """However a step is divided, and from where it is resumed."""
    arguments = {"clip_frames": ClipFrames(4, (1, 2), 0.5), "batch_size": 2, "num_workers": 2 * (split == "workers")}
    data = DataModule(VIDEOS, **arguments)
    whole = [
        image_id
        for batch in DataModule(VIDEOS, **arguments | {"num_workers": 0}).train_dataloader()
        for image_id in batch.image_ids
    ]
    if split == "two accumulated":
        data.trainer = type(
            "T",
            (),
            {
                "global_rank": 0,
                "world_size": 1,
                "num_devices": 1,
                "accumulate_grad_batches": 2,
                "overfit_batches": 0,
                "current_epoch": 0,
                "lightning_module": None,
                "fit_loop": _at(pass_=3),
            },
        )
        whole = whole[3 * 4 :]
    assert [image_id for batch in data.train_dataloader() for image_id in batch.image_ids] == whole


def _at(pass_: int) -> type:
    """A loop that has done so many passes of its epoch."""
    current = type("C", (), {"ready": pass_})
    return type("F", (), {"epoch_loop": type("E", (), {"batch_progress": type("P", (), {"current": current})})})


def test_frames_are_augmented_alike_with_their_truth() -> None:
    """All frames are the first one, drawn again and again: after augmentation they are equal but for the noise."""

    class Still(MovingShapes):
        def read(self, index: int):  # type: ignore[no-untyped-def]
            return super().read(index // self.frames * self.frames)

    dataset = Still(size=(64, 80), frames=5, train=3)
    transforms = [RandomWindow((40, 40), scale=(0.5, 2.0), hflip=0.5, rotation=25), ColorJitter(0.4, 0.4, 0.4, 0.1)]
    clip = Augmented(dataset, transforms, clip_frames=ClipFrames(3))[Draw(1, (0, 0, 5))]
    first = clip[0].target.segments
    assert len(clip) == 3
    for sample in clip[1:]:
        assert torch.equal(sample.image, clip[0].image)
        assert torch.equal(sample.target.segments.masks, first.masks)
        assert torch.equal(sample.target.segments.tracks, first.tracks)


def test_objects_keep_their_numbers_through_augmentation() -> None:
    """The labels of a clip's objects by number are those before, though some have left the window."""
    dataset = MovingShapes(size=(64, 80), frames=8, train=4)
    window = [RandomWindow((32, 32), hflip=0.5)]
    for place in range(4):
        classes = {}
        for sample in ForEvaluation(dataset, [])[place]:
            segments = sample.target.segments
            classes |= dict(zip(segments.tracks.tolist(), segments.labels.tolist(), strict=True))
        for sample in Augmented(dataset, window)[Draw(place, (0, 0, place))]:
            segments = sample.target.segments
            assert {t: classes[t] for t in segments.tracks.tolist()} == dict(
                zip(segments.tracks.tolist(), segments.labels.tolist(), strict=True)
            )


def test_an_image_by_itself_stays_as_it_is() -> None:
    dataset = Shapes(train=4)
    (alone,) = Augmented(dataset, [], clip_frames=ClipFrames(8))[Draw(2, (0, 0, 0))]
    assert torch.equal(alone.image, dataset[2].image)
