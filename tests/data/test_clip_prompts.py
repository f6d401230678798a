"""Which objects of a clip are asked for, in which frames, and where a simulated user points."""

import pickle
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from segfolio.data.batches import Augmented, collate
from segfolio.data.clip_prompts import ClipPrompts, check_clips
from segfolio.data.clips import ClipFrames
from segfolio.data.datasets import MovingShapes, Shapes
from segfolio.data.prompts import NOT_OBJECT, OBJECT
from segfolio.data.sample import Sample, Target
from segfolio.data.samplers import Draw
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

SIZE = (40, 50)
PLACES = {1: (0, 0), 2: (12, 12), 3: (24, 24), 4: (0, 40)}  # of squares, by their objects' numbers


def frame(*tracks: int, side: int = 8, **arguments: Any) -> Sample:
    """Squares of objects, each where it always is."""
    masks = torch.zeros(len(tracks), *SIZE, dtype=torch.bool)
    for mask, track in zip(masks, tracks, strict=True):
        top, left = PLACES[track]
        mask[top : top + side, left : left + side] = True
    zeros = torch.zeros(len(tracks), dtype=torch.int64)
    segments = Segments(Mask(masks), zeros, zeros > 0, tracks=torch.tensor(tracks, dtype=torch.int64))
    for name, value in arguments.items():
        setattr(segments, name, value)
    return Sample(Image(torch.zeros(3, *SIZE, dtype=torch.uint8)), "a", SIZE, Target(segments=segments))


def prepared(clip: Sequence[Sample], seed: int = 0, **arguments: Any) -> list[Sample]:
    return ClipPrompts(**arguments).of_clip(clip, np.random.default_rng(seed))


def tracks(sample: Sample) -> list[int]:
    assert sample.target is not None
    assert sample.target.segments is not None
    assert sample.target.segments.tracks is not None
    return sample.target.segments.tracks.tolist()


def areas(sample: Sample) -> list[int]:
    assert sample.target is not None
    assert sample.target.segments is not None
    return sample.target.segments.masks.sum((1, 2)).tolist()


def test_objects_of_the_first_frame_are_followed_and_no_others() -> None:
    clip = prepared([frame(1, 2), frame(3, 2), frame(4, 1, 2)])
    assert [tracks(sample) for sample in clip] == [[1, 2]] * 3
    assert [areas(sample) for sample in clip] == [[64, 64], [0, 64], [64, 64]]
    assert all(sample.target.semantic is None for sample in clip)  # type: ignore[union-attr]


def test_no_more_than_so_many_are_chosen_at_random_and_in_all_frames_the_same() -> None:
    chosen = Counter[int]()
    for seed in range(200):
        clip = prepared([frame(1, 2, 3, 4), frame(4, 3, 2, 1)], seed, max_objects=2)
        assert tracks(clip[0]) == tracks(clip[1])
        chosen.update(tracks(clip[0]))
    assert set(chosen) == {1, 2, 3, 4}
    assert min(chosen.values()) > 70


def test_frames_before_the_first_object_and_without_annotation_are_left_out() -> None:
    unknown = frame()
    unknown.target = Target()
    clip = [unknown, frame(), frame(2), unknown, frame(2, 1)]
    assert [areas(sample) for sample in prepared(clip)] == [[64], [64]]
    assert [len(sample.prompts) for sample in prepared([frame(), frame()])] == [0]  # type: ignore[arg-type]
    assert [len(sample.prompts) for sample in prepared([unknown, unknown])] == [0]  # type: ignore[arg-type]


def test_crowds_what_is_not_followed_and_specks_are_not_chosen() -> None:
    first = frame(1, 2, 3, crowd=torch.tensor([True, False, False]), tracks=torch.tensor([1, -1, 3]))
    assert tracks(prepared([first, frame(1, 2, 3)])[0]) == [3]
    assert len(prepared([frame(1, side=3)], min_area=10)[0].prompts) == 0  # type: ignore[arg-type]
    assert areas(prepared([frame(1), frame(1, side=3)], min_area=10)[1]) == [9]


def test_points_are_on_what_is_seen_and_beside_what_is_not() -> None:
    for seed in range(100):
        here, gone = prepared([frame(1), frame(2)], seed)
        for sample, kind in ((here, OBJECT), (gone, NOT_OBJECT)):
            assert sample.prompts is not None
            assert sample.prompts.kinds is not None
            assert sample.prompts.points is not None
            assert sample.prompts.boxes is not None
            assert sample.prompts.kinds.tolist() == [[kind]]
            x, y = sample.prompts.points[0, 0].tolist()
            assert (kind == NOT_OBJECT) or (x < 8 and y < 8)
            assert bool(sample.prompts.boxes.isnan().all()) == (kind == NOT_OBJECT)


def test_a_tenth_of_the_clicks_is_of_the_truth() -> None:
    (sample,) = prepared([frame(1)], clicks=4000)
    places, of_truth = sample.extras["clicks"], sample.extras["of_truth"]
    assert isinstance(places, torch.Tensor)
    assert isinstance(of_truth, torch.Tensor)
    assert places.shape == of_truth.shape == (3, 4000)
    assert of_truth.float().mean() == pytest.approx(0.1, abs=0.01)
    assert 0 <= places.min() < 0.01
    assert 0.99 < places.max() < 1
    assert places.mean() == pytest.approx(0.5, abs=0.01)


def test_plans_have_the_probabilities_of_the_release() -> None:
    """Mask, click and box .5 : .25 : .25; one or two frames are prompted, and of those that are not given by masks one
    or two corrected: these, or the first and another."""
    plans = [ClipPrompts().plan(0, step, 8) for step in range(4000)]
    first = Counter(plan.first[0] for plan in plans)
    assert first["mask"] == pytest.approx(2000, abs=120)
    assert first["point"] == pytest.approx(1000, abs=100)
    assert first["box"] == pytest.approx(1000, abs=100)
    assert sum(len(plan.first) == 2 for plan in plans) == pytest.approx(2000, abs=120)
    others = Counter(frame for plan in plans for frame in plan.first if frame)
    assert set(others) == set(range(1, 8))
    assert min(others.values()) > 200
    asked = [plan for plan in plans if plan.first[0] != "mask"]
    assert all(not plan.corrected for plan in plans if plan.first[0] == "mask")
    assert all(set(plan.first) <= plan.corrected for plan in asked)
    later = [plan for plan in asked if len(plan.first) == 1]
    assert sum(len(plan.corrected) == 2 for plan in later) == pytest.approx(len(later) / 2, abs=80)


def test_a_clip_of_one_frame_is_asked_for_by_points_or_boxes() -> None:
    plans = [ClipPrompts().plan(0, step, 1) for step in range(200)]
    assert {plan.first[0] for plan in plans} == {"point", "box"}
    assert all(list(plan.first) == [0] and plan.corrected == {0} for plan in plans)


def test_a_frame_at_least_is_left_to_be_found() -> None:
    """Of two, both may be asked for by points, and one be given by masks."""
    plans = [ClipPrompts().plan(0, step, 2) for step in range(200)]
    assert {len(plan.first) for plan in plans if plan.first[0] == "mask"} == {1}
    assert {len(plan.first) for plan in plans if plan.first[0] != "mask"} == {1, 2}


def test_the_same_draw_is_the_same_clip() -> None:
    dataset = MovingShapes(None, "train", size=(48, 48), frames=9, train=3)
    loaded = Augmented(dataset, [], ClipPrompts(), clip_frames=ClipFrames(4, (1, 2)))
    batches = [collate([pickle.loads(pickle.dumps(loaded))[Draw(i, (0, 1, i))] for i in (0, 2)]) for _ in range(2)]
    first, second = batches
    assert first.clips == [4, 4]
    assert first.image_ids == second.image_ids
    assert torch.equal(first.extras["clicks"], second.extras["clicks"])  # type: ignore[arg-type]
    for one, other in zip(first.prompts, second.prompts, strict=True):
        assert torch.equal(one.points, other.points)  # type: ignore[arg-type]
        assert torch.equal(one.boxes.nan_to_num(-1), other.boxes.nan_to_num(-1))  # type: ignore[union-attr]


class Numberless(MovingShapes):
    """Whose truth does not say which object is which."""

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        sample.target.segments.tracks = None  # type: ignore[union-attr]
        return sample


class Nothing(MovingShapes):
    """Where no object is ever seen."""

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        none = torch.zeros(0, dtype=torch.int64)
        sample.target.segments = sample.target.segments[none]  # type: ignore[union-attr,index]
        return sample


def test_what_cannot_be_followed_is_refused() -> None:
    def clips(cls: type[MovingShapes] = MovingShapes) -> MovingShapes:
        return cls(None, "train", size=(48, 48), frames=5, train=3)

    check_clips(clips(), "train", ClipFrames(5))
    with pytest.raises(SegfolioError, match=r"train of Shapes holds images by themselves; take a dataset of videos"):
        check_clips(Shapes(None, "train", train=2), "train", None)
    with pytest.raises(SegfolioError, match=r"asks for 8 frames, but the longest video of train has 5; lower it"):
        check_clips(clips(), "train", ClipFrames(8))
    with pytest.raises(SegfolioError, match=r"train_00000/00000 does not say which object is which"):
        check_clips(clips(Numberless), "train", None)
    with pytest.raises(SegfolioError, match=r"none of the clips of train that were looked at shows an object"):
        check_clips(clips(Nothing), "train", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_objects": 0}, "max_objects of ClipPrompts is 0, expected 1 or more"),
        ({"clicks": -1}, "clicks of ClipPrompts is -1, expected 0 or more"),
        ({"mask_probability": 1.5}, "mask_probability of ClipPrompts is 1.5, expected 0 to 1"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        ClipPrompts(**arguments)
